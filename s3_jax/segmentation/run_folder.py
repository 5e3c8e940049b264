"""The output directory of a segmentation run: its files, its identity, and where to go on.

masks/<frame>.png  scores/<frame>.npz  overlay.mp4   results
run.json                                             settings and fingerprints of the inputs
resume_<n>.state                                     the session after n frames, until done
backward_<n>.state                                   the same of the pass backwards, which joins
forward_probabilities/<frame>.npz                    what forwards found

Masks and scores may lie elsewhere, so that the results of many videos share one directory.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from s3_jax.errors import InputError, reason
from s3_jax.files import Lock, replacing
from s3_jax.media.run_json import NAME, differences, new_record, read_record, write_record

Identity = dict[str, Any]
Pass = Literal["resume", "backward"]  # as the files of a saved session are named


@runtime_checkable
class Saveable(Protocol):
    """A session whose whole state goes into one file and comes back from it."""

    def save(self, path: Path) -> None: ...

    def load(self, path: Path) -> None: ...


def fingerprint(names: Iterable[str], files: Iterable[Path] = ()) -> str:
    """A short digest of names, and of the size, beginning and end of some files."""
    digest = hashlib.sha256("\n".join(names).encode())
    for path in files:
        size = path.stat().st_size
        digest.update(f"\n{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE))
            file.seek(max(0, size - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:16]


def named_fingerprint(path: Path) -> str:
    """The name of a directory, and a digest of the names and contents of the files in it."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    return f"{path.resolve().name} {fingerprint((f.name for f in files), files)}"


_SAMPLE = 64 * 1024


