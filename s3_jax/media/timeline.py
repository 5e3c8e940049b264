"""Time stamps of a video file's frames, read from its packets before anything is decoded.

A frame's number is its position among the time stamps of all packets. Thus a frame that cannot be
decoded leaves a hole, but does not shift the others.
"""

import bisect
import contextlib
import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import av.logging
from av.container import InputContainer

# Messages that decoders log as errors for intact files.
_HARMLESS = re.compile(
    r"APP fields|EXIF|mmco|unref short|co located POCs|reference frames|deprecated|SEI|"
    r"unspecified|not implemented|Unknown profile|skipping|Could not find ref",
    re.IGNORECASE,
)
_MAX_HOLES = 100_000
av.logging.set_level(av.logging.ERROR)
av.logging.set_skip_repeated(False)
Messages = list[tuple[int, str, str]]


@contextlib.contextmanager
def complaints() -> Iterator[list[str]]:
    """Collect FFmpeg's error messages in a list, which is filled when the block ends."""
    found: list[str] = []
    with av.logging.Capture(local=True) as logs:
        try:
            yield found
        finally:
            found += [
                " ".join(text.split())
                for _, _, text in logs
                if text.strip() and not _HARMLESS.search(text)
            ]


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Time stamps of all frames in display order.

    stamps: time stamps in units of `time_base`; empty if packets have none or repeat one.
    holes: positions of frames for which no packet was found.
    packets: number of packets with data.
    problem: the demuxer's error message, if any.
    """

    stamps: tuple[int, ...]
    holes: frozenset[int]
    packets: int
    time_base: Fraction
    problem: str = ""

    def place(self, stamp: int | None) -> int | None:
        """Return the number of the frame with this time stamp, or None if there is none."""
        if stamp is None:
            return None
        place = bisect.bisect_left(self.stamps, stamp)
        return place if place < len(self.stamps) and self.stamps[place] == stamp else None

    @property
    def variable(self) -> bool:
        """True if frames are spaced unevenly, beyond rounding."""
        if len(self.stamps) < 3:
            return False
        first, steps = self.stamps[0], len(self.stamps) - 1
        step = (self.stamps[-1] - first) / steps
        return any(abs(s - first - i * step) > step / 2 for i, s in enumerate(self.stamps))

    def seconds(self) -> list[Fraction]:
        """Return the time of every frame in seconds since the first."""
        return [(stamp - self.stamps[0]) * self.time_base for stamp in self.stamps]


def scan(container: InputContainer, stream: av.VideoStream) -> Timeline:
    """Read all packets of a stream without decoding any."""
    stamps: list[int | None] = []
    packets, corrupt, problem = 0, False, ""
    started: int | None = None
    codec = stream.codec_context.name
    with complaints() as said:
        try:
            for packet in container.demux(stream):
                if not packet.size or packet.is_discard:
                    continue
                packets += 1
                corrupt = corrupt or packet.is_corrupt
                if started is None and packet.is_keyframe:
                    started = packet.pts
                if _is_shown(packet, codec):
                    stamps.append(packet.pts)
        except av.FFmpegError as error:
            problem = str(error)
    problem = problem or next(iter(said), "") or ("incomplete data" if corrupt else "")
    known = [stamp for stamp in stamps if stamp is not None]
    if started is not None:  # drop frames that depend on frames before the first key frame
        known = [stamp for stamp in known if stamp >= started]
    time_base = Fraction(stream.time_base or 1)
    if None in stamps or len(set(known)) < len(known):
        return Timeline((), frozenset(), packets, time_base, problem)
    placed, holes = _with_holes(sorted(known)) if problem else (sorted(known), frozenset())
    return Timeline(tuple(placed), holes, packets, time_base, problem)


def ranges(numbers: Sequence[int]) -> str:
    """Format frame numbers as ranges: "3, 7 to 9"."""
    parts = []
    for _, run in itertools.groupby(enumerate(sorted(numbers)), lambda item: item[1] - item[0]):
        first, *others = [number for _, number in run]
        parts.append(f"{first} to {others[-1]}" if others else f"{first}")
    more = [f"and {len(parts) - 10} more ranges"] if len(parts) > 10 else []
    return ", ".join(parts[:10] + more)


def _is_shown(packet: av.Packet, codec: str) -> bool:
    """Return True if a packet yields a picture.

    Some packets only help to decode others, or repeat the previous picture.
    """
    if codec == "vp8":
        return bool(bytes(packet)[0] & 0x10)  # show_frame of RFC 6386, section 9.1
    return packet.size > 10 or not codec.startswith(("mpeg4", "msmpeg4"))


def _with_holes(stamps: list[int]) -> tuple[list[int], frozenset[int]]:
    """Add the frames missing from a damaged file, if all others are evenly spaced."""
    steps = Counter(after - before for before, after in itertools.pairwise(stamps))
    if not steps:
        return stamps, frozenset()
    step, count = steps.most_common(1)[0]
    lost = sum((gap // step - 1) * n for gap, n in steps.items() if gap % step == 0)
    even = all(gap % step == 0 for gap in steps) and count > len(stamps) / 2
    if not even or not 0 < lost < _MAX_HOLES:
        return stamps, frozenset()
    placed = list(range(stamps[0], stamps[-1] + 1, step))
    present = set(stamps)
    return placed, frozenset(i for i, stamp in enumerate(placed) if stamp not in present)
