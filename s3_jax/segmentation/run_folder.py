"""Output directory of a segmentation run: its files, its identity, and its saved sessions.

masks/<frame>.png  scores/<frame>.npz  overlay.mp4   results
run.json                                             settings and fingerprints of the inputs
resume_<n>.state                                     the session after n frames, until the end
backward_<n>.state                                   the same for the backward pass
forward_probabilities/<frame>.npz                    forward results to join with that pass

Masks and scores may be in other directories, which many videos can share.
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
Pass = Literal["resume", "backward"]  # the prefix of a saved session's files


@runtime_checkable
class Saveable(Protocol):
    """A session whose complete state can be written to a file and read back."""

    def save(self, path: Path) -> None:
        """Write the state to a file."""
        ...

    def load(self, path: Path) -> None:
        """Restore the state from a file."""
        ...


def fingerprint(names: Iterable[str], files: Iterable[Path] = ()) -> str:
    """Return a short digest of names, and of the sizes, beginnings and ends of files."""
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
    """Return the name of a directory, followed by a digest of its files' names and contents."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    return f"{path.resolve().name} {fingerprint((f.name for f in files), files)}"


_SAMPLE = 64 * 1024


class RunFolder:
    """The output directory of one run, which may be new or resumed.

    identity: everything that determines the results, as a flat dictionary of JSON values. The run
      in an existing directory must have the same identity.
    inputs: paths that the run reads. They must not be among its results.
    overwrite: delete the results of an earlier run, but no other files.
    masks, scores: directories for the results; by default `path / "masks"` and `path / "scores"`.

    Raises:
      InputError: the directory cannot be written, belongs to another run or to no run, or is in
        use by another process.
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
            # Write the record first: results without a record count as another program's.
            write_record(path / NAME, self._record)
            self.masks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write to the output directory {path}: {reason(error)}; give another "
                "--output"
            ) from error

    @property
    def finished_frames(self) -> int | None:
        """The number of frames of a finished run whose results all exist, else None."""
        if not self._record["finished"]:
            return None
        frames: int = self._record["frames"]
        results = sum(map(_is_whole, self.masks.glob("*.png")))
        return frames if results >= self._record.get("results", frames) else None

    @property
    def notes(self) -> dict[str, Any]:
        """The notes recorded when the run finished."""
        return dict(self._record.get("notes", {}))

    def finish(
        self, frames: int, results: int | None = None, notes: dict[str, Any] | None = None
    ) -> None:
        """Record that all `frames` frames are done, and delete the saved session.

        Args:
          results: number of frames with a result file, if not all frames have one.
          notes: JSON values to keep.
        """
        results = frames if results is None else results
        self._record |= {"finished": True, "frames": frames, "results": results}
        self._record |= {"notes": notes} if notes else {}
        write_record(self.path / NAME, self._record)
        self._drop_work()

    def save_session(self, session: Saveable, frames_done: int, which: Pass = "resume") -> None:
        """Save the session after `frames_done` frames, replacing earlier saved sessions."""
        state = self.path / f"{which}_{frames_done:06d}.state"
        with replacing(state) as temporary:
            session.save(temporary)
        for other in self._states(which):
            if other != state:
                other.unlink()

    def load_session(self, session: Saveable, which: Pass = "resume") -> int:
        """Restore the session of an interrupted run, and return the number of frames done.

        Raises:
          InputError: the saved session cannot be loaded.
        """
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
        """Delete files that only an unfinished run needs; states first, as they need the rest."""
        for state in (*self._states("backward"), *self._states("resume")):
            state.unlink()
        for file in self.forward.glob("*.npz"):
            file.unlink()
        with contextlib.suppress(OSError):  # it does not exist, or contains other files
            self.forward.rmdir()

    def _previous(self) -> dict[str, Any] | None:
        """Return the record of an earlier run, or None if the directory has no results."""
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
        """Return True if the earlier run finished at least one frame."""
        files = (self.masks.glob("*.png"), self.scores.glob("*.npz"), self._states("resume"))
        return any(True for found in files for _ in found)

    def _clear(self) -> None:
        # Delete states first: a run killed here must not be resumed without its results.
        self._drop_work()
        self.overlay.unlink(missing_ok=True)
        for folder, pattern in ((self.masks, "*.png"), (self.scores, "*.npz")):
            for file in folder.glob(pattern):
                file.unlink()

    def _clear_unfinished(self) -> None:
        """Delete files that a killed run was writing."""
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
    """Return True if a mask is complete: not empty and, for a PNG, with its end marker."""
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
