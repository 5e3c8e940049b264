from fractions import Fraction

import av
import numpy as np
import pytest

from s3_jax.media.mask_files import MaskEncoding
from s3_jax.media.overlay import draw_overlay, object_colour, write_video
from s3_jax.media.palette import colour_of, voc_palette
from s3_jax.media.video_files import open_video

VOC = MaskEncoding("palette", voc_palette().tobytes())


def test_background_stays_and_objects_take_their_colour():
    image = np.full((120, 160, 3), 100, np.uint8)
    ids = np.zeros((120, 160), np.uint8)
    ids[20:100, 20:70] = 1
    ids[30:90, 90:150] = 2
    before = image.copy()
    picture = draw_overlay(image, ids, VOC)
    assert np.array_equal(image, before)
    far = np.ones_like(ids, bool)
    far[17:103, 17:153] = False
    assert np.array_equal(picture[far], image[far])
    red, green = picture[25, 40].astype(int), picture[40, 100].astype(int)
    assert red[0] > red[1] == red[2]
    assert green[1] > green[0] == green[2]
    # The outline is stronger than the fill.
    assert picture[20, 40, 0] - picture[20, 40, 1] > red[0] - red[1]


def test_labels_are_drawn_inside_the_picture():
    image = np.zeros((64, 64, 3), np.uint8)
    counts = []
    for top, left in ((30, 30), (0, 0), (0, 60), (60, 0), (60, 60)):
        ids = np.zeros((64, 64), np.int32)
        ids[top : top + 4, left : left + 4] = 123
        white = draw_overlay(image, ids, VOC).min(axis=-1) > 150
        counts.append(white.sum())
    assert min(counts) > 10
    assert min(counts) >= 0.9 * counts[0]  # nothing is cut off at the corners


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_empty_and_full_masks(dtype):
    image = np.random.default_rng(0).integers(0, 255, (33, 47, 3), dtype=np.uint8)
    assert np.array_equal(draw_overlay(image, np.zeros((33, 47), dtype)), image)
    assert not np.array_equal(draw_overlay(image, np.full((33, 47), 255, dtype)), image)


def test_colours_come_from_the_mask_where_it_has_visible_ones():
    assert object_colour(1, VOC) == (128, 0, 0)
    assert object_colour(3, MaskEncoding("palette", bytes([0, 0, 0] * 4))) == colour_of(3)
    assert object_colour(300, MaskEncoding("palette", b"")) == colour_of(300)
    assert object_colour(255 + 256 * 17, MaskEncoding("rgb")) == (255, 17, 0)
    assert object_colour(5, MaskEncoding("rgb")) == colour_of(5)
    assert object_colour(255, MaskEncoding("grey")) == colour_of(1)  # black and white
    assert object_colour(255) == colour_of(255)


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (2, 2), (1, 1)])
def test_videos_are_what_browsers_play(tmp_path, size):
    rng = np.random.default_rng(0)
    pictures = [np.full((*size, 3), rng.integers(0, 255, 3), np.uint8) for _ in range(7)]
    path = tmp_path / "overlay.mp4"
    assert write_video(path, pictures, Fraction(24000, 1001)) == 7
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name in ("h264", "mpeg4")
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == Fraction(24000, 1001)
        assert (stream.height, stream.width) == tuple(n + n % 2 for n in size)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # playing can start before all is loaded
    frames = list(open_video(path).frames())
    assert len(frames) == 7
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.abs(frame.image.astype(int) - picture[0, 0]).max() < 12


def test_a_failing_source_leaves_no_video(tmp_path):
    def pictures():
        yield np.zeros((16, 16, 3), np.uint8)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_video(tmp_path / "a.mp4", pictures(), Fraction(10))
    assert list(tmp_path.iterdir()) == []
