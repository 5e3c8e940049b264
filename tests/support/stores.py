"""Substitutes for Google's object store behind fsspec: in memory, or in a directory.

  python -m tests.support.stores DIRECTORY CACHE train --config=smoke --workdir=gs://bucket/run

runs a command of `s3` in a process where `gs://bucket/run` is `DIRECTORY/bucket/run`. The process
copies finished files twenty times a second.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from etils.epath import backend
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """File system behind `gs://`, in memory; files are in `/bucket/...`."""

    protocol = ("gs", "gcs")
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(path.replace("gs://", "/", 1))

    def info(self, path: str, **options: object) -> dict:
        found = super().info(path, **options)
        return found | {"mtime": found.get("created")}


def in_memory(cache: Path) -> Bucket:
    """Put an empty store behind `gs://` for the rest of this process."""
    os.environ["S3_JAX_COPIES"] = str(cache)
    os.environ["EPATH_USE_TF"] = "0"
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    _empty()
    return Bucket(skip_instance_cache=True)


class Disk(LocalFileSystem):
    """File system behind `gs://`, on disk; files are in `directory`."""

    protocol = ("gs", "gcs")
    directory: ClassVar[Path]

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return super()._strip_protocol(str(path).replace("gs://", f"{cls.directory}/", 1))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if "w" in mode:
            return WholeFile(path, mode, autocommit=False, fs=self)
        return super()._open(path, mode, **options)


class WholeFile(LocalFileOpener):
    """File that others see only once it is closed, as in an object store."""

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.commit()

    def __exit__(self, *_: object) -> None:
        self.close()


def on_disk(directory: Path, cache: Path) -> None:
    """Put a directory behind `gs://` for the rest of this process; the directory outlives it."""
    os.environ["S3_JAX_COPIES"] = str(cache)
    os.environ["EPATH_USE_TF"] = "0"
    Disk.directory = directory
    fsspec.register_implementation("gcs", Disk, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    """An empty store with its own cache."""
    monkeypatch.setenv("S3_JAX_COPIES", "")
    monkeypatch.setenv("EPATH_USE_TF", "0")
    yield in_memory(tmp_path / "cache")
    backend.fsspec_backend._get_filesystem.cache_clear()
    _empty()


def _empty() -> None:
    """Remove all files and directories, which the class holds."""
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]


if __name__ == "__main__":
    on_disk(Path(sys.argv[1]), Path(sys.argv[2]))
    from s3_jax import remote
    from s3_jax.cli.main import main

    remote.PUSH_EVERY = 0.05
    sys.argv = ["s3", *sys.argv[3:]]
    main()
