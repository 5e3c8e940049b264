"""Scoring rules of the benchmarks: scored objects and frames, and averaging."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from s3_jax.errors import InputError, reason
from s3_jax.media.json_files import read_json
from s3_jax.media.output_paths import inside

# The categories of the YouTube-VOS training set (Xu et al., 2018); all others are unseen.
YOUTUBE_VOS_SEEN = frozenset(
    """airplane ape bear bike bird boat bucket bus camel cat cow crocodile deer dog dolphin duck
    eagle earless_seal elephant fish fox frisbee frog giant_panda giraffe hand hat hedgehog horse
    knife leopard lion lizard monkey motorbike mouse others owl paddle parachute parrot penguin
    person plant rabbit raccoon sedan shark sheep sign skateboard snail snake snowboard squirrel
    surfboard tennis_racket tiger toilet train truck turtle umbrella whale zebra""".split()  # noqa: SIM905
)

ObjectRule = Literal["first_frame", "any_frame"]
Group = Literal["seen", "unseen"]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Scoring rules of a benchmark.

    title: name for display.
    objects: the objects that are scored: "first_frame" for those annotated in the first frame,
      "any_frame" for each object from its own first frame on. This first frame is given to the
      method and never scored. As in the public DAVIS evaluation, all ids from 1 to the largest of
      the first frame are scored, including unused ones.
    skip_last: the last frame is not scored either (Pont-Tuset et al., 2017).
    binary: treat everything that is not background as one object.
    void: label of the pixels that do not count, in 8-bit annotations.
    grouped: average objects of categories unseen in training separately, if these are known.
    seen: categories of the training set, if the benchmark fixes them.
    """

    name: str
    title: str
    objects: ObjectRule
    skip_last: bool
    binary: bool = False
    void: int | None = 255
    grouped: bool = False
    seen: frozenset[str] | None = None

    @property
    def rules(self) -> str:
        """The rules in one sentence."""
        objects = {
            "first_frame": "objects of the first frame",
            "any_frame": "each object from the frame after its first annotation",
        }[self.objects]
        if self.binary:
            objects = "everything but background is one object"
        ends = "first and last frame" if self.skip_last else "first frame"
        void = "" if self.void is None else f"; pixels labelled {self.void} do not count"
        return f"{objects}; {ends} not scored{void}"


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("davis2016", "DAVIS 2016", "first_frame", skip_last=True, binary=True, void=None),
        Protocol("davis2017", "DAVIS 2017", "first_frame", skip_last=True),
        Protocol(
            "youtube_vos",
            "YouTube-VOS",
            "any_frame",
            skip_last=False,
            grouped=True,
            seen=YOUTUBE_VOS_SEEN,
        ),
        Protocol("mose", "MOSE", "first_frame", skip_last=True),
        Protocol("lvos", "LVOS", "any_frame", skip_last=True, grouped=True),
        Protocol("generic", "Generic", "any_frame", skip_last=False),
        Protocol("binary", "Binary", "any_frame", skip_last=False, binary=True, void=None),
    )
}


@dataclasses.dataclass(frozen=True)
class ObjectMeta:
    """An object's entry in a meta file; fields are None if the file lacks them.

    category: the object's category.
    frames: names of its annotated frames.
    span: names of its first and last frame.
    """

    category: str | None = None
    frames: tuple[str, ...] | None = None
    span: tuple[str, str] | None = None


SequenceMeta = Mapping[int, ObjectMeta]


def group_of(
    protocol: Protocol, sequence: str, entry: ObjectMeta | None, unseen: frozenset[str] | None
) -> Group | None:
    """Return "seen" or "unseen" for an object's category; None if it is unknown.

    Args:
      unseen: names of unseen categories or sequences, which replace the protocol's own.
    """
    category = None if entry is None else entry.category
    if not protocol.grouped:
        return None
    if unseen is not None:
        return "unseen" if sequence in unseen or category in unseen else "seen"
    if category is None or protocol.seen is None:
        return None
    return "seen" if category in protocol.seen else "unseen"


def read_meta(path: Path) -> dict[str, SequenceMeta]:
    """Read the objects, by sequence and id, from a `meta.json` of YouTube-VOS or LVOS.

    Raises:
      InputError: the file is missing, not JSON, or not of this form:
        {"videos": {name: {"objects": {id: {"category": text, "frames": [names]}}}}}, where LVOS
        has "frame_range": {"start": name, "end": name} instead of "frames".
    """
    try:
        videos = read_json(path)["videos"]
        for name in videos:
            inside(Path(), name, path)
        return {
            name: {_object_id(key): _object_meta(x) for key, x in video["objects"].items()}
            for name, video in videos.items()
        }
    except OSError as error:
        raise InputError(f"cannot read the meta file {path}: {reason(error)}") from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a meta.json of YouTube-VOS or LVOS ({type(error).__name__}: "
            f"{reason(error)}): it must hold videos -> name -> objects -> id"
        ) from error


def _object_id(key: str) -> int:
    if int(key) < 1:
        raise ValueError(f"an object has the id {key}, but ids begin with 1")
    return int(key)


def _object_meta(value: Mapping[str, Any]) -> ObjectMeta:
    frames, span = value.get("frames"), value.get("frame_range")
    if not isinstance(value.get("category", ""), str | None) or isinstance(frames, str):
        raise ValueError("an object's category must be text, and its frames a list")
    return ObjectMeta(
        category=value.get("category"),
        frames=None if frames is None else tuple(str(name) for name in frames),
        span=None if span is None else (str(span["start"]), str(span["end"])),
    )
