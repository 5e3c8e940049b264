"""Small video files for tests."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def moving_pictures(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """A smooth random picture that pans; every frame differs clearly from the others."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (8, 12, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (width + 2 * count, height), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(wide[:, 2 * i : 2 * i + width]) for i in range(count)]


def write_video_file(
    path: Path,
    pictures: Sequence[np.ndarray],
    codec: str = "libx264",
    rate: Fraction = Fraction(30000, 1001),
    rotation: int = 0,
    mirrored: bool = False,
    index_first: bool = True,
) -> None:
    options = {"movflags": "+faststart"} if index_first and path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
