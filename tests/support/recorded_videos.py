"""Process whole videos again and compare them with the published network's recordings.

`video_cases.json` describes the cases. `video_<case>.npz` holds the probabilities of every frame,
the memory's sizes after it, and the final state (names are in the recordings' README).
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from s3_jax.config import MODELS, PropagationConfig
from s3_jax.conversion.weights import from_torch
from s3_jax.propagation.session import FrameResult, Session
from tests.support.goldens import load_keys
from tests.support.memory_sizes import memory_sizes
from tests.support.weights import state_dict

GOLDENS = Path(__file__).parents[1] / "goldens"
ACCEPT = 3e-4  # the recordings' own tolerance for every probability of every frame
# If the two best tokens are closer than this, rounding may decide the choice (unit: similarity,
# docs/network.md, section 9). Such a frame is compared by its mean, and more loosely by its
# maximum.
TIE = 3e-7
ACCEPT_TIE = 0.1
# Summaries add up over a video; keys, usage and the like are individual values from it.
FINAL = 1e-3  # of the largest entry of an array of the final state
FIELDS = {
    "flip_aug": "flip",
    "use_long_term": "long_term",
    "stagger_updates": "stagger",
    "long_term.max_mem_frames": "lt_max_frames",
    "long_term.min_mem_frames": "lt_min_frames",
    "long_term.num_prototypes": "lt_prototypes",
    "long_term.max_num_tokens": "lt_max_tokens",
    "long_term.buffer_tokens": "lt_buffer_tokens",
}

Apply = Callable[[Session, dict[str, Any], Mapping[str, np.ndarray], int], None]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Differences from the recording.

    differences: largest difference of each frame's probabilities; means: mean difference.
    ties: whether each frame has a choice so close that rounding may decide it.
    sizes_equal: whether the memory held the recorded numbers of tokens after each frame.
    final: array name -> largest difference in the final state, relative to its largest entry.
    """

    differences: list[float]
    means: list[float]
    ties: list[bool]
    sizes_equal: list[bool]
    final: dict[str, float]

    @property
    def worst(self) -> float:
        """Largest difference of a probability in frames without ties."""
        return max(x for x, tie in zip(self.differences, self.ties, strict=True) if not tie)

    def assert_equal(self) -> None:
        """Fail unless every frame, every memory size and the whole final state are equal."""
        limits = [ACCEPT_TIE if tie else ACCEPT for tie in self.ties]
        assert all(x <= most for x, most in zip(self.differences, limits, strict=True)), (
            self.differences
        )
        assert max(self.means) <= ACCEPT, self.means
        assert all(self.sizes_equal), self.sizes_equal
        assert self.final, "nothing of the final state was compared"
        beyond = {name: x for name, x in self.final.items() if not x <= FINAL}
        assert not beyond, beyond


def apply_event(
    session: Session, event: dict[str, Any], recording: Mapping[str, np.ndarray], t: int
) -> None:
    """Delete the object and add the masks that the recording lists for a frame."""
    if "delete_object" in event:
        session.delete([event["delete_object"]])
    if "mask" in event:
        session.add(recorded_masks(event, recording, t))


def recorded_masks(
    event: dict[str, Any], recording: Mapping[str, np.ndarray], t: int
) -> dict[int, np.ndarray]:
    """Return the masks given at a frame, by id."""
    mask = recording[event["mask"]]
    if event.get("idx_mask", True):
        return {int(i): mask == i for i in recording[f"in.objects_{t:03d}"]}
    ids = event["objects"] or range(1, len(mask) + 1)
    return {i: mask[n].astype(np.float32) for n, i in enumerate(ids)}


def run_case(folder: Path, name: str, apply: Apply = apply_event, **changes: object) -> Outcome:
    """Process a recorded video and return the differences.

    Args:
      apply: applies a frame's event to the session before the frame is processed.
      changes: settings that differ from the recorded ones.
    """
    case = json.loads((folder / "video_cases.json").read_text())[name]
    recording = np.load(folder / f"video_{name}.npz")
    settings = {FIELDS.get(k, k): v for k, v in case["config"].items()} | changes
    model = MODELS[case["model"]]
    variables = from_torch(state_dict(load_keys(GOLDENS)[case["model"]]), model)
    session = Session(model, variables, PropagationConfig(**settings))
    differences, sizes_equal = [], []
    ties = [bool(gap < TIE) for gap in _gaps(recording, case["num_frames"])]
    for t, frame in enumerate(_frames(folder, case)):
        event = case["events"].get(str(t), {})
        apply(session, event, recording, t)
        last = t == case["num_frames"] - 1
        result = session.step(frame, end=last, permanent=event.get("force_permanent", False))
        differences.append(_differences(result, recording, t))
        sizes_equal.append(_sizes_equal(session, recording["memory_sizes"][t]))
    return Outcome(
        [float(x.max(initial=0)) for x in differences],
        [float(x.mean()) if x.size else 0.0 for x in differences],
        ties,
        sizes_equal,
        dict(_final_differences(session, recording)),
    )


