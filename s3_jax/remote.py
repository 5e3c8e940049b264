"""Paths in object stores: `gs://`, `s3://` and `az://`, through `etils.epath`.

Inputs are fetched to this machine before use. Outputs are written on this machine and copied to the
store, both during a run and at its end:

    file = fetched("gs://bucket/cats.mp4")
    with mirrored("gs://bucket/run") as workdir: ...

FFmpeg, Orbax and ArrayRecord therefore see ordinary files, which can be memory-mapped, renamed and
read from any position. Both functions return local paths unchanged.
"""

import concurrent.futures
import contextlib
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from etils import epath

from s3_jax.errors import InputError, reason
from s3_jax.files import replacing

PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}
CACHE_VARIABLE = "S3_JAX_COPIES"
CACHE = "~/.cache/s3_jax/remote"
PUSH_EVERY = 30.0  # seconds
SETTLED = 2.0  # seconds after which a file's date distinguishes it from earlier versions
COPIES = 8  # files copied at a time
# Files that make a directory a checkpoint or a run: copied last, in this order, and removed first.
LAST = ("config.json", "training.json", "_CHECKPOINT_METADATA", "run.json")
# pathlib collapses two slashes into one.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_UNFINISHED = re.compile(r"^\..*\.tmp$|\.orbax-checkpoint-tmp|^\..*\.(new|previous)$")

AnyPath = str | os.PathLike[str]
Place = Path | epath.Path  # on this machine or in a store
Signature = tuple[int, int]  # size and time of the last change
log = logging.getLogger("s3_jax")


def is_remote(path: AnyPath) -> bool:
    """Return True if a path begins with a scheme, such as gs://."""
    return _SCHEME.match(os.fspath(path)) is not None


def remote_path(path: AnyPath, what: str = "") -> epath.Path:
    """Return a path in an object store.

    Args:
      what: name of the setting that holds the path, for the message.

    Raises:
      InputError: the scheme is not supported, its package is not installed, or the store cannot
        be reached.
    """
    text, about = os.fspath(path), f"{what} is " if what else ""
    scheme = require_scheme(path, what)
    remote = epath.Path(text if "://" in text else text.replace(":/", "://", 1))
    try:
        remote.exists()
    except ImportError as error:
        raise InputError(
            f"{about}{text}: {scheme}:// needs a package: pip install {PACKAGES[scheme]}"
        ) from error
    except Exception as error:  # the store's own types: no credentials, no network
        raise InputError(f"{about}{text} cannot be reached: {reason(error)}") from error
    return remote


def require_scheme(path: AnyPath, what: str = "", *more: str) -> str:
    """Return the scheme of a path, or "" if it has none.

    Args:
      more: schemes to allow besides those of object stores.

    Raises:
      InputError: the scheme is not supported.
    """
    found = _SCHEME.match(os.fspath(path))
    scheme = found[1] if found else ""
    if scheme and scheme not in (*PACKAGES, *more):
        known = ", ".join(f"{name}://" for name in (*PACKAGES, *more))
        raise InputError(
            f"{what + ' is ' if what else ''}{os.fspath(path)}: {scheme}:// is not supported, only "
            f"paths on this machine and {known}"
        )
    return scheme


def refuse_remote(path: AnyPath, what: str) -> None:
    """Refuse a path in an object store where a path on this machine is needed.

    Raises:
      InputError: the path is in an object store.
    """
    if is_remote(path):
        raise InputError(
            f"{what} is {os.fspath(path)}, but must be a path on this machine: copy it here first"
        )


