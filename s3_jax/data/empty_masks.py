"""Lists of masks without objects, so that training does not decode them needlessly."""

from pathlib import Path

from s3_jax.errors import InputError, reason
from s3_jax.media.json_files import read_json

EmptyMasks = dict[str, list[str]]  # video -> file stems of its empty masks


def read(path: Path) -> EmptyMasks:
    """Read a list written by `s3 prepare`.

    Raises:
      InputError: the file is missing or not such a list.
    """
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the list of empty masks {path}: {reason(error)}") from error
    if not isinstance(values, dict) or not all(isinstance(v, list) for v in values.values()):
        raise InputError(f"{path} is not a list of empty masks: make it with s3 prepare")
    return values
