"""Training of the prompt head: all of its settings in one place, and its parts for `fit`.

loss        `loss.prompt_losses` on the maps of the frozen trunk
optimizer   AdamW, with a learning rate that decays to zero
data        views of pictures that are all held in memory
evaluation  J after one and five clicks and from a box, on held-out pictures
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, Key

from s3_jax.benchmarks.clicks import Example, boxed, clicked, prompter_answers
from s3_jax.checkpoints.model import find_model, load_model
from s3_jax.checkpoints.prompts import trunk_variables
from s3_jax.data.prompt_pictures import (
    PictureFolderConfig,
    Pictures,
    held_out_objects,
    load_pictures,
)
from s3_jax.models.efficientnet import DetailedMaps
from s3_jax.models.layers import Dtype
from s3_jax.models.prompt_head import (
    PROMPT_HEAD,
    PromptHead,
    PromptLogits,
    initial_prompt_head,
    trunk_maps,
)
from s3_jax.models.prompt_maps import Prompts
from s3_jax.models.variables import Variables
from s3_jax.prompting.prompter import Prompter
from s3_jax.training.fit import FitConfig, Outcome, fit
from s3_jax.training.progress import Evaluation
from s3_jax.training.prompts.clicks import ClickConfig
from s3_jax.training.prompts.folders import FOLDERS, STILLS
from s3_jax.training.prompts.loss import PromptLossConfig, prompt_losses
from s3_jax.training.prompts.views import ViewConfig, Views, draw_views
from s3_jax.training.state import Metrics

OFTEN = FitConfig(save_every=500, evaluate_every=500, evaluate_first=False)


@dataclasses.dataclass(frozen=True)
class PromptRunConfig:
    """Frozen settings of a training run of the prompt head.

    steps, batch_size: number of steps, and of views per step.
    rate, warmup: largest learning rate, and steps until it is reached; it then decays as a cosine.
    decay: weight decay. clip_norm: largest norm of the gradients. ema_decay: decay of the moving
      average of the parameters.
    """

    steps: int = 455
    batch_size: int = 32
    rate: float = 1.5e-3
    warmup: int = 60
    decay: float = 0.02
    beta2: float = 0.99
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    seed: int = 0
    folders: tuple[PictureFolderConfig, ...] = FOLDERS
    validation: tuple[PictureFolderConfig, ...] = STILLS
    views: ViewConfig = dataclasses.field(default_factory=ViewConfig)
    clicks: ClickConfig = dataclasses.field(default_factory=ClickConfig)
    loss: PromptLossConfig = dataclasses.field(default_factory=PromptLossConfig)


def train_prompt_head(
    config: PromptRunConfig,
    data_root: Path,
    checkpoint: str,
    workdir: Path,
    fit_config: FitConfig = OFTEN,
) -> Outcome:
    """Train a prompt head for a checkpoint's network, whose own parameters stay as they are.

    `Prompter(workdir)` loads the result.

    Raises:
      InputError: the checkpoint, the data or the directory cannot be used.
    """
    directory = find_model(checkpoint)
    model, variables = load_model(directory)
    trunk_variables(directory, variables)
    params = {**variables["params"], PROMPT_HEAD: initial_prompt_head(config.seed)}
    pictures = load_pictures(data_root, config.folders)
    examples = held_out_examples(data_root, config.validation)
    return fit(
        workdir,
        model,
        {"params": params, "batch_stats": variables["batch_stats"]},
        loss=functools.partial(loss_of_views, config),
        optimizer=optimizer(config),
        data=functools.partial(batches, config, pictures),
        steps=config.steps,
        evaluate=functools.partial(evaluate, examples),
        config=fit_config,
        seed=config.seed,
        trains=lambda path: path[0] == PROMPT_HEAD,
        ema_decay=config.ema_decay,
    )


def loss_of_views(
    config: PromptRunConfig,
    variables: Variables,
    batch: Views,
    rows: Int[Array, "b"],
    key: Key[Array, ""],
) -> tuple[Metrics, Any]:
    """Return the losses of views, and the unchanged BatchNorm statistics."""
    trunk = {name: variables[name]["image_encoder"]["backbone"] for name in variables}
    key = jax.random.fold_in(key, rows[0])
    head = variables["params"][PROMPT_HEAD]
    return (
        head_losses(config, trunk, head, batch, key, jnp.float32),
        variables["batch_stats"],
    )


def head_losses(
    config: PromptRunConfig,
    trunk: Variables,
    head: dict[str, Any],
    views: Views,
    key: Key[Array, ""],
    dtype: Dtype,
) -> Metrics:
    """Return the losses of views as a function of the head's parameters."""
    maps = trunk_maps(trunk, views.image, dtype)
    network = PromptHead(dtype=dtype)

    def answer(maps: DetailedMaps, prompts: Prompts) -> PromptLogits:
        """Run the prompt head with these parameters."""
        return cast(PromptLogits, network.apply({"params": head}, maps, prompts))

    maps = jax.lax.stop_gradient(maps)
    return prompt_losses(answer, maps, views, key, config.clicks, config.loss)


def optimizer(config: PromptRunConfig) -> optax.GradientTransformation:
    """Return AdamW with gradient clipping and a warm-up cosine schedule."""
    warmup = min(config.warmup, config.steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.rate, warmup, config.steps)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(rate, b2=config.beta2, weight_decay=config.decay),
    )


def batches(config: PromptRunConfig, pictures: Pictures, step: int) -> Iterator[Views]:
    """Yield batches of views from a step on, each drawn from the step's number."""
    on_device = jax.device_put(pictures)
    draw = jax.jit(draw_views, static_argnums=2)
    while True:
        key = jax.random.fold_in(jax.random.key(config.seed), step)
        keys = jax.random.split(key, config.batch_size)
        yield jax.device_get(draw(on_device, keys, config.views))
        step += 1


def held_out_examples(data_root: Path, folders: Sequence[PictureFolderConfig]) -> list[Example]:
    """Return the largest object of every held-out picture."""
    return [
        Example(name, image, mask)
        for folder in folders
        for name, image, mask in held_out_objects(data_root, folder)
    ]


def evaluate(examples: Sequence[Example], variables: Variables) -> Evaluation:
    """Return mean J after one and five clicks and from a box; the score is their mean."""
    trunk = {name: variables[name]["image_encoder"]["backbone"] for name in variables}
    prompter = Prompter.from_variables(trunk, variables["params"][PROMPT_HEAD])
    rows = []
    for example in examples:
        answer = prompter_answers(prompter, example.image)
        after = list(clicked(answer, example.mask, 5))
        rows.append((after[0], after[-1], boxed(answer, example.mask)))
    one, five, box = (float(x) for x in np.mean(rows, 0))
    return Evaluation(score=(one + five + box) / 3, values={"J/1": one, "J/5": five, "J/box": box})
