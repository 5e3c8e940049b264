"""A small project with a follower that needs no network, because it moves the given masks."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from s3_jax.annotation.document import NAME, Document
from s3_jax.annotation.found import Found
from s3_jax.annotation.found_folder import FoundFolder
from s3_jax.annotation.project import Project, video_identity
from s3_jax.annotation.prompts import Prompts
from s3_jax.annotation.studio import Studio
from s3_jax.media.seeking import Frames
from s3_jax.media.video_files import open_video
from tests.media.videos import moving_pictures, write_video_file

SIZE = (48, 64)
COUNT = 20


class Shifted:
    """A follower whose results are the nearest given masks, shifted right by a pixel per frame."""

    def __init__(self, found: FoundFolder) -> None:
        self.given: dict[int, dict[int, np.ndarray]] = {}
        self.found = found

    def annotate(self, index, masks):
        self.given.setdefault(index, {}).update(masks)

    def withdraw(self, index, ids):
        for id_ in ids:
            del self.given[index][id_]

    def due(self):
        return [(index, index) for index in range(COUNT) if index not in self.found]

    def propagate(self, first, last, *, both_directions, stop) -> Iterator[Found]:
        for index in range(first, last + 1):
            if stop():
                return
            ids = np.zeros(SIZE, np.uint8)
            near = min(self.given, key=lambda frame: abs(frame - index))
            for id_, mask in self.given[near].items():
                ids[np.roll(mask, index - near, axis=1)] = id_
            self.found[index] = Found(index, ids, dict.fromkeys(self.given[near], 0.75), "forward")
            yield self.found[index]


class Halves:
    """A prompt head: the side of the frame on which the last click lies."""

    def encode(self, image):
        return image.shape[:2]

    def prompt(self, features, points, labels, box, previous):
        height, width = features
        mask = np.zeros((height, width), np.float32)
        if box is not None:
            left, top, right, bottom = (round(value) for value in box)
            mask[top:bottom, left:right] = 1
        if len(points):
            half = slice(0, width // 2) if points[-1][0] < width / 2 else slice(width // 2, None)
            mask[:, half] = labels[-1]
        return mask


def open_studio(folder: Path, load_head=Halves) -> Studio:
    """A project in a folder, of a clip beside it."""
    video = folder.parent / "clip.mp4"
    if not video.exists():
        write_video_file(video, moving_pictures(COUNT, *SIZE))
    source = open_video(video)
    frames = Frames(source)
    names = [f"{index:05d}" for index in range(COUNT)]
    project = Project(folder, video_identity(source, COUNT), names)
    return Studio(
        "clip.mp4",
        30.0,
        frames,
        names,
        project,
        Document(folder / NAME, SIZE),
        Prompts(load_head, frames.image),
        lambda: Shifted(project.found),
    )
