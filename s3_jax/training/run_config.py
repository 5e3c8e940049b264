"""The configuration of a training run: network, stages, validation, and how often what is done.

As plain dictionaries (`to_dict`, `from_dict`) it is what files in `configs/` return and what a
checkpoint records. Stages are a dictionary by name there, and `order` says which of them run:

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
    """One stretch of training with the same data and settings.

    name: in messages, checkpoints and curves.
    steps: how many; the schedules of `data` (`num_steps`) and `step` (`iterations`) span them.
    batch_size: clips per step, of all hosts and devices together.
    dtype: what the network computes in; parameters are float32 always.
    single_object: train the network for single objects, as the published first stage does. The
      stage after it goes on with that network made one for several objects.
    trainable_blocks: parts of a pretrained image encoder that are fine-tuned (`Encoder.frozen`).
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
            "at least 2, a mask that is given and one to learn",
        )
        optimizer = dataclasses.replace(self.step.optimizer, iterations=self.steps)
        spanned = dataclasses.replace(self.step, optimizer=optimizer)
        object.__setattr__(self, "step", spanned)
        object.__setattr__(self, "data", dataclasses.replace(self.data, num_steps=self.steps))


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    """Videos that the network is measured on while it trains.

    path, images, annotations, subset: see `VideoFolderConfig`; no `path`, no validation.
    videos: names of those to measure on; none for all.
    protocol: what is scored, a name of `benchmarks.protocols`.
    short_side: frames are shrunk to it; -1 for never. Scores are those at the original size.
    max_frames: of each video only so many, from the first; 0 for all.
    every: steps between measurements; the last step of a stage is always measured.
    at_start: measure before the first step too. keep_start: that network is a checkpoint too,
      which later ones have to be better than.
    patience: a stage ends after this many measurements in a row that bring no better score; 0 for
      never.
    export_best: the network with the best score is in WORKDIR/best when training has ended.
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
            "0, or at least 3, for the first and last may not be scored",
        )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run.

    model: of the last stage; `single_object` is left to the stages.
    initial_checkpoint: a model checkpoint (`s3_jax.checkpoints.model.find_model`) to start from,
      such as `s3 convert` makes of public weights; "" for initial values.
    data_root: directory that relative paths of data sets are below; "" for the current one.
    seed: of initial values and of what is random in steps (`data.seed` decides the data).
    log_every, save_every: steps between logged losses and between checkpoints.
    images_every: steps between pictures of a clip, for TensorBoard; 0 for none.
    keep: latest checkpoints that are kept, beside the one with the best validation score.
    divergence: training stops where the mean loss since the last log is this many times the
      median of those before; 0 for never.
    max_skipped: steps whose loss or gradient may be not finite; each is skipped, and one more
      stops the run.
    devices: how a step runs on several devices, see `training.parallel`: "pmap", "mesh", or "fsdp"
      where the state is too large for one; losses are equal to rounding.
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
        _require(bool(self.stages), "", "order", (), "the name of at least one stage")
        _require(
            not self.model.single_object, "model", "single_object", True, "False: set it in stages"
        )
        multiple = self.model.size_multiple
        for stage in self.stages:
            crop = stage.data.crop
            rule = f"a multiple of {multiple}, the network's size_multiple"
            _require(crop % multiple == 0, stage.name, "data.crop", crop, rule)

    def paths(self) -> Iterator[tuple[str, str]]:
        """What is read, by its place in the configuration."""
        yield from (("data_root", self.data_root), ("validation.path", self.validation.path))
        yield "initial_checkpoint", self.initial_checkpoint
        for stage in self.stages:
            for source in stage.data.sources:
                for name in PATHS:
                    yield f"stages.{stage.name}: {name}", getattr(source, name, "")

    def first_step(self, stage: int) -> int:
        """Steps of all stages before the one numbered `stage`."""
        return sum(s.steps for s in self.stages[:stage])

    @property
    def total_steps(self) -> int:
        return self.first_step(len(self.stages))


def to_dict(run: RunConfig) -> dict[str, Any]:
    """A configuration as plain dictionaries, lists and numbers."""
    values = model_config.to_dict(run)
    values["order"] = tuple(stage.name for stage in run.stages)
    values["stages"] = {stage.name: _stage_to_dict(stage) for stage in run.stages}
    return values


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The configuration from what `to_dict` made or a user wrote.

    Raises:
      InputError: a key is unknown or missing, or a value of the wrong type or out of range; the
        message names it.
    """
    try:
        values = dict(values)
        stages, order = values.pop("stages", {}), values.pop("order", None)
        if not isinstance(stages, Mapping):
            raise ValueError(f"stages is {stages!r}, but must be a dictionary of stages by name")
        if not (order is None or isinstance(order, list | tuple)):
            raise ValueError(f"order is {order!r}, but must be a list of names of stages")
        names = list(stages) if order is None else list(map(str, order))
        unknown = [name for name in names if name not in stages]
        if unknown or len(set(names)) < len(names):
            raise ValueError(
                f"order is {names}, but must hold each of these at most once: {sorted(stages)}"
            )
        values["stages"] = tuple(_stage_from_dict(name, stages[name]) for name in names)
        return model_config.from_dict(RunConfig, values)
    except (ValueError, TypeError) as error:
        raise InputError(f"the configuration: {error}") from error


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with keys joined by dots."""
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
            raise ValueError(f"{where}{key} cannot be set: it is {where}steps")
    return model_config.from_dict(StageConfig, values, where)