def fetched(path: AnyPath, what: str = "") -> Path:
    """Return a local file or directory: `path` itself, or a copy of it if it is in a store.

    Copies stay in the cache. A file is fetched again if its size or date has changed.

    Raises:
      InputError: the remote file or directory does not exist, or cannot be fetched.
    """
    if not is_remote(path):
        return Path(path)
    remote = remote_path(path, what)
    with _told(remote, "fetched"):
        if not remote.exists():
            raise InputError(f"{what + ' is ' if what else ''}{remote}, which does not exist")
        local = cache_directory() / os.fspath(remote).replace("://", "/", 1)
        if not remote.is_dir():
            _fetch(remote, local)
            return local
        files = _remote_files(remote)
        for file in _local_files(local):
            if file not in files:
                (local / file).unlink()
        _each(lambda name: _fetch(files[name], local / name), list(files))
        local.mkdir(parents=True, exist_ok=True)
        return local


def cache_directory() -> Path:
    """Return the directory of fetched copies: $S3_JAX_COPIES, or ~/.cache/s3_jax/remote."""
    return Path(os.environ.get(CACHE_VARIABLE) or CACHE).expanduser()


@contextlib.contextmanager
def mirrored(path: AnyPath, what: str = "", writes: bool = True) -> Iterator[Path]:
    """Yield a local path for a file or directory: `path` itself, or a mirror of a remote one.

    A mirror starts with the content of the store, so that a run can resume. Finished files are
    copied to the store every half minute and at the end of the block, even after an error.

    Args:
      writes: copy files to the store. False on all hosts of a run except the first.

    Raises:
      InputError: the store cannot be read or written. Files that could not be copied stay on this
        machine, and the message names their directory. Other messages name files in the store.
    """
    if not is_remote(path):
        yield Path(path)
        return
    remote = remote_path(path, what)
    stage = Path(tempfile.mkdtemp(prefix="s3_jax-"))
    mirror = Mirror(remote, stage / remote.name)
    try:
        mirror.pull()
        with mirror.in_background() if writes else contextlib.nullcontext():
            yield mirror.local
    except InputError as error:
        if not mirror.needed:  # the mirror goes, the store stays
            error.args = (str(error).replace(os.fspath(mirror.local), os.fspath(remote)),)
        raise
    finally:
        if not mirror.needed:
            shutil.rmtree(stage, ignore_errors=True)


