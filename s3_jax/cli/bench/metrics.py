"""Time the region and boundary measures, and compare them with a straightforward implementation.

  s3 bench metrics                    # with generated masks of 854 x 480
  s3 bench metrics --annotations=DAVIS/Annotations/480p

The straightforward implementation follows the DAVIS evaluations. For each object it removes void
pixels, finds boundaries by comparing a mask with shifted copies of itself, dilates both boundary
maps by a disk, and computes products and sums. Both implementations get the same label maps, remove
void pixels and use one core, and their scores must be equal. With --annotations, the prediction is
the annotation of an earlier frame.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from absl import flags
from jaxtyping import Bool, Integer, UInt8

from s3_jax.benchmarks.metrics import boundary_radius, clear_void, score_frame
from s3_jax.benchmarks.protocols import PROTOCOLS
from s3_jax.benchmarks.score_folders import MASK_SUFFIX, find_sequences, frame_names
from s3_jax.benchmarks.scoring import looks_binary, read_labels

ANNOTATIONS = flags.DEFINE_string(
    "annotations", None, "Directory of annotated sequences to take masks from."
)
FRAMES = flags.DEFINE_integer("frames", 20, "Frames of each sequence.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 5, "Repetitions; the fastest counts.", 1)
APART = flags.DEFINE_integer(
    "apart", 5, "Frames between annotation and prediction, with --annotations.", 1
)

VOID = 255
Labels = Integer[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]
Pair = tuple[Labels, Labels]


def straightforward_scores(pair: Pair, ids: Sequence[int]) -> list[tuple[float, float]]:
    """Compute J and F of each object by shifts and dilations of whole frames."""
    annotation, prediction = pair
    counts = annotation != VOID
    return [
        (
            _jaccard(annotation == i, prediction == i, counts),
            _boundary_f((annotation == i) & counts, (prediction == i) & counts),
        )
        for i in ids
    ]


def _jaccard(annotation: Mask, prediction: Mask, counts: Mask) -> float:
    union = np.sum((annotation | prediction) & counts)
    return float(np.sum((annotation & prediction) & counts) / union) if union else 1.0


def _boundary_f(annotation: Mask, prediction: Mask) -> float:
    kernel = _disk(boundary_radius(*annotation.shape))
    outline, predicted_outline = _boundary_map(annotation), _boundary_map(prediction)
    near = cv2.dilate(outline.astype(np.uint8), kernel)
    predicted_near = cv2.dilate(predicted_outline.astype(np.uint8), kernel)
    pixels, predicted_pixels = np.sum(outline), np.sum(predicted_outline)
    if not pixels and not predicted_pixels:
        return 1.0
    precision = np.sum(predicted_outline * near) / max(predicted_pixels, 1)
    recall = np.sum(outline * predicted_near) / max(pixels, 1)
    total = precision + recall
    return float(2 * precision * recall / total) if total else 0.0


def _boundary_map(mask: Mask) -> Mask:
    right, lower, diagonal = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1] = mask[:, 1:]
    lower[:-1] = mask[1:]
    diagonal[:-1, :-1] = mask[1:, 1:]
    outline = (mask ^ right) | (mask ^ lower) | (mask ^ diagonal)
    outline[-1] = mask[-1] ^ right[-1]
    outline[:, -1] = mask[:, -1] ^ lower[:, -1]
    outline[-1, -1] = False
    return outline


def _disk(radius: int) -> UInt8[np.ndarray, "d d"]:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def fast_scores(pair: Pair, ids: Sequence[int]) -> list[tuple[float, float]]:
    """Compute the same scores with the library."""
    annotation, predictions = clear_void(pair[0], [pair[1]], VOID)
    scores = score_frame(annotation, predictions, ids)
    return list(zip(scores.region[0].tolist(), scores.boundary[0].tolist(), strict=True))


def main() -> None:
    cases = _annotated_cases(Path(ANNOTATIONS.value)) if ANNOTATIONS.value else _drawn_cases()
    _benchmark(cases)


def _benchmark(cases: dict[str, list[Pair]]) -> None:
    cv2.setNumThreads(1)
    print("ms of CPU time per object and frame, one core")
    print(f"{'masks':<24} objects  straightforward    fast   ratio  largest difference")
    totals = np.zeros(2)
    for name, pairs in cases.items():
        ids = [int(i) for i in np.unique(pairs[0][0]) if i]
        slow, expected = _timed(straightforward_scores, pairs, ids)
        fast, found = _timed(fast_scores, pairs, ids)
        difference = np.abs(np.array(expected) - np.array(found)).max()
        totals += slow, fast
        print(
            f"{name:<24} {len(ids):7d}  {1e3 * slow:15.2f}  {1e3 * fast:6.2f}  "
            f"{slow / fast:6.1f}  {difference:.1g}"
        )
    print(f"ratio of all: {totals[0] / totals[1]:.1f}")


def _timed(
    scores: Callable[[Pair, Sequence[int]], list[tuple[float, float]]],
    pairs: Sequence[Pair],
    ids: Sequence[int],
) -> tuple[float, list[list[tuple[float, float]]]]:
    """Return the best CPU time in seconds per object and frame, and the scores."""
    best, result = np.inf, []
    for _ in range(REPEATS.value):
        start = time.process_time()
        result = [scores(pair, ids) for pair in pairs]
        best = min(best, time.process_time() - start)
    return best / (len(pairs) * len(ids)), result


def _annotated_cases(root: Path) -> dict[str, list[Pair]]:
    cases = {}
    folders = find_sequences(root, "--annotations")
    protocol = PROTOCOLS["davis2016" if looks_binary(folders.values()) else "davis2017"]
    for name, folder in folders.items():
        names = frame_names(folder)[: FRAMES.value + APART.value]
        frames = [read_labels(folder / f"{n}{MASK_SUFFIX}", protocol)[0] for n in names]
        cases[name] = list(zip(frames[APART.value :], frames, strict=False))
    return {name: pairs for name, pairs in cases.items() if pairs}


def _drawn_cases() -> dict[str, list[Pair]]:
    """Draw wobbly discs of several sizes, and a frame with three of them."""
    rng = np.random.default_rng(0)
    sizes = {"small": [40], "medium": [90], "large": [170], "three": [50, 90, 130]}
    return {
        name: [
            (_discs(rng, radii, shift), _discs(rng, radii, shift + 6))
            for shift in range(FRAMES.value)
        ]
        for name, radii in sizes.items()
    }


def _discs(rng: np.random.Generator, radii: Sequence[int], shift: int) -> Labels:
    labels = np.zeros((480, 854), np.uint8)
    angles = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    for place, radius in enumerate(radii):
        waves = np.sum([rng.normal(0, 0.06) * np.cos(n * angles + n) for n in range(2, 9)], 0)
        lengths = radius * (1 + waves)
        centre = (200 + 215 * place + shift, 240)
        points = np.stack([np.cos(angles), np.sin(angles)], -1) * lengths[:, None] + centre
        cv2.fillPoly(labels, [points.astype(np.int32)], place + 1)
    return labels
