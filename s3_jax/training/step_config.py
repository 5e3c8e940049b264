"""Settings of a training step: one frozen dataclass per part; defaults are the main stage's.

`MAIN_TRAINING` and `PRE_TRAINING` are the published recipe (paper section 4.1): video clips with
several objects, and before that static images as clips of one object.
"""

import dataclasses
from typing import Any, Literal

Rematerialization = Literal["none", "products", "full"]
Decay = Literal["constant", "steps", "polynomial"]


def _require(ok: bool, name: str, value: Any, rule: str) -> None:
    if not ok:
        raise ValueError(f"{name} is {value}, but must be {rule}")


def _require_probability(name: str, value: float) -> None:
    _require(0 <= value <= 1, name, value, "in [0, 1]")


def _require_choice(name: str, value: str, choices: Any) -> None:
    _require(value in choices.__args__, name, repr(value), f"one of {', '.join(choices.__args__)}")


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """How a clip runs through the network.

    num_objects: object slots per item; items with fewer objects leave some empty.
    num_ref_frames: earlier frames whose key/value memory a frame reads; when there are more,
      a random subset of this many.
    deep_update_prob: chance that a frame (other than the first, which always does) updates
      sensory memory from its encoded mask.
    freeze_batch_norm: normalise with the running statistics and leave them as they are, as small
      batches need; scale and bias train.
    remat_encoder, remat_frames: what the backward pass computes again rather than keeps, of the
      image encoder and of the frame-by-frame part: "none" keeps all, "products" keeps results of
      matrix products and convolutions, "full" keeps only what enters a frame.
    """

    num_objects: int = 3
    num_ref_frames: int = 3
    deep_update_prob: float = 0.2
    freeze_batch_norm: bool = False
    remat_encoder: Rematerialization = "none"
    remat_frames: Rematerialization = "none"

    def __post_init__(self) -> None:
        _require(self.num_objects >= 1, "num_objects", self.num_objects, "at least 1")
        _require(self.num_ref_frames >= 1, "num_ref_frames", self.num_ref_frames, "at least 1")
        _require_probability("deep_update_prob", self.deep_update_prob)
        for name in ("remat_encoder", "remat_frames"):
            _require_choice(name, getattr(self, name), Rematerialization)


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Where the losses are evaluated and how they are weighted.

    num_points: points per frame at which logits and labels are compared.
    oversampling: candidates drawn per point that is chosen for its uncertainty.
    uncertain_part: part of the points taken from the most uncertain candidates; the rest is
      uniform over the frame.
    sensory_weight, query_weight: of the losses on auxiliary logits.
    """

    num_points: int = 12_544
    oversampling: float = 3.0
    uncertain_part: float = 0.75
    sensory_weight: float = 0.01
    query_weight: float = 0.01

    def __post_init__(self) -> None:
        _require(self.num_points >= 1, "num_points", self.num_points, "at least 1")
        _require(self.oversampling >= 1, "oversampling", self.oversampling, "at least 1")
        _require_probability("uncertain_part", self.uncertain_part)
        for name in ("sensory_weight", "query_weight"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with parameter groups, and its learning rate over time.

    learning_rate: base rate; the image encoder's is `backbone_ratio` times that.
    pretrained_ratio: of the part of the pretrained network that is fine-tuned, in place of
      `backbone_ratio`; None for the same.
    decay: "constant"; "steps" multiplies by `gamma` at each of the iterations `milestones`;
      "polynomial" falls as (1 - iteration / iterations) ** power.
    warm_up: iterations in which the rate rises to that, in a line.
    weight_decay, embedding_weight_decay: the latter for the weights that make object queries.
    epsilon: added to the root of Adam's second moment; None is 1e-8, and 1e-6 where the network
      computes in half precision, as published.
    clip_norm: largest global norm of the gradient.
    """

    learning_rate: float = 5e-5
    decay: Decay = "steps"
    milestones: tuple[int, ...] = (100_000, 115_000)
    gamma: float = 0.1
    iterations: int = 125_000
    warm_up: int = 0
    power: float = 0.9
    backbone_ratio: float = 0.1
    pretrained_ratio: float | None = None
    weight_decay: float = 1e-3
    embedding_weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float | None = None
    clip_norm: float = 3.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "clip_norm"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        for name in ("backbone_ratio", "weight_decay", "embedding_weight_decay", "gamma", "power"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(self.warm_up >= 0, "warm_up", self.warm_up, "0 or more")
        ratio = self.pretrained_ratio
        _require(ratio is None or ratio >= 0, "pretrained_ratio", ratio, "0 or more, or None")
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        _require(self.epsilon is None or self.epsilon > 0, "epsilon", self.epsilon, "above 0")
        _require(self.iterations >= 1, "iterations", self.iterations, "at least 1")
        ascending = list(self.milestones) == sorted(set(self.milestones))
        _require(ascending, "milestones", self.milestones, "ascending")
        _require_choice("decay", self.decay, Decay)


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Everything that decides what one training step computes.

    accumulate: micro-batches that a replica's rows are split into, one after the other, before
      parameters change once; bounds memory.
    ema_decay: decay of the exponential moving average of the parameters, once that many steps are
      done (before, it is over about a tenth of the steps); None for no average.
    frozen: patterns of parameters that stay as they are, such as "image_encoder/*"; `*` stands
      for anything in a parameter's path.
    """

    clip: ClipConfig = ClipConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    accumulate: int = 1
    ema_decay: float | None = None
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(self.accumulate >= 1, "accumulate", self.accumulate, "at least 1")
        if self.ema_decay is not None:
            _require(0 < self.ema_decay < 1, "ema_decay", self.ema_decay, "in (0, 1), or None")


MAIN_TRAINING = StepConfig()
PRE_TRAINING = StepConfig(
    clip=ClipConfig(num_objects=1, num_ref_frames=2),
    loss=LossConfig(num_points=8_192),
    optimizer=OptimizerConfig(learning_rate=1e-4, decay="constant", iterations=80_000),
)
