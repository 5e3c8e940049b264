"""Looks of objects: names and colours."""

import dataclasses
from collections.abc import Mapping

from s3_jax.errors import InputError
from s3_jax.media.palette import colour_of, voc_palette

LONGEST_NAME = 200
Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ObjectLook:
    """Name, colour (R, G, B) and visibility of an object.

    Raises:
      InputError: the name is empty, too long or not printable, or the colour is out of range.
    """

    name: str
    colour: Colour
    visible: bool = True

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= LONGEST_NAME or not self.name.isprintable():
            raise InputError(f"{self.name[:50]!a} is not an object name: use 1 to 200 letters")
        if len(self.colour) != 3 or not all(0 <= channel <= 255 for channel in self.colour):
            raise InputError(f"{self.colour} is not a colour: give red, green and blue, 0 to 255")


def default_look(object_id: int) -> ObjectLook:
    """Return a name and a colour derived from an object's id."""
    return ObjectLook(f"object {object_id}", colour_of(object_id))


def palette_of(looks: Mapping[int, ObjectLook]) -> bytes:
    """Return R, G, B bytes for 256 ids: the given objects' colours, otherwise VOC colours."""
    palette = voc_palette()
    for object_id, look in looks.items():
        if object_id < len(palette):
            palette[object_id] = look.colour
    return palette.tobytes()
