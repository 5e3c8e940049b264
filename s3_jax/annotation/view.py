"""Data for the page: frames as JPEG and masks as runs, no larger than a screen.

Masks are stored at the frame's size and reduced here by nearest neighbour.
"""

import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from jaxtyping import Integer, UInt8, UInt32

LONGEST_SIDE = 1920
_QUALITY = 88


def view_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width at which frames of a (height, width) are displayed."""
    scale = min(1.0, LONGEST_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Return a frame as JPEG at its display size."""
    height, width = view_size((image.shape[0], image.shape[1]))
    if (height, width) != image.shape[:2]:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return encoded.tobytes()


def mask_message(ids: Integer[np.ndarray, "h w"], about: Mapping[str, Any]) -> bytes:
    """Encode a mask for the page: the length of a JSON text, the text, and the runs.

    The length and the runs are little-endian uint32. Spaces pad the text so that the runs start at
    a multiple of 4 bytes.
    """
    height, width = view_size((ids.shape[0], ids.shape[1]))
    shown = cv2.resize(
        ids.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST
    ).astype(np.uint32)
    text = json.dumps({**about, "type": "mask", "width": width, "height": height}).encode()
    text += b" " * (-len(text) % 4)
    return np.uint32(len(text)).tobytes() + text + runs(shown).tobytes()


def runs(ids: UInt32[np.ndarray, "h w"]) -> UInt32[np.ndarray, "2 n"]:
    """Return the end (exclusive, in row-major order) and the id of each run of equal ids."""
    flat = ids.reshape(-1)
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    return np.stack([ends, flat[ends - 1]]).astype(np.uint32)
