"""A project's directory: which video it belongs to, and that one program at a time works on it.

project.json       the video, and the settings
journal.jsonl      every change, as it was made
masks/             what was found, as `s3 segment` writes it
confidence.jsonl   how sure the network was
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s3_jax.errors import InputError, reason
from s3_jax.media.video_files import VideoSource
from s3_jax.media.writers import write_json
from s3_jax.segmentation.run_folder import fingerprint

NAME = "project.json"
JOURNAL = "journal.jsonl"


@contextlib.contextmanager
def opened_folder(path: Path, source: VideoSource, frame_count: int) -> Iterator[Path]:
    """The directory of a project, new or to be continued, locked within the block.

    Raises:
      InputError: it belongs to another video, holds something else, cannot be written, or is open
        in another program.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with (path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{path} is open in another s3 annotate: use its page, or end it first"
                ) from None
            _check(path, _about(source, frame_count))
            yield path
    except OSError as error:
        raise InputError(
            f"cannot write to the project {path}: {reason(error)}; give another --output"
        ) from error


def _about(source: VideoSource, frame_count: int) -> dict[str, Any]:
    names = source.frame_names or [source.path.name]
    return {
        "video": str(source.path.resolve()),
        "fingerprint": fingerprint(names, source.files[:1]),
        "height": source.size[0],
        "width": source.size[1],
        "frames": frame_count,
    }


def _check(path: Path, mine: dict[str, Any]) -> None:
    """Write what the project is of, or refuse one that is of something else."""
    file = path / NAME
    if not file.exists():
        others = sorted(entry.name for entry in path.iterdir() if entry.name != ".lock")
        if others:
            raise InputError(
                f"{path} holds {others[0]} but no {NAME}: give --output a new directory"
            )
        write_json(file, mine)
        return
    try:
        theirs = json.loads(file.read_text())
        same = all(theirs[key] == value for key, value in mine.items() if key != "video")
        video = theirs["video"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged: give another --output") from error
    if not same:
        raise InputError(
            f"{path} is a project of {video}, which is not this video: give another --output"
        )
