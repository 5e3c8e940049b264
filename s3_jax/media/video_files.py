"""Videos as streams of RGB frames: a directory of images, or any file that PyAV decodes.

source = open_video(Path("video.mp4"))
for frame in source.frames():
    frame.index, frame.name, frame.image
"""

import contextlib
import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol, runtime_checkable

import av
import numpy as np
from absl import logging
from av.container import InputContainer
from jaxtyping import UInt8

from s3_jax.errors import InputError, reason
from s3_jax.media.image_files import list_images, read_image, shortened, trailing_number


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One frame: its position in the video, the name of its result files, and RGB pixels."""

    index: int
    name: str
    image: UInt8[np.ndarray, "h w 3"]


@runtime_checkable
class VideoSource(Protocol):
    """What the readers below have in common.

    path: what was opened. files: what is read, in order.
    size: height and width of every frame in pixels.
    frame_rate: frames per second, None where the source tells none.
    num_frames: the length, a guess or None for some video files; only for progress bars.
    frame_names: the name of every frame where they are known beforehand, else None.
    """

    path: Path
    files: list[Path]
    size: tuple[int, int]
    frame_rate: Fraction | None
    num_frames: int | None
    frame_names: list[str] | None

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Frames from index `start` on, decoded as they are asked for.

        Raises:
          InputError: a frame is damaged or of another size; all frames before it were given.
        """
        ...


