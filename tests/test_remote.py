"""Object stores (in memory, behind fsspec): fetching, mirroring, and messages of failures."""

import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from s3_jax import remote
from s3_jax.errors import InputError
from s3_jax.remote import Mirror, fetched, is_remote, mirrored, remote_path
from tests.support.stores import store  # noqa: F401


def test_what_is_remote() -> None:
    for path in ("gs://b/x", Path("gs://b/x"), epath.Path("gs://b/x"), "ftp://x/y", "hf://a/b"):
        assert is_remote(path)
    for path in ("/a/b", "a:b/c", "C:/x", "runs/smoke", Path("x")):
        assert not is_remote(path)


@pytest.mark.parametrize("path", ["ftp://host/run", Path("ftp://host/run"), "file:///run"])
def test_another_scheme_is_refused_in_a_line(path: Any) -> None:
    with pytest.raises(InputError, match=r"^--workdir is .*: (ftp|file):// is not supported, only"):
        fetched(path, "--workdir")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("no module named gcsfs")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    backend.fsspec_backend._get_filesystem.cache_clear()
    with pytest.raises(InputError, match="pip install gcsfs"):
        remote_path("gs://b/x")


def test_a_path_on_this_machine_passes_through(tmp_path: Path) -> None:
    assert fetched(tmp_path) == tmp_path
    with mirrored(tmp_path) as local:
        assert local == tmp_path


def test_files_and_directories_are_fetched(store: MemoryFileSystem) -> None:  # noqa: F811
    store.pipe({"/b/v/0.jpg": b"one", "/b/v/deep/1.jpg": b"two", "/b/first.png": b"mask"})
    assert fetched("gs://b/first.png").read_bytes() == b"mask"
    folder = fetched(Path("gs://b/v"))  # as pathlib leaves it
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.jpg")) == [
        "0.jpg", "deep/1.jpg",
    ]  # fmt: skip
    store.rm("/b/v/0.jpg")
    store.pipe("/b/v/deep/1.jpg", b"new")
    assert [p.read_bytes() for p in fetched("gs://b/v").rglob("*.jpg")] == [b"new"]
    with pytest.raises(InputError, match=r"--video is gs://b/no\.mp4, which does not exist"):
        fetched("gs://b/no.mp4", "--video")


def test_a_copy_is_used_again_while_size_and_date_are_the_same(
    store: MemoryFileSystem,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "SETTLED", -9)
    store.pipe("/b/first.png", b"mask")
    copy = fetched("gs://b/first.png")
    copy.chmod(0o400)
    inode = copy.stat().st_ino
    assert fetched("gs://b/first.png").stat().st_ino == inode
    store.pipe("/b/first.png", b"longer")
    assert fetched("gs://b/first.png").read_bytes() == b"longer"


def test_a_run_goes_on_from_what_is_in_the_store(store: MemoryFileSystem) -> None:  # noqa: F811
    store.pipe({"/b/run/old": b"old", "/b/run/gone": b"x"})
    with mirrored("gs://b/run") as local:
        assert (local / "old").read_bytes() == b"old"
        (local / "gone").unlink()
        (local / "sub").mkdir()
        (local / "sub" / "new").write_bytes(b"new")
        (local / ".new.tmp").write_bytes(b"half")
        (local / "7.orbax-checkpoint-tmp-1").mkdir()
        (local / "7.orbax-checkpoint-tmp-1" / "part").write_bytes(b"half")
    assert not local.exists()
    assert store.find("/b/run") == ["/b/run/old", "/b/run/sub/new"]
    with pytest.raises(ZeroDivisionError), mirrored("gs://b/run") as local:
        (local / "sub" / "new").write_bytes(b"newer")
        raise ZeroDivisionError
    assert not local.parent.exists()
    assert store.cat("/b/run/sub/new") == b"newer"
    with mirrored("gs://b/run", writes=False) as local:
        (local / "of_another_host").write_bytes(b"")
    assert store.find("/b/run") == ["/b/run/old", "/b/run/sub/new"]


def test_errors_name_files_where_they_will_be(store: MemoryFileSystem) -> None:  # noqa: F811
    with pytest.raises(InputError) as error, mirrored("gs://b/run") as local:
        local.mkdir()
        (local / "bad.npz").write_bytes(b"batch")
        raise InputError(f"its batch is in {local / 'bad.npz'}")
    assert str(error.value) == "its batch is in gs://b/run/bad.npz"
    assert store.cat("/b/run/bad.npz") == b"batch"


def test_files_of_others_stay(store: MemoryFileSystem) -> None:  # noqa: F811
    with mirrored("gs://b/run") as local:
        local.mkdir()
        store.pipe("/b/run/shard1.png", b"theirs")
        (local / "shard0.png").write_bytes(b"mine")
    assert store.find("/b/run") == ["/b/run/shard0.png", "/b/run/shard1.png"]


def test_files_are_copied_while_the_work_goes_on(
    store: MemoryFileSystem,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "PUSH_EVERY", 0.01)
    with mirrored("gs://b/run") as local:
        local.mkdir()
        (local / "done.png").write_bytes(b"x")
        for _ in range(500):
            if store.exists("/b/run/done.png") and store.cat("/b/run/done.png"):  # whole
                break
            time.sleep(0.01)
        assert store.cat("/b/run/done.png") == b"x"


def test_what_makes_a_checkpoint_is_copied_last_and_removed_first(
    store: MemoryFileSystem,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied: list[str] = []
    removed: list[str] = []
    upload, unlink = remote._upload, epath.Path("/").__class__.unlink
    monkeypatch.setattr(remote, "_upload", lambda a, b: (copied.append(b.name), upload(a, b)))
    monkeypatch.setattr(
        epath.Path("/").__class__,
        "unlink",
        lambda self, missing_ok=False: (removed.append(self.name), unlink(self, missing_ok)),
    )
    names = ["_CHECKPOINT_METADATA", "model/config.json", "training/training.json", "zeros"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    mirror = Mirror(remote_path("gs://b/run/4"), tmp_path)
    mirror.push()
    assert copied == ["zeros", "config.json", "training.json", "_CHECKPOINT_METADATA"]
    for name in names:
        (tmp_path / name).unlink()
    mirror.push()
    assert removed == list(reversed(copied))


def test_what_cannot_be_written_stays_here(
    store: MemoryFileSystem,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any) -> None:
        raise PermissionError("403 forbidden")

    monkeypatch.setattr(remote, "_upload", full)
    said = r"gs://b/run cannot be written: 403 .*all in (\S+):"
    with pytest.raises(InputError, match=said) as error, mirrored("gs://b/run") as local:
        local.mkdir()
        (local / "result").write_bytes(b"x")
    assert str(local) in str(error.value) and (local / "result").read_bytes() == b"x"
