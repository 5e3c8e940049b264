"""Parameter groups: frozen parameters, and those that the optimizer treats differently.

See docs/propagation.md, section 5.4.
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from flax.traverse_util import flatten_dict, unflatten_dict

from s3_jax.errors import InputError
from s3_jax.models.encoders import make_encoder
from s3_jax.models.s3 import S3

Group = Literal["frozen", "pretrained", "backbone", "embedding", "other"]
Path = tuple[str, ...]
Params = dict[str, Any]

# Parameters that produce the object queries. The biases of the linear layers are not included,
# because the published code's pattern does not match them.
EMBEDDINGS: frozenset[Path] = frozenset(
    {
        ("object_transformer", "query_init"),
        ("object_transformer", "query_emb"),
        ("object_transformer", "summary_to_init", "kernel"),
        ("object_transformer", "summary_to_emb", "kernel"),
    }
)


def group_of(path: Path, model: S3, pretrained_apart: bool = False) -> Group:
    """Return the group of a parameter.

    Args:
      path: names of the parameter's modules, then its own name.
      pretrained_apart: put the fine-tuned part of the pretrained network in the group
        "pretrained" rather than "backbone".
    """
    if path[0] == "image_encoder":
        encoder = make_encoder(model.config)
        if encoder.frozen(path[1:], model.trainable_blocks):
            return "frozen"
        pretrained = pretrained_apart and encoder.frozen(path[1:], ())
        return "pretrained" if pretrained else "backbone"
    return "embedding" if path in EMBEDDINGS else "other"


def group_labels(params: Params, model: S3, pretrained_apart: bool = False) -> Params:
    """Return a tree like `params` with each parameter replaced by its group (see `group_of`)."""
    paths = flatten_dict(params)
    return unflatten_dict({path: group_of(path, model, pretrained_apart) for path in paths})


def matches(path: Path, patterns: Sequence[str]) -> bool:
    """Return True if a path, joined by slashes, matches any of the shell-style patterns."""
    name = "/".join(path)
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def refuse_unmatched(params: Params, patterns: Sequence[str], where: str) -> None:
    """Refuse patterns that match no parameter, which would silently freeze nothing.

    Args:
      where: name of the setting, for the message.

    Raises:
      InputError: a pattern matches nothing; the message lists the top-level module names.
    """
    paths = flatten_dict(params)
    for pattern in patterns:
        if not any(matches(path, [pattern]) for path in paths):
            known = ", ".join(sorted({path[0] for path in paths}))
            raise InputError(
                f"{where}: {pattern!r} matches no parameter; write a pattern such as "
                f"'image_encoder/*' that starts with one of {known}"
            )


def split_frozen(params: Params, model: S3) -> tuple[Params, Params]:
    """Return the trainable parameters and the frozen ones; `merge` joins them again."""
    return split(params, lambda path: group_of(path, model) != "frozen")


def split(params: Params, chosen: Callable[[Path], bool]) -> tuple[Params, Params]:
    """Return the parameters at the chosen paths and the others; `merge` joins them again."""
    flat = flatten_dict(params)
    others = {path for path in flat if not chosen(path)}
    first = unflatten_dict({path: x for path, x in flat.items() if path not in others})
    return first, unflatten_dict({path: flat[path] for path in others})


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> Params:
    """Return the union of two parameter trees; `second` wins where both have a parameter."""
    return unflatten_dict(flatten_dict(first) | flatten_dict(second))
