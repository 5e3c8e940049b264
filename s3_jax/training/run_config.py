"""Configuration of a training run: network, stages, validation, logging and checkpoints.

Files in `configs/` return it, and checkpoints record it, as plain dictionaries (`to_dict`,
`from_dict`). There, stages are a dictionary by name, and `order` lists the ones that run:

    {"order": ("static", "video"), "stages": {"static": {"steps": 80000, ...}, "video": ...}, ...}
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from s3_jax import config as model_config
from s3_jax.benchmarks.protocols import PROTOCOLS
from s3_jax.config import ModelConfig
from s3_jax.data.config import PATHS, DataConfig
from s3_jax.errors import InputError
from s3_jax.remote import require_scheme
from s3_jax.training.step_config import StepConfig

ComputeType = Literal["float32", "bfloat16"]
Form = Literal["pmap", "mesh", "fsdp"]


def _require(ok: bool, where: str, name: str, value: Any, rule: str) -> None:
    if not ok:
        place = f"{where}: " if where else ""
        raise ValueError(f"{place}{name} is {value}, but must be {rule}")


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """Frozen settings of a stage: a stretch of training with the same data and settings.

    name: name used in messages, checkpoints and curves.
    steps: number of steps; the schedules of `data` (`num_steps`) and `step` (`iterations`) span
      them.
    batch_size: number of clips per step, over all hosts and devices.
    dtype: dtype that the network computes in; parameters are always float32.
    single_object: train the single-object network, as the published first stage does. The next
      stage continues with that network, widened for several objects.
    trainable_blocks: parts of a pretrained image encoder that are fine-tuned (`Encoder.frozen`).
    data, step: settings of the clips and of a training step.
    """

    name: str
    steps: int
    batch_size: int = 16
    dtype: ComputeType = "float32"
    single_object: bool = False
    trainable_blocks: tuple[int, ...] = ()
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    step: StepConfig = dataclasses.field(default_factory=StepConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            _require(getattr(self, name) >= 1, self.name, name, getattr(self, name), "at least 1")
        choices = typing.get_args(ComputeType)
        _require(self.dtype in choices, self.name, "dtype", self.dtype, f"one of {choices}")
        slots = self.step.clip.num_objects
        _require(
            self.data.max_objects <= slots,
            self.name,
            "data.max_objects",
            self.data.max_objects,
            f"at most step.clip.num_objects ({slots})",
        )
        _require(
            slots == 1 or not self.single_object,
            self.name,
            "step.clip.num_objects",
            slots,
            "1 with single_object",
        )
        _require(
            self.data.num_frames >= 2,
            self.name,
            "data.num_frames",
            self.data.num_frames,
            "at least 2: a frame with a given mask and one to predict",
        )
        optimizer = dataclasses.replace(self.step.optimizer, iterations=self.steps)
        spanned = dataclasses.replace(self.step, optimizer=optimizer)
        object.__setattr__(self, "step", spanned)
        object.__setattr__(self, "data", dataclasses.replace(self.data, num_steps=self.steps))


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    """Frozen settings of validation: the videos, and when the network is evaluated on them.

    path, images, annotations, subset: see `VideoFolderConfig`; an empty `path` disables
      validation.
    videos: names of the videos to use; empty for all.
    protocol: scoring rules, a name in `benchmarks.protocols`.
    short_side: shorter side, in pixels, that frames are shrunk to; -1 to never shrink. Scores are
      always computed at the original size.
    max_frames: number of frames to use of each video, from the first; 0 for all.
    every: number of steps between evaluations; the last step of a stage is always evaluated.
    at_start: evaluate before the first step too.
    keep_start: save the network of that evaluation as a checkpoint, which can be the best one.
    patience: end a stage after this many consecutive evaluations without a better score; 0 to
      never end it early.
    export_best: copy the network with the best score to WORKDIR/best at the end of training.
    """

    path: str = ""
    images: str = ""
    annotations: str = ""
    subset: str = ""
    videos: tuple[str, ...] = ()
    protocol: str = "davis2017"
    short_side: int = 480
    max_frames: int = 0
    every: int = 5_000
    at_start: bool = True
    keep_start: bool = False
    patience: int = 0
    export_best: bool = False

    def __post_init__(self) -> None:
        known = sorted(PROTOCOLS)
        _require(self.protocol in known, "validation", "protocol", self.protocol, f"one of {known}")
        _require(self.every >= 1, "validation", "every", self.every, "at least 1")
        _require(self.patience >= 0, "validation", "patience", self.patience, "0 or more")
        _require(
            self.max_frames == 0 or self.max_frames >= 3,
            "validation",
            "max_frames",
            self.max_frames,
            "0, or at least 3, because the first and last may not be scored",
        )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Frozen settings of a training run.

    model: network of the last stage; `single_object` is set per stage instead.
    stages: stages of the run, in order.
    validation: validation videos, and when to evaluate on them.
    initial_checkpoint: model checkpoint (see `s3_jax.checkpoints.model.find_model`) to start
      from, such as one made by `s3 convert` from public weights; "" for initial values.
    data_root: directory that relative paths of data sets start from; "" for the current one.
    seed: seed of initial values and of random choices in steps; data use `data.seed` instead.
    log_every, save_every: number of steps between logged losses and between checkpoints.
    images_every: number of steps between pictures of a clip in TensorBoard; 0 for none.
    keep: number of latest checkpoints to keep, besides the one with the best validation score.
    divergence: stop if the mean loss since the last log exceeds the median of earlier means by
      this factor; 0 to never stop.
    max_skipped: number of steps whose loss or gradient may be non-finite. Such steps are skipped;
      one more stops the run.
    devices: form of the step on several devices (see `training.parallel`): "pmap", "mesh", or
      "fsdp" for a state too large for one device. Losses are equal up to rounding.
    """

    model: ModelConfig
    stages: tuple[StageConfig, ...]
    validation: ValidationConfig = ValidationConfig()
    initial_checkpoint: str = ""
    data_root: str = ""
    seed: int = 0
    log_every: int = 50
    images_every: int = 1_000
    save_every: int = 1_000
    keep: int = 3
    divergence: float = 10.0
    max_skipped: int = 10
    devices: Form = "pmap"

    def __post_init__(self) -> None:
        for name in ("log_every", "save_every", "keep"):
            _require(getattr(self, name) >= 1, "", name, getattr(self, name), "at least 1")
        forms = typing.get_args(Form)
        _require(self.devices in forms, "", "devices", self.devices, f"one of {forms}")
        for where, path in self.paths():
            require_scheme(path, where, *["hf"] * (where == "initial_checkpoint"))
        _require(self.images_every >= 0, "", "images_every", self.images_every, "0 or more")
        _require(bool(self.stages), "", "order", (), "a list of at least one stage")
        _require(
            not self.model.single_object, "model", "single_object", True, "False: set it in stages"
        )
        multiple = self.model.size_multiple
        for stage in self.stages:
            crop = stage.data.crop
            rule = f"a multiple of {multiple}, the network's size_multiple"
            _require(crop % multiple == 0, stage.name, "data.crop", crop, rule)

    def paths(self) -> Iterator[tuple[str, str]]:
        """Yield the name and value of every setting that is a path from which the run reads."""
        yield from (("data_root", self.data_root), ("validation.path", self.validation.path))
        yield "initial_checkpoint", self.initial_checkpoint
        for stage in self.stages:
            for source in stage.data.sources:
                for name in PATHS:
                    yield f"stages.{stage.name}: {name}", getattr(source, name, "")

    def first_step(self, stage: int) -> int:
        """Return the number of steps in all stages before the one with index `stage`."""
        return sum(s.steps for s in self.stages[:stage])

    @property
    def total_steps(self) -> int:
        """Number of steps in all stages."""
        return self.first_step(len(self.stages))


