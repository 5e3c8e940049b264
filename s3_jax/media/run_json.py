"""The record of a run, `run.json`, with one schema for all commands.

    format, version   format name and version of this file
    kind              segmentation (one video), prediction (a benchmark), merging or training
    settings          everything that determines the results; a resumed run must have the same
    versions          package versions when the run started
    finished          True once everything is done
    ...               extra entries for each kind: frames, notes, videos, problem, ...

Files of earlier versions, which had a separate schema for each kind, are converted when read.
"""

import dataclasses
import functools
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from s3_jax.config import PropagationConfig
from s3_jax.media.json_files import read_json
from s3_jax.media.writers import write_json

NAME = "run.json"
FORMAT = "s3_jax run"
VERSION = 1
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "opencv-python-headless", "Pillow", "av")
Kind = Literal["segmentation", "prediction", "merging", "training"]
Record = dict[str, Any]
Settings = Mapping[str, Any]


def new_record(kind: Kind, settings: Settings) -> Record:
    """Return the record of a new run."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "settings": _as_json(settings),
        "versions": versions(),
        "finished": False,
    }


def read_record(path: Path) -> Record:
    """Read a record of this version or an earlier one.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is damaged or is not a run record.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError("not a dictionary")
    if content.get("format", FORMAT) != FORMAT or content.get("version", VERSION) > VERSION:
        raise ValueError("written by something else, or by a later version of s3_jax")
    record = content if "format" in content else _of_earlier_version(content)
    if not isinstance(record.get("settings"), dict):
        raise ValueError("its settings are missing")
    return record


def write_record(path: Path, record: Record) -> None:
    """Write a record atomically."""
    write_json(path, record)


def differences(recorded: Settings, mine: Settings) -> list[tuple[str, Any, Any]]:
    """Return (name, recorded value, current value) for each setting that differs, sorted by name.

    A setting that did not exist when the record was written is taken to have its default.
    """
    old, new = _DEFAULTS | dict(recorded), _as_json(mine)
    return [
        (name, recorded.get(name), new.get(name))
        for name in sorted(recorded.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


@functools.cache
def _found_versions() -> tuple[tuple[str, str], ...]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple((found | _commit()).items())


def versions() -> dict[str, str]:
    """Return the versions of packages that affect results and, in a checkout, the git commit."""
    return dict(_found_versions())


def _of_earlier_version(content: dict[str, Any]) -> Record:
    settings: Any
    if "identity" in content:  # the record of one video
        kind, settings = "segmentation", content.pop("identity")
    elif isinstance(content.get("settings"), dict):
        settings = content.pop("settings")
        kind = "merging" if "merged" in settings else "prediction"
    elif {"model", "stages"} <= content.keys():
        kind, settings, content = "training", content, {}
    else:
        raise ValueError("its settings are missing")
    about = {"format": FORMAT, "version": VERSION, "kind": kind, "finished": False}
    return about | content | {"settings": settings}


def _as_json(settings: Settings) -> dict[str, Any]:
    """Return the settings as they are after a JSON round trip: tuples become lists."""
    return json.loads(json.dumps(dict(settings)))


# Settings that were added later, with the values used before they existed.
_DEFAULTS = _as_json(dataclasses.asdict(PropagationConfig()) | {"first_number": 0})


def _commit() -> dict[str, str]:
    root = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"s3_jax": done.stdout.strip()} if done.returncode == 0 else {}
