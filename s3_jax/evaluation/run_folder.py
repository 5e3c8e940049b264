"""The output directory of a segmentation run: its files, its identity, and where to go on.

masks/<frame>.png  scores/<frame>.npz  overlay.mp4   results
run.json                                             settings and fingerprints of the inputs
resume_<n>.state                                     the session after n frames, until done
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from s3_jax.errors import InputError, reason
from s3_jax.evaluation.writers import replacing, write_json

RECORD = "run.json"
Identity = dict[str, Any]


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


_SAMPLE = 64 * 1024


class RunFolder:
    """An output directory that belongs to one run, new or to be continued.

    identity: everything that decides the results, as a flat dictionary of JSON values. An
      existing directory must have been made with an equal one.
    inputs: paths that the run reads, which must not lie among its results.
    overwrite: clear what an earlier run left; only files such a run makes.

    Raises:
      InputError: the directory cannot be written, belongs to another run or to none.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity,
        inputs: Sequence[Path] = (),
        overwrite: bool = False,
    ):
        self.path = path
        self.masks = path / "masks"
        self.scores = path / "scores"
        self.overlay = path / "overlay.mp4"
        self._record: dict[str, Any] = {"identity": identity, "finished": False, "frames": 0}
        self._refuse_inputs_inside(inputs)
        try:
            path.mkdir(parents=True, exist_ok=True)
            previous = self._previous()
            if previous and overwrite:
                self._clear()
            elif previous and self._has_results():
                self._adopt(previous)
            self.masks.mkdir(exist_ok=True)
            write_json(path / RECORD, self._record)
        except OSError as error:
            raise InputError(
                f"cannot write to the output directory {path}: {reason(error)}; give another "
                "--output"
            ) from error

    @property
    def finished_frames(self) -> int | None:
        """The number of frames of a finished run whose results are all there, else None."""
        frames: int = self._record["frames"]
        if not self._record["finished"] or len(list(self.masks.glob("*.png"))) < frames:
            return None
        return frames

    def finish(self, frames: int) -> None:
        """Note that all `frames` frames are done; the saved session is of no more use."""
        self._record |= {"finished": True, "frames": frames}
        write_json(self.path / RECORD, self._record)
        for state in self._states():
            state.unlink()

    def save_session(self, session: Saveable, frames_done: int) -> None:
        """Keep the session as it is after `frames_done` frames, in place of earlier ones."""
        state = self.path / f"resume_{frames_done:06d}.state"
        with replacing(state) as temporary:
            session.save(temporary)
        for other in self._states():
            if other != state:
                other.unlink()

    def load_session(self, session: Saveable) -> int:
        """Bring the session to where an interrupted run left it; returns the frames done."""
        states = self._states()
        if not states:
            return 0
        try:
            session.load(states[-1])
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot continue: {reason(error)}; delete {states[-1]} to start over"
            ) from error
        return _frames_done(states[-1])

    def _states(self) -> list[Path]:
        return sorted(self.path.glob("resume_*.state"), key=_frames_done)

    def _previous(self) -> dict[str, Any] | None:
        """The record of an earlier run, None in a directory that has no results in it."""
        try:
            record = json.loads((self.path / RECORD).read_text())
            return {"identity": dict(record["identity"])} | record
        except FileNotFoundError:
            strangers = [p for p in (self.masks, self.scores, self.overlay) if p.exists()]
            if strangers:
                raise InputError(
                    f"{strangers[0]} exists already and was not made by a run recorded in "
                    f"{RECORD}: choose another --output"
                ) from None
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.path / RECORD} is damaged: choose another --output or delete the directory"
            ) from error

    def _adopt(self, previous: dict[str, Any]) -> None:
        old, new = previous["identity"], json.loads(json.dumps(self._record["identity"]))
        for name in sorted(old | new):
            if old.get(name) != new.get(name):
                raise InputError(
                    f"{self.path} holds a run with another {name} ({old.get(name)}, now "
                    f"{new.get(name)}): choose another --output or pass --overwrite"
                )
        self._record |= {key: previous.get(key, 0) for key in ("finished", "frames")}

    def _has_results(self) -> bool:
        """Whether the earlier run came as far as a first frame."""
        return any(self.masks.glob("*.png")) or any(self.scores.glob("*.npz"))

    def _clear(self) -> None:
        for folder, pattern in ((self.masks, "*.png"), (self.scores, "*.npz")):
            for file in folder.glob(pattern):
                file.unlink()
        for file in (*self._states(), self.overlay, self.path / RECORD):
            file.unlink(missing_ok=True)

    def _refuse_inputs_inside(self, inputs: Sequence[Path]) -> None:
        for path in inputs:
            for own in (self.masks, self.scores, self.overlay):
                if path.resolve().is_relative_to(own.resolve()):
                    raise InputError(
                        f"{path} is read by this run, which would write over it: choose another "
                        "--output"
                    )


def _frames_done(state: Path) -> int:
    number = state.stem.removeprefix("resume_")
    return int(number) if number.isdigit() else -1
