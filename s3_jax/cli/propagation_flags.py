"""Flags of commands that segment videos: the checkpoint, and fields of `PropagationConfig`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from s3_jax.config import MODELS, OF_MEMORY, ModelConfig, PropagationConfig
from s3_jax.errors import InputError

CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "A checkpoint directory written by s3 convert; a training run's directory (the step with the "
    "best validation score, else the last); the name of a bundled checkpoint (s3_lite); or the "
    "name of one that is downloaded on first use (cutie_base_mega). Required.",
)
DTYPE = flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "bfloat16"],
    "Number type of most of the network. On TPU and GPU, bfloat16 takes half the memory and is "
    "faster. On a CPU with instructions for it, only the operands of matrix products are rounded.",
)
_OF_NETWORK = {
    name: f"what suits the network: {getattr(MODELS['s3_lite'], name)} for s3_lite, "
    f"{getattr(PropagationConfig, name)} for the others"
    for name in OF_MEMORY
}
_HELP = {
    "mem_every": "Add a frame to the memory every this many frames.",
    "max_mem_frames": "Frames in working memory, including the first one.",
    "stagger": "How often the sensory memory is updated between two memory frames.",
    "top_k": "Memory tokens read for each pixel.",
    "memory_policy": "What the memory keeps and drops: first_in_first_out; long_term; auto, which "
    "follows --long_term; or your own as package.module:Name (docs/extend.md).",
    "long_term": "Compress old memory into long-term prototypes instead of dropping it. Use it for "
    "videos longer than about 1,000 frames. The lt_ flags then replace --max_mem_frames.",
    "lt_max_frames": "Compress the working memory when it holds this many frames.",
    "lt_min_frames": "Frames left in working memory after compression.",
    "lt_prototypes": "Long-term tokens made by one compression.",
    "lt_max_tokens": "Capacity of long-term memory, in tokens.",
    "lt_buffer_tokens": "Tokens freed, least used first, when long-term memory is full.",
    "flip": "Also segment the mirrored video and average: better, but twice the time and memory.",
    "chunk_size": "Objects processed at a time; -1 for all. Fewer need less memory; same result.",
    "max_internal_size": "Resize frames for the network if their short side in pixels is larger "
    "than this (bilinear without antialiasing, as in the published code); -1: never. See --size. "
    "s3_lite also enlarges frames below 416 pixels, at most to twice their size. A smaller value "
    "here prevents that, which is faster but less accurate.",
}


def define_propagation_flags(defaults: Mapping[str, str] | None = None) -> list[flags.FlagHolder]:
    """Define a flag for every field of `PropagationConfig`.

    Args:
      defaults: descriptions of defaults that are decided later, by field; they go before what
        suits the network.
    """
    holders = []
    for field in dataclasses.fields(PropagationConfig):
        decided = (defaults or {}).get(field.name), _OF_NETWORK.get(field.name)
        holders.append(_define(field, ", else ".join(filter(None, decided))))
    return holders


def propagation_config(
    holders: list[flags.FlagHolder], checkpoint: Path, chosen: Mapping[str, Any] | None = None
) -> PropagationConfig:
    """Return the settings that the flags give, else `chosen`, else what suits the checkpoint.

    Raises:
      InputError: a value is out of range.
    """
    given = {flag.name: flag.value for flag in holders if flag.value is not None}
    model = _network_of(checkpoint)
    try:
        return PropagationConfig.suiting(model, **{**(chosen or {}), **given})
    except ValueError as error:
        raise InputError(f"--{error}") from error


def _network_of(checkpoint: Path) -> ModelConfig:
    from s3_jax.checkpoints.model import read_header  # late: loading JAX takes seconds

    return read_header(checkpoint).config


def _define(field: dataclasses.Field, decided: str) -> flags.FlagHolder:
    kinds: dict[type, Any] = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        str: flags.DEFINE_string,
    }
    define = kinds[type(field.default)]
    text = _HELP[field.name] + (f" Default: {decided}." if decided else "")
    return define(field.name, None if decided else field.default, text)
