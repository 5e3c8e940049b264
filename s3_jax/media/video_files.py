"""Videos as streams of RGB frames, from a directory of images or any file that PyAV decodes.

source = open_video(Path("video.mp4"))
for frame in source.frames():
    frame.index, frame.name, frame.image
"""

import contextlib
import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import av
import av.video.reformatter
import numpy as np
from absl import logging
from av.container import InputContainer
from jaxtyping import UInt8

from s3_jax.errors import InputError, reason
from s3_jax.limits import require_within
from s3_jax.media.image_files import (
    DECODE_ERRORS,
    full_range,
    list_images,
    read_deep,
    read_image,
    shortened,
    trailing_number,
)
from s3_jax.media.timeline import Timeline, complaints, scan


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One frame: its index in the video, the name of its result files, and RGB pixels."""

    index: int
    name: str
    image: UInt8[np.ndarray, "h w 3"]


@runtime_checkable
class VideoSource(Protocol):
    """Common interface of the readers below.

    path: the path that was opened.
    files: the files that are read, in order.
    size: height and width of every frame in pixels.
    frame_rate: frames per second, or None if the source has none.
    num_frames: the length in frames. For some video files it is an estimate or None, so use it for
      progress bars only.
    frame_names: the names of all frames if known in advance, else None.
    times: time in seconds since the first frame, for all frames; None if they are evenly spaced.
    lost: numbers of the frames that the last pass skipped because they could not be decoded.
    """

    path: Path
    files: list[Path]
    size: tuple[int, int]
    frame_rate: Fraction | None
    num_frames: int | None
    frame_names: list[str] | None
    times: list[Fraction] | None
    lost: list[int]

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Yield the frames from index `start` on, decoded on demand.

        Raises:
          InputError: a frame is damaged or differs in size; all frames before it have been yielded.
        """
        ...


