"""Recorded training runs of the published network, replayed with the same weights and choices.

Our maps of a clip have frames first, (f b ...); a recording has one array per frame.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from s3_jax.config import MODELS, ModelConfig
from s3_jax.conversion.weights import flatten, from_torch, pairs, torch_shapes
from s3_jax.models.s3 import S3
from s3_jax.training import clip
from s3_jax.training.clip import ClipBatch, ClipPrediction
from s3_jax.training.clip_loss import make_trainer
from s3_jax.training.draws import Draws
from s3_jax.training.losses import ChoosePoints, clip_losses, num_pairs
from s3_jax.training.parts import Trainer
from s3_jax.training.points import Candidates, num_unsure, select_points
from s3_jax.training.state import TrainState
from s3_jax.training.step import gradients_of, init_state
from s3_jax.training.step_config import ClipConfig, LossConfig, OptimizerConfig, StepConfig
from tests.support.goldens import Recording, load_recording
from tests.support.weights import state_dict

# Losses at all pixels' centres, or at points chosen from random ones.
Kind = Literal["dense", "points"]
SINGLE_OBJECT = "s3_resnet18_single_object"
MODELS_OF_CASES = MODELS | {
    SINGLE_OBJECT: dataclasses.replace(MODELS["s3_resnet18"], single_object=True)
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One recording with what it was made with."""

    recording: Recording
    config: ModelConfig
    step: StepConfig
    deep_update: bool

    @property
    def batch(self) -> ClipBatch:
        frames, masks, counts = (
            jnp.asarray(self.recording[f"in.{name}"])
            for name in ("frames_u8", "cls_gt", "num_objects")
        )
        return ClipBatch(frames, masks, counts.astype(jnp.int32))

    @property
    def frames(self) -> int:
        """Predicted frames."""
        return self.recording["in.frames_u8"].shape[1] - 1


def load_case(folder: Path, name: str) -> Case:
    """The recording `train_<name>` of a folder."""
    values = json.loads((folder / "train_cases.json").read_text())[name]
    decay = "constant" if values["stage"] == "pre_training" else "steps"
    step = StepConfig(
        clip=ClipConfig(
            num_objects=values["num_objects"],
            num_ref_frames=values["num_ref_frames"],
            deep_update_prob=values["deep_update_prob"],
        ),
        loss=LossConfig(
            num_points=values["train_num_points"],
            oversampling=values["oversample_ratio"],
            uncertain_part=values["importance_sample_ratio"],
        ),
        optimizer=OptimizerConfig(
            learning_rate=values["learning_rate"],
            decay=decay,
            weight_decay=values["weight_decay"],
            embedding_weight_decay=values["embed_weight_decay"],
            backbone_ratio=values["backbone_lr_ratio"],
            clip_norm=values["clip_grad_norm"],
            beta1=values["adamw"]["betas"][0],
            beta2=values["adamw"]["betas"][1],
        ),
    )
    deep = bool(values["deep_update_prob"])
    config = MODELS_OF_CASES[values["model"]]
    return Case(load_recording(folder, f"train_{name}"), config, step, deep)


def zero_points(case: Case) -> jax.Array:
    """Return points of zeros, for callers that need none."""
    return jnp.zeros((case.frames, 2, num_pairs(case.config)))


def draws(case: Case, points: Any) -> Draws:
    """The recorded choices; `points` as the losses take them, with axes (f b p)."""
    deep = jnp.full((case.frames,), case.deep_update).at[0].set(True)
    return Draws(deep, jnp.asarray(_references(case)), points)


def _references(case: Case) -> np.ndarray:
    """(f b r). Frames with no more than r earlier ones read all of those."""
    limit = min(case.step.clip.num_ref_frames, case.frames)
    every = np.broadcast_to(np.arange(limit), (case.frames, 2, limit)).copy()
    if "in.ref_frames" in case.recording:
        drawn = case.recording["in.ref_frames"].reshape(-1, 2, limit)
        every[-len(drawn) :] = drawn
    return every


def selected_points(case: Case) -> jax.Array:
    """The recorded points, (f b p n 2)."""
    return _by_pair(case, "points.selected")


def _by_pair(case: Case, name: str) -> jax.Array:
    """A recorded array of points, (b*p f n 2), as (f b p n 2)."""
    array = case.recording[name]
    split = array.reshape(2, num_pairs(case.config), *array.shape[1:])
    return jnp.asarray(np.moveaxis(split, 2, 0))


def trainer(case: Case) -> Trainer:
    """The trainer of the recording."""
    return make_trainer(S3(case.config), case.step)


def initial_state(trainer: Trainer) -> TrainState:
    """The state that the recordings start from."""
    config = trainer.loss.model.config  # type: ignore[attr-defined]
    return init_state(trainer, from_torch(state_dict(torch_shapes(config)), config), seed=0)


