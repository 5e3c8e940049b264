"""Settings and fixtures for all tests.

Tests run on the CPU unless JAX_PLATFORMS says otherwise. Compiled programs are cached in
`.cache/xla` of the repository, and the shapes and types in s3_jax's annotations are checked.
"""

import ctypes
import gc
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compilation takes most of the tests' time. Without LLVM's optimization and XLA's newer fusion
# emitters, it takes a quarter as long.
_FLAGS = (
    "--xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
)
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later versions abort on the flag
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", _FLAGS)
# Install the hook before anything imports s3_jax: functions are wrapped when they are defined.
install_import_hook("s3_jax", "beartype.beartype")

import jax  # noqa: E402

from tests.support.goldens import Recording, load_recording  # noqa: E402

# An example's time says nothing here: it depends on compilation and on the machine's other work.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent
LARGE = 2 * 2**30  # resident bytes of a worker
MANY = 20_000  # memory maps of a worker; Linux allows 65,530

# The slowest files run first, so that no worker is left with one at the end.
LONGEST = ("training/test_recordings.py", "tools/test_train.py", "tools/test_remote_runs.py")

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first."""
    items.sort(key=lambda item: not item.nodeid.split("::")[0].endswith(LONGEST))


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Free compiled programs after a file if there are many of them; until then, files share them.

    The programs of all files together take 10 GB, and more memory maps than Linux allows a process,
    which crashes the compiler. glibc returns the compiler's memory to the system only on request.
    """
    yield
    if psutil.Process().memory_info().rss > LARGE or _memory_maps() > MANY:
        jax.clear_caches()
        gc.collect()
        if sys.platform == "linux":
            getattr(ctypes.CDLL(None), "malloc_trim", int)(0)


@pytest.fixture(scope="session")
def goldens() -> Path:
    """Recordings that come with the repository."""
    return ROOT / "tests" / "goldens"


@pytest.fixture(scope="session")
def modules(goldens: Path) -> Recording:
    """Recording of the network's modules in isolation."""
    return load_recording(goldens, "modules")


@pytest.fixture(scope="session")
def recordings(goldens: Path) -> Path:
    """All recordings if they are available, otherwise those that come with the repository."""
    complete = _shared() / "golden"
    return complete if complete.is_dir() else goldens


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """All recordings, in `golden` of the folder S3_JAX_SHARED (default: beside the repository)."""
    complete = _shared() / "golden"
    if not complete.is_dir():
        pytest.skip(f"no recordings in {complete}; set S3_JAX_SHARED to the folder it is in")
    return complete


def _shared() -> Path:
    return Path(os.environ.get("S3_JAX_SHARED", ROOT.parent / "shared"))


def _memory_maps() -> int:
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0