class Mirror:
    """Mirror of a file or directory, `local`, in a store, `remote`.

    Only changes made by this process are copied, so several processes can share a directory of a
    store if they write different files. Files that are still being written are left out.

    needed: True if files could not be copied at the end, so that these are the only copies.
    """

    def __init__(self, remote: epath.Path, local: Path):
        self.remote, self.local = remote, local
        self.needed = False
        self._known: dict[str, Signature] = {}
        self._one_at_a_time = threading.Lock()

    def pull(self) -> None:
        """Fetch the remote file or directory, if it exists.

        Raises:
          InputError: it cannot be fetched.
        """
        with _told(self.remote, "fetched"):
            if self.remote.is_dir():
                files = _remote_files(self.remote)
                _each(lambda name: _download(files[name], self.local / name), list(files))
                self.local.mkdir(parents=True, exist_ok=True)
            elif self.remote.exists():
                _download(self.remote, self.local)
        self._known = _signatures(self.local)

    def push(self) -> None:
        """Copy files that changed since the last call, and remove those that were deleted.

        Raises:
          InputError: the store cannot be written.
        """
        with self._one_at_a_time, _told(self.remote, "written"):
            now = _signatures(self.local)
            changed = [
                name for name, signature in now.items() if self._known.get(name) != signature
            ]
            for names in reversed(_batches(self._known.keys() - now.keys())):
                for name in names:
                    self._at(name).unlink(missing_ok=True)
                    del self._known[name]
            for names in _batches(changed):
                _each(self._upload, names)
                self._known |= {name: now[name] for name in names}

    @contextlib.contextmanager
    def in_background(self) -> Iterator[None]:
        """Push every half minute within the block, and at its end.

        Raises:
          InputError: the store cannot be written at the end; earlier failures are only logged.
        """
        done = threading.Event()
        thread = threading.Thread(target=self._push_until, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self._push_finally()

    def _push_until(self, done: threading.Event) -> None:
        while not done.wait(PUSH_EVERY):
            try:
                self.push()
            except InputError as error:
                log.warning("%s; trying again", error)

    def _push_finally(self) -> None:
        try:
            self.push()
        except InputError as error:
            self.needed = True
            raise InputError(f"{error}; it is all in {self.local}: copy it from there") from error

    def _upload(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            _upload(self.local / name if name else self.local, self._at(name))

    def _at(self, name: str) -> epath.Path:
        return self.remote / name if name else self.remote


def upload_directory(local: Path, remote: epath.Path) -> None:
    """Replace the files of a directory in a store with those of a local directory.

    Raises:
      InputError: the store cannot be written.
    """
    with _told(remote, "written"):
        before = set(_remote_files(remote)) if remote.is_dir() else set()
        for names in _batches(_local_files(local)):
            _each(lambda name: _upload(local / name, remote / name), names)
        for name in before - set(_local_files(local)):
            (remote / name).unlink(missing_ok=True)


def _remote_files(directory: epath.Path, prefix: str = "") -> dict[str, epath.Path]:
    """Return the files below a directory in a store, keyed by their path within it."""
    files: dict[str, epath.Path] = {}
    for entry in directory.iterdir():
        if entry.name in ("", directory.name) and entry == directory:
            continue  # the empty object that stands for a directory
        name = f"{prefix}{entry.name}"
        files |= _remote_files(entry, f"{name}/") if entry.is_dir() else {name: entry}
    return files


def _local_files(directory: Path) -> list[str]:
    """Return the paths of finished files within a directory."""
    found = []
    for folder, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if not _UNFINISHED.search(name)]
        inside = Path(folder).relative_to(directory)
        found += [(inside / name).as_posix() for name in files if not _UNFINISHED.search(name)]
    return found


def _signatures(path: Path) -> dict[str, Signature]:
    """Return the size and date of a directory's files by name; a single file has the name ""."""
    names = [""] if path.is_file() else _local_files(path)
    signatures = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            stat = (path / name if name else path).stat()
            signatures[name] = stat.st_size, stat.st_mtime_ns
    return signatures


def _batches(names: Iterable[str]) -> list[list[str]]:
    """Split names into batches that can be copied in parallel, one for each name in `LAST` last."""
    by_place: dict[int, list[str]] = {}
    for name in sorted(names):
        file = Path(name).name
        by_place.setdefault(LAST.index(file) if file in LAST else -1, []).append(name)
    return [by_place[place] for place in sorted(by_place)]


def _fetch(remote: epath.Path, local: Path) -> None:
    """Download a file, unless a copy with the same size and date exists."""
    stat = remote.stat()
    if stat.mtime and local.is_file():
        mine = local.stat()
        if (mine.st_size, int(mine.st_mtime)) == (stat.length, stat.mtime):
            return
    _download(remote, local)
    date = stat.mtime if stat.mtime < time.time() - SETTLED else 0
    os.utime(local, (date, date))


def _download(remote: epath.Path, local: Path) -> None:
    local.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(local) as temporary,
        remote.open("rb") as source,
        temporary.open("wb") as target,
    ):
        shutil.copyfileobj(source, target, 1 << 20)


def _upload(local: Path, remote: epath.Path) -> None:
    remote.parent.mkdir(parents=True, exist_ok=True)
    with local.open("rb") as source, remote.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _each(action: Callable[[str], None], names: Sequence[str]) -> None:
    """Apply `action` to several names at a time, and raise the first error."""
    with concurrent.futures.ThreadPoolExecutor(COPIES) as pool:
        for _ in pool.map(action, names):
            pass


@contextlib.contextmanager
def _told(remote: epath.Path, done: str) -> Iterator[None]:
    """Convert the store's errors, which have many types, to a one-line InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{remote} cannot be {done}: {reason(error)}") from error
