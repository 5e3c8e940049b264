"""Two-dimensional sinusoidal position encoding (docs/network.md, section 3.5)."""

import functools

import numpy as np
from jaxtyping import Float32

SCALE = 32.0
TEMPERATURE = 128.0


def inverse_frequencies(channels: int) -> Float32[np.ndarray, "f"]:
    """Return angular frequencies per axis; PyTorch checkpoints store them as `inv_freq`."""
    per_axis = 2 * -(-channels // 4)
    exponent = np.arange(0, per_axis, 2, dtype=np.float32) / np.float32(per_axis)
    return (1.0 / np.power(np.float32(TEMPERATURE), exponent)).astype(np.float32)


@functools.lru_cache(maxsize=32)
def sinusoidal_encoding(height: int, width: int, channels: int) -> Float32[np.ndarray, "h w c"]:
    """Return sines and cosines of positions, interleaved: those of x first, then those of y."""
    y = _encode_axis(height, channels)
    x = _encode_axis(width, channels)
    shape = (height, width)
    table = np.concatenate(
        [
            np.broadcast_to(x[None, :, :], (*shape, x.shape[-1])),
            np.broadcast_to(y[:, None, :], (*shape, y.shape[-1])),
        ],
        axis=-1,
    )
    return np.ascontiguousarray(table[..., :channels])


def _encode_axis(n: int, channels: int) -> np.ndarray:
    position = np.arange(n, dtype=np.float32) / np.float32(n - 1 + 1e-6) * np.float32(SCALE)
    angle = position[:, None] * inverse_frequencies(channels)[None, :]
    return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(n, -1)
