"""Write tests/goldens/memory.npz, the part of the recordings that the memory tests use.

    python -m tests.memory.make_golden RECORDINGS

`tolerance.NAME` is the tolerance of an array by the recordings' README: ten times the difference
between float32 and float64, plus 1e-6.
"""

import json
import sys
from pathlib import Path

import numpy as np

NETWORK = "network_s3_resnet18.npz"
NETWORK_ARRAYS = ["key", "selection", "enc.deep.value", "enc.shallow.value", "mem.key",
                  "mem.shrinkage", "mem.similarity", "mem.similarity_no_selection",
                  "mem.similarity_no_shrinkage", "mem.affinity", "mem.affinity_top10",
                  "mem.usage_top10", "mem.readout"]  # fmt: skip
VIDEOS = ["fifo", "force_permanent", "force_permanent_long_term", "long_term", "long_term_flip",
          "new_objects", "new_objects_long_term"]  # fmt: skip
VIDEO_ARRAYS = ["memory_sizes", "final.bucket0.long_life", "final.bucket0.work_life"]


def main(recordings: Path) -> None:
    tolerances = json.loads((recordings / "tolerances.json").read_text())
    golden: dict[str, np.ndarray] = {}

    def take(file: str, prefix: str, names: list[str]) -> None:
        with np.load(recordings / file) as arrays:
            for name in names:
                golden[prefix + name] = arrays[name]
                if name in tolerances.get(file, {}):
                    limit = 10 * tolerances[file][name]["max_abs"] + 1e-6
                    golden[f"tolerance.{prefix}{name}"] = np.array(limit)

    with np.load(recordings / "modules.npz") as arrays:
        names = [name for name in arrays.files if name.startswith("memory.")]
    take("modules.npz", "", names)
    take(NETWORK, "network.", NETWORK_ARRAYS)
    for video in VIDEOS:
        with np.load(recordings / f"video_{video}.npz") as arrays:
            present = [name for name in VIDEO_ARRAYS if name in arrays.files]
        take(f"video_{video}.npz", f"{video}.", present)
    path = Path(__file__).parent.parent / "goldens" / "memory.npz"
    np.savez_compressed(path, **golden)  # type: ignore[arg-type]
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
