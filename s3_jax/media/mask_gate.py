"""Checks of masks: descriptions of their objects, and findings about suspicious masks.

Masks of every encoding arrive as object ids, with the colours that the ids represent. A finding is
an ambiguity that the pixels alone cannot resolve, together with the flag that resolves it.
"""

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int32, Integer, UInt8

from s3_jax.errors import InputError
from s3_jax.media.mask_encoding import Mask, MaskEncoding

JUDGED = 256  # pixels; smaller masks are too small to judge
MOST_OBJECTS = 100  # more must be confirmed by the user
DARK = 64  # a colour with no brighter channel counts as black
COVERED, BORDER = 0.95, 0.9
_SHOWN = 8
Ids = Int32[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """Settings for interpreting masks; None means "decide from the file".

    threshold: the mask has a single object, where the brightness (or the opacity, for a mask drawn
      in its alpha channel) is at least this value, 1 to 255.
    background: the value of the background. Pixels of value 0 become an object with this id.
    objects: number of objects. The most frequent values are kept; others are rounded to the nearest
      of these or to the background.

    Raises:
      InputError: a value is out of range, or `threshold` and `objects` are both set.
    """

    threshold: int | None = None
    background: int | None = None
    objects: int | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and self.objects is not None:
            raise InputError("--threshold and --objects exclude each other: give one of them")
        for name, least in (("threshold", 1), ("background", 0), ("objects", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"--{name} is {value}, but must be at least {least}")


UNTOLD = MaskConfig()


@dataclasses.dataclass(frozen=True)
class Finding:
    """An ambiguity in a mask, and how to resolve it."""

    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.fix}"


def settle(mask: Mask, config: MaskConfig) -> Mask:
    """Return the mask as interpreted with the caller's settings.

    Raises:
      InputError: the mask has no background pixel, or fewer objects than `config` asks for.
    """
    if config == UNTOLD:
        return mask
    background = config.background or 0
    if background and not (mask.ids == background).any():
        raise InputError(f"--background is {background}, but {mask.path} has no such pixel")
    ids = mask.ids
    if config.threshold is not None and not mask.from_alpha:
        ids = _thresholded(mask, config.threshold, background)
    if config.objects is not None:
        ids = _rounded(mask, config.objects, background)
    if not background:
        return dataclasses.replace(mask, ids=ids)
    swapped = np.where(ids == background, 0, np.where(ids == 0, background, ids))
    return dataclasses.replace(
        mask, ids=swapped.astype(np.int32), encoding=_swapped(mask.encoding, background)
    )


def findings(mask: Mask, config: MaskConfig = UNTOLD) -> Iterator[Finding]:
    """Yield every ambiguity of a settled mask that `config` does not resolve."""
    ids = mask.object_ids
    if not ids or mask.ids.size < JUDGED:
        return
    if config.threshold is None and config.objects is None:
        if mask.soft_alpha:
            yield Finding(
                f"{mask.soft_alpha:,} pixels are half transparent, as in soft edges",
                "pass --threshold=128 for one object where it is at least half opaque, "
                "--objects=N for N of them",
            )
        if (shades := _shades(mask)) is not None:
            yield shades
        elif len(ids) > MOST_OBJECTS:
            yield Finding(
                f"{len(ids)} values would each be an object, which is rarely intended",
                f"pass --objects={len(ids)} if it is, --threshold=128 for one object",
            )
    if config.background is None:
        yield from _backgrounds(mask)


def describe(mask: Mask) -> str:
    """Describe the objects of a mask: "2 objects: 1 (4 % of the frame), 4 (7 %)"."""
    ids, counts = np.unique(mask.ids[mask.ids != 0], return_counts=True)
    parts = [
        f"{id_name(int(i), mask.encoding)} ({percent(n / mask.ids.size)}"
        f"{' of the frame' if place == 0 else ''})"
        for place, (i, n) in enumerate(zip(ids[:_SHOWN], counts, strict=False))
    ]
    more = [f"and {len(ids) - _SHOWN} more"] if len(ids) > _SHOWN else []
    noun = "object" if len(ids) == 1 else "objects"
    where = ", drawn in the alpha channel" if mask.from_alpha else ""
    return f"{len(ids)} {noun}{': ' if len(ids) else ''}{', '.join(parts + more)}{where}"


def id_name(object_id: int, encoding: MaskEncoding) -> str:
    """Return an id as text, with the colour that it represents in an RGB mask."""
    if encoding.kind != "rgb":
        return str(object_id)
    red, green, blue = (object_id >> shift & 255 for shift in (0, 8, 16))
    return f"{object_id} = #{red:02x}{green:02x}{blue:02x}"


def percent(share: float) -> str:
    """Format a fraction as a percentage, with one significant digit if it is small."""
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1g} %"


def features(values: Integer[np.ndarray, " n"], encoding: MaskEncoding) -> Float[np.ndarray, "n c"]:
    """Return a vector for each value: its colour, or the value itself if there are no colours.

    The distance between two vectors measures how similar the values look.
    """
    if encoding.kind == "rgb":
        return np.stack([values >> shift & 255 for shift in (0, 8, 16)], axis=1).astype(float)
    if encoding.kind == "palette" and len(encoding.palette) > 3 * int(values.max(initial=0)):
        return _palette_table(encoding)[values].astype(float)
    return values[:, None].astype(float)


def _palette_table(encoding: MaskEncoding) -> UInt8[np.ndarray, "n 3"]:
    return np.frombuffer(encoding.palette, np.uint8)[: len(encoding.palette) // 3 * 3].reshape(
        -1, 3
    )