def to_dict(run: RunConfig) -> dict[str, Any]:
    """Return a configuration as plain dictionaries, sequences and numbers."""
    values = model_config.to_dict(run)
    values["order"] = tuple(stage.name for stage in run.stages)
    values["stages"] = {stage.name: _stage_to_dict(stage) for stage in run.stages}
    return values


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """Build a configuration from plain dictionaries, such as the output of `to_dict`.

    Raises:
      InputError: a key is unknown or missing, or a value has the wrong type or is out of range;
        the message names it.
    """
    try:
        values = dict(values)
        stages, order = values.pop("stages", {}), values.pop("order", None)
        if not isinstance(stages, Mapping):
            raise ValueError(f"stages is {stages!r}, but must be a dictionary of stages by name")
        if not (order is None or isinstance(order, list | tuple)):
            raise ValueError(f"order is {order!r}, but must be a list of stage names")
        names = list(stages) if order is None else list(map(str, order))
        unknown = [name for name in names if name not in stages]
        if unknown or len(set(names)) < len(names):
            raise ValueError(
                f"order is {names}, but may list only these, each at most once: {sorted(stages)}"
            )
        values["stages"] = tuple(_stage_from_dict(name, stages[name]) for name in names)
        return model_config.from_dict(RunConfig, values)
    except (ValueError, TypeError) as error:
        raise InputError(f"the configuration: {error}") from error


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries into one, with keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def _stage_to_dict(stage: StageConfig) -> dict[str, Any]:
    values = {field.name: getattr(stage, field.name) for field in dataclasses.fields(stage)}
    values |= {"data": model_config.to_dict(stage.data), "step": model_config.to_dict(stage.step)}
    del values["name"], values["data"]["num_steps"], values["step"]["optimizer"]["iterations"]
    return values


def _stage_from_dict(name: str, values: Any) -> StageConfig:
    where = f"stages.{name}."
    if not isinstance(values, Mapping):
        raise ValueError(f"stages.{name} is {values!r}, but must be a dictionary of its settings")
    values = {"name": name, **values}
    for key in ("data.num_steps", "step.optimizer.iterations"):
        if key in flat(values):
            raise ValueError(f"{where}{key} cannot be set: set {where}steps instead")
    return model_config.from_dict(StageConfig, values, where)
