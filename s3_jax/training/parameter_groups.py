"""Which parameters train, and in which group of the optimizer (protocol.md section 5)."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from flax.traverse_util import flatten_dict, unflatten_dict

from s3_jax.models.encoders import make_encoder
from s3_jax.models.s3 import S3

Group = Literal["frozen", "pretrained", "backbone", "embedding", "other"]
Path = tuple[str, ...]
Params = dict[str, Any]

# What makes the object queries; of the linear layers only the weights (in the published code the
# names of their biases do not match).
EMBEDDINGS: frozenset[Path] = frozenset(
    {
        ("object_transformer", "query_init"),
        ("object_transformer", "query_emb"),
        ("object_transformer", "summary_to_init", "kernel"),
        ("object_transformer", "summary_to_emb", "kernel"),
    }
)


def group_of(path: Path, model: S3) -> Group:
    """Group of the parameter at a path, given as the names of its modules and its own."""
    if path[0] == "image_encoder":
        frozen = make_encoder(model.config).frozen(path[1:], model.trainable_blocks)
        return "frozen" if frozen else "backbone"
    return "embedding" if path in EMBEDDINGS else "other"


def group_labels(params: Params, model: S3, pretrained_apart: bool = False) -> Params:
    """Return the tree of the parameters, with the group in place of each.

    pretrained_apart: what is fine-tuned of the pretrained network is a group "pretrained".
    """

    def label(path: Path) -> Group:
        group = group_of(path, model)
        fine_tuned = path[:2] in PRETRAINED and group == "backbone"
        return "pretrained" if pretrained_apart and fine_tuned else group

    return unflatten_dict({path: label(path) for path in flatten_dict(params)})


def split_frozen(params: Params, model: S3) -> tuple[Params, Params]:
    """Parameters that train, and those that do not; `merge` undoes it."""
    return split(params, lambda path: group_of(path, model) != "frozen")


def split(params: Params, chosen: Callable[[Path], bool]) -> tuple[Params, Params]:
    """Parameters at the chosen paths, and the others; `merge` undoes it."""
    flat = flatten_dict(params)
    others = {path for path in flat if not chosen(path)}
    first = unflatten_dict({path: x for path, x in flat.items() if path not in others})
    return first, unflatten_dict({path: flat[path] for path in others})


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> Params:
    """The union of two trees of parameters."""
    return unflatten_dict(flatten_dict(first) | flatten_dict(second))
