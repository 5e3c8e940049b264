"""Small data sets on disk: discs of one colour each, moving over a plain background."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from s3_jax.media.palette import voc_palette

BACKGROUND = (40, 90, 160)
COLOURS = ((0, 0, 0), (230, 40, 40), (40, 230, 40), (240, 240, 60))  # by object id


def draw(
    size: tuple[int, int], discs: Sequence[tuple[int, float, float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Image and ids; a disc is its id, x, y and radius."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    ids = np.zeros(size, np.uint8)
    image = np.broadcast_to(np.array(BACKGROUND, np.uint8), (height, width, 3)).copy()
    for object_id, cx, cy, radius in discs:
        inside = (x - cx) ** 2 + (y - cy) ** 2 <= radius**2
        ids[inside] = object_id
        image[inside] = COLOURS[object_id]
    return image, ids


def save_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95)


def save_palette(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(ids)
    picture.putpalette(voc_palette().tobytes())
    picture.save(path)


def make_videos(
    root: Path,
    names: Sequence[str] = ("a", "b", "c"),
    num_frames: int = 12,
    size: tuple[int, int] = (60, 80),
    objects: int = 2,
    annotate_every: int = 1,
    empty: Sequence[int] = (),
    resolution: str = "480p",
) -> Path:
    """A folder in DAVIS layout; frames numbered in `empty` show no object."""
    for number, name in enumerate(names):
        for t in range(num_frames):
            discs = [
                (k + 1, 15 + 25 * k + t, 20 + 10 * k + 2 * (number % 8), 11) for k in range(objects)
            ]
            image, ids = draw(size, () if t in empty else discs)
            save_image(root / "JPEGImages" / resolution / name / f"{t:05d}.jpg", image)
            if t % annotate_every == 0:
                save_palette(root / "Annotations" / resolution / name / f"{t:05d}.png", ids)
    return root


def make_photographs(root: Path, count: int = 4, size: tuple[int, int] = (60, 80)) -> Path:
    """Images with black and white masks beside them."""
    for number in range(count):
        image, ids = draw(size, [(1, 30 + 5 * number, 30, 16)])
        save_image(root / f"{number}.jpg", image)
        Image.fromarray(ids * np.uint8(255)).save(root / f"{number}.png")
    return root


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())