def open_video(path: str | Path, keep_going: bool = False) -> VideoSource:
    """Open a video file or a directory of images and decode its first frame.

    Args:
      keep_going: skip frames that cannot be decoded instead of raising an error.

    Raises:
      InputError: the path does not exist, has no frames, or is not a video.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: give a video file or a directory of images")
    if not (path.is_dir() or path.is_file()):
        raise InputError(
            f"{path} is not a regular file: give a video file or a directory of images"
        )
    return (FrameDirectory if path.is_dir() else VideoFile)(path, keep_going)


class FrameDirectory:
    """A directory of images, one per frame, in natural order of their names."""

    def __init__(self, path: Path, keep_going: bool = False):
        self.path = path
        self.files = list_images(path)
        self.keep_going = keep_going
        self.lost: list[int] = []
        self.times: list[Fraction] | None = None
        self.frame_names: list[str] | None = [file.stem for file in self.files]
        self.num_frames: int | None = len(self.files)
        self.frame_rate: Fraction | None = None
        self._white = _white(path, self.files)
        first = read_image(self.files[0], self._white)
        self.size = first.shape[:2]
        warn_if_dark(self.files[0], first)
        missing = _numbering_gaps(self.frame_names)
        if missing:
            logging.warning("%s: frames seem to be missing: %s", path, shortened(missing))

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """See `VideoSource.frames`."""
        self.lost = []
        for index in range(start, len(self.files)):
            file = self.files[index]
            try:
                image = read_image(file, self._white)
                _require_size(file, image, self.size)
            except InputError:
                if not self.keep_going:
                    raise
                self.lost.append(index)
                continue
            yield Frame(index, file.stem, image)


def _white(path: Path, files: Sequence[Path]) -> float | None:
    """Return the common white level of all frames of more than 8 bits; None for 8-bit frames."""
    try:
        first = read_deep(files[0])
    except (InputError, *DECODE_ERRORS):
        return None
    if first is None:
        return None
    largest = float(first.max())
    for file in files[:: max(1, len(files) // _SAMPLED)]:
        with contextlib.suppress(InputError, *DECODE_ERRORS):
            values = read_deep(file)
            largest = largest if values is None else max(largest, float(values.max()))
    white = full_range(largest, first.dtype)
    logging.warning("%s: frames hold values up to %g: %g is treated as white", path, largest, white)
    return white


_SAMPLED = 32  # frames from which the range of a recording is estimated


class VideoFile:
    """A video file, with frames named by zero-padded index and rotated according to its metadata.

    A frame's index is its position among the time stamps of all frames, decoded or not. A file that
    is damaged or ends before its announced length yields all frames before the damage and then
    raises an error. With `keep_going`, it yields all other frames as well, and `lost` lists the
    numbers of the skipped frames.
    """

    def __init__(self, path: Path, keep_going: bool = False):
        self.path = path
        self.files = [path]
        self.keep_going = keep_going
        self.lost: list[int] = []
        self.frame_names: list[str] | None = None
        with opened_container(path) as (container, stream):
            self.frame_rate = _frame_rate(stream)
            self.timeline = scan(container, stream)
            self._announced = stream.frames
        self.num_frames: int | None = (
            max(len(self.timeline.stamps) or self.timeline.packets, self._announced) or None
        )
        self.times: list[Fraction] | None = None
        if self.timeline.variable:
            self.times = self.timeline.seconds()
        first = next(self._images(), None)
        if first is None:
            raise InputError(f"{path} has no frames that can be decoded")
        self.size = first[1].shape[:2]
        require_within(
            "megapixels",
            self.size[0] * self.size[1] / 1e6,
            f"{path} has frames of {self.size[1]}x{self.size[0]} pixels",
        )
        with opened_container(path) as (_, stream):
            _warn_of_appearance(path, stream, first[1])

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """See `VideoSource.frames`; frames before `start` are decoded and dropped."""
        self.lost = []
        for index, image in self._images():
            if index < start:
                continue
            _require_size(f"{self.path}, frame {index},", image, self.size)
            yield Frame(index, f"{index:05d}", image)

    def _images(self) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Yield every trusted frame with its number."""
        expected = 0
        turn = Turn()
        with opened_container(self.path) as (container, stream):
            decoding = Decoding(container, stream, self.timeline, self.keep_going)
            for place, frame in decoding.frames():
                index = expected if place is None else place
                if index < expected:
                    continue  # out of order, and already counted as skipped
                if index > expected:
                    self._pass_over(range(expected, index), decoding.problem)
                yield index, turn.upright(frame)
                expected = index + 1
            self._finish(expected, decoding)

    def _pass_over(self, missing: Sequence[int], problem: str) -> None:
        if not self.keep_going:
            raise InputError(self._damaged(missing[0] - 1, problem or "a frame is missing"))
        self.lost += missing

    def _finish(self, shown: int, decoding: "Decoding") -> None:
        """Raise an InputError if the end of the video is missing."""
        total = len(self.timeline.stamps)
        problem = decoding.problem or self._shortfall(shown, decoding)
        if not problem and shown >= total:
            return
        if self.keep_going and not decoding.problem and not self.timeline.stamps:
            problem = problem or "frames are missing"
        if self.keep_going and shown == total and self.timeline.stamps:
            return  # `lost` lists every missing frame
        raise InputError(self._damaged(shown - 1, problem or "its last frames are missing"))

    def _shortfall(self, shown: int, decoding: "Decoding") -> str:
        missing = self._announced - self.timeline.packets
        if missing > 0:
            return f"{missing} of {self._announced} frames are missing"
        return "" if self._announced else decoding.early_end()

    def _damaged(self, last: int, problem: str) -> str:
        return (
            f"{self.path} is damaged or cut off after frame {last}: {problem}; repair it "
            "(for example by re-encoding it) or cut it there"
        )


