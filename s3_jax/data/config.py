"""Settings for the training data: sources, clip sampling and augmentation.

The defaults are those of the paper's main training (section 4.1); `recipes.py` has the settings of
both stages. A `DataConfig` determines every pixel of every batch.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from s3_jax.config import from_dict
from s3_jax.data.synthetic import SceneConfig

PATHS = ("path", "backgrounds", "pictures")  # fields of sources that hold paths
LEAST_INSTANCE = 0.004  # fraction of the picture
Number = float | int
Range = tuple[Number, Number]


@dataclasses.dataclass(frozen=True)
class VideoFolderConfig:
    """Frozen settings of a folder of videos: directories of images, some or all with masks.

    path: directory with `JPEGImages[/480p]/<video>/*.jpg` and `Annotations[/480p]/<video>/*.png`,
      directly or in `train/`.
    images, annotations: directories within `path` to use instead of those above.
    subset: a text file within `path` that lists the videos to use, one per line; "" uses all.
    empty_masks: a file, written by `s3 prepare`, that lists the frames without objects.
    binary: treat everything except background as one object. Otherwise 255 marks void pixels, which
      count as background.
    frame_interval: distance between annotated frames in frames of the original video;
      `DataConfig.skips` are divided by it.
    multiplier: how often a video is used, relative to a video with multiplier 1.
    videos: names of the videos to use; empty uses all.
    held_out: names of the videos to leave out.
    stills: treat every annotated frame as a separate photograph.
    """

    path: str
    images: str = ""
    annotations: str = ""
    subset: str = ""
    videos: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    empty_masks: str = ""
    binary: bool = False
    stills: bool = False
    frame_interval: int = 1
    multiplier: Number = 1.0
    kind: ClassVar[str] = "videos"


@dataclasses.dataclass(frozen=True)
class ImageFolderConfig:
    """Frozen settings of a folder of photographs with one mask each, in one or two directory trees.

    An image `x.jpg` or `x_im.jpg` belongs to the mask `x.png` or `x_gt.png` beside it, or to the
    only mask of that name elsewhere below `path`.

    instances: masks have a number for every object, and 255 for void pixels. Otherwise everything
      except background is one object. Instances smaller than `LEAST_INSTANCE` become background.
    backgrounds: a directory of pictures. With probability `background_share`, an object is cut out
      and moves over one of them, which moves too.
    """

    path: str
    multiplier: Number = 1.0
    instances: bool = False
    backgrounds: str = ""
    background_share: Number = 0.5
    kind: ClassVar[str] = "images"


@dataclasses.dataclass(frozen=True)
class RegionFolderConfig:
    """Frozen settings of a folder of photographs `images/x.jpg` with region maps `regions/x.png`.

    Every pixel of a region map holds the number of its region. An object is a region or a union of
    neighbouring regions, sampled each time the photograph is used.

    area: smallest and largest fraction of the picture that an object may cover.
    backgrounds, background_share: see `ImageFolderConfig`.
    """

    path: str
    area: Range = (0.01, 0.35)
    multiplier: Number = 1.0
    backgrounds: str = ""
    background_share: Number = 0.5
    kind: ClassVar[str] = "regions"


@dataclasses.dataclass(frozen=True)
class RecordsConfig:
    """Frozen settings of a TFDS data set in ArrayRecord files with the features of TFDS's `davis`.

    path: the directory with `dataset_info.json`, as printed by `s3 prepare`.
    frame_interval, multiplier: see `VideoFolderConfig`.
    """

    path: str
    split: str = "train"
    frame_interval: int = 1
    multiplier: Number = 1.0
    kind: ClassVar[str] = "records"


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """Frozen settings of procedural videos; every clip gets a new one.

    height, width, num_frames: size (pixels) and length of the videos from which clips are sampled.
    scenes: number of videos that count as one epoch of this source when sources are mixed.
    objects: smallest and largest number of objects.
    pictures: a directory of photographs for backgrounds and surfaces; "" for procedural textures.
    picture_share: probability that a scene uses photographs.
    """

    height: int = 480
    width: int = 854
    num_frames: int = 100
    scenes: int = 1000
    objects: tuple[int, int] = (1, 4)
    scene: SceneConfig = dataclasses.field(default_factory=SceneConfig)
    pictures: str = ""
    picture_share: Number = 0.7
    frame_interval: int = 1
    multiplier: Number = 1.0
    kind: ClassVar[str] = "synthetic"


SourceConfig = (
    VideoFolderConfig | ImageFolderConfig | RegionFolderConfig | RecordsConfig | SyntheticConfig
)
SOURCE_KINDS: dict[str, type] = {
    cls.kind: cls
    for cls in (
        VideoFolderConfig,
        ImageFolderConfig,
        RegionFolderConfig,
        RecordsConfig,
        SyntheticConfig,
    )
}


@dataclasses.dataclass(frozen=True)
class BlurConfig:
    """Frozen settings for blurring a clip's frames.

    share: probability that a clip is blurred.
    defocus: largest standard deviation of the Gaussian, as a multiple of the crop's side, drawn
      once per clip.
    motion: longest path of the camera while the shutter is open, as a multiple of the crop's side.
      Its direction is drawn once per clip, its length for each frame.
    """

    share: Number = 0.0
    defocus: Number = 0.004
    motion: Number = 0.04


@dataclasses.dataclass(frozen=True)
class ColourConfig:
    """Largest relative changes of brightness, contrast and saturation, and of hue in turns."""

    brightness: Number = 0.0
    contrast: Number = 0.0
    saturation: Number = 0.0
    hue: Number = 0.0


@dataclasses.dataclass(frozen=True)
class ImageAugmentationConfig:
    """Frozen settings that turn one image into a clip.

    Angles are in degrees. Values whose names begin with `clip_` are drawn once per clip.

    walk: largest change of angles, scale and position from one frame to the next, as a fraction of
      their ranges. 1 draws each frame independently; smaller values give smooth motion.
    flip, grey: probabilities of mirroring and of removing colour, per clip.
    bend: probability of a thin-plate-spline warp, per frame.
    bend_strength: standard deviation of its control points' shifts, as a multiple of the crop's
      side.
    """

    flip: Number = 0.5
    clip_scale: Range = (0.5, 2.0)
    clip_colour: ColourConfig = ColourConfig(0.1, 0.05, 0.05, 0.05)
    grey: Number = 0.05
    rotation: Number = 20.0
    scale: Range = (0.5, 2.0)
    shear: Number = 10.0
    walk: Number = 1.0
    frame_colour: ColourConfig = ColourConfig(0.1, 0.05, 0.05)
    bend: Number = 0.33
    bend_strength: Number = 0.02


@dataclasses.dataclass(frozen=True)
class VideoAugmentationConfig:
    """Frozen settings that turn frames of a video into a clip.

    Everything except `frame_colour` is drawn once per clip. Angles are in degrees.

    crop_area: range of the crop's area, as a fraction of the image's area.
    crop_aspect: range of the crop's width divided by its height.
    zoom: largest factor by which the objects grow or shrink from the first frame to the last. They
      also end near the middle of the last frame. 1 keeps the crop fixed.
    zoom_aspect: largest factor by which the aspect ratio changes during a zoom.
    zoom_share: probability that a clip zooms.
    """

    flip: Number = 0.5
    rotation: Number = 25.0
    shear: Number = 20.0
    crop_area: Range = (0.36, 1.0)
    crop_aspect: Range = (3 / 4, 4 / 3)
    zoom: Number = 1.0
    zoom_aspect: Number = 1.0
    zoom_share: Number = 0.5
    clip_colour: ColourConfig = ColourConfig(0.1, 0.03, 0.03)
    grey: Number = 0.05
    frame_colour: ColourConfig = ColourConfig(0.1, 0.05, 0.05)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Frozen settings that define the training data and its prefetching.

    num_steps: length of the training run in steps, to which `skips` refers.
    crop: side of the square frames in pixels.
    skips: pairs of a fraction of the training run and the largest distance between neighbouring
      frames of a clip from that point on.
    reverse, merge: probabilities of playing a clip backwards, and of pasting the objects of another
      clip over one with fewer than `max_objects`.
    bounce: play videos with fewer annotated frames than a clip back and forth; otherwise they are
      left out.
    occlude: probability of pasting the objects of another clip over one as occluders without ids.
    cross: probability that pasted objects move across the objects below, or leave the picture and
      come back, on top of their motion in their own clip.
    fill_colour: RGB colour beyond the image's edges.
    crops_tried, seeds_tried, sequences_tried: number of attempts to sample a crop, frames and a
      video whose first frame shows an object.
    max_failing: fraction of clips that may hit damaged files before training stops.
    num_workers: number of processes that make clips; 0 makes them in this process.
    num_threads: number of threads in each process.
    clips_ahead: number of clips that each process prepares in advance.

    Raises:
      ValueError: a setting is out of range.
    """

    sources: tuple[SourceConfig, ...] = (SyntheticConfig(),)
    num_steps: int = 125_000
    seed: int = 0
    crop: int = 480
    num_frames: int = 8
    max_objects: int = 3
    skips: tuple[tuple[Number, int], ...] = ((0.0, 5), (0.1, 10), (0.3, 15), (0.8, 5))
    reverse: Number = 0.5
    bounce: bool = False
    merge: Number = 0.5
    occlude: Number = 0.0
    cross: Number = 0.0
    image: ImageAugmentationConfig = ImageAugmentationConfig()
    video: VideoAugmentationConfig = VideoAugmentationConfig()
    blur: BlurConfig = BlurConfig()
    fill_colour: tuple[int, int, int] = (124, 116, 104)
    crops_tried: int = 5
    seeds_tried: int = 5
    sequences_tried: int = 100
    max_failing: Number = 0.05
    num_workers: int = 0
    num_threads: int = 1
    clips_ahead: int = 4

    def __post_init__(self) -> None:
        _refuse_negative(self)
        if not self.sources:
            raise ValueError("sources is empty: name at least one data set")
        if not self.skips or self.skips[0][0] != 0 or list(self.skips) != sorted(self.skips):
            raise ValueError(f"skips is {self.skips}, but must ascend from 0.0")
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")
        for name in ("num_workers", "num_threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be 0 or more")
        if self.max_objects > 255:
            raise ValueError(f"max_objects is {self.max_objects}, but must be at most 255")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}, but must be 0 to 2^32 - 1")

    def recorded(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return `values` with each source's kind added to its settings."""
        kinds = (source.kind for source in self.sources)
        named = zip(values["sources"], kinds, strict=True)
        return values | {"sources": tuple(entry | {"kind": kind} for entry, kind in named)}

    @staticmethod
    def upgraded(values: dict[str, Any]) -> dict[str, Any]:
        """Return `values` with sources and augmentations parsed, so errors name their fields."""
        if isinstance(values.get("sources"), list | tuple):
            values["sources"] = tuple(map(_source, values["sources"]))
        for name, cls in (("image", ImageAugmentationConfig), ("video", VideoAugmentationConfig)):
            if isinstance(values.get(name), Mapping):
                values[name] = from_dict(cls, values[name])
        return values


def _refuse_negative(value: Any, where: str = "") -> None:
    """Reject negative numbers, since no size, count, fraction or strength can be negative."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _refuse_negative(getattr(value, field.name), f"{where}.{field.name}".lstrip("."))
    elif isinstance(value, tuple):
        for entry in value:
            _refuse_negative(entry, where)
    elif isinstance(value, int | float) and value < 0:
        raise ValueError(f"{where} is {value}, but must be 0 or more")


def _source(values: Any) -> SourceConfig:
    if isinstance(values, SourceConfig):
        return values
    kind = values.get("kind") if isinstance(values, Mapping) else values
    if not isinstance(kind, str) or kind not in SOURCE_KINDS:
        raise ValueError(f"a source has kind {kind!r}; known kinds: {sorted(SOURCE_KINDS)}")
    own = {name: value for name, value in values.items() if name != "kind"}
    return from_dict(SOURCE_KINDS[kind], own)


_AT_LEAST_ONE = (
    "num_steps",
    "crop",
    "num_frames",
    "max_objects",
    "crops_tried",
    "seeds_tried",
    "sequences_tried",
    "clips_ahead",
)
