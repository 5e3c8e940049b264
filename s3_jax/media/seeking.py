"""Random access to the frames of a video, decoded on demand.

    frames = Frames(open_video(Path("video.mp4")))
    image = frames.image(1234)

In a video file, decoding starts at the key frame before the requested frame, found by time stamp. A
frame's number is its position among the time stamps, never a guess from the frame rate. Frames
decoded on the way are cached within a byte budget, so stepping backwards is as fast as forwards.
"""

import contextlib
import itertools
import threading
from collections import OrderedDict
from collections.abc import Generator

import av
import numpy as np
from jaxtyping import UInt8

from s3_jax.errors import InputError
from s3_jax.media.video_files import Decoding, Turn, VideoFile, VideoSource, opened_container

Image = UInt8[np.ndarray, "h w 3"]
_Pass = Generator[tuple[int, av.VideoFrame], None, None]


class Frames:
    """Thread-safe random access to the frames of a video.

    source: the video; it is opened separately from any other reader.
    megabytes: limit for the cache of decoded frames (at least two frames are kept).
    """

    AHEAD = 48  # up to this distance, decode onwards instead of seeking

    def __init__(self, source: VideoSource, megabytes: float = 256.0) -> None:
        self.size = source.size
        self._source = source
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Image] = OrderedDict()
        self._room = max(2, int(megabytes * 1e6 / (3 * self.size[0] * self.size[1])))
        self._pass: _Pass | None = None
        self._next = 0  # number of the first frame that the open pass has not yielded
        self._turn = Turn()
        self.count = self._count()

    def image(self, index: int) -> Image:
        """Return a frame by its number; the array is shared and must not be modified.

        Raises:
          InputError: there is no such frame, or it is damaged.
        """
        if not 0 <= index < self.count:
            raise InputError(f"{self._source.path} has no frame {index}: it has {self.count}")
        with self._lock:
            if index not in self._kept:
                self._decode(index)
            self._kept.move_to_end(index)
            return self._kept[index]

    def close(self) -> None:
        """Close the file; cached frames stay available."""
        with self._lock:
            self._end_pass()

    def _count(self) -> int:
        if not isinstance(self._source, VideoFile):
            return len(self._source.files)
        return len(self._source.timeline.stamps) or sum(1 for _ in self._source.frames())

    def _decode(self, index: int) -> None:
        if not isinstance(self._source, VideoFile):
            self._keep(index, next(self._source.frames(index)).image)
            return
        if self._pass is None or not self._next <= index < self._next + self.AHEAD:
            self._begin_pass(index)
        try:
            self._advance(index)
        except InputError:
            self._end_pass()
            raise

    def _advance(self, index: int) -> None:
        """Decode up to a frame, and cache as many of the preceding frames as fit."""
        for place, frame in self._pass or ():
            self._next = place + 1
            if place > index - self._room:
                self._keep(place, self._turned(place, frame))
            if place >= index:
                break
        if index not in self._kept:
            raise InputError(f"{self._source.path}: frame {index} is damaged and cannot be decoded")

    def _turned(self, place: int, frame: av.VideoFrame) -> Image:
        image = self._turn.upright(frame)
        if image.shape[:2] != self.size:
            raise InputError(
                f"{self._source.path}: frame {place} differs in size from those before it"
            )
        return image

    def _begin_pass(self, index: int) -> None:
        """Start decoding at the key frame before a frame, or at the start if seeking overshoots."""
        for begin in (index, 0):
            self._end_pass()
            opened = self._frames(begin)
            first = next(opened, None)
            if first is not None and (first[0] <= index or begin == 0):
                break
            opened.close()
        self._pass = _chained(first, opened)
        self._next = first[0] if first else 0

    def _frames(self, begin: int) -> _Pass:
        """Yield frames with their numbers, starting at the key frame before `begin`."""
        assert isinstance(self._source, VideoFile)
        timeline, expected = self._source.timeline, 0
        with opened_container(self._source.path) as (container, stream):
            if timeline.stamps and begin:
                with contextlib.suppress(av.FFmpegError):  # no index: decode from the beginning
                    container.seek(timeline.stamps[begin], stream=stream)
            for place, frame in Decoding(container, stream, timeline, True).frames():
                index = expected if place is None else place
                yield index, frame
                expected = index + 1

    def _end_pass(self) -> None:
        if self._pass is not None:
            self._pass.close()
        self._pass = None

    def _keep(self, index: int, image: Image) -> None:
        self._kept[index] = image
        while len(self._kept) > self._room:
            self._kept.popitem(last=False)


def _chained(first: tuple[int, av.VideoFrame] | None, rest: _Pass) -> _Pass:
    """Put the first item back in front of a pass; closing the result closes the pass."""
    with contextlib.closing(rest):
        yield from itertools.chain([first] if first else [], rest)
