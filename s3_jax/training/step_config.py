"""Settings of a training step: one frozen dataclass per part, with the main stage's defaults.

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
    """Frozen settings of the forward pass of a clip.

    num_objects: number of object slots per item; items with fewer objects leave some empty.
    num_ref_frames: number of earlier frames whose key/value memory a frame reads; if there are
      more, a random subset of this size.
    deep_update_prob: probability that a frame updates sensory memory from its encoded mask; the
      first frame always does.
    freeze_batch_norm: normalize with the running statistics and do not update them, which small
      batches need; scale and bias still train.
    remat_encoder, remat_frames: what the backward pass recomputes in the image encoder and in the
      frame-by-frame part: "none" keeps everything, "products" keeps the results of matrix
      products and convolutions, "full" keeps only the inputs of a frame.
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
    """Frozen settings of the losses.

    num_points: number of points per frame at which logits and labels are compared.
    oversampling: number of candidates drawn per point of `num_points`.
    uncertain_part: fraction of the points taken from the most uncertain candidates; the others
      are uniform over the frame.
    sensory_weight, query_weight: weights of the losses on auxiliary logits.
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
    """Frozen settings of AdamW with parameter groups, and of its learning rate schedule.

    learning_rate: base rate; the image encoder's is `backbone_ratio` times that.
    pretrained_ratio: ratio for the fine-tuned part of the pretrained network, instead of
      `backbone_ratio`; None for the same ratio.
    decay: "constant"; "steps", which multiplies the rate by `gamma` at each iteration in
      `milestones`; or "polynomial", which scales it by (1 - iteration / iterations) ** power.
    warm_up: number of iterations over which the rate rises linearly to its full value; 0 for none.
    weight_decay, embedding_weight_decay: decoupled weight decay; the latter is for the weights
      that produce object queries.
    epsilon: added to the square root of Adam's second moment; None for the published values, 1e-8
      in float32 and 1e-6 in half precision.
    clip_norm: maximum global norm of the gradient.
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
    """Frozen settings of a training step.

    accumulate: number of micro-batches that a replica's rows are split into and processed in
      sequence before one update of the parameters; limits memory.
    ema_decay: decay of the exponential moving average of the parameters, None for no average.
      Early in training the average is instead over about the last tenth of the steps.
    frozen: patterns of parameters that do not train, such as "image_encoder/*"; `*` matches any
      part of a parameter's path.
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
