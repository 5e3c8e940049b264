"""Read recordings of the published network and compare arrays with them.

A recording is an .npz file of named arrays: inputs (`in.`, also `<case>.in.`), weights (`.w.`) and
the network's results. tolerances.json has a tolerance for every array. Rules:

* |ours - recorded| <= 10 max_abs + 1e-6, where max_abs is the difference between the published
  network's float32 and float64 results. `LOOSER` and `TIGHTER` are the only exceptions, each with
  its cause.
* -inf, which marks entries that may not be read, must be in the same places.
* `<name>_sub` holds every eighth channel of the array `<name>`.
"""

import fnmatch
import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

SUBSAMPLING = 8

# Pattern of the array's name -> absolute tolerance.
LOOSER = {
    # The recorded float32 to float64 difference is 0 for some models, because the published
    # network's table is always float32. Sines and cosines of other libraries differ by 2e-6.
    "pe.*": 1e-5,
    # A gap is the difference of two similarities or logits, so it has twice their error. No
    # tolerance is recorded for gaps.
    "margin.argmax_gap_per_block": 2e-6,
    "margin.foreground_gap_per_level": 4e-4,
}
TIGHTER = {
    # The recorded difference is meaningless here: float64 does not clamp to the same values.
    "aggregate.prob": 2e-6,
}


class Recording:
    """The arrays of one .npz file and their tolerances."""

    def __init__(self, path: Path, tolerances: Mapping[str, Mapping[str, float]]):
        self._file = np.load(path)
        self._tolerances = tolerances
        self.names: list[str] = self._file.files

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> np.ndarray:
        return self._file[name]

    def below(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays whose names start with a prefix, by the rest of their names."""
        return {name[len(prefix) :]: self[name] for name in self.names if name.startswith(prefix)}

    def tolerance(self, name: str) -> float:
        """Return the largest absolute difference that counts as equal."""
        for exceptions in (TIGHTER, LOOSER):
            for pattern, tolerance in exceptions.items():
                if fnmatch.fnmatch(name, pattern):
                    return tolerance
        recorded = self._tolerances.get(name) or self._tolerances[name.removesuffix("_sub")]
        return 10 * recorded["max_abs"] + 1e-6

    def difference(self, name: str, ours: ArrayLike) -> str | None:
        """Describe in one line how our value differs from the recorded one; None if it does not.

        Args:
          name: name of a recorded array. For `<name>_sub`, `ours` has all channels.
        """
        ours = self._reduced(name, ours)
        if ours.shape != self[name].shape:
            return f"{name}: shape {ours.shape}, recorded {self[name].shape}"
        worst, limit = self.largest_difference(name, ours), self.tolerance(name)
        if np.isinf(worst):
            return f"{name}: -inf in other places"
        return None if worst <= limit else f"{name}: differs by {worst:.2e}, allowed {limit:.2e}"

    def largest_difference(self, name: str, ours: ArrayLike) -> float:
        """Return our value's largest difference; infinite if -inf is in other places."""
        ours = self._reduced(name, ours).astype(np.float64)
        recorded = self[name].astype(np.float64)
        if not np.array_equal(np.isneginf(ours), np.isneginf(recorded)):
            return np.inf
        both = ~np.isneginf(recorded)
        return float(np.max(np.abs(ours[both] - recorded[both]), initial=0.0))

    def _reduced(self, name: str, ours: ArrayLike) -> np.ndarray:
        ours = np.asarray(ours)
        if name.endswith("_sub") and ours.shape != self[name].shape:
            return every_eighth_channel(ours)
        return ours

    def assert_equal(self, ours: Mapping[str, ArrayLike], names: Iterable[str]) -> None:
        """Fail with one line for every named array that differs or that `ours` lacks."""
        names = list(names)
        assert names, "no arrays to compare"
        problems = []
        for name in names:
            value = ours.get(name, ours.get(name.removesuffix("_sub")))
            problems.append(
                f"{name}: not computed" if value is None else self.difference(name, value)
            )
        found = [problem for problem in problems if problem]
        assert not found, "\n".join(found)


def load_recording(folder: Path, name: str) -> Recording:
    """Return `<folder>/<name>.npz` with the tolerances in `<folder>/tolerances.json`."""
    tolerances = json.loads((folder / "tolerances.json").read_text())
    # The large network's float64 run was not recorded; the base network's tolerances replace it.
    known = tolerances.get(f"{name}.npz") or tolerances["network_s3_vitb_depthanything.npz"]
    return Recording(folder / f"{name}.npz", known)


def load_keys(folder: Path) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return model -> key -> shape of the published networks' complete state dicts."""
    models = json.loads(gzip.decompress((folder / "keys.json.gz").read_bytes()))
    return {
        model: {key: tuple(shape) for key, shape in shapes.items()}
        for model, shapes in models.items()
    }


def every_eighth_channel(x: np.ndarray) -> np.ndarray:
    """Return every eighth channel of maps (b c h w), object maps (b k c h w) or tokens (b n c)."""
    axis = {3: 2, 4: 1, 5: 2}[x.ndim]
    return x[(slice(None),) * axis + (slice(None, None, SUBSAMPLING),)]


def pixels(x: ArrayLike) -> np.ndarray:
    """(b h w c) -> (b c h w)."""
    return np.moveaxis(np.asarray(x), -1, 1)


def object_pixels(x: ArrayLike) -> np.ndarray:
    """(b k h w c) -> (b k c h w)."""
    return np.moveaxis(np.asarray(x), -1, 2)