class RunFolder:
    """An output directory that belongs to one run, new or to be continued.

    identity: everything that decides the results, as a flat dictionary of JSON values. An
      existing directory must have been made with an equal one.
    inputs: paths that the run reads, which must not lie among its results.
    overwrite: clear what an earlier run left; only files such a run makes.
    masks, scores: directories of the results; by default those of these names in `path`.

    Raises:
      InputError: the directory cannot be written, belongs to another run or to none, or another
        process works in it.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity,
        inputs: Sequence[Path] = (),
        overwrite: bool = False,
        masks: Path | None = None,
        scores: Path | None = None,
    ):
        self.path = path
        self.masks = masks or path / "masks"
        self.scores = scores or path / "scores"
        self.forward = path / "forward_probabilities"
        self.overlay = path / "overlay.mp4"
        self._record = new_record("segmentation", identity) | {"frames": 0}
        self._refuse_inputs_inside(inputs)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(path)
            previous = self._previous()
            if previous and self._has_results() and not overwrite:
                self._adopt(previous)
            elif previous:
                self._clear()
            self._clear_unfinished()
            # The record comes first: results without one are taken for somebody else's.
            write_record(path / NAME, self._record)
            self.masks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write to the output directory {path}: {reason(error)}; give another "
                "--output"
            ) from error

    @property
    def finished_frames(self) -> int | None:
        """The number of frames of a finished run whose results are all there, else None."""
        if not self._record["finished"]:
            return None
        frames: int = self._record["frames"]
        results = sum(map(_is_whole, self.masks.glob("*.png")))
        return frames if results >= self._record.get("results", frames) else None

    @property
    def notes(self) -> dict[str, Any]:
        """What was noted when the run finished."""
        return dict(self._record.get("notes", {}))

    def finish(
        self, frames: int, results: int | None = None, notes: dict[str, Any] | None = None
    ) -> None:
        """Note that all `frames` frames are done; the saved session is of no more use.

        results: how many of them have a result file, if not all. notes: JSON values to keep.
        """
        results = frames if results is None else results
        self._record |= {"finished": True, "frames": frames, "results": results}
        self._record |= {"notes": notes} if notes else {}
        write_record(self.path / NAME, self._record)
        self._drop_work()

    def save_session(self, session: Saveable, frames_done: int, which: Pass = "resume") -> None:
        """Keep the session as it is after `frames_done` frames, in place of earlier ones."""
        state = self.path / f"{which}_{frames_done:06d}.state"
        with replacing(state) as temporary:
            session.save(temporary)
        for other in self._states(which):
            if other != state:
                other.unlink()

    def load_session(self, session: Saveable, which: Pass = "resume") -> int:
        """Bring the session to where an interrupted run left it; returns the frames done."""
        states = self._states(which)
        if not states:
            return 0
        try:
            session.load(states[-1])
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot continue: {reason(error)}; delete {states[-1]} to start over"
            ) from error
        return _frames_done(states[-1])

    def _states(self, which: Pass) -> list[Path]:
        return sorted(self.path.glob(f"{which}_*.state"), key=_frames_done)

    def _drop_work(self) -> None:
        """Remove what only an unfinished run needs; states first, for they need the rest."""
        for state in (*self._states("backward"), *self._states("resume")):
            state.unlink()
        for file in self.forward.glob("*.npz"):
            file.unlink()
        with contextlib.suppress(OSError):  # not there, or with files of somebody else
            self.forward.rmdir()

    def _previous(self) -> dict[str, Any] | None:
        """The record of an earlier run, None in a directory that has no results in it."""
        try:
            return read_record(self.path / NAME)
        except FileNotFoundError:
            strangers = [p for p in (self.masks, self.scores, self.overlay) if p.exists()]
            if strangers:
                raise InputError(
                    f"{strangers[0]} exists already and was not made by a run recorded in "
                    f"{NAME}: choose another --output"
                ) from None
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.path / NAME} is damaged: choose another --output or delete the directory"
            ) from error

    def _adopt(self, previous: dict[str, Any]) -> None:
        for name, old, new in differences(previous["settings"], self._record["settings"]):
            raise InputError(
                f"{self.path} holds a run with another {name} ({old}, now {new}): choose another "
                "--output or pass --overwrite"
            )
        kept = ("versions", "finished", "frames", "results", "notes")
        self._record |= {key: previous[key] for key in kept if key in previous}
        if self._record["finished"]:
            self._drop_work()

    def _has_results(self) -> bool:
        """Whether the earlier run came as far as a first frame."""
        files = (self.masks.glob("*.png"), self.scores.glob("*.npz"), self._states("resume"))
        return any(True for found in files for _ in found)

    def _clear(self) -> None:
        # States first: a run that is killed here must not be continued with cleared results.
        self._drop_work()
        self.overlay.unlink(missing_ok=True)
        for folder, pattern in ((self.masks, "*.png"), (self.scores, "*.npz")):
            for file in folder.glob(pattern):
                file.unlink()

    def _clear_unfinished(self) -> None:
        """Removes what a killed run was writing."""
        for folder in (self.path, self.masks, self.scores, self.forward):
            for file in (*folder.glob(".*.tmp"), *folder.glob("*.partial")):
                file.unlink(missing_ok=True)

    def _refuse_inputs_inside(self, inputs: Sequence[Path]) -> None:
        for path in inputs:
            for own in (self.masks, self.scores, self.forward, self.overlay):
                if path.resolve().is_relative_to(own.resolve()):
                    raise InputError(
                        f"{path} is read by this run, which would write over it: choose another "
                        "--output"
                    )


def _is_whole(mask: Path) -> bool:
    """Tell whether a mask was written to its end: it is not empty, and no PNG without one."""
    size = mask.stat().st_size
    with mask.open("rb") as file:
        if file.read(1) != _PNG_BEGIN:
            return size > 0
        file.seek(max(0, size - len(_PNG_END)))
        return file.read() == _PNG_END


_PNG_BEGIN, _PNG_END = b"\x89", b"\0\0\0\0IEND\xaeB`\x82"


def _frames_done(state: Path) -> int:
    number = state.stem.rpartition("_")[2]
    return int(number) if number.isdigit() else -1
