"""A video being annotated: handles the page's requests and publishes changes.

The page's messages arrive on one thread at a time and results on the worker's thread, so a lock
protects the document. This module knows nothing about HTTP.
"""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Int32

from s3_jax.annotation import strokes
from s3_jax.annotation.beginning import cells_of_project, given_of
from s3_jax.annotation.document import Cells, Document
from s3_jax.annotation.export import FORMATS, Export, ExportFrame
from s3_jax.annotation.found import Found
from s3_jax.annotation.looks import ObjectLook
from s3_jax.annotation.messages import Message
from s3_jax.annotation.project import Project
from s3_jax.annotation.prompts import Prompts
from s3_jax.annotation.view import mask_message, view_size
from s3_jax.annotation.worker import Follower, Progress, Span, Worker
from s3_jax.errors import InputError, reason
from s3_jax.media.rle import decode_rle
from s3_jax.media.seeking import Frames

Outgoing = Mapping[str, Any] | bytes
Ids = Int32[np.ndarray, "h w"]


class Studio:
    """An open project and everything the page needs.

    name: name of the video.
    rate: playback rate in frames per second.
    frames: frames of the video.
    names: names of the frames' files.
    document: the user's edits, from which the project's results are computed.
    prompts: masks from clicks.
    load: creates the follower, which propagates masks.
    """

    def __init__(
        self,
        name: str,
        rate: float,
        frames: Frames,
        names: Sequence[str],
        project: Project,
        document: Document,
        prompts: Prompts,
        load: Callable[[], Follower],
    ) -> None:
        self.name, self.rate, self.frames = name, rate, frames
        self._names = names
        self.project, self.document, self.prompts = project, document, prompts
        self.publish: Callable[[Outgoing], None] = lambda message: None
        self._lock = threading.RLock()
        self.page = ""  # the page that currently sends changes
        self._version = 0
        self._given = given_of(project)
        if document.is_new:
            document.start(cells_of_project(project, self._given))
        self._exporting = False
        self._worker = Worker(load, self._update, self._found, self._report, self._failed)

    def close(self) -> None:
        """End the worker, write pending changes, and release the project."""
        self._worker.close()
        self.document.journal.flush()
        self.project.close()

    def handle(self, message: Message) -> None:
        """Execute a message from the page.

        Raises:
          InputError: it cannot be executed; nothing is changed in this case.
        """
        if message.seq and self.document.is_known((self.page, message.seq)):
            self._acknowledge(message.seq)
            return
        _HANDLERS[message.kind](self, message)

    def flush(self) -> None:
        """Retry writes that failed because the disk was full, and inform the page."""
        journal = self.document.journal
        if journal.problem:
            with self._lock:
                journal.flush()
            self.publish(self._saved())

    def shown(self, frame: int) -> Ids:
        """Return the ids that a frame shows, at full size."""
        with self._lock:
            found = self.project.found.get(frame)
            return self.document.compose(frame, None if found is None else found.ids)

    def state(self) -> dict[str, Any]:
        """Return the complete state for the page, except frames."""
        document = self.document
        id_, new = document.new_object()
        objects = [{"id": i, **about} for i, about in document.objects.items()]
        return {
            "type": "state",
            "objects": objects,
            "annotated": document.annotated,
            "undo": document.undoable,
            "redo": document.redoable,
            "next": {"id": id_, **new},
            "version": self._version,
        }

    def welcome(self) -> dict[str, Any]:
        """Return the information a page needs when it starts."""
        height, width = self.document.size
        view_height, view_width = view_size(self.document.size)
        return {
            "type": "welcome",
            "name": self.name,
            "frames": self.frames.count,
            "rate": self.rate,
            "width": width,
            "height": height,
            "viewWidth": view_width,
            "viewHeight": view_height,
            "folder": str(self.project.path.resolve()),
            "confidence": {i: self._percent(i) for i in self.project.found},
            "exports": [{"id": i, "name": name, "about": text} for i, name, text in _EXPORTS],
        }

    def _hello(self, message: Message) -> None:
        self.page = message.values["page"]
        self.publish(self.welcome())
        self.publish(self.state())
        self.publish(self._worker.progress.to_dict())
        self.publish(self._saved())
        threading.Thread(target=self._tell_of_prompts, daemon=True).start()

    def _as(self, message: Message) -> None:
        """Attribute subsequent messages to another page, or to this page before a reload."""
        self.page = message.values["page"]

    def _tell_of_prompts(self) -> None:
        self.publish({"type": "prompts", "problem": self.prompts.problem()})

    def _look(self, message: Message) -> None:
        self._show(self._frame(message.values["frame"]))

    def _edit(self, message: Message) -> None:
        values = message.values
        frame, id_ = self._frame(values["frame"]), values["object"]
        if id_ not in self.document.objects:
            raise InputError(f"object {id_} is not known: add it first")
        cells = self._cells(frame, id_, values)
        label = _LABELS[values["tool"]].format(self.document.objects[id_]["name"])
        self._change(f"{label}, frame {frame}", frame, cells, message.seq)
        self._show(frame)

    def _cells(self, frame: int, id_: int, values: Mapping[str, Any]) -> Cells:
        """Return the cells that a tool changes."""
        if values["tool"] == "clear":
            return {(kind, frame, id_): None for kind in ("mask", "prompt")}
        before = self.shown(frame)
        if values["tool"] in ("click", "box"):
            prompt = self._prompt(frame, id_, values)
            said = prompt["points"], prompt["labels"], prompt["box"]
            mask = self.prompts.mask(frame, *said, before == id_)
            if not prompt["box"]:
                inside = [p for p, n in zip(prompt["points"], prompt["labels"], strict=True) if n]
                mask = strokes.pieces_at(mask, inside)
            after = strokes.put(before, mask, id_)
            return {**self._painted(frame, id_, before, after), ("prompt", frame, id_): prompt}
        return self._painted(frame, id_, before, _drawn(before, id_, values))

    def _painted(self, frame: int, id_: int, before: Ids, after: Ids) -> Cells:
        cells = self.document.painted(frame, before, after)
        # A stroke that changes nothing still confirms the frame as it is.
        return cells or self.document.confirmed(frame, before, id_)

    def _prompt(self, frame: int, id_: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the clicks and the box given so far, including the new one."""
        earlier = self.document.prompt(frame, id_)
        if values["tool"] == "box":
            return {"points": [], "labels": [], "box": _box(values["points"], self.document.size)}
        if not values["points"]:
            raise InputError("a click needs a point")
        points = [*earlier["points"], *([x, y] for x, y in values["points"][:1])]
        labels = [*earlier["labels"], values["label"]]
        return {"points": points, "labels": labels, "box": earlier.get("box")}

    def _object(self, message: Message) -> None:
        values = message.values
        id_ = values["object"]
        about = {"name": values["name"], "colour": values["colour"]}
        label = "Change" if id_ in self.document.objects else "Add"
        self._change(f"{label} {about['name']}", None, {("object", id_): about}, message.seq)

    def _remove(self, message: Message) -> None:
        id_ = message.values["object"]
        if id_ not in self.document.objects:
            raise InputError(f"object {id_} is not known")
        label = f"Delete {self.document.objects[id_]['name']}"
        self._change(label, None, {("object", id_): None}, message.seq)

    def _undo(self, message: Message) -> None:
        self._step(self.document.undo, message)

    def _redo(self, message: Message) -> None:
        self._step(self.document.redo, message)

    def _step(self, step: Callable[[tuple[str, int]], Any], message: Message) -> None:
        with self._lock:
            change = step((self.page, message.seq))
            if change is None:
                raise InputError("there is nothing to undo or redo")
            self._after(change.frame)
        self._acknowledge(message.seq)
        if change.frame is not None:
            self.publish({"type": "go", "frame": change.frame})
            self._show(change.frame)

    def _propagate(self, message: Message) -> None:
        first, last = self._frame(message.values["first"]), self._frame(message.values["last"])
        if first > last:
            raise InputError(
                f"frames {first} to {last} are not a span: the first is after the last"
            )
        if not self.document.annotated:
            raise InputError("no object has a mask yet: paint one first")
        self._worker.follow(Span(first, last, message.values["direction"] != "forward"))

    def _follow_due(self, message: Message) -> None:
        if not self.document.annotated:
            raise InputError("no object has a mask yet: paint one first")
        self._worker.follow("due")

    def _stop(self, message: Message) -> None:
        self._worker.stop()

    def _ping(self, message: Message) -> None:
        self.publish({"type": "pong"})

    def _export(self, message: Message) -> None:
        layout = message.values["format"]
        if layout not in FORMATS:
            raise InputError(f"there is no layout {layout!r}; layouts: {', '.join(FORMATS)}")
        if self._exporting:
            raise InputError("an export is already running")
        self._exporting = True
        threading.Thread(target=self._write, args=(layout,), name="export", daemon=True).start()

    def _write(self, layout: str) -> None:
        """Export the frames as currently shown."""
        rate = Fraction(self.rate).limit_denominator(1001)
        name = Path(self.name).stem
        what = Export(name, self._frames_with_masks, self.project.objects, rate)
        try:
            folder = self.project.path / "exports"
            folder.mkdir(exist_ok=True)
            path = FORMATS[layout](what, folder).resolve()
            said: Outgoing = {"type": "exported", "path": str(path), "text": "Written"}
        except Exception as error:  # the page must be told of any error
            logging.exception("exporting failed")
            said = {"type": "problem", "text": f"cannot export: {reason(error)}"}
        self._exporting = False
        self.publish(said)

    def _frames_with_masks(self) -> Iterator[ExportFrame]:
        frames = sorted({*self.project.found, *self.document.annotated})
        if not frames:
            raise InputError("no frame has a mask yet")
        for done, frame in enumerate(frames, 1):
            if done % 25 == 0:
                self.publish({"type": "exporting", "done": done, "total": len(frames)})
            image = functools.partial(self.frames.image, frame)
            yield ExportFrame(frame, self._names[frame], self.shown(frame), image)

    def _change(self, label: str, frame: int | None, cells: Cells, seq: int) -> None:
        with self._lock:
            self.document.change(label, frame, cells, (self.page, seq))
            self._after(frame)
        self._acknowledge(seq)

    def _after(self, frame: int | None) -> None:
        """Publish the state; a change without a frame concerns objects and may affect any frame."""
        if frame is None:
            self._version += 1
            self._save_looks()
        self.publish(self.state())

    def _save_looks(self) -> None:
        """Copy names and colours to the project, for readers of its folder."""
        looks = {id_: _look(about) for id_, about in self.document.objects.items()}
        before = self.project.objects
        try:
            for id_ in sorted({*looks, *before}):
                if id_ not in looks:
                    self.project.drop_look(id_)
                elif looks[id_] != before.get(id_):
                    self.project.set_look(id_, looks[id_])
        except OSError as error:  # the journal keeps it, and reports that the disk is full
            logging.warning("%s: %s", self.project.path, reason(error))

    def _acknowledge(self, seq: int) -> None:
        saved = not self.document.journal.problem
        self.publish({"type": "ack", "page": self.page, "seq": seq, "saved": saved})
        if self.document.journal.problem:
            self.publish(self._saved())

    def _saved(self) -> dict[str, Any]:
        return {"type": "saved", "problem": self.document.journal.problem}

    def _show(self, frame: int) -> None:
        prompts = {i: self.document.prompt(frame, i) for i in self.document.objects}
        prompts = {
            i: prompt for i, prompt in prompts.items() if prompt["points"] or prompt.get("box")
        }
        about = {"frame": frame, "confidence": self._percent(frame), "prompts": prompts}
        self.publish(mask_message(self.shown(frame), about))

    def _percent(self, frame: int) -> dict[int, int]:
        return {i: round(100 * value) for i, value in self.project.found.confidence(frame).items()}

    def _frame(self, index: int) -> int:
        if index >= self.frames.count:
            raise InputError(f"there is no frame {index} in a video of {self.frames.count} frames")
        return index

    def _update(self, follower: Follower) -> list[int]:
        """Pass changes since the last call to the follower, and return the frames with masks."""
        with self._lock:
            now = {frame: self.document.runs(frame) for frame in self.document.annotated}
        for frame in sorted({*now, *self._given}):
            runs, before = now.get(frame, {}), self._given.get(frame, {})
            gone = [id_ for id_ in before if id_ not in runs]
            if gone:
                follower.withdraw(frame, gone)
            new = {i: text for i, text in runs.items() if before.get(i) != text}
            if new:
                size = self.document.size
                follower.annotate(frame, {i: decode_rle(text, size) for i, text in new.items()})
        self._given = now
        return [frame for frame, runs in now.items() if runs]

    def _found(self, found: Found) -> None:
        self._show(found.index)

    def _report(self, progress: Progress) -> None:
        self.publish(progress.to_dict())

    def _failed(self, problem: str) -> None:
        self.publish({"type": "problem", "text": problem})


def _look(about: Mapping[str, str]) -> ObjectLook:
    red, green, blue = bytes.fromhex(about["colour"].removeprefix("#"))
    return ObjectLook(about["name"], (red, green, blue))


def _drawn(ids: Ids, id_: int, values: Mapping[str, Any]) -> Ids:
    """Return the ids after a stroke."""
    points: Sequence[tuple[float, float]] = values["points"]
    tool = values["tool"]
    if tool == "fill":
        return strokes.fill_holes(ids, id_)
    if not points:
        raise InputError(f"the tool {tool} needs points")
    paint, only = (0, id_) if tool in ("erase", "cut") else (id_, None)
    if tool in ("brush", "erase"):
        return strokes.brush(ids, points, values["size"], paint, only)
    return strokes.polygon(ids, points, paint, only)


def _box(points: Sequence[tuple[float, float]], size: tuple[int, int]) -> list[float]:
    """Return left, top, right and bottom of a box from two corners, clipped to the frame."""
    if len(points) != 2:
        raise InputError("a box needs two points")
    corners = np.clip(np.asarray(points), 0, np.asarray(size[::-1]))
    return [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]


_EXPORTS = (
    ("masks", "PNG masks", "One image per frame, as in s3 segment and DAVIS"),
    ("coco", "COCO JSON", "Run lengths, boxes and tracks in one file"),
    ("youtube_vos", "YouTube-VOS", "Frames, masks and meta.json"),
    ("overlay", "Overlay video", "The masks over the video, MP4"),
    ("cutouts", "Cut-outs, PNG", "The objects on a transparent background"),
    ("cutout_mov", "Cut-outs, MOV", "The same as video, ProRes 4444"),
    ("cutout_webm", "Cut-outs, WebM", "The same as video, VP9"),
)
_LABELS = {
    "brush": "Paint {}",
    "erase": "Erase {}",
    "polygon": "Outline {}",
    "cut": "Cut out of {}",
    "box": "Box of {}",
    "click": "Click on {}",
    "fill": "Fill holes of {}",
    "clear": "Take back masks of {}",
}
_HANDLERS: dict[str, Callable[[Studio, Message], None]] = {
    "hello": Studio._hello,
    "as": Studio._as,
    "ping": Studio._ping,
    "look": Studio._look,
    "edit": Studio._edit,
    "object": Studio._object,
    "remove": Studio._remove,
    "undo": Studio._undo,
    "redo": Studio._redo,
    "propagate": Studio._propagate,
    "update": Studio._follow_due,
    "stop": Studio._stop,
    "export": Studio._export,
}
