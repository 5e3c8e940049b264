"""Flags for reading masks whose pixels are ambiguous (`media.mask_gate`)."""

from absl import flags

THRESHOLD = flags.DEFINE_integer(
    "threshold",
    None,
    "Treat the masks as one object: all pixels at least this bright (1 to 255), or at least this "
    "opaque if the mask is in the alpha channel. Use 128 for masks with soft edges.",
)
BACKGROUND = flags.DEFINE_integer(
    "background",
    None,
    "Value of the background in the masks, if it is not 0. An object with value 0 then gets this "
    "value as its id. Pass 0 to confirm a mask that looks inverted.",
)
OBJECTS = flags.DEFINE_integer(
    "objects",
    None,
    "Number of objects in the masks. The most frequent values are kept and all others are rounded "
    "to them. Use it for dithered masks, or soft edges of several colours.",
)


def said() -> dict[str, int | None]:
    """Return the values of the flags, by the fields of `MaskConfig`."""
    return {flag.name: flag.value for flag in (THRESHOLD, BACKGROUND, OBJECTS)}
