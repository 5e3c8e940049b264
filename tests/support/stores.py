"""An object store in memory, behind fsspec, in place of Google's."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """What `gs://` finds; files are in `/bucket/...`."""

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
    """Put an empty store behind `gs://`, for the rest of this process."""
    os.environ["S3_JAX_CACHE"] = str(cache)
    os.environ["EPATH_USE_TF"] = "0"
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    Bucket.store.clear()
    return Bucket(skip_instance_cache=True)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    """The store, empty, and a cache of its own."""
    monkeypatch.setenv("S3_JAX_CACHE", "")
    monkeypatch.setenv("EPATH_USE_TF", "0")
    yield in_memory(tmp_path / "cache")
    backend.fsspec_backend._get_filesystem.cache_clear()
    Bucket.store.clear()
