"""The files of the bundled clip, and the agreement of masks with the ground truth.

`s3 demo-clip` renders the files from `s3_jax.demo.pond`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

FOLDER = Path(__file__).parent
VIDEO = FOLDER / "koi.mp4"
FIRST_MASK = FOLDER / "koi_first_mask.png"
TRUE_MASKS = FOLDER / "koi_true_masks.npz"
AFTER_CROSSING = 40  # from this frame on, no fish hides more than a tenth of another
Masks = UInt8[np.ndarray, "_ _ _"]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Tracking quality of one object over all frames after the first.

    region: mean J (intersection over union) with the true mask.
    least: smallest J.
    kept: True if, in every frame after the crossing, the mask was on this object and no other.
    """

    object_id: int
    region: float
    least: float
    kept: bool


def true_masks() -> Masks:
    """Return the ids of the fish, 1 to 3, in every frame; 0 is water and leaves."""
    with np.load(TRUE_MASKS) as file:
        return file["masks"]


def compare(found: Masks, true: Masks, after_crossing: int = AFTER_CROSSING) -> list[Agreement]:
    """Measure how well every object of the true masks was tracked.

    Args:
      found: object ids, frames x height x width.
      true: the true ids, of the same shape.
      after_crossing: the frame from which identities must be preserved.

    Raises:
      ValueError: the number of frames or their sizes differ.
    """
    if found.shape != true.shape:
        raise ValueError(f"masks of shape {found.shape}, but the true ones have {true.shape}")
    ids = [int(i) for i in np.unique(true[0]) if i]
    overlaps = np.stack(
        [_overlaps(f, t, ids) for f, t in zip(found[1:], true[1:], strict=True)], axis=-1
    )
    own = overlaps[np.arange(len(ids)), np.arange(len(ids))]
    on_itself = (own > 0) & (own == overlaps.max(axis=1))
    kept = on_itself[:, after_crossing - 1 :].all(axis=1)
    return [
        Agreement(i, float(j.mean()), float(j.min()), bool(k))
        for i, j, k in zip(ids, own, kept, strict=True)
    ]


def _overlaps(found: UInt8[np.ndarray, "h w"], true: UInt8[np.ndarray, "h w"],
              ids: Sequence[int]) -> Float[np.ndarray, "k k"]:  # fmt: skip
    """Return J of every found object (rows) with every true one (columns), 1 if both are absent."""
    count = max(*ids, int(found.max()), int(true.max())) + 1
    pairs = found.astype(np.int64) * count + true
    joint = np.bincount(pairs.ravel(), minlength=count * count).reshape(count, count)
    union = joint.sum(axis=1)[:, None] + joint.sum(axis=0)[None] - joint
    return np.where(union > 0, joint / np.maximum(union, 1), 1.0)[np.ix_(ids, ids)]


def report(agreements: Sequence[Agreement]) -> str:
    """Format the agreements, one line per fish."""
    lines = ["Agreement with the true masks (J, intersection over union; 1 is perfect):"]
    for fish in agreements:
        kept = "kept its identity" if fish.kept else "LOST ITS IDENTITY"
        lines.append(
            f"  fish {fish.object_id}: mean {fish.region:.3f}, lowest {fish.least:.3f}; {kept} "
            "through the crossing"
        )
    return "\n".join(lines)
