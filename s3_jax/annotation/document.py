"""The user's edits of a video: objects, masks of frames, and the clicks behind them.

All content consists of *cells*: values under keys, such as an object's name and colour, or its mask
in one frame as run lengths. A change is a set of cells with new values, and undoing it restores the
previous values. The number of changes is unlimited. They survive a restart, because each one is a
line in the journal.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer

from s3_jax.annotation.journal import Entry, Journal
from s3_jax.media.palette import colour_of
from s3_jax.media.rle import decode_rle, encode_rle

NAME = "history.jsonl"  # the journal in a project's folder
Key = tuple[str, int] | tuple[str, int, int]  # ("object", id), ("mask" or "prompt", frame, id)
Cells = dict[Key, Any]
Author = tuple[str, int]  # a page, and the number that the page gave the change
Ids = Integer[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True)
class Change:
    """A change that can be undone: its cells before and after (None for a missing cell).

    frame: the frame that it affects; None for changes of the objects themselves.
    """

    label: str
    frame: int | None
    before: Cells
    after: Cells


class Document:
    """Objects, masks and prompts of one video, with their complete history.

    path: the file of the journal, which is read if it exists.
    size: height and width of the frames.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self.size = size
        self.journal = Journal(path)
        self._cells: Cells = {}
        self._done: list[Change] = []
        self._undone: list[Change] = []
        self._authors: dict[str, int] = {}
        for entry in self.journal.read():
            self._take(entry)

    @property
    def is_new(self) -> bool:
        """True if there has never been a change."""
        return not self._cells and not self._done and not self._undone

    @property
    def objects(self) -> dict[int, dict[str, str]]:
        """Name and colour by object id."""
        return {key[1]: value for key, value in self._of("object")}

    @property
    def annotated(self) -> list[int]:
        """Frames with masks made by the user, in ascending order."""
        return sorted({key[1] for key, _ in self._of("mask")})

    @property
    def undoable(self) -> str:
        """Description of the change that `undo` would revert, or ""."""
        return self._done[-1].label if self._done else ""

    @property
    def redoable(self) -> str:
        """Description of the change that `redo` would repeat, or ""."""
        return self._undone[-1].label if self._undone else ""

    def runs(self, frame: int) -> dict[int, str]:
        """Return the run lengths of a frame's masks by object id, for known objects only."""
        known = self.objects
        return {
            int(key[2]): value  # type: ignore[misc]
            for key, value in self._of("mask")
            if key[1] == frame and key[2] in known  # type: ignore[misc]
        }

    def masks(self, frame: int) -> dict[int, Bool[np.ndarray, "h w"]]:
        """Return the user's masks of a frame by object id."""
        return {id_: decode_rle(text, self.size) for id_, text in self.runs(frame).items()}

    def prompt(self, frame: int, object_id: int) -> dict[str, Any]:
        """Return the clicks and the box that the user gave for an object in a frame."""
        return self._cells.get(("prompt", frame, object_id)) or {"points": [], "labels": []}

    def compose(self, frame: int, found: Ids | None) -> Ids:
        """Return the ids that a frame shows: the result of propagation under the user's masks.

        Args:
          found: ids from propagation, or None if there is no result.
        """
        ids = np.zeros(self.size, np.int32)
        if found is not None:
            known = np.array([0, *self.objects])
            ids = np.where(np.isin(found, known), found, 0).astype(np.int32)
        masks = self.masks(frame)
        ids[np.isin(ids, list(masks))] = 0
        for id_, mask in masks.items():
            ids[mask] = id_
        return ids

    def painted(self, frame: int, before: Ids, after: Ids) -> Cells:
        """Return the cells that turn a frame showing `before` into one showing `after`."""
        changed = before != after
        touched = {*np.unique(before[changed]).tolist(), *np.unique(after[changed]).tolist()} - {0}
        return {("mask", frame, id_): encode_rle(after == id_) for id_ in sorted(touched)}

    def confirmed(self, frame: int, ids: Ids, object_id: int) -> Cells:
        """Return the cell that confirms an object's mask in a frame as shown."""
        return {("mask", frame, object_id): encode_rle(ids == object_id)}

    def new_object(self) -> tuple[int, dict[str, str]]:
        """Return an id that has never been used in this project, with a name and a colour."""
        changes = (change.after for change in (*self._done, *self._undone))
        used = {key[1] for cells in (self._cells, *changes) for key in cells if key[0] == "object"}
        id_ = max(used | {0}) + 1
        return id_, {"name": f"Object {id_}", "colour": "#{:02x}{:02x}{:02x}".format(*_bright(id_))}

    def start(self, cells: Cells) -> None:
        """Set initial cells, which cannot be undone."""
        if cells:
            self._record({"start": _listed(cells)}, ("", 0))

    def is_known(self, author: Author) -> bool:
        """Return True if a page's change has been received before."""
        return self._authors.get(author[0], 0) >= author[1]

    def change(self, label: str, frame: int | None, cells: Mapping[Key, Any], by: Author) -> bool:
        """Set cells; return True if the change is on disk."""
        entry = {"do": label, "frame": frame, "cells": _listed(cells)}
        return self._record(entry, by)

    def undo(self, by: Author) -> Change | None:
        """Revert the last change and return it, or None if there is none."""
        change = self._done[-1] if self._done else None
        if change:
            self._record({"undo": change.label}, by)
        return change

    def redo(self, by: Author) -> Change | None:
        """Repeat the change that was undone last and return it, or None if there is none."""
        change = self._undone[-1] if self._undone else None
        if change:
            self._record({"redo": change.label}, by)
        return change

    def _of(self, kind: str) -> Iterator[tuple[Key, Any]]:
        return ((key, value) for key, value in self._cells.items() if key[0] == kind)

    def _record(self, entry: Entry, by: Author) -> bool:
        entry = {**entry, "by": list(by)}
        self._take(entry)
        return self.journal.append(entry)

    def _take(self, entry: Entry) -> None:
        """Apply a line of the journal."""
        page, number = entry["by"]
        self._authors[page] = max(number, self._authors.get(page, 0))
        if "start" in entry:
            self._set(_cells(entry["start"]))
        elif "undo" in entry:
            change = self._done.pop()
            self._undone.append(change)
            self._set(change.before)
        elif "redo" in entry:
            change = self._undone.pop()
            self._done.append(change)
            self._set(change.after)
        else:
            self._do(entry)

    def _do(self, entry: Entry) -> None:
        after = _cells(entry["cells"])
        before = {key: self._cells.get(key) for key in after}
        self._done.append(Change(entry["do"], entry["frame"], before, after))
        self._undone.clear()
        self._set(after)

    def _set(self, cells: Cells) -> None:
        for key, value in cells.items():
            if value is None:
                self._cells.pop(key, None)
            else:
                self._cells[key] = value


def _listed(cells: Mapping[Key, Any]) -> list[Any]:
    return [[list(key), value] for key, value in cells.items()]


def _cells(listed: list[Any]) -> Cells:
    return {tuple(key): value for key, value in listed}


def _bright(id_: int) -> tuple[int, int, int]:
    """Return a colour that stands out on a dark page."""
    return _COLOURS[id_ - 1] if id_ <= len(_COLOURS) else colour_of(id_)


_COLOURS = (
    (255, 107, 94), (77, 171, 247), (105, 219, 124), (255, 212, 59), (218, 119, 242),
    (59, 201, 219), (255, 169, 77), (247, 131, 172), (169, 227, 75), (145, 167, 255),
)  # fmt: skip
