"""Whole videos against recordings of the published network, frame by frame."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from s3_jax.config import MODELS, PropagationConfig
from s3_jax.conversion.weights import from_torch
from s3_jax.memory.state import memory_sizes
from s3_jax.propagation.session import FrameResult, Session
from tests.support.weights import recorded_state_dict

ACCEPT = 3e-4  # the recordings' own tolerance for every probability of every frame
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


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Largest difference of every frame, and whether the memory held as many tokens."""

    differences: list[float]
    sizes_equal: list[bool]

    def first_beyond(self, tolerance: float) -> int | None:
        """First frame that differs by more."""
        beyond = [t for t, d in enumerate(self.differences) if d > tolerance]
        return beyond[0] if beyond else None


def run_case(folder: Path, name: str, **changes: object) -> Outcome:
    """Processes the recorded frames and masks as the case says."""
    case = json.loads((folder / "video_cases.json").read_text())[name]
    recording = np.load(folder / f"video_{name}.npz")
    settings = {FIELDS.get(k, k): v for k, v in case["config"].items()} | changes
    model = MODELS[case["model"]]
    variables = from_torch(recorded_state_dict(case["model"]), model)
    session = Session(model, variables, PropagationConfig(**settings))
    outcome = Outcome([], [])
    for t, frame in enumerate(_frames(folder, case)):
        event = case["events"].get(str(t), {})
        _apply(session, event, recording, t)
        last = t == case["num_frames"] - 1
        result = session.step(frame, end=last, permanent=event.get("force_permanent", False))
        outcome.differences.append(_difference(result, recording, t))
        outcome.sizes_equal.append(_sizes_equal(session, recording["memory_sizes"][t]))
    return outcome


def _frames(folder: Path, case: dict) -> np.ndarray:
    frames = np.load(folder / case["frames"])["frames_u8"][: case["num_frames"]]
    if case["crop_rows_columns"]:
        top, bottom, left, right = case["crop_rows_columns"]
        frames = frames[:, top:bottom, left:right]
    return frames


def _apply(session: Session, event: dict, recording: np.lib.npyio.NpzFile, t: int) -> None:
    if "delete_object" in event:
        session.delete([event["delete_object"]])
    if "mask" not in event:
        return
    mask = recording[event["mask"]]
    if event.get("idx_mask", True):
        session.add({int(i): mask == i for i in recording[f"in.objects_{t:03d}"]})
    else:
        ids = event["objects"] or range(1, len(mask) + 1)
        session.add({i: mask[n].astype(np.float32) for n, i in enumerate(ids)})


def _difference(result: FrameResult, recording: np.lib.npyio.NpzFile, t: int) -> float:
    ids = [int(i) for i in recording["object_ids"][t] if i >= 0]
    assert list(result.object_ids) == ids
    recorded = recording[f"prob_{t:03d}"].astype(np.float32) / 65535
    stride = int(recording["prob_stride"][t])
    return float(np.abs(result.prob[1:, ::stride, ::stride] - recorded).max(initial=0))


def _sizes_equal(session: Session, recorded: np.ndarray) -> bool:
    if session.state is None:
        return True
    ours = np.asarray(memory_sizes(session.state.memory))
    return all(
        tuple(mine) == tuple(theirs) for mine, theirs in zip(ours, recorded, strict=False)
        if theirs[0] >= 0
    )  # fmt: skip


# In the repository: one case for every mechanism.
SHIPPED = ("fifo_stagger", "long_term", "new_objects", "unaligned_size", "channel_masks")
# Equal frame by frame, memory included.
EQUAL = (
    "fifo", "long_term_flip", "new_objects_long_term", "flip", "internal_size", "mask_again",
    "late_start", "delete_object", "absent_first", "vitb_depthanything",
)  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recording(goldens, name):
    outcome = run_case(goldens, name)
    assert outcome.first_beyond(ACCEPT) is None, outcome.differences
    assert all(outcome.sizes_equal)


@pytest.mark.parametrize("name", EQUAL)
def test_recording(shared_golden, name):
    outcome = run_case(shared_golden, name)
    assert outcome.first_beyond(ACCEPT) is None, outcome.differences
    assert all(outcome.sizes_equal)
