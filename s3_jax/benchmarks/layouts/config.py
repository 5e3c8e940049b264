"""Settings for locating and reading the files of a benchmark."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from s3_jax.benchmarks.layouts.video import MaskRule, Void
from s3_jax.media.mask_gate import UNTOLD, MaskConfig


@dataclasses.dataclass(frozen=True)
class LayoutConfig:
    """Frozen settings for all benchmarks; None means the benchmark's own value.

    sequences: text file with the names of the videos.
    images, annotations: directories of the videos' images and masks, within the data directory or
      absolute; for BURST the annotations are a JSON file.
    rule: the masks that are used (see `MaskRule`).
    void: id of pixels that count as background: "auto" for 255 in 8-bit masks.
    full_resolution: use full-resolution images if the benchmark has them.
    threshold, background, objects: interpretation of the masks (`MaskConfig`).
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
        """Settings for reading masks; None if all are unset: doubtful masks then cause warnings."""
        said = MaskConfig(self.threshold, self.background, self.objects)
        return None if said == UNTOLD else said

    def void_or(self, default: Void) -> Void:
        """Return the void id chosen by the user, else the benchmark's own."""
        return default if self.void == "default" else self.void

    def recorded(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return `values` with the path as text, for JSON."""
        return values | {"sequences": self.sequences and str(self.sequences)}

    @staticmethod
    def upgraded(values: dict[str, Any]) -> dict[str, Any]:
        """Return `values` with the text as a path."""
        return values | {"sequences": values["sequences"] and Path(values["sequences"])}
