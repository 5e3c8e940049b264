"""Published networks by name; each is downloaded and converted once, and kept in the cache."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from s3_jax.checkpoints.layout import CONFIG_FILE
from s3_jax.conversion.downloads import PUBLISHED, cache_directory, download
from s3_jax.conversion.recognise import network_part, recognise
from s3_jax.conversion.torch_file import read_tensors
from s3_jax.conversion.weights import from_torch


def published_names() -> list[str]:
    """Return the names of whole networks that are downloaded on first use."""
    return sorted(name for name, published in PUBLISHED.items() if published.role == "network")


def published_model(name: str, save: Callable[..., None]) -> Path:
    """Return the checkpoint of a published network, created on first use.

    Args:
      name: one of `published_names()`.
      save: `save_model`, which this module cannot import.

    Raises:
      InputError: it cannot be downloaded.
      ConversionError: the file does not hold a known network.
    """
    published = PUBLISHED[name]
    directory = cache_directory() / f"{name}-{published.digest[:8]}"
    if not (directory / CONFIG_FILE).is_file():
        tensors, _ = network_part(read_tensors(download(name)))
        config = recognise({key: tensor.shape for key, tensor in tensors.items()})[1]
        variables = from_torch({key: _as_float32(x) for key, x in tensors.items()}, config)
        notes = {"converted_from": published.url, "licence": published.licence}
        save(directory, config, variables, metadata=notes)
    return directory


def _as_float32(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float32) if jnp.issubdtype(tensor.dtype, jnp.floating) else tensor
