"""Whole videos against recordings of the published network: every frame and the final state.

Where ours intentionally differs from the published network (docs/propagation.md, section 3), the
test makes our session do what the published network does, and everything must be equal again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from s3_jax.models.s3 import S3
from s3_jax.propagation.session import Session
from tests.support.recorded_videos import ACCEPT, apply_event, recorded_masks, run_case

pytestmark = pytest.mark.slow

# In the repository: one case for every mechanism.
SHIPPED = ("long_term", "new_objects", "unaligned_size", "channel_masks")
ELSEWHERE = (
    "fifo", "fifo_stagger", "long_term_flip", "new_objects_long_term", "flip", "internal_size",
    "mask_again", "late_start", "delete_object", "absent_first", "vitb_depthanything",
)  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recording(goldens: Path, name: str) -> None:
    run_case(goldens, name).assert_equal()


@pytest.mark.parametrize("name", ELSEWHERE)
def test_recording(shared_golden: Path, name: str) -> None:
    run_case(shared_golden, name).assert_equal()


class ChunkS3(S3):
    """Objects of other chunks do not exist for it in pixel fusion and transformer, as in the
    published network (docs/propagation.md, section 3.7)."""

    aggregated: int = 1

    def fuse_pixels(  # type: ignore[override]
        self, pix_feat: Any, readout: Any, sensory: Any, last_mask: Any, group: Any, chunk: int
    ) -> Any:
        same = self._same_chunk(last_mask)
        return super().fuse_pixels(pix_feat, readout, sensory, last_mask, same, chunk)

    def transform_objects(  # type: ignore[override]
        self, pixel: Any, value: Any, valid: Any, group: Any, chunk: int
    ) -> Any:
        return super().transform_objects(pixel, value, valid, self._same_chunk(pixel), chunk)

    def _same_chunk(self, objects: Any) -> Any:
        number = jnp.arange(objects.shape[1]) // self.aggregated
        return (number[:, None] == number[None, :]).astype(jnp.float32)


@pytest.mark.parametrize("size", [1, 2])
def test_aggregation_of_each_chunk_by_itself(shared_golden: Path, size: int) -> None:
    def apply(session: Session, event: dict, recording: Mapping, t: int) -> None:
        model = ChunkS3(session.config, aggregated=size)
        session._network = session._network._replace(model=model)
        apply_event(session, event, recording, t)

    run_case(shared_golden, f"chunk{size}", apply).assert_equal()


def test_stale_last_mask(shared_golden: Path) -> None:
    """There an object after a deleted one reads the last mask of its predecessor."""

    def apply(session: Session, event: dict, recording: Mapping, t: int) -> None:
        stale = session.state.last_mask[:, 1] if "delete_object" in event else None
        apply_event(session, event, recording, t)
        if stale is not None:
            state, slot = session.state, session._slots.slot(3)
            session._state = state.replace(last_mask=state.last_mask.at[:, slot].set(stale))

    run_case(shared_golden, "delete_object_stale_mask", apply).assert_equal()


def test_known_object_written_to_the_last_channel(shared_golden: Path) -> None:
    """There the mask of a known object given beside a new one goes to another object
    (docs/propagation.md, section 3.1)."""

    def apply(session: Session, event: dict, recording: Mapping, t: int) -> None:
        if t == 6:
            masks = recorded_masks(event, recording, t)
            session.add({3: masks[1], 4: masks[4]})
        else:
            apply_event(session, event, recording, t)

    run_case(shared_golden, "partially_new_objects", apply).assert_equal()


@pytest.mark.parametrize(("name", "frame"), [("force_permanent", 9),
                                             ("force_permanent_long_term", 6)])  # fmt: skip
def test_frames_made_permanent_later_stay(shared_golden: Path, name: str, frame: int) -> None:
    """There they are evicted all the same (docs/propagation.md, section 3.2): equal up to that
    frame and as long as it is held anyway, then the memories differ."""
    outcome = run_case(shared_golden, name)
    beyond = [t for t, difference in enumerate(outcome.differences) if difference > ACCEPT]
    assert all(t > frame for t in beyond), outcome.differences
