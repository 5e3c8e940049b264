"""Run this repository's commands as a user would, without a second of imports for each.

Commands are forked from a process that has imported what most commands need. A worker keeps this
process for all its tests. Tests of startup, `--help` and signals use `subprocess` instead.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

from s3_jax.cli.large_pages import VARIABLE

ROOT = Path(__file__).parents[2]
# Modules that commands import, without those that define flags, which would affect other commands.
PRELOADED = [
    "absl.app", "av", "cv2", "jax", "numpy", "PIL.Image", "tqdm", "s3_jax.benchmarks.scoring",
    "s3_jax.checkpoints.model", "s3_jax.data.folders", "s3_jax.propagation.session",
    "s3_jax.segmentation.video",
]  # fmt: skip
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(PRELOADED)


def run(
    module: str, *arguments: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None,
    warnings_are_errors: bool = False, timeout: float = 300,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run `python -m module arguments` and wait, like `subprocess.run` with captured output."""
    command = [sys.executable, "-m", module, *arguments]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("output", "errors")]
        for file in files:
            file.touch()
        process = _FORKS.Process(
            target=_execute,
            args=(module, arguments, cwd, dict(env or os.environ), files, warnings_are_errors),
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(
            command, process.exitcode, *(file.read_text() for file in files)
        )


def _execute(
    module: str, arguments: tuple[str, ...], cwd: Path, env: dict[str, str], files: list[Path],
    warnings_are_errors: bool,
) -> None:  # fmt: skip
    """Run the command in this process, which is forked for it."""
    for descriptor, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), descriptor)
    os.environ.clear()
    os.environ.update(env)
    os.environ.setdefault(VARIABLE, "")  # else the command restarts itself, as `python -m` does
    os.chdir(cwd)
    sys.path.insert(0, str(cwd))
    sys.argv = ["-m", *arguments]
    if warnings_are_errors:
        warnings.simplefilter("error")
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # a forked process does not call them
