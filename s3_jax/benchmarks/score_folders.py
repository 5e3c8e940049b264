"""Folders of annotations and results: where sequences are, and checks for missing files.

A root has a folder of PNG masks for each sequence, either directly or in one of the usual parent
folders of benchmarks (`Annotations`, `Annotations/480p`, ...).
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from s3_jax.errors import InputError, reason
from s3_jax.media.image_files import (
    IMAGE_SUFFIXES,
    natural_key,
    shortened,
    trailing_number,
)
from s3_jax.media.output_paths import inside

INNER_FOLDERS = ("Annotations", "Annotations/480p", "Annotations/Full-Resolution", "480p", ".")
IMAGE_FOLDERS = (".", "JPEGImages", "480p", "JPEGImages/480p", "JPEGImages/Full-Resolution")
MASK_SUFFIX = ".png"


def find_sequences(root: Path, what: str) -> dict[str, Path]:
    """Map sequence names to their folders, in natural order.

    Args:
      what: the flag with which `root` was given, for messages.

    Raises:
      InputError: no folder with PNG files was found.
    """
    if not root.is_dir():
        raise InputError(f"{what}: {root} is not a directory: give one folder of PNGs per sequence")
    try:
        for inner in INNER_FOLDERS:
            if found := _sequences_in(root / inner):
                return found
        holds_masks = _has_masks(root)
    except OSError as error:
        raise InputError(f"{what}: cannot list {root}: {reason(error)}") from error
    if holds_masks:
        raise InputError(f"{what}: {root} is a single sequence: give the directory it lies in")
    raise InputError(f"{what}: {root} holds no folders of PNG masks: give one folder per sequence")


def frame_names(folder: Path) -> list[str]:
    """Return the stems of a sequence's mask files in natural order."""
    names = [p.stem for p in folder.iterdir() if _is_mask(p)]
    return sorted(names, key=natural_key)


def read_sequence_list(path: Path) -> list[str]:
    """Read a split file, one sequence per line; blank lines and `#` comments are skipped.

    A line with image and annotation paths, as in DAVIS 2016, names the folder of these files.

    Raises:
      InputError: the file is missing, not text, or empty.
    """
    try:
        # Accept byte-order marks, Windows line ends, and spaces in names.
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list of sequences {path}: {reason(error)}") from error
    entries = [_sequence_of(line) for line in lines if line and not line.startswith("#")]
    if not entries:
        raise InputError(f"{path} lists no sequences: give one name per line")
    for entry in entries:
        inside(Path(), entry, path)
    return list(dict.fromkeys(entries))


def choose_sequences(
    annotations: Mapping[str, Path], wanted: Iterable[str] | None, source: str | None
) -> dict[str, Path]:
    """Return the annotated sequences to score: those of the split file `source`, or all.

    Args:
      annotations: annotation folders by sequence.
      wanted: names of the sequences to score; None for all.
      source: the split file that lists them, for messages.

    Raises:
      InputError: the file names a sequence without annotations.
    """
    if wanted is None:
        return dict(annotations)
    names = list(wanted)
    unknown = [name for name in names if name not in annotations]
    if unknown:
        close = difflib.get_close_matches(unknown[0], annotations, n=1)
        hint = f"did you mean {close[0]}?" if close else "is it the list of another split?"
        raise InputError(
            f"{source} names {len(unknown)} of {len(names)} sequences without annotations: "
            f"{shortened(unknown)}; {hint}"
        )
    return {name: annotations[name] for name in names}


def missing_frames(folder: Path | None, needed: Sequence[str]) -> list[str]:
    """Return the needed frames that have no mask in a result folder; all if there is no folder."""
    present = set() if folder is None else set(frame_names(folder))
    return [name for name in needed if name not in present]


def other_numbering(folder: Path, annotations: Path) -> str:
    """Return a message if a result's files are named differently from the annotations, else "".

    With a different numbering, a file with the name of one frame may be the mask of another.
    """
    found, annotated = frame_names(folder), frame_names(annotations)
    if len(found) != len(annotated) or found == annotated:
        return ""
    theirs, ours = ([trailing_number(name) for name in names] for names in (found, annotated))
    if None in theirs or None in ours:
        return ""
    return (
        f"its files are named {shortened(found, 3)}, but the annotations {shortened(annotated, 3)}:"
        " rename them to match"
    )


def find_images(sequences: Mapping[str, Path], given: Path | None) -> Path | None:
    """Find the directory that holds a folder of frames for each sequence, or return None.

    Args:
      sequences: annotation folders by name.
      given: the directory to search; None searches the `JPEGImages` beside `Annotations`.

    Raises:
      InputError: the given directory has no folder for any of the sequences.
    """
    inner = [Path(folder) for folder in IMAGE_FOLDERS]
    if given is not None:
        for root in (given / folder for folder in inner):
            if any((root / name).is_dir() for name in sequences):
                return root
        raise InputError(
            f"--images: {given} has no folder for {shortened(list(sequences))}: give one folder "
            "of frames per sequence"
        )
    parts = next(iter(sequences.values())).absolute().parent.parts
    for place in reversed(range(len(parts))):
        if parts[place] == "Annotations":
            images = Path(*parts[:place], "JPEGImages", *parts[place + 1 :])
            return images if images.is_dir() else None
    return None


def distinct_names(roots: Sequence[Path]) -> list[str]:
    """Return short names of result folders, with just enough trailing path components to differ.

    Raises:
      InputError: a folder is given twice.
    """
    paths = [root.absolute() for root in roots]
    twice = [str(path) for path in paths if paths.count(path) > 1]
    if twice:
        raise InputError(f"--results names {twice[0]} twice: give each folder once")
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def _sequence_of(line: str) -> str:
    suffixes = "|".join(map(re.escape, IMAGE_SUFFIXES))
    pair = re.match(rf"(.*?(?:{suffixes}))(?:\s|$)", line, re.IGNORECASE)
    if pair is None or "/" not in pair[1]:
        return line.replace("\\", "/").rstrip("/")
    return Path(pair[1]).parent.name


def _sequences_in(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        return {}
    folders = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
    folders.sort(key=lambda path: natural_key(path.name))
    return {folder.name: folder for folder in folders if _has_masks(folder)}


def _has_masks(folder: Path) -> bool:
    return any(_is_mask(path) for path in folder.iterdir())


def _is_mask(path: Path) -> bool:
    return path.suffix == MASK_SUFFIX and not path.name.startswith(".")
