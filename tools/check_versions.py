"""Run a quick set of tests with the oldest and the newest versions that pyproject.toml allows.

  make test-versions                                           both ends, with this Python
  python -m tools.check_versions --python=3.11 --ends=oldest   another Python, by version or path
  python -m tools.check_versions --python=3.13 --ends=newest

uv resolves and installs the versions, each end in its own virtual environment in .cache/versions.
Tests treat warnings as errors, so deprecated names make them fail. The main packages' versions are
printed before each test run.
"""

import os
import subprocess
import sys
from pathlib import Path

from absl import flags

from s3_jax.cli import command

ROOT = Path(__file__).parent.parent
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
# jax2onnx cannot be installed beside the newest Orbax.
EXTRAS = {"oldest": "dev,onnx,ray", "newest": "dev,ray"}
# Together these tests use every dependency, and they take only minutes.
TESTS = (
    "tests/test_config.py", "tests/test_cluster.py", "tests/test_files.py", "tests/cli/test_s3.py",
    "tests/ops/test_top_k.py", "tests/media/test_video_files.py",
    "tests/media/test_mask_files.py", "tests/conversion/test_torch_file.py",
    "tests/checkpoints/test_model.py", "tests/data/test_pipeline.py", "tests/data/test_prepare.py",
    "tests/propagation/test_scan.py", "tests/propagation/test_export.py",
    "tests/propagation/test_export_onnx.py", "tests/test_interoperability.py",
    "tests/training/test_fit_loop.py", "tests/training/test_checkpoints.py",
    "tests/benchmarks/test_report_page.py", "tests/annotation/test_server.py",
)  # fmt: skip
MAIN_PACKAGES = (
    "jax", "flax", "optax", "orbax-checkpoint", "numpy", "grain", "tensorflow-datasets",
)  # fmt: skip
PRINT_VERSIONS = """
import importlib.metadata, platform, sys
versions = [f"{name} {importlib.metadata.version(name)}" for name in sys.argv[1:]]
print(", ".join([f"Python {platform.python_version()}", *versions]))
"""
PYTHON = flags.DEFINE_string("python", sys.executable, "Version or path of the Python to test.")
ENDS = flags.DEFINE_list("ends", list(RESOLUTIONS), "Versions to test: oldest, newest or both.")


def main() -> int:
    results = {end: _check(end) for end in ENDS.value}
    for end, code in results.items():
        print(f"{end}: {'passed' if code == 0 else 'FAILED'}")
    return max(results.values(), default=0)


def _check(end: str) -> int:
    """Install the versions of one end, run the tests, and return the exit code."""
    home = ROOT / ".cache" / "versions" / f"{end}-{PYTHON.value.replace('/', '_').strip('_')}"
    python = home / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    install = ["pip", "install", "--quiet", f"--python={python}", f".[{EXTRAS[end]}]"]
    # Tests start many processes, which share the bytecode that Python writes.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    for step in (
        [*uv, "venv", "--quiet", "--clear", f"--python={PYTHON.value}", str(home)],
        [*uv, *install, f"--resolution={RESOLUTIONS[end]}", "--upgrade"],
        [str(python), "-c", PRINT_VERSIONS, *MAIN_PACKAGES],
        [str(python), "-m", "pytest", *TESTS],
    ):
        print(f"{end}: {' '.join(step)}", flush=True)
        code = subprocess.run(step, cwd=ROOT, env=environment, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    command.run(main)