def _thresholded(mask: Mask, threshold: int, background: int) -> Ids:
    values, inverse, counts = _counted(mask.ids)
    bright = features(values, mask.encoding).max(axis=1) >= threshold
    if background not in values:
        is_object = bright
    else:
        is_object = bright != bright[np.searchsorted(values, background)]
    if not is_object.any():
        raise InputError(f"--threshold is {threshold}, but {mask.path} has no object at that value")
    main = values[np.where(is_object, counts, -1).argmax()]
    return np.where(is_object, main, background)[inverse].astype(np.int32)


def _rounded(mask: Mask, objects: int, background: int) -> Ids:
    values, inverse, counts = _counted(mask.ids)
    others = np.flatnonzero(values != background)
    if len(others) < objects:
        raise InputError(f"--objects is {objects}, but {mask.path} has {len(others)}")
    kept = others[np.argsort(-counts[others], kind="stable")[:objects]]
    chosen = np.concatenate([[background], values[kept]])
    places, targets = features(values, mask.encoding), features(chosen, mask.encoding)
    distance = np.linalg.norm(places[:, None] - targets[None], axis=2)
    return chosen[distance.argmin(axis=1)][inverse].astype(np.int32)


def _counted(ids: Ids) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    return values, inverse.reshape(ids.shape), counts


def _swapped(encoding: MaskEncoding, background: int) -> MaskEncoding:
    """Return the encoding with palette entry 0 and the background entry swapped."""
    if encoding.kind != "palette" or len(encoding.palette) < 3 * background + 3:
        return encoding
    table = _palette_table(encoding).copy()
    table[[0, background]] = table[[background, 0]]
    return dataclasses.replace(encoding, palette=table.tobytes())


def _shades(mask: Mask) -> Finding | None:
    """Return a finding if most values occur only in seams between others.

    Soft edges, dithering and lossy compression produce such values.
    """
    seams, solid = _seams(mask.ids)
    if not _mostly_seams(mask, seams, solid):
        return None
    count, shown = len(seams) + len(solid), max(1, len(solid))
    what = {"palette": "palette entries", "rgb": "colours"}.get(mask.encoding.kind, "grey values")
    why = (
        "dithering and soft edges do this"
        if mask.encoding.kind == "palette"
        else "soft edges and lossy compression do this"
    )
    return Finding(
        f"{count} {what} would each be an object, but {len(seams)} of them are only seams between "
        f"others ({why})",
        f"pass --threshold=128 for one object, --objects={shown} for the {shown} most frequent, "
        f"or --objects={count} to keep all",
    )


def _mostly_seams(mask: Mask, seams: list[int], solid: list[int]) -> bool:
    if len(seams) >= 2 and len(seams) >= len(solid):
        return True
    # Resizing leaves at least one value between background and object.
    return bool(
        len(seams) == 1
        and mask.encoding.kind not in ("palette", "bilevel")
        and np.count_nonzero(mask.ids == seams[0]) >= 8
        and len(solid) >= 1
        and seams[0] < max(solid)
    )


def _seams(ids: Ids) -> tuple[list[int], list[int]]:
    """Return the seam values and the other values, both without 0.

    A seam value fills no square of 3x3 pixels and mostly touches other objects.
    """
    plane = ids.astype(np.float32)
    square = np.ones((3, 3), np.uint8)
    high = cv2.dilate(plane, square)
    solid = _values(ids, cv2.erode(plane, square) == high)
    filled = np.where(ids == 0, np.float32(2**24), plane)
    touching = (high != plane) | (cv2.erode(filled, square) != plane)
    pixels = dict(zip(*_value_counts(ids), strict=True))
    touched = dict(zip(*_value_counts(ids[touching]), strict=True))
    seams = [i for i, n in pixels.items() if i not in solid and touched.get(i, 0) > n / 2]
    return seams, [i for i in pixels if i not in set(seams)]


def _values(ids: Ids, where: Bool[np.ndarray, "h w"]) -> set[int]:
    return {int(i) for i in np.unique(ids[where])}


def _value_counts(ids: Integer[np.ndarray, "..."]) -> tuple[list[int], list[int]]:
    values, counts = np.unique(ids[ids != 0], return_counts=True)
    return values.tolist(), counts.tolist()


def _backgrounds(mask: Mask) -> Iterator[Finding]:
    """Yield findings that suggest a different value as the background."""
    black = _black_entries(mask)
    if black:
        yield Finding(
            f"entry 0 of the palette, treated as background, is not black, while entry {black[0]}, "
            "treated as an object, is",
            f"pass --background={black[0]} if that is the background, --background=0 if not",
        )
        return
    border = np.concatenate([mask.ids[0], mask.ids[-1], mask.ids[1:-1, 0], mask.ids[1:-1, -1]])
    for object_id in mask.object_ids:
        share = float(np.mean(mask.ids == object_id))
        around = share >= 0.5 and np.mean(border == object_id) >= BORDER
        if share >= COVERED or around:
            yield Finding(
                f"object {id_name(object_id, mask.encoding)} covers {percent(share)} of the frame"
                f"{' and nearly all of its border' if around else ''}, as a background does",
                f"pass --background={object_id} if it is the background, --background=0 if it "
                "is an object",
            )


def _black_entries(mask: Mask) -> list[int]:
    """Return the objects that the palette shows in black while its background is bright."""
    present = np.array([0, *mask.object_ids])
    colours = features(present, mask.encoding)
    if mask.encoding.kind != "palette" or colours.shape[1] != 3 or colours[0].max() < DARK:
        return []
    return [int(i) for i, colour in zip(present[1:], colours[1:], strict=True) if not colour.any()]
