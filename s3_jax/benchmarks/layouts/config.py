"""What a user may say about where the files of a benchmark lie."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from s3_jax.benchmarks.layouts.video import MaskRule, Void
from s3_jax.media.mask_gate import UNTOLD, MaskConfig


@dataclasses.dataclass(frozen=True)
class LayoutConfig:
    """The same for all benchmarks; None takes the benchmark's own place or value.

    sequences: text file with the names of the videos.
    images, annotations: directories of the videos' images and masks, within the data directory
      or absolute; for BURST the annotations are a JSON file.
    rule: which masks are used.
    void: id of pixels that count as background: "auto" for 255 in masks of 8 bits.
    full_resolution: take the images of full resolution, where the benchmark has them.
    threshold, background, objects: how the masks are to be read (`MaskConfig`).
    """

    sequences: Path | None = None
    images: str | None = None
    annotations: str | None = None
    rule: MaskRule | None = None
    void: Void | Literal["default"] = "default"
    full_resolution: bool = False
    threshold: int | None = None
    background: int | None = None
    objects: int | None = None

    @property
    def reading(self) -> MaskConfig | None:
        """What was said of the masks; None for nothing, so that doubts about them are only told."""
        said = MaskConfig(self.threshold, self.background, self.objects)
        return None if said == UNTOLD else said

    def void_or(self, default: Void) -> Void:
        """The void id chosen, else a benchmark's own."""
        return default if self.void == "default" else self.void

    def recorded(self, values: dict[str, Any]) -> dict[str, Any]:
        """Write the path as text, for JSON."""
        return values | {"sequences": self.sequences and str(self.sequences)}

    @staticmethod
    def upgraded(values: dict[str, Any]) -> dict[str, Any]:
        """Read text as the path."""
        return values | {"sequences": values["sequences"] and Path(values["sequences"])}