def open_video(path: Path) -> VideoSource:
    """The source for a video file or a directory of images; decodes its first frame.

    Raises:
      InputError: nothing there, no frames, or not a video.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: give a video file or a directory of images")
    return FrameDirectory(path) if path.is_dir() else VideoFile(path)


class FrameDirectory:
    """A directory of images, one a frame, in natural order of their names."""

    def __init__(self, path: Path):
        self.path = path
        self.files = list_images(path)
        self.frame_names: list[str] | None = [file.stem for file in self.files]
        self.num_frames: int | None = len(self.files)
        self.frame_rate: Fraction | None = None
        self.size = read_image(self.files[0]).shape[:2]
        missing = _numbering_gaps(self.frame_names)
        if missing:
            logging.warning("%s: frames seem to be missing: %s", path, shortened(missing))

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """See `VideoSource.frames`."""
        for index in range(start, len(self.files)):
            file = self.files[index]
            image = read_image(file)
            _require_size(file, image, self.size)
            yield Frame(index, file.stem, image)


class VideoFile:
    """A video file; frames are named by their zero-padded index and turned as its metadata says.

    Every decoded frame counts, whatever its time stamp. A file that is damaged or ends before
    the length it announces gives all frames before the damage and then raises.
    """

    def __init__(self, path: Path):
        self.path = path
        self.files = [path]
        self.frame_names: list[str] | None = None
        with _container(path) as (_, stream):
            self.frame_rate = _frame_rate(stream)
            self.num_frames = _announced_frames(stream)
        first = next(self._images(), None)
        if first is None:
            raise InputError(f"{path} has no frames that can be decoded")
        self.size = first.shape[:2]

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """See `VideoSource.frames`; frames before `start` are decoded and dropped."""
        for index, image in enumerate(self._images()):
            if index < start:
                continue
            _require_size(f"{self.path}, frame {index},", image, self.size)
            yield Frame(index, f"{index:05d}", image)

    def _images(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        with _container(self.path) as (container, stream):
            for frame in _decode(self.path, container, stream):
                yield _upright(frame)


@contextlib.contextmanager
def _container(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a video that can be read: {reason(error)}") from error
    with container:
        pictures = av.stream.Disposition.attached_pic  # cover art of audio files
        streams = [s for s in container.streams.video if not s.disposition & pictures]
        if not streams or container.format.name == "tty":  # FFmpeg draws text files as video
            raise InputError(f"{path} holds no video: give a video file or a directory of images")
        # Threads over frames would report an error late, beside the wrong packet.
        streams[0].thread_type = "SLICE"
        yield container, streams[0]


def _decode(
    path: Path, container: InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame]:
    """Decoded frames in display order up to the first damaged one, then an InputError."""
    watch = _Watch(stream)
    for packet in _packets(container, stream, watch):
        yield from filter(watch.accepts, _decode_packet(packet, watch))
        if watch.problem:
            # What the decoder still holds back for reordering may come before the damage.
            with contextlib.suppress(av.FFmpegError):
                yield from filter(watch.accepts, stream.codec_context.decode(None))
            break
    problem = watch.problem or watch.shortfall()
    if problem:
        raise InputError(
            f"{path} is damaged or cut off after frame {watch.shown - 1}: {problem}; repair it "
            "(for example by re-encoding it) or cut it there"
        )


def _decode_packet(packet: av.Packet, watch: "_Watch") -> list[av.VideoFrame]:
    try:
        return packet.decode()
    except av.FFmpegError as error:
        watch.report(packet.pts, reason(error))
        return []


def _packets(
    container: InputContainer, stream: av.VideoStream, watch: "_Watch"
) -> Iterator[av.Packet]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            watch.report(None, reason(error))
            return
        if packet is None:
            return
        watch.packets += packet.size > 0
        if packet.is_corrupt:
            watch.report(packet.pts, "incomplete data")
        yield packet


class _Watch:
    """Counts what a stream delivers, to notice damage and a missing end."""

    def __init__(self, stream: av.VideoStream):
        self.packets = 0
        self.shown = 0
        self.problem = ""
        self._stream = stream
        self._bad_pts: int | None = None
        self._closed = False
        self._end = Fraction(0)

    def report(self, pts: int | None, problem: str) -> None:
        """Nothing from the time stamp `pts` on is to be trusted."""
        if not self.problem:
            self.problem, self._bad_pts = problem, pts

    def accepts(self, frame: av.VideoFrame) -> bool:
        """Whether a frame is undamaged and comes before any damage; counts it if so."""
        if frame.is_corrupt:
            self.report(frame.pts, "damaged data")
        beyond = self._bad_pts is not None and frame.pts is not None and frame.pts >= self._bad_pts
        self._closed |= frame.is_corrupt or beyond
        if self._closed:
            return False
        self.shown += 1
        if frame.pts is not None and frame.time_base is not None:
            self._end = (frame.pts + (frame.duration or 0)) * frame.time_base
        return True

    def shortfall(self) -> str:
        """How far the stream ended before its announced length; empty if it did not."""
        if self._stream.frames:
            missing = self._stream.frames - self.packets
            return f"{missing} of {self._stream.frames} frames are missing" if missing > 0 else ""
        rate = self._stream.average_rate or Fraction(1)
        seconds = _announced_seconds(self._stream)
        # Containers round; half a second, or three frames of a slow video, are not a cut.
        if self._end and seconds - self._end > max(Fraction(1, 2), 3 / rate):
            return f"it ends at {float(self._end):.1f} s instead of {float(seconds):.1f} s"
        return ""


def _announced_seconds(stream: av.VideoStream) -> Fraction:
    """Time at which the stream should end; 0 if the file does not say."""
    time_base = stream.time_base or Fraction(0)
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
    """Frames per second; None where the file says nothing, or gives its clock's ticks for it."""
    rate = stream.average_rate or stream.guessed_rate
    return rate if rate and rate <= 480 else None


def _announced_frames(stream: av.VideoStream) -> int | None:
    if stream.frames:
        return stream.frames
    return round(_announced_seconds(stream) * (stream.average_rate or 0)) or None


def _upright(frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels, turned and mirrored by quarter turns as the display matrix says.

    The matrix holds x' = a x + c y, y' = b x + d y as rows (a, b, .), (c, d, .), (., ., .).
    """
    image = frame.to_ndarray(format="rgb24")
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return image
    matrix = np.frombuffer(side_data, np.int32).reshape(3, 3)  # type: ignore[call-overload]
    (a, b, _), (c, d, _), _ = matrix.tolist()
    if abs(a) < abs(c):
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: 1 if d >= 0 else -1, :: 1 if a >= 0 else -1])


def _numbering_gaps(stems: list[str]) -> list[str]:
    """Missing numbers, as text, where all stems are numbered in otherwise even steps."""
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
            "frames must all have one size"
        )
