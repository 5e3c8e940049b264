"""Small data sets in the layout of every benchmark, made of drawn frames and masks."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from s3_jax.media.mask_files import MaskEncoding
from s3_jax.media.rle import encode_rle
from s3_jax.media.writers import write_mask
from tests.benchmarks.sequences import GREY, PALETTE, squares

SIZE = (40, 64)


def write_frames(folder: Path, names: Iterable[str], size: tuple[int, int] = SIZE) -> Path:
    """JPEG frames with noise in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        pixels = np.random.default_rng(index).integers(0, 255, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
    return folder


def write_masks(
    folder: Path, masks: Mapping[str, np.ndarray], encoding: MaskEncoding = PALETTE
) -> Path:
    """Masks by frame name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        write_mask(folder / f"{name}.png", mask, encoding)
    return folder


def numbered(count: int, step: int = 1, digits: int = 5) -> list[str]:
    """Frame names 00000, 00001, ... or with gaps."""
    return [f"{index * step:0{digits}d}" for index in range(count)]


def mask(*ids: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A mask with a square for each id."""
    return squares(1, ids, size=size)[0]


def make_davis(
    root: Path,
    videos: Mapping[str, int],
    year: str = "2017",
    split: str = "val",
    listed: Sequence[str] | None = None,
) -> Path:
    """JPEGImages/480p, Annotations/480p with masks of all frames, ImageSets/<year>/<split>.txt."""
    for name, count in videos.items():
        names = numbered(count)
        write_frames(root / "JPEGImages/480p" / name, names)
        ids = (255,) if year == "2016" else (1, 2)
        masks = dict(zip(names, squares(count, ids, size=SIZE), strict=True))
        encoding = GREY if year == "2016" else PALETTE
        write_masks(root / "Annotations/480p" / name, masks, encoding)
    sets = root / "ImageSets" / year / f"{split}.txt"
    sets.parent.mkdir(parents=True)
    sets.write_text("\n".join(videos if listed is None else listed) + "\n")
    return root


def make_youtube(root: Path, videos: Sequence[str] = ("a1", "b2"), every: int = 5) -> Path:
    """Eleven frames, every fifth annotated; object 2 appears at frame 5."""
    meta: dict[str, Any] = {"videos": {}}
    for name in videos:
        sparse = numbered(3, every)
        write_frames(root / "valid/JPEGImages" / name, sparse)
        write_frames(root / "all_frames/valid_all_frames/JPEGImages" / name, numbered(11))
        later = np.where(mask(9, 2) == 2, 2, 0)
        write_masks(root / "valid/Annotations" / name, {sparse[0]: mask(1), sparse[1]: later})
        objects = {
            "1": {"category": "dog", "frames": sparse},
            "2": {"category": "toaster", "frames": sparse[1:]},
        }
        meta["videos"][name] = {"objects": objects}
    (root / "valid/meta.json").write_text(json.dumps(meta))
    return root


def make_burst(root: Path, split: str = "val", large_id: int = 7) -> Path:
    """Seven frames, of which 1, 3 and 5 are annotated; the first mask of each track is given."""
    sequences = []
    for source, name in (("LaSOT", "cat_1"), ("BDD", "b1c9")):
        names = [f"frame{index:04d}" for index in range(7)]
        write_frames(root / "frames" / split / source / name, names)
        tracks = [
            {"3": {"rle": encode_rle(mask(1) > 0), "bbox": [0, 0, 1, 1], "is_gt": True}},
            {str(large_id): {"rle": encode_rle(mask(9, 2) == 2)}},
            {},
        ]
        sequences.append(
            {
                "id": len(sequences), "dataset": source, "seq_name": name, "fps": 30,
                "height": SIZE[0], "width": SIZE[1],
                "annotated_image_paths": [f"{names[i]}.jpg" for i in (1, 3, 5)],
                "all_image_paths": [f"{n}.jpg" for n in names],
                "track_category_ids": {"3": 805, str(large_id): 34},
                "neg_category_ids": [], "not_exhaustive_category_ids": [],
                "segmentations": tracks,
            }
        )  # fmt: skip
    path = root / split / "first_frame_annotations.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"sequences": sequences, "categories": [{"id": 805, "name": "cat"}], "split": split}
    path.write_text(json.dumps(values))
    return root
