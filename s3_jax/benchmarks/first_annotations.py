"""Annotations reduced to what a method is given: the first mask of every object.

Some validation sets, such as that of LVOS, include masks of every frame. A copy with only the first
masks cannot leak the others.
"""

import shutil
from pathlib import Path

import numpy as np

from s3_jax.errors import InputError
from s3_jax.files import replacing
from s3_jax.media.image_files import list_images
from s3_jax.media.mask_files import MaskEncoding, read_mask
from s3_jax.media.writers import write_mask


def write_first_annotations(source: Path, output: Path, void: int | None = None) -> dict[int, str]:
    """Write the masks in which objects first appear, without objects that appeared earlier.

    Args:
      source: directory with the masks of a video.
      output: directory to write.
      void: id that is not an object.

    Returns:
      The frame in which each object appears, by id.

    Raises:
      InputError: there are no masks, one is damaged, or none shows an object.
    """
    appeared: dict[int, str] = {}
    encoding: MaskEncoding | None = None
    for path in list_images(source):
        mask = read_mask(path, void, encoding)
        encoding = encoding if encoding and encoding.kind == "rgb" else mask.encoding
        new = [i for i in mask.object_ids if i not in appeared]
        if not new:
            continue
        output.mkdir(parents=True, exist_ok=True)
        target = output / path.name
        if len(new) == len(mask.object_ids) and void is None:
            with replacing(target) as temporary:
                shutil.copyfile(path, temporary)
        else:
            write_mask(target, np.where(np.isin(mask.ids, new), mask.ids, 0), mask.encoding)
        appeared.update(dict.fromkeys(new, path.stem))
    if not appeared:
        raise InputError(f"{source} holds no mask with an object")
    return appeared
