"""Rematerialization: what the backward pass recomputes (`jax.checkpoint` policies by name)."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core.primitives import conv_general_dilated_p, dot_general_p

from s3_jax.models.encoders import KEPT
from s3_jax.ops.convolution import CONVOLUTION
from s3_jax.training.step_config import Rematerialization

policies = jax.checkpoint_policies


def _products_saveable(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive in (conv_general_dilated_p, dot_general_p)


# Values that an encoder marks are always kept: a frozen ViT's blocks need no backward pass, so
# recomputing them would gain nothing.
_KEEP_MARKED = policies.save_only_these_names(KEPT)
_POLICIES: dict[Rematerialization, Callable[..., bool]] = {
    "full": _KEEP_MARKED,
    "products": policies.save_from_both_policies(
        policies.save_only_these_names(KEPT, CONVOLUTION), _products_saveable
    ),
}


def rematerialize(
    fn: Callable[..., Any], what: Rematerialization, *, in_scan: bool = False
) -> Callable[..., Any]:
    """Return `fn` with a different memory-time trade-off in its backward pass; values are the same.

    Args:
      what: see `ClipConfig`.
      in_scan: True if `fn` is the body of a scan. There the compiler cannot merge the recomputation
        with the original computation, so no barrier is needed.
    """
    if what == "none":
        return fn
    return jax.checkpoint(fn, policy=_POLICIES[what], prevent_cse=not in_scan)
