import numpy as np

from s3_jax.media.palette import colour_of, voc_palette


def test_voc_colours():
    palette = voc_palette()
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 7: (128, 128, 128)}
    known |= {8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    for index, colour in known.items():
        assert tuple(palette[index]) == colour
    assert len(np.unique(palette, axis=0)) == 256


def test_every_id_has_a_colour_that_is_not_black():
    assert colour_of(1) == (128, 0, 0)
    assert colour_of(256) == colour_of(1)
    assert all(max(colour_of(i)) > 0 for i in range(1, 2000))
