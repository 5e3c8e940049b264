"""Weights of the recordings: each tensor depends only on its key and shape.

The rule is part of the recordings. The CRC-32 of a key, combined with the seed, seeds a generator
that draws standard normal numbers once. The kind of tensor decides how they are transformed.
"""

import concurrent.futures
import itertools
import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

TEMPERATURE = 128.0  # of the position encodings

# Scale factors for matrices and kernels whose key contains the text; the last match counts.
GAINS = {
    "pixel_encoder.res2.": 1.4,
    "pixel_encoder.layer2.": 1.4,
    "pixel_encoder.layer3.": 1.4,
    ".conv3.weight": 0.85,
    "decoder_feat_proc.": 0.6,
    "pix_feat_proj.weight": 0.5,
    "key_proj.d_proj.weight": 0.5,
    "mask_decoder.pred.weight": 1.2,
    "object_transformer.mask_pred.": 1.2,
    "aux_computer.sensory_aux.projection.weight": 0.5,
    "sampling_offsets.weight": 0.1,
}

# Mean and standard deviation by the key's ending; the first match counts.
SHIFTED_NORMALS = {
    "sampling_offsets.bias": (0.0, 1.5),
    "mask_decoder.pred.bias": (-2.0, 0.05),
    "running_mean": (0.0, 0.1),
    "bias": (0.0, 0.05),
    ".gamma": (0.2, 0.1),
    ".alpha": (1.0, 0.1),
    "pos_embed": (0.0, 0.5),
    "cls_token": (0.0, 0.5),
    "mask_token": (0.0, 0.5),
    "level_embed": (0.0, 0.5),
    "query_init.weight": (0.0, 1.0),
    "query_emb.weight": (0.0, 1.0),
}


def state_dict(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, np.ndarray]:
    """Return PyTorch key -> tensor. Threads make it faster, because drawing releases the lock."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        tensors = pool.map(make_tensor, shapes, shapes.values(), itertools.repeat(seed))
        return dict(zip(shapes, tensors, strict=True))


def make_tensor(key: str, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return one tensor, float32 (int64 for counters)."""
    shape = tuple(shape)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("inv_freq"):
        return _frequencies(shape[0])
    draw = np.random.default_rng(zlib.crc32(key.encode()) ^ seed)
    if key.endswith("running_var"):
        return (0.5 + draw.random(shape)).astype(np.float32)
    return _from_normal(key, draw.standard_normal(shape)).astype(np.float32)


def _from_normal(key: str, normal: np.ndarray) -> np.ndarray:
    for ending, (mean, deviation) in SHIFTED_NORMALS.items():
        if key.endswith(ending):
            return mean + deviation * normal
    if normal.ndim == 1:
        return 1 + 0.1 * normal
    return _kernel(key, normal)


def _kernel(key: str, normal: np.ndarray) -> np.ndarray:
    """Return a matrix or kernel, outputs first: zero mean per output, variance 1 / inputs."""
    if normal.shape[1] > 1:
        normal -= normal.mean(axis=tuple(range(1, normal.ndim)), keepdims=True)
    gain = 1.0
    for text, factor in GAINS.items():
        gain = factor if text in key else gain
    normal *= gain
    normal /= math.sqrt(math.prod(normal.shape[1:]))
    return normal


def _frequencies(count: int) -> np.ndarray:
    exponent = np.arange(count, dtype=np.float32) / np.float32(count)
    return (1 / np.power(np.float32(TEMPERATURE), exponent)).astype(np.float32)
