"""Flags shared by commands that segment videos: checkpoint, and fields of `PropagationConfig`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from absl import flags

from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError

CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "Checkpoint directory as written by s3 convert, a training run's directory (its best validated "
    "step is taken, or else its last), the name of a checkpoint that comes with s3_jax, or of "
    "one that is downloaded when first used (cutie_base_mega). Required.",
)
DTYPE = flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "bfloat16"],
    "Number type of most of the network. bfloat16 takes half the memory on TPU and GPU and is fast "
    "there; on a CPU with instructions for it, only what matrix products multiply is rounded.",
)
_HELP = {
    "mem_every": "A frame enters the memory every this many frames.",
    "max_mem_frames": "Frames in working memory, the first one included.",
    "stagger": "How many times between two memory frames the sensory memory is updated.",
    "top_k": "Memory tokens read for each pixel.",
    "memory_policy": "What memory keeps and gives up: first_in_first_out, long_term, auto for the "
    "one that --long_term says, or your own as package.module:Name (docs/extend.md).",
    "long_term": "Compress old memory into long-term prototypes instead of forgetting it; for "
    "videos of more than about 1,000 frames. The lt_ flags then replace --max_mem_frames.",
    "lt_max_frames": "Frames in working memory at which it is compressed.",
    "lt_min_frames": "Frames in working memory after it was compressed.",
    "lt_prototypes": "Tokens that one compression makes.",
    "lt_max_tokens": "Capacity of long-term memory, in tokens.",
    "lt_buffer_tokens": "Tokens freed, least used first, when long-term memory is full.",
    "flip": "Segment the mirrored video as well and average: better, twice the time and memory.",
    "chunk_size": "Objects processed at a time; -1 for all. Less memory, same result.",
    "max_internal_size": "Short side in pixels above which the network works on a resized frame "
    "(plain bilinear, no antialiasing, as the published code does); -1 for never. See --size.",
}


def define_propagation_flags(defaults: Mapping[str, str] | None = None) -> list[flags.FlagHolder]:
    """Define a flag for every field of `PropagationConfig`.

    defaults: fields whose default is decided later, with a description of it.
    """
    fields = dataclasses.fields(PropagationConfig)
    return [_define(field, (defaults or {}).get(field.name)) for field in fields]


def propagation_config(
    holders: list[flags.FlagHolder], chosen: Mapping[str, Any] | None = None
) -> PropagationConfig:
    """Return the settings of the flags, with `chosen` as defaults for those decided later.

    Raises:
      InputError: a value is out of range.
    """
    given = {flag.name: flag.value for flag in holders if flag.value is not None}
    try:
        return PropagationConfig(**{**(chosen or {}), **given})
    except ValueError as error:
        raise InputError(f"--{error}") from error


def _define(field: dataclasses.Field, decided: str | None) -> flags.FlagHolder:
    kinds: dict[type, Any] = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        str: flags.DEFINE_string,
    }
    define = kinds[type(field.default)]
    text = _HELP[field.name] + (f" Default: {decided}." if decided else "")
    return define(field.name, None if decided else field.default, text)  # type: ignore[arg-type]
