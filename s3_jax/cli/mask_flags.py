"""Flags for reading masks whose pixels are ambiguous (`media.mask_gate`)."""

from absl import flags

THRESHOLD = flags.DEFINE_integer(
    "threshold",
    None,
    "The masks show one object, where they are at least this bright (1 to 255; of a mask drawn in "
    "its alpha channel: this opaque). For masks with soft edges: 128.",
)
BACKGROUND = flags.DEFINE_integer(
    "background",
    None,
    "Value in the masks that is background, where that is not 0. Objects of value 0 take "
    "its place. Given as 0, it confirms a mask that looks inverted.",
)
OBJECTS = flags.DEFINE_integer(
    "objects",
    None,
    "How many objects the masks show: the most frequent values; all others are rounded to them. "
    "For masks with dithering, or soft edges of several colours.",
)


def said() -> dict[str, int | None]:
    """Return the values of the flags, by the fields of `MaskConfig`."""
    return {flag.name: flag.value for flag in (THRESHOLD, BACKGROUND, OBJECTS)}