@contextlib.contextmanager
def opened_container(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a video file and yield its container and its video stream.

    Raises:
      InputError: the file is not a video, or FFmpeg has no decoder for it.
    """
    # "file:" keeps a name such as 12:30.mp4 from being parsed as a URL. The protocol list keeps a
    # playlist in a file from reaching the network.
    options = {"protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path}", options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a video that can be read: {reason(error)}") from error
    with container:
        pictures = av.stream.Disposition.attached_pic  # cover art of audio files
        streams = [s for s in container.streams.video if not s.disposition & pictures]
        if not streams or container.format.name == "tty":  # FFmpeg renders text files as video
            raise InputError(f"{path} holds no video: give a video file or a directory of images")
        _require_decoder(path, streams[0])
        # Frame threads report errors late, against the wrong packet; slice threads log them
        # where they cannot be captured.
        streams[0].thread_type = "SLICE"
        if streams[0].codec_context.name not in ("vp9", "av1", "hevc", "libdav1d"):
            streams[0].codec_context.thread_count = 1
        yield container, streams[0]


def _require_decoder(path: Path, stream: av.VideoStream) -> None:
    try:
        found = stream.codec_context is not None and stream.codec_context.is_decoder
    except AttributeError:
        found = False
    if not found:
        raise InputError(
            f"{path} is in a format that the installed FFmpeg has no decoder for: re-encode it as "
            "H.264"
        )


class Decoding:
    """The decoded frames of one pass with their positions; damage ends the pass or is skipped.

    After damage, no frame is trusted until the next key frame, because frames predicted from
    damaged ones decode without an error.
    """

    def __init__(
        self, container: InputContainer, stream: av.VideoStream, timeline: Timeline,
        keep_going: bool,
    ):  # fmt: skip
        self.problem = ""
        self._container, self._stream = container, stream
        self.timeline, self._keep_going = timeline, keep_going and bool(timeline.stamps)
        self._suspect: int | None = None  # frames from this time stamp onwards are not trusted
        self._blind = False
        self._end = Fraction(0)

    def frames(self) -> Iterator[tuple[int | None, av.VideoFrame]]:
        """Yield each frame with its position, which is None if time stamps do not determine it."""
        for packet in self._packets():
            yield from self._accepted(self._decode(packet))
            if self.problem and not self._keep_going:
                # Frames that the decoder still holds for reordering may precede the damage.
                with contextlib.suppress(av.FFmpegError):
                    yield from self._accepted(self._stream.codec_context.decode(None))
                return

    def early_end(self) -> str:
        """Return a message if the stream ended before its announced length, else ""."""
        rate = self._stream.average_rate or Fraction(1)
        seconds = _announced_seconds(self._stream)
        # Containers round times, so tolerate half a second, or three frames of a slow video.
        if self._end and seconds - self._end > max(Fraction(1, 2), 3 / rate):
            return f"it ends at {float(self._end):.1f} s instead of {float(seconds):.1f} s"
        return ""

    def _packets(self) -> Iterator[av.Packet]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self._report(None, reason(error))
                return
            if packet is None:
                return
            if packet.is_corrupt:
                self._report(packet.pts, "incomplete data")
            yield packet

    def _decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        with complaints() as said:
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self._report(packet.pts, reason(error))
                frames = []
        if said:
            self._report(packet.pts, said[0])
        return frames

    def _report(self, stamp: int | None, problem: str) -> None:
        """Record a problem; frames from its time stamp onwards are no longer trusted."""
        self.problem = self.problem or problem
        if stamp is not None:
            self._suspect = stamp if self._suspect is None else min(stamp, self._suspect)

    def _accepted(self, frames: Iterable[av.VideoFrame]) -> Iterator[tuple[int | None, Any]]:
        for frame in frames:
            if frame.is_corrupt:
                self._report(frame.pts, "damaged data")
            if not self._trusted(frame):
                continue
            if frame.pts is not None and frame.time_base is not None:
                self._end = (frame.pts + (frame.duration or 0)) * frame.time_base
            place = self.timeline.place(frame.pts)
            if place is None and self.timeline.stamps:
                continue  # before the first key frame
            yield place, frame

    def _trusted(self, frame: av.VideoFrame) -> bool:
        if frame.is_corrupt:
            self._blind = True
        elif self._suspect is None or frame.pts is None:
            self._blind = self._blind or (self._suspect is not None)
        elif frame.pts >= self._suspect:
            again = self._keep_going and frame.key_frame and frame.pts > self._suspect
            if again:
                self._suspect, self._blind = None, False
            return again
        return not self._blind


class Turn:
    """Rotation that makes frames upright.

    The display matrix is read from the first frame only, because reading it creates a reference
    cycle that keeps the frame in memory until the garbage collector runs.
    """

    def __init__(self) -> None:
        self._matrix: list[list[int]] | None = None
        self._rotation: int | None = None
        # Shared by all frames; otherwise each frame would start its own threads.
        self._reformatter = av.video.reformatter.VideoReformatter()

    def upright(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        """Return RGB pixels, rotated by quarter turns and mirrored as needed.

        The matrix stores x' = a x + c y, y' = b x + d y as the rows (a, b, .), (c, d, .), (., .,
        .).
        """
        if frame.rotation != self._rotation:
            self._rotation, self._matrix = frame.rotation, _display_matrix(frame)
        image = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        if self._matrix is None:
            return image
        (a, b, _), (c, d, _), _ = self._matrix
        if abs(a) < abs(c):
            image, a, d = image.transpose(1, 0, 2), c, b
        return np.ascontiguousarray(image[:: 1 if d >= 0 else -1, :: 1 if a >= 0 else -1])


def _display_matrix(frame: av.VideoFrame) -> list[list[int]] | None:
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # side data that PyAV does not know, such as EXIF in JPEG
        data = None
    if data is not None:
        return np.frombuffer(data, np.int32).reshape(3, 3).tolist()  # type: ignore[call-overload]
    turn = round(frame.rotation / 90) % 4
    cosine, sine = (1, 0, -1, 0)[turn], (0, 1, 0, -1)[turn]
    return [[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]] if turn else None


def _warn_of_appearance(
    path: Path, stream: av.VideoStream, image: UInt8[np.ndarray, "h w 3"]
) -> None:
    """Warn if frames look different from what a player shows."""
    aspect, context = stream.sample_aspect_ratio, stream.codec_context
    if aspect and aspect > 0 and aspect != 1:
        logging.warning(
            "%s has pixels that are not square (%s): frames and masks are %dx%d as they are "
            "stored, not as players stretch them",
            path, f"{aspect.numerator}:{aspect.denominator}", image.shape[1], image.shape[0],
        )  # fmt: skip
    if getattr(context, "field_order", 0) not in (0, 1):
        logging.warning(
            "%s is interlaced: moving edges are combed; deinterlace it first (ffmpeg -vf yadif)",
            path,
        )
    if int(context.color_trc) in _HDR:
        logging.warning(
            "%s is HDR (%s): frames look flat because they are not tone-mapped; convert it to "
            "SDR first (ffmpeg -vf zscale,tonemap)",
            path, _HDR[int(context.color_trc)],
        )  # fmt: skip
    warn_if_dark(path, image)


_HDR = {16: "PQ", 18: "HLG"}


def warn_if_dark(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Warn if a frame is nearly black, like 10-bit or 12-bit recordings stored in 16 bits."""
    if image.max() < 32:
        logging.warning(
            "%s: the first frame is nearly black (largest value %d of 255): if the recording has "
            "10 or 12 bits, scale it to 8 or 16 first",
            path,
            image.max(),
        )


def _announced_seconds(stream: av.VideoStream) -> Fraction:
    """Return the time in seconds at which the stream should end; 0 if the file does not give it."""
    time_base = Fraction(stream.time_base or 0)
    start = (stream.start_time or 0) * time_base
    if stream.duration:
        return start + stream.duration * time_base
    with contextlib.suppress(ValueError):  # Matroska: "00:00:02.000000000"
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    container = stream.container
    if isinstance(container, InputContainer) and len(container.streams) == 1:
        return start + Fraction(container.duration or 0, av.time_base)
    return Fraction(0)


def _frame_rate(stream: av.VideoStream) -> Fraction | None:
    """Return frames per second; None if unknown, or if the file gives its clock rate instead."""
    rate = Fraction(stream.average_rate or stream.guessed_rate or 0)  # PyAV 19 has its own type
    return rate if 0 < rate <= 480 else None


def _numbering_gaps(stems: list[str]) -> list[str]:
    """Return the missing numbers as text, if the stems are otherwise evenly numbered."""
    numbers = [n for n in map(trailing_number, stems) if n is not None]
    if len(numbers) < max(3, len(stems)):
        return []
    pairs = list(itertools.pairwise(numbers))
    step = Counter(after - before for before, after in pairs).most_common(1)[0][0]
    gaps = [(a + step, b - step) for a, b in pairs if 0 < step < b - a]
    return [f"{first}" if first >= last else f"{first} to {last}" for first, last in gaps]


def _require_size(what: object, image: np.ndarray, size: tuple[int, int]) -> None:
    if image.shape[:2] != size:
        height, width = image.shape[:2]
        raise InputError(
            f"{what} is {width}x{height} but the video starts with {size[1]}x{size[0]}: "
            "all frames must have the same size"
        )
