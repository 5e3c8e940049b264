"""Widening of a single-object network to one that also sees the masks of other objects.

Inputs are [image, mask, others] and [sensory memory, mask, others]. The new input channel comes
last, so all old channels keep their meaning.
"""

import math

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float

from s3_jax.models.variables import Variables

Array = np.ndarray
# Kernels that gain an input channel, and the names that seed its initial values.
_WIDENED = {
    ("mask_encoder", "resnet", "stem_conv", "kernel"): "mask_encoder.conv1.weight",
    ("pixel_fuser", "state_proj", "kernel"): "pixel_fuser.sensory_compress.weight",
}


def widen(variables: Variables, seed: int) -> Variables:
    """Return the variables of the multi-object network.

    Args:
      variables: variables of the single-object network.
      seed: seed of the new channels, which start orthogonal.
    """
    params = flatten_dict(variables["params"])
    for path, name in _WIDENED.items():
        kernel = np.asarray(params[path])
        *space, _, out = kernel.shape
        drawn = orthogonal((out, 1, *space), random_for(name, seed))
        channel = np.moveaxis(drawn, (0, 1), (-1, -2)).astype(kernel.dtype)
        params[path] = np.concatenate([kernel, channel], axis=-2)
    return variables | {"params": unflatten_dict(params)}


def orthogonal(shape: tuple[int, ...], rng: np.random.Generator) -> Float[Array, "..."]:
    """Draw an array whose (shape[0], rest) matrix has orthonormal rows (or columns, if fewer)."""
    rows, columns = shape[0], math.prod(shape[1:])
    tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diagonal(r))[None]
    return (q if rows >= columns else q.T).reshape(shape)


def random_for(name: str, seed: int) -> np.random.Generator:
    """Return the random generator for one array of a run."""
    return np.random.default_rng([seed, *name.encode()])
