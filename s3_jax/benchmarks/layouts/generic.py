"""Any videos: JPEGImages/<video>/ or JPEGImages/<video>.mp4, with Annotations/<video>/ or .png."""

from pathlib import Path

from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.layouts.folders import chosen_names, existing, frame_names
from s3_jax.benchmarks.layouts.video import FolderVideo
from s3_jax.errors import InputError, listed, reason
from s3_jax.media.image_files import natural_key

UNKNOWN_LENGTH = 100  # assumed for video files, for progress only


def list_generic_videos(data_dir: Path, config: LayoutConfig) -> list[FolderVideo]:
    """Return all videos that have masks.

    Raises:
      InputError: images, masks or videos are missing.
    """
    images, annotations = (
        existing(data_dir, [given] if given else usual, what)
        for given, usual, what in (
            (config.images, ("JPEGImages", "images", "videos"), "the directory of videos"),
            (config.annotations, ("Annotations", "masks"), "the directory of masks"),
        )
    )
    videos, masks = _by_name(images), _by_name(annotations)
    names = chosen_names(config.sequences, list(masks), annotations)
    lacking = [f"{annotations / masks[n]} has no video in {images}" for n in names
               if n not in videos]  # fmt: skip
    if lacking:
        raise InputError(listed(lacking))
    return [
        FolderVideo(
            name,
            images / videos[name],
            annotations / masks[name],
            len(frame_names(images / videos[name])) or UNKNOWN_LENGTH,
            rule=config.rule or "first_of_each",
            void=config.void_or(None),
            reading=config.reading,
        )
        for name in names
    ]


def _by_name(root: Path) -> dict[str, str]:
    """Map names without suffix to directory entries, in natural order.

    Raises:
      InputError: two entries have the same name, or there are none.
    """
    try:
        entries = sorted((p.name for p in root.iterdir()), key=natural_key)
    except OSError as error:
        raise InputError(f"cannot list {root}: {reason(error)}") from error
    names: dict[str, str] = {}
    for entry in entries:
        if entry.startswith("."):
            continue
        name = entry if (root / entry).is_dir() else Path(entry).stem
        if name in names:
            raise InputError(f"{root}: {names[name]} and {entry} would have the same results")
        names[name] = entry
    if not names:
        raise InputError(f"{root} is empty")
    return names
