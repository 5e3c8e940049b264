"""Output paths built from names found in files, confined to their directory."""

from pathlib import Path

from s3_jax.errors import InputError

_LONGEST = 255


def inside(root: Path, name: str, source: object) -> Path:
    """Return `root / name` after checking that it lies below `root`, even after following links.

    Args:
      source: the place where the name was read, for the error message.

    Raises:
      InputError: the name is empty or absolute, contains ".." or characters that file names
        should not have, or leads out of `root` through a link.
    """
    parts = name.replace("\\", "/").split("/")
    bad = [part for part in parts if part in ("", ".", "..") or not part.isprintable()]
    if bad or any(len(part.encode()) > _LONGEST for part in parts) or ":" in parts[0]:
        raise InputError(
            f"{source}: the name {name[:100]!a} is not a path within a directory, so no results "
            "are written there: rename it"
        )
    path = root.joinpath(*parts)
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{source}: {path} is a link that leaves {root}: remove it")
    return path
