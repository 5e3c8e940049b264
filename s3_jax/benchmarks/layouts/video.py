"""Videos of a benchmark: their frames, the masks that may be used, and the frames to be saved."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from s3_jax.errors import InputError
from s3_jax.media.image_files import list_images
from s3_jax.media.mask_files import Mask, MaskConfig, MaskFiles, read_mask
from s3_jax.media.video_files import VideoSource, open_video
from s3_jax.segmentation.run_folder import fingerprint
from s3_jax.segmentation.video import MaskSource

# The masks of a video's directory that the method may use: that of the first frame, each object's
# first, or all of them.
MaskRule = Literal["first_frame", "first_of_each", "all"]
Void = int | Literal["auto"] | None
VOID = 255


@runtime_checkable
class BenchmarkVideo(Protocol):
    """A video as listed by the layouts, without reading any pixels.

    name: name of the video and of the directory of its results, with slashes if videos are nested.
    num_frames: number of frames to segment, an estimate for video files.
    saved: names of the frames for which results are saved; None for all.
    all_masks: True if masks also correct objects that are already tracked.
    first_frame_only: True if only the mask of the first frame is used.
    """

    @property
    def name(self) -> str: ...

    @property
    def num_frames(self) -> int: ...

    @property
    def saved(self) -> frozenset[str] | None: ...

    @property
    def all_masks(self) -> bool: ...

    @property
    def first_frame_only(self) -> bool: ...

    def open_frames(self) -> VideoSource:
        """Open the frames.

        Raises:
          InputError: frames are missing or damaged.
        """
        ...

    def open_masks(self, frame_names: Sequence[str] | None) -> MaskSource:
        """Open the masks.

        Raises:
          InputError: the masks do not match the frames.
        """
        ...

    def fingerprint(self) -> str:
        """Return a digest of the names of the video's files and of its first mask."""
        ...


@dataclasses.dataclass(frozen=True)
class FolderVideo:
    """A directory of frames (or a video file) and a directory of masks (or a single mask).

    rule: the masks that are used (see `MaskRule`).
    one_object: treat everything that is not background as one object.
    void: id of pixels that count as background; "auto": 255 in 8-bit masks, none in others.
    reading: the user's settings for reading the masks.
    """

    name: str
    images: Path
    masks: Path
    num_frames: int
    saved: frozenset[str] | None = None
    rule: MaskRule = "first_frame"
    one_object: bool = False
    void: Void = "auto"
    reading: MaskConfig | None = None

    @property
    def all_masks(self) -> bool:
        return self.rule == "all"

    @property
    def first_frame_only(self) -> bool:
        return self.rule == "first_frame"

    def open_frames(self) -> VideoSource:
        return open_video(self.images)

    def open_masks(self, frame_names: Sequence[str] | None) -> MaskSource:
        path = self._mask_files()[0] if self.rule == "first_frame" else self.masks
        if self.rule == "first_frame" and frame_names and path.stem != frame_names[0]:
            raise InputError(
                f"{self.masks} has no mask for the first frame, {frame_names[0]}: its first is "
                f"{path.name}; add one, or use masks of later frames (--all_masks)"
            )
        masks = MaskFiles(path, frame_names, self._void(), self.reading)
        return OneObjectMasks(masks) if self.one_object else masks

    def fingerprint(self) -> str:
        images = list_images(self.images) if self.images.is_dir() else [self.images]
        masks = self._mask_files()
        return fingerprint((f.name for f in (*images, *masks)), masks[:1])

    def _mask_files(self) -> list[Path]:
        return list_images(self.masks) if self.masks.is_dir() else [self.masks]

    def _void(self) -> int | None:
        if self.void != "auto":
            return self.void
        encoding = read_mask(self._mask_files()[0]).encoding
        return VOID if encoding.kind in ("palette", "grey", "grey_rgb") else None


class OneObjectMasks:
    """Masks in which all objects take the first mask's smallest id (see `MaskSource`)."""

    def __init__(self, masks: MaskFiles):
        self._masks = masks
        self.path = masks.path
        self._id = min(masks.first.object_ids)
        self.first = self._merged(masks.first)

    def read(self, frame_index: int) -> Mask | None:
        mask = self._masks.read(frame_index)
        return None if mask is None else self._merged(mask)

    def _merged(self, mask: Mask) -> Mask:
        ids = np.where(mask.ids != 0, np.int32(self._id), 0)
        return dataclasses.replace(mask, ids=ids)
