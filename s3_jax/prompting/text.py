"""Prompts as text, and the masks of several objects that they define.

points  210,140:1            a point on object 1
        210,140,230,180:2    two points on object 2
box     100,80,300,220:1     left, top, right and bottom of object 1
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int32, UInt8

from s3_jax.errors import InputError
from s3_jax.prompting.prompter import Prompter

LARGEST_ID = 255
Numbers = tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class ObjectPrompt:
    """The prompt for one object: points on it, points outside it, and a box."""

    on: tuple[Numbers, ...] = ()
    beside: tuple[Numbers, ...] = ()
    box: Numbers | None = None


def parse_prompts(
    points: Sequence[str], negative_points: Sequence[str], boxes: Sequence[str]
) -> dict[int, ObjectPrompt]:
    """Parse prompts, and return them by object id.

    Args:
      points, negative_points: strings `x,y[,x,y...]:id` for points on and outside an object.
      boxes: strings `left,top,right,bottom:id`.

    Raises:
      InputError: a string is malformed, or an object has two boxes or only negative points.
    """
    found: dict[int, ObjectPrompt] = {}
    for flag, texts in (("points", points), ("negative_points", negative_points), ("box", boxes)):
        for text in texts:
            object_id, numbers = _parse(flag, text)
            before = found.get(object_id, ObjectPrompt())
            found[object_id] = _with(before, flag, text, numbers)
    for object_id, prompt in found.items():
        if not prompt.on and prompt.box is None:
            raise InputError(
                f"object {object_id} has --negative_points only: give --points on it, or a --box"
            )
    return dict(sorted(found.items()))


def _with(before: ObjectPrompt, flag: str, text: str, numbers: Numbers) -> ObjectPrompt:
    pairs = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    if flag == "points":
        return dataclasses.replace(before, on=before.on + pairs)
    if flag == "negative_points":
        return dataclasses.replace(before, beside=before.beside + pairs)
    if before.box is not None:
        raise InputError(f"--box={text}: this object has a box already; give one box per object")
    return dataclasses.replace(before, box=numbers)


def _parse(flag: str, text: str) -> tuple[int, Numbers]:
    """Parse the object's id and the numbers before it."""
    before, colon, after = text.partition(":")
    try:
        numbers = tuple(float(part) for part in before.split(","))
        object_id = int(after) if colon else 1
    except ValueError:
        raise InputError(_how(flag, text)) from None
    fits = len(numbers) == 4 if flag == "box" else len(numbers) % 2 == 0
    if not fits or not 1 <= object_id <= LARGEST_ID or not np.isfinite(numbers).all():
        raise InputError(_how(flag, text))
    return object_id, numbers


def _how(flag: str, text: str) -> str:
    form = "left,top,right,bottom:id" if flag == "box" else "x,y:id or x,y,x,y:id"
    return f"--{flag}={text}: write it as {form}, the id being from 1 to {LARGEST_ID}"


def prompted_ids(
    prompter: Prompter, image: UInt8[np.ndarray, "h w 3"], prompts: Mapping[int, ObjectPrompt]
) -> Int32[np.ndarray, "h w"]:
    """Return the object id of every pixel (0 for background); the likelier object wins an overlap.

    Raises:
      InputError: a prompt does not match the image, or no pixel belongs to an object.
    """
    features = prompter.encode(image)
    likeliest = np.full(image.shape[:2], 0.5, np.float32)
    ids = np.zeros(image.shape[:2], np.int32)
    for object_id, said in prompts.items():
        labels = [1] * len(said.on) + [0] * len(said.beside)
        try:
            found = prompter.prompt(features, said.on + said.beside, labels, said.box)
        except InputError as error:
            raise InputError(f"object {object_id}: {error}") from error
        ids[found > likeliest] = object_id
        likeliest = np.maximum(likeliest, found)
    for object_id in prompts:
        if not (ids == object_id).any():
            raise InputError(
                f"object {object_id} has no pixels, or other objects cover them all: give more "
                "--points on it, or a --box"
            )
    return ids