def _gaps(recording: Mapping[str, np.ndarray], num_frames: int) -> np.ndarray:
    """Return the smallest margin of each frame's choices; infinite (no ties) if not recorded."""
    name = "margin.argmax_gap"
    return recording[name] if name in recording else np.full(num_frames, np.inf)


def _frames(folder: Path, case: dict) -> np.ndarray:
    frames = np.load(folder / case["frames"])["frames_u8"][: case["num_frames"]]
    if case["crop_rows_columns"]:
        top, bottom, left, right = case["crop_rows_columns"]
        frames = frames[:, top:bottom, left:right]
    return frames


def _differences(result: FrameResult, recording: Mapping[str, np.ndarray], t: int) -> np.ndarray:
    ids = [int(i) for i in recording["object_ids"][t] if i >= 0]
    assert list(result.object_ids) == ids
    recorded = recording[f"prob_{t:03d}"].astype(np.float32) / 65535
    stride = int(recording["prob_stride"][t])
    return np.abs(result.prob[1:, ::stride, ::stride] - recorded)


def _sizes_equal(session: Session, recorded: np.ndarray) -> bool:
    if session.state is None:
        return True
    ours = np.asarray(memory_sizes(session.state.memory))
    return all(
        tuple(mine) == tuple(theirs) for mine, theirs in zip(ours, recorded, strict=False)
        if theirs[0] >= 0
    )  # fmt: skip


def _final_differences(
    session: Session, recording: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, float]]:
    ours = final_state(session)
    for name in recording:
        if not name.startswith("final.") or _of_deleted_object(session, name):
            continue
        theirs = recording[name].astype(np.float64)
        assert ours[name].shape == theirs.shape, (name, ours[name].shape, theirs.shape)
        size = max(np.abs(theirs).max(initial=0), 1e-3)
        yield name, float(np.abs(ours[name] - theirs).max(initial=0) / size)


def _of_deleted_object(session: Session, name: str) -> bool:
    """Return True for a deleted object's summary, which the published network keeps."""
    return name.startswith("final.summary.") and int(name.split(".")[2]) not in session.object_ids


def final_state(session: Session) -> dict[str, np.ndarray]:
    """Return a session's state with the recordings' names and axis order."""
    state, slots = session.state, session._slots
    assert state is not None
    of = {id_: slots.slot(id_) for id_ in slots.ids}
    found = {"final.object_ids": np.array(slots.ids)}
    sensory = np.asarray(state.sensory, np.float64)
    found["final.sensory_mean_std"] = np.array(
        [[sensory[:, slot].mean(), sensory[:, slot].std(ddof=1)] for slot in of.values()]
    )
    for id_, slot in of.items():
        found[f"final.summary.{id_}"] = np.asarray(state.object_memory[:, slot])
    bucket_of = np.asarray(state.bucket_of)
    for number, bucket in enumerate(dict.fromkeys(int(bucket_of[slot]) for slot in of.values())):
        ids = [id_ for id_, slot in of.items() if bucket_of[slot] == bucket]
        found[f"final.bucket{number}.objects"] = np.array(ids)
        for name, x in _bucket(state.memory, bucket).items():
            found[f"final.bucket{number}.{name}"] = x
    return found


def _bucket(memory: Any, bucket: int) -> dict[str, np.ndarray]:
    """Return a bucket's keys and counters, oldest first."""
    layout, frame = memory.layout, memory.layout.tokens_per_frame
    permanent = np.arange(int(memory.permanent_frames[bucket]) * frame) + layout.permanent_start
    written = int(memory.temporary_frames[bucket])
    kept = range(max(written - layout.temporary, 0), written)
    frames = [np.arange(frame) + (i % max(layout.temporary, 1)) * frame for i in kept]
    temporary = np.concatenate([np.zeros(0, int), *frames]) + layout.temporary_start
    long_term = np.arange(int(memory.long_term_tokens[bucket]))
    key = np.asarray(memory.key[:, bucket]).swapaxes(1, 2)
    found = {"work_key": key[..., np.concatenate([permanent, temporary])]}
    if layout.long_term:
        shrinkage, usage, life = (
            np.asarray(x[:, bucket]) for x in (memory.shrinkage, memory.usage, memory.life)
        )
        found |= {"long_key": key[..., long_term], "long_shrinkage": shrinkage[:, None, long_term]}
        found |= {"long_use": usage[:, long_term], "long_life": life[:, long_term]}
        found |= {"work_use": usage[:, temporary], "work_life": life[:, temporary]}
    return found