def by_key(tree: Any, config: ModelConfig, collection: str) -> dict[str, np.ndarray]:
    """Parameters, gradients or statistics by PyTorch key and in its layout."""
    flat = flatten(tree)
    return {
        pair.key: np.asarray(pair.move.to_torch(np.asarray(flat[pair.path])))
        for pair in pairs(config)
        if pair.collection == collection and pair.path in flat
    }


def recorded_losses(case: Case, prefix: str) -> dict[str, float]:
    """Recorded losses under our names."""
    names = {"total": "total_loss"}
    for loss in ("ce", "dice"):
        names |= {f"mask_{loss}": f"loss_{loss}", f"sensory_{loss}": f"aux_sensory_{loss}"}
        names |= {
            f"query{i}_{loss}": f"aux_query_{loss}_l{i}" for i in range(case.config.num_blocks + 1)
        }
    return {ours: float(case.recording[f"{prefix}.loss.{name}"]) for ours, name in names.items()}


def prediction(case: Case) -> ClipPrediction:
    """The recorded logits of all frames."""
    frames = range(1, case.frames + 1)
    of_frames = lambda name: jnp.stack(  # noqa: E731
        [jnp.asarray(case.recording[name.format(t)]) for t in frames]
    )
    names = ("logits_{}", "aux_{}.sensory_logits", "aux_{}.q_logits")
    return ClipPrediction(*map(of_frames, names))


def run_clip(
    trainer: Trainer, state: TrainState, case: Case, points: Any
) -> tuple[ClipPrediction, Any]:
    """Our prediction of all frames, and BatchNorm statistics."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    loss: Any = trainer.loss
    run = _compiled_clip(loss.model, loss.config.clip.num_objects)
    return run(variables, case.batch, draws(case, points))


@functools.cache
def _compiled_clip(model: S3, num_objects: int) -> Callable[..., Any]:
    step = ClipConfig(num_objects=num_objects)
    return jax.jit(
        lambda variables, batch, draws: clip.run_clip(model, variables, step, batch, draws)
    )


def losses(case: Case, of: ClipPrediction, kind: Kind) -> dict[str, jax.Array]:
    """Losses of a prediction at all pixels' centres, or at the recorded points."""
    points, choose = _points(case, kind)
    return clip_losses(of, case.batch, case.step.loss, points, choose)


def _points(case: Case, kind: Kind) -> tuple[jax.Array, ChoosePoints]:
    """Return what the losses draw, with a function from that to points."""
    if kind == "points":
        return selected_points(case), lambda points, *_: points
    centres = jnp.asarray(pixel_centres(*case.recording["in.cls_gt"].shape[2:]))
    return zero_points(case), lambda *_: centres


def choose(case: Case) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Points (f b p n 2) and losses that follow from recorded logits and candidates."""
    count = num_unsure(case.step.loss)
    candidates = Candidates(
        _by_pair(case, "points.rand_candidates"), _by_pair(case, "points.rand_uniform")
    )
    select = lambda drawn, logits, objects: select_points(  # noqa: E731
        logits, drawn, objects, count
    )
    theirs = prediction(case)
    found = clip_losses(theirs, case.batch, case.step.loss, candidates, select)
    levels = jnp.moveaxis(theirs.query_logits, 3, 0)
    of_frames = jax.vmap(jax.vmap(select), (0, 0, None))
    points = [
        of_frames(
            jax.tree.map(lambda x, i=i: x[:, :, i], candidates), logits, case.batch.num_objects
        )
        for i, logits in enumerate([theirs.logits, theirs.sensory_logits, *levels])
    ]
    return jnp.stack(points, axis=2), found


def gradients(
    trainer: Trainer, state: TrainState, case: Case, kind: Kind
) -> tuple[Any, Any, dict[str, jax.Array]]:
    """The step's gradients, BatchNorm statistics, and losses."""
    points, choose = _points(case, kind)
    replayed = lambda drawn: dataclasses.replace(  # noqa: E731
        trainer.loss, draw_clip=lambda *_: drawn, choose_points=choose
    )
    key = (case.config, case.step.clip.num_objects, case.recording["in.cls_gt"].shape, kind)
    if key not in _compiled_gradients:  # so that cases which differ in their draws share a program
        _compiled_gradients[key] = jax.jit(
            lambda state, batch, drawn: gradients_of(
                dataclasses.replace(trainer, loss=replayed(drawn)),
                state,
                batch,
                jnp.arange(2),
            )
        )
    return _compiled_gradients[key](state, case.batch, draws(case, points))


_compiled_gradients: dict[Any, Callable[..., Any]] = {}


def pixel_centres(height: int, width: int) -> np.ndarray:
    """All pixel centres, row by row: with these as points, losses are dense."""
    y, x = np.meshgrid(
        (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij"
    )
    return np.stack([x.ravel(), y.ravel()], axis=-1).astype(np.float32)
