"""Variables of a network: initial values, shapes, and one name per array."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from s3_jax.config import ModelConfig
from s3_jax.errors import InputError, reason
from s3_jax.models.s3 import S3

Variables = dict[str, Any]  # collection ("params", "batch_stats") -> nested dictionaries of arrays
Shapes = dict[str, Any]  # the same with jax.ShapeDtypeStruct


def initial_variables(config: ModelConfig, seed: int = 0) -> Variables:
    """Return a network's initial values as NumPy arrays.

    Raises:
      InputError: no network can be built with these settings.
    """
    with _building():
        variables = S3(config).lazy_init(jax.random.key(seed), *_inputs(config))
    return {"batch_stats": {}} | jax.device_get(variables)


def variable_shapes(config: ModelConfig) -> Shapes:
    """Return the shapes and types of a network's variables, without computing any.

    Raises:
      InputError: no network can be built with these settings.
    """
    with _building():
        shapes = jax.eval_shape(S3(config).init, jax.random.key(0), *_inputs(config))
    return {"batch_stats": {}} | shapes


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries into one, with keys joined by slashes."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
    return flat


@contextlib.contextmanager
def _building() -> Iterator[None]:
    """Turn errors raised while a network is built into one that names the configuration."""
    try:
        yield
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        problem = f"no network can be built from the configuration ({reason(error)})"
        raise InputError(f"{problem}: correct its numbers of channels and heads") from error


def _inputs(config: ModelConfig) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Return shapes of the smallest image and mask that the network takes."""
    side = 2 * config.size_multiple
    image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    return image, jax.ShapeDtypeStruct((1, 1, side, side), np.float32)
