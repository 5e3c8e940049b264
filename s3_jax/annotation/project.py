"""An annotation project in a folder, saved with every change and reopened in the same state.

    project.json        the video's identity; objects with names and colours; settings
    given/<index>.json  given masks of a frame as run lengths, and the prompts behind them
    masks/<frame>.png   results, in the layout that `s3 segment` reads and writes
    found.jsonl         confidence and origin of every result, one line per change

Files are replaced atomically, except `found.jsonl`, whose last line is ignored if it is truncated.
Saved data survive if the process is killed. Only one process can open a project at a time.

    project = Project(folder, video_identity(source, count), frame_names)
    annotator = Annotator(session, frame, count, given=project.given, found=project.found)
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from s3_jax.annotation.found_folder import FoundFolder
from s3_jax.annotation.given_folder import GivenFolder
from s3_jax.annotation.looks import ObjectLook, default_look, palette_of
from s3_jax.errors import InputError, reason
from s3_jax.media.json_files import read_json
from s3_jax.media.video_files import VideoSource
from s3_jax.media.writers import write_json
from s3_jax.segmentation.run_folder import fingerprint

NAME = "project.json"
FORMAT = "s3_jax annotation project"
VERSION = 1


def video_identity(source: VideoSource, frame_count: int) -> dict[str, Any]:
    """Return the values that distinguish a video from others, as a JSON object."""
    return {
        "name": source.path.resolve().name,
        "fingerprint": fingerprint(source.frame_names or (), source.files[:1]),
        "size": list(source.size),
        "frames": frame_count,
    }


class Project:
    """An open project.

    Args:
      path: the project's folder, created if necessary.
      video: the video's identity, from `video_identity`.
      frame_names: names of all frames, used for their result files.

    Raises:
      InputError: the folder belongs to another video or has other content, a file in it is damaged
        or cannot be written, or the project is open in another process.
    """

    def __init__(self, path: Path, video: dict[str, Any], frame_names: Sequence[str]) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None
        self._record: dict[str, Any] = {
            "format": FORMAT, "version": VERSION, "video": video, "objects": {}, "settings": {},
        }  # fmt: skip
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
            self._adopt(path / NAME)
            self.given = GivenFolder(path / "given", len(frame_names), video["size"])
            self.found = FoundFolder(path, frame_names, palette_of(self.objects))
            self._write()
        except (OSError, InputError) as error:
            self.close()
            if isinstance(error, InputError):
                raise
            raise InputError(f"cannot use the project folder {path}: {reason(error)}") from error

    @property
    def objects(self) -> dict[int, ObjectLook]:
        """The looks that were set, by object id."""
        return {
            int(id_): ObjectLook(look["name"], tuple(look["colour"]), look["visible"])
            for id_, look in self._record["objects"].items()
        }

    def look(self, object_id: int) -> ObjectLook:
        """Return the look of an object, derived from its id unless it was set."""
        return self.objects.get(object_id, default_look(object_id))

    def set_look(self, object_id: int, look: ObjectLook) -> None:
        """Set the look of an object and save it."""
        self._record["objects"][str(object_id)] = dataclasses.asdict(look)
        self.found.palette = palette_of(self.objects)
        self._write()

    def drop_look(self, object_id: int) -> None:
        """Remove the look of an object and save the change."""
        self._record["objects"].pop(str(object_id), None)
        self.found.palette = palette_of(self.objects)
        self._write()

    @property
    def settings(self) -> dict[str, Any]:
        """The JSON value saved by `set_settings`."""
        return dict(self._record["settings"])

    def set_settings(self, settings: dict[str, Any]) -> None:
        """Save settings, replacing the previous ones."""
        self._record["settings"] = dict(settings)
        self._write()

    def close(self) -> None:
        """Release the project, so that other processes can open it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> "Project":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _adopt(self, file: Path) -> None:
        """Continue from the record of an earlier session."""
        if not file.exists():
            _refuse_strangers(self.path)
            return
        try:
            record = read_json(file)
            if record["format"] != FORMAT or record["version"] > VERSION:
                raise ValueError("written by something else, or by a later version of s3_jax")
            mine = self._record["video"]
            self._record |= record
            _ = self.objects, dict(record["settings"]), dict(record["video"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file} cannot be read as a project ({reason(error)}): use another folder, or "
                "restore it"
            ) from error
        for key, value in mine.items():
            if record["video"].get(key) != value:
                raise InputError(
                    f"{self.path} is the project of another video (its {key} is "
                    f"{record['video'].get(key)}, not {value}): choose another folder"
                )

    def _write(self) -> None:
        write_json(self.path / NAME, self._record)


def _refuse_strangers(path: Path) -> None:
    """Raise an InputError if a folder has results that belong to no project."""
    for name in ("masks", "given", "found.jsonl"):
        if (path / name).exists():
            raise InputError(
                f"{path / name} exists already and belongs to no project: choose another folder"
            )


def _locked(path: Path) -> IO[bytes]:
    """Lock a project for this process, and return the file that holds the lock."""
    file = (path / ".lock").open("ab")
    with contextlib.suppress(ImportError):  # not on Windows
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise InputError(
                f"{path} is open in another process: close it there, or use another folder"
            ) from None
    return file
