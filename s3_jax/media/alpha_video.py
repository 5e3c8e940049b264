"""Video files with transparency: ProRes 4444 in MOV for video editors, VP9 in WebM for browsers."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
from jaxtyping import UInt8

from s3_jax.errors import InputError
from s3_jax.files import replacing

AlphaCodec = Literal["prores", "vp9"]


class _Kind(NamedTuple):
    """FFmpeg's encoder, container, pixel format and encoder options for one codec."""

    encoder: str
    container: str
    pixels: str
    options: dict[str, str]


_KINDS: dict[AlphaCodec, _Kind] = {
    "prores": _Kind("prores_ks", "mov", "yuva444p10le", {"profile": "4444"}),
    "vp9": _Kind(
        "libvpx-vp9", "webm", "yuva420p",
        {"crf": "24", "b": "0", "auto-alt-ref": "0", "deadline": "realtime", "cpu-used": "6"},
    ),
}  # fmt: skip


def write_alpha_video(
    path: Path,
    pictures: Iterable[UInt8[np.ndarray, "h w 4"]],
    frame_rate: Fraction,
    codec: AlphaCodec,
) -> int:
    """Write RGBA pictures as a video and return the number of frames written.

    Odd heights and widths are padded with one transparent row or column.

    Args:
      path: the file to write.
      pictures: RGBA pictures of one size.
      frame_rate: frames per second.
      codec: name of the codec.

    Raises:
      InputError: the installed FFmpeg lacks the encoder.
    """
    kind = _KINDS[codec]
    if kind.encoder not in av.codecs_available:
        raise InputError(f"{path}: the installed FFmpeg has no {kind.encoder}: export PNG cut-outs")
    count = 0
    with (
        replacing(path) as temporary,
        av.open(f"file:{temporary}", "w", format=kind.container) as container,
    ):
        stream: av.VideoStream | None = None
        for picture in pictures:
            if stream is None:
                made = container.add_stream(kind.encoder, frame_rate, options=kind.options)
                assert isinstance(made, av.VideoStream)
                stream = made
                stream.height, stream.width = (n + n % 2 for n in picture.shape[:2])
                stream.pix_fmt = kind.pixels
            container.mux(stream.encode(_frame(picture, kind.pixels)))
            count += 1
        if stream is not None:
            container.mux(stream.encode(None))
    return count


def _frame(picture: UInt8[np.ndarray, "h w 4"], pixels: str) -> av.VideoFrame:
    odd = [(0, length % 2) for length in picture.shape[:2]]
    padded = np.pad(picture, (*odd, (0, 0)))
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), "rgba").reformat(format=pixels)
