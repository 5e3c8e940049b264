"""Table of all benchmarks: file layout, settings, and submission format.

Settings follow the standard protocols (paper section 4.1); a command's flags override them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from s3_jax.benchmarks.layouts.burst import list_burst_videos
from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.layouts.davis import list_davis_videos
from s3_jax.benchmarks.layouts.generic import list_generic_videos
from s3_jax.benchmarks.layouts.lvos import list_lvos_videos
from s3_jax.benchmarks.layouts.video import BenchmarkVideo
from s3_jax.benchmarks.layouts.youtube_vos import list_youtube_vos_videos
from s3_jax.benchmarks.packaging import Package

ListVideos = Callable[[Path, LayoutConfig], Sequence[BenchmarkVideo]]


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """Frozen settings that a protocol fixes.

    short_side: frames are shrunk to this short side in pixels; -1 keeps their size. For the other
      settings see `PropagationConfig`; None leaves the decision to the network.
    """

    short_side: int
    mem_every: int | None = None
    max_mem_frames: int | None = None
    long_term: bool = False

    def propagation(self) -> dict[str, Any]:
        """Return the fields of `PropagationConfig` that the protocol fixes."""
        values = dataclasses.asdict(self)
        del values["short_side"]
        return {name: value for name, value in values.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Frozen settings of one benchmark.

    list_videos: function that lists its videos in a data directory.
    plus: the settings for best results; None if the protocol has none.
    package: the format of a submission; None if results are scored locally.
    score: the flags of `s3 score` for the results; "" if only the server has the annotations, or if
      the benchmark uses a different measure.
    """

    list_videos: ListVideos
    config: BenchmarkConfig
    plus: BenchmarkConfig | None = None
    package: Package | None = None
    score: str = ""


def _davis(split: str, year: str = "2017", **more: Any) -> ListVideos:
    lists = (f"ImageSets/{year}/{split}.txt", f"ImageSets/480p/{split}.txt")
    bases = (".", year, "trainval" if split == "val" else split, "DAVIS",
             f"{year}/{'trainval' if split == 'val' else split}")  # fmt: skip
    count = 2 if year == "2016" else 1  # the release of 2016 names its lists after the resolution
    return partial(list_davis_videos, lists=lists[:count], bases=bases, **more)


_SHORT, _SHORT_PLUS = BenchmarkConfig(480), BenchmarkConfig(720, mem_every=3, max_mem_frames=10)
_YOUTUBE_PLUS = BenchmarkConfig(600, max_mem_frames=10)
# 600 is the choice of S3's authors; others run LVOS at 480.
_LVOS = BenchmarkConfig(600, long_term=True)
_BURST = BenchmarkConfig(600, mem_every=10, long_term=True)

BENCHMARKS: Mapping[str, Benchmark] = {
    "davis2016-val": Benchmark(
        _davis("val", "2016", one_object=True), _SHORT, _SHORT_PLUS, score="--protocol=davis2016"
    ),
    "davis2017-val": Benchmark(_davis("val"), _SHORT, _SHORT_PLUS, score="--protocol=davis2017"),
    "davis2017-test-dev": Benchmark(_davis("test-dev"), _SHORT, _SHORT_PLUS, "videos"),
    "youtubevos2018-val": Benchmark(list_youtube_vos_videos, _SHORT, _YOUTUBE_PLUS, "annotations"),
    "youtubevos2019-val": Benchmark(list_youtube_vos_videos, _SHORT, _YOUTUBE_PLUS, "annotations"),
    "mose-val": Benchmark(
        partial(list_davis_videos, bases=("valid", "val", ".")), _SHORT, _SHORT_PLUS, "videos"
    ),
    "lvos-val": Benchmark(
        partial(list_lvos_videos, split="val"), _LVOS, None, "annotations", "--protocol=lvos"
    ),
    "lvos-test": Benchmark(partial(list_lvos_videos, split="test"), _LVOS, None, "annotations"),
    "burst-val": Benchmark(partial(list_burst_videos, split="val"), _BURST, None, "burst"),
    "burst-test": Benchmark(partial(list_burst_videos, split="test"), _BURST, None, "burst"),
    "vost-val": Benchmark(
        partial(list_davis_videos, lists=("ImageSets/val.txt",)), _SHORT,
        score="--protocol=generic",
    ),
    "vost-test": Benchmark(
        partial(list_davis_videos, lists=("ImageSets/test.txt",)), _SHORT, None, "videos"
    ),
    "generic": Benchmark(
        list_generic_videos, BenchmarkConfig(-1, long_term=True), score="--protocol=generic"
    ),
}  # fmt: skip
