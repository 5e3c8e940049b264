"""Masks as text: COCO's compressed run-length encoding, which BURST uses.

Pixels are read in column-major order. Run lengths alternate between background and object, starting
with background (possibly of length 0). From the fourth run on, each length is stored as its
difference from the length two runs earlier. Numbers are stored with five bits per character, lowest
bits first. The sixth bit is set if more characters follow, and the fifth bit of the last character
is the sign.
"""

import numpy as np
from jaxtyping import Bool

from s3_jax.errors import InputError
from s3_jax.limits import require_within

_FIRST_CHARACTER = 48
_LARGEST_SHIFT = 60
_MORE, _SIGN, _BITS = 0x20, 0x10, 5


def encode_rle(mask: Bool[np.ndarray, "h w"]) -> str:
    """Encode a mask as text."""
    pixels = mask.T.reshape(-1)
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = np.concatenate([[0], changes, [pixels.size]])
    runs = np.diff(starts).tolist()
    if pixels[0]:
        runs.insert(0, 0)
    numbers = runs[:3] + [run - before for run, before in zip(runs[3:], runs[1:], strict=False)]
    return "".join(map(_number_text, numbers))


def decode_rle(text: str, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Decode a mask of `size` (height, width) from text.

    Raises:
      InputError: the text does not describe a mask of that size.
    """
    height, width = size
    require_within("megapixels", height * width / 1e6, f"a mask of {width}x{height} pixels")
    runs = _runs(text)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise InputError(f"the run lengths add up to {sum(runs)} pixels, not to {width}x{height}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def _runs(text: str) -> list[int]:
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - _FIRST_CHARACTER
        if not 0 <= bits < 64:
            raise InputError(f"run lengths cannot hold the character {character!r}")
        number |= (bits & (_MORE - 1)) << shift
        shift += _BITS
        if shift > _LARGEST_SHIFT:
            raise InputError("a run length is larger than any picture")
        if bits & _MORE:
            continue
        number -= (bits & _SIGN and 1) << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    if shift:
        raise InputError("the run lengths break off inside a number")
    return runs


def _number_text(number: int) -> str:
    characters = []
    while True:
        bits = number & (_MORE - 1)
        number >>= _BITS
        done = number == (-1 if bits & _SIGN else 0)
        characters.append(chr(_FIRST_CHARACTER + bits + (0 if done else _MORE)))
        if done:
            return "".join(characters)
