"""Overlays of masks on frames (translucent fill, contours, ids), and videos of them."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import Integer, UInt8

from s3_jax.files import replacing
from s3_jax.media.mask_files import VOID, MaskEncoding
from s3_jax.media.palette import colour_of

FILL = 0.45  # opacity of the object's colour inside its outline
Colour = tuple[int, int, int]


def draw_overlay(
    image: UInt8[np.ndarray, "h w 3"],
    ids: Integer[np.ndarray, "h w"],
    encoding: MaskEncoding | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a copy of an RGB frame with every object filled, outlined and labelled with its id.

    Args:
      ids: object id per pixel, 0 for background.
      encoding: the masks' encoding, whose colours are used if it has any; otherwise VOC colours.
    """
    picture = image.copy()
    regions = {i: _region(ids, i) for i in _present(ids)}
    colours = {i: object_colour(i, encoding) for i in regions}
    for object_id, (rows, columns, inside) in regions.items():
        _fill(picture[rows, columns], inside, colours[object_id])
    for object_id, (rows, columns, inside) in regions.items():
        _outline(picture, inside, (columns.start, rows.start), colours[object_id])
    for object_id, (rows, columns, inside) in regions.items():
        _label(picture, str(object_id), _deepest_point(inside, columns.start, rows.start))
    return picture


def object_colour(object_id: int, encoding: MaskEncoding | None = None) -> Colour:
    """Return an object's own colour, or a VOC colour if it has none or its own is too dark to see.

    In grey masks, the id 255 is the single object of a black-and-white mask and gets the first
    colour.
    """
    colour = None
    if encoding and encoding.kind.startswith("grey") and object_id == VOID:
        return colour_of(1)
    if encoding and encoding.kind == "rgb":
        colour = (object_id & 255, object_id >> 8 & 255, object_id >> 16 & 255)
    elif encoding and len(encoding.palette) >= 3 * object_id + 3:
        red, green, blue = encoding.palette[3 * object_id : 3 * object_id + 3]
        colour = (red, green, blue)
    return colour if colour and max(colour) >= 64 else colour_of(object_id)


def write_video(
    path: Path,
    pictures: Iterable[UInt8[np.ndarray, "h w 3"]],
    frame_rate: Fraction,
    times: Iterable[Fraction] | None = None,
) -> int:
    """Write pictures as an MP4 file that browsers play, and return the number of frames written.

    The codec is H.264 if FFmpeg has an encoder for it, else MPEG-4. Pixels are 4:2:0 in BT.709. Odd
    heights and widths are padded by repeating a row or column. The index comes first, so playback
    can start before the whole file is loaded.

    Args:
      frame_rate: frames per second.
      times: times in seconds since the first picture, if pictures are not evenly spaced.
    """
    count = 0
    clock = iter(times) if times is not None else None
    with (
        replacing(path) as temporary,
        av.open(
            f"file:{temporary}", "w", format="mp4", options={"movflags": "+faststart"}
        ) as container,
    ):
        stream: av.VideoStream | None = None
        for picture in pictures:
            stream = stream or _add_stream(container, picture.shape, frame_rate, clock is not None)
            frame = _video_frame(picture)
            if clock is not None:
                frame.time_base = _TICK
                frame.pts = round(next(clock) / _TICK)
            container.mux(stream.encode(frame))
            count += 1
        if stream is not None:
            container.mux(stream.encode(None))
    return count


_TICK = Fraction(1, 1000)  # MPEG-4 cannot store time bases finer than 16 bits


def _add_stream(
    container: OutputContainer, shape: tuple[int, ...], frame_rate: Fraction, timed: bool
) -> av.VideoStream:
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    stream = container.add_stream(codec, rate=frame_rate.limit_denominator(1001))
    assert isinstance(stream, av.VideoStream)
    if timed:
        stream.codec_context.time_base = _TICK
    stream.height, stream.width = (length + length % 2 for length in shape[:2])
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.options = {"crf": "20", "preset": "veryfast"} if codec == "libx264" else {"qscale": "3"}
    context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
    context.color_range = ColorRange.MPEG.value
    return stream


def _video_frame(picture: UInt8[np.ndarray, "h w 3"]) -> av.VideoFrame:
    odd = [(0, length % 2) for length in picture.shape[:2]]
    if any(after for _, after in odd):
        picture = np.pad(picture, (*odd, (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)


def _present(ids: Integer[np.ndarray, "h w"]) -> list[int]:
    if ids.max(initial=0) < 2**16:  # counting is much faster than np.unique, which sorts
        return [int(i) for i in np.flatnonzero(np.bincount(ids.ravel())) if i]
    return [int(i) for i in np.unique(ids) if i]


Region = tuple[slice, slice, UInt8[np.ndarray, "box_h box_w"]]


def _region(ids: Integer[np.ndarray, "h w"], object_id: int) -> Region:
    """Return the bounding box of an object as row and column slices, and its 0/1 mask inside."""
    inside = (ids == object_id).astype(np.uint8)
    x, y, width, height = cv2.boundingRect(inside)
    rows, columns = slice(y, y + height), slice(x, x + width)
    return rows, columns, np.ascontiguousarray(inside[rows, columns])


def _fill(
    view: UInt8[np.ndarray, "h w 3"], inside: UInt8[np.ndarray, "h w"], colour: Colour
) -> None:
    tinted = view * (1 - FILL) + np.array(colour, np.float32).reshape(1, 1, 3) * FILL
    np.copyto(view, tinted.astype(np.uint8), where=inside[..., None].astype(bool))


def _outline(
    picture: UInt8[np.ndarray, "h w 3"],
    inside: UInt8[np.ndarray, "box_h box_w"],
    offset: tuple[int, int],
    colour: Colour,
) -> None:
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=offset)
    thickness = max(1, round(min(picture.shape[:2]) / 240))
    cv2.drawContours(picture, contours, -1, colour, thickness, cv2.LINE_AA)


def _deepest_point(inside: UInt8[np.ndarray, "h w"], left: int, top: int) -> tuple[int, int]:
    """Return x, y of the pixel farthest from the object's outline."""
    distance = cv2.distanceTransform(np.pad(inside, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return left + int(column), top + int(row)


def _label(picture: UInt8[np.ndarray, "h w 3"], text: str, centre: tuple[int, int]) -> None:
    """Draw white digits with a dark rim, kept inside the picture."""
    height, width = picture.shape[:2]
    scale = max(0.35, min(height, width) / 900)
    thin, thick = max(1, round(1.5 * scale)), max(3, round(4 * scale))
    (text_width, text_height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thin)
    x = min(max(centre[0] - text_width // 2, 1), max(width - text_width - 1, 1))
    y = min(max(centre[1] + text_height // 2, text_height + 1), height - 2)
    for colour, thickness in (((20, 20, 20), thick), ((255, 255, 255), thin)):
        cv2.putText(
            picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA
        )
