"""Parameters of single modules from the recordings' tensors."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from s3_jax.conversion.weights import KINDS


def flax_params(tensors: Mapping[str, np.ndarray], *modules: tuple[str, str, str]) -> Any:
    """Return the nested parameters of a Flax module.

    Args:
      tensors: PyTorch name -> tensor.
      modules: PyTorch prefix, slash-separated Flax path and kind (see `KINDS`) of every part.
    """
    flat = {
        path + leaf.flax: jnp.asarray(leaf.move.to_flax(tensors[prefix + leaf.torch]))
        for prefix, path, kind in modules
        for leaf in KINDS[kind]
    }
    return unflatten_dict({path.strip("/"): value for path, value in flat.items()}, sep="/")
