"""Report of the deviations from the recordings of the published network: docs/benchmarks.md.

  python -m tests.report_parity                      the recordings in the repository
  python -m tests.report_parity FOLDER               those of another folder

For a network: the array that comes closest to its tolerance. For a video: the largest difference of
a probability in any frame (accepted: 3e-4), and of an array of the final state, relative to its
largest entry.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from s3_jax.config import MODELS
from s3_jax.conversion.weights import from_torch
from tests.support import stages, weights
from tests.support.goldens import Recording, load_keys, load_recording
from tests.support.recorded_videos import run_case
from tests.support.stage_names import by_recorded_name

HERE = Path(__file__).parent / "goldens"


def main(folder: Path) -> None:
    print("| network | arrays | closest to its tolerance | share of the tolerance |")
    print("|---|---|---|---|")
    for path in sorted(folder.glob("network_*.npz")):
        model = path.stem.removeprefix("network_")
        count, share, name = network_row(load_recording(folder, path.stem), model)
        print(f"| `{model}` | {count} | `{name}` | {share:.2f} |", flush=True)
    print("\n| video | frames | largest difference | final state |")
    print("|---|---|---|---|")
    for path in sorted(folder.glob("video_*.npz")):
        case = path.stem.removeprefix("video_")
        if not case.startswith("inputs"):
            found = run_case(folder, case)
            final = max(found.final.values())
            print(
                f"| {case} | {len(found.differences)} | {found.worst:.1e} | {final:.1e} |",
                flush=True,
            )


def network_row(recording: Recording, model: str) -> tuple[int, float, str]:
    """Arrays compared, and the largest share of a tolerance with its array's name."""
    variables = from_torch(weights.state_dict(load_keys(HERE)[model]), MODELS[model])
    found = stages.run(MODELS[model], variables, recording.below("in."))
    ours = by_recorded_name(MODELS[model], variables["params"], found)
    names = [name for name in recording.names if not name.startswith("in.")]
    shares = {name: _share(recording, name, ours) for name in names}
    worst = max(shares, key=lambda name: shares[name])
    return len(names), shares[worst], worst


def _share(recording: Recording, name: str, ours: dict[str, np.ndarray]) -> float:
    value = ours.get(name, ours.get(name.removesuffix("_sub")))
    assert value is not None, name
    return recording.largest_difference(name, value) / recording.tolerance(name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
