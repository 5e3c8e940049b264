"""Render the bundled clip again from its scene.

  s3 demo-clip                    overwrites s3_jax/demo/koi*
  s3 demo-clip --output=DIR       writes elsewhere

Files: koi.mp4, koi_first_mask.png (the palette image that `s3 segment` starts from) and
koi_true_masks.npz (`masks`, frames x height x width, for scoring results). The frames are drawn by
s3_jax/demo/pond.py, and every run gives the same pixels.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np
from absl import flags

from s3_jax.data.synthetic import render
from s3_jax.demo import clip
from s3_jax.demo.pond import NUM_FRAMES, pond_scene
from s3_jax.files import replacing
from s3_jax.media.mask_files import MaskEncoding
from s3_jax.media.overlay import write_video
from s3_jax.media.palette import voc_palette
from s3_jax.media.writers import write_mask

OUTPUT = flags.DEFINE_string("output", str(clip.FOLDER), "Directory for the files.")
FRAME_RATE = Fraction(18)


def main() -> None:
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    scene = pond_scene()
    frames, masks = zip(*(render(scene, t) for t in range(NUM_FRAMES)), strict=True)
    write_video(output / clip.VIDEO.name, frames, FRAME_RATE)
    encoding = MaskEncoding("palette", voc_palette().tobytes())
    write_mask(output / clip.FIRST_MASK.name, masks[0], encoding)
    with replacing(output / clip.TRUE_MASKS.name) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, masks=np.stack(masks))
    kilobytes = (output / clip.VIDEO.name).stat().st_size / 1e3
    print(f"{output / clip.VIDEO.name}: {len(frames)} frames of {scene.width}x{scene.height}, "
          f"{kilobytes:.0f} kB")  # fmt: skip
