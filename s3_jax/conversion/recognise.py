"""Recognition of the network that a PyTorch state dict belongs to, from keys and shapes.

It works for every `ModelConfig`, not only the published ones. Shapes do not determine the number of
heads of the object transformer, so heads are assumed to be 32 wide, as in all published networks.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from s3_jax.config import MODELS, OF_USE, CompactConfig, ModelConfig, ResNetConfig, ViTConfig
from s3_jax.conversion.errors import ConversionError
from s3_jax.models.deformable_attention import POINTS

Shapes = Mapping[str, tuple[int, ...]]
V = TypeVar("V")

ANCHOR = "object_transformer.query_init.weight"  # a key that every network has
SINGLE_OBJECT = "_single_object"
_HEAD_WIDTH = 32
_VIT_HEAD_WIDTH = 64
_LITE_USE = {name: getattr(MODELS["s3_lite"], name) for name in OF_USE}
_EXTRACTOR = "pixel_encoder.interactions.0.extractor.attn"
_VIT = "pixel_encoder.vit_module"
_READ = "object_transformer.blocks.0.read_from_pixel"
_SHOWN_KEYS = 5


def model_names() -> list[str]:
    """Return the names that `named_model` accepts."""
    return [name + suffix for name in MODELS for suffix in ("", SINGLE_OBJECT)]


def named_model(name: str) -> ModelConfig:
    """Return a published network's configuration (for its first stage: `<name>_single_object`).

    Raises:
      ConversionError: there is no such network; the message lists the existing ones.
    """
    base = name.removesuffix(SINGLE_OBJECT)
    if base not in MODELS:
        raise ConversionError(
            f"there is no model {name!r}; models: {', '.join(MODELS)}, each also with "
            f"{SINGLE_OBJECT} appended"
        )
    return dataclasses.replace(MODELS[base], single_object=base != name)


def name_of(config: ModelConfig) -> str:
    """Return the name of a configuration, or "custom" if it is not a published one."""
    names = (name for name in model_names() if named_model(name) == config)
    return next(names, "custom")


def recognise(shapes: Shapes) -> tuple[str, ModelConfig]:
    """Return the name and the configuration of the network to which a state dict belongs.

    Args:
      shapes: key -> shape. A prefix that all keys of the network share ("module.", "model.", ...)
        is ignored.

    Returns:
      The name, as given by `name_of`, and the configuration. `from_torch` checks that every key
        fits it.

    Raises:
      ConversionError: these are not the keys of a network; the message names the missing key.
    """
    try:
        shapes, _ = network_part(shapes)
        config = _Reader(shapes).config()
    except ConversionError as error:
        raise ConversionError(
            f"cannot recognise the network: {error}; if it is one of {', '.join(MODELS)}, name it "
            "with --model="
        ) from error
    return name_of(config), config


def network_part(
    tensors: Mapping[str, V], prefix: str | None = None
) -> tuple[dict[str, V], list[str]]:
    """Split a file's tensors into the network's state dict and other keys.

    Args:
      tensors: values of any kind by key.
      prefix: prefix of the network's keys; None to detect it.

    Returns:
      The network's tensors without the prefix, and the other keys (those of an optimizer, ...).

    Raises:
      ConversionError: no network, or more than one, is among the keys.
    """
    if prefix is None:
        prefix = find_prefix(tensors, ANCHOR, "an S3 or Cutie network")
    part = {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}
    return part, [key for key in tensors if not key.startswith(prefix)]


def find_prefix(keys: Collection[str], anchor: str, what: str) -> str:
    """Return the prefix of the only key that ends with `anchor`; it ends in a dot or is empty.

    Raises:
      ConversionError: no key, or more than one, ends with the anchor.
    """
    found = [
        key.removesuffix(anchor) for key in keys if key == anchor or key.endswith(f".{anchor}")
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        shown = ", ".join(list(keys)[:_SHOWN_KEYS]) or "no tensors at all"
        raise ConversionError(
            f"{what} is not in here: no key is or ends with {anchor}; there are {len(keys)} "
            f"tensors: {shown}{', ...' if len(keys) > _SHOWN_KEYS else ''}"
        )
    raise ConversionError(
        f"{what} occurs {len(found)} times here, under the prefixes "
        f"{', '.join(repr(prefix) for prefix in sorted(found))}: choose one with --prefix=, or "
        "give a file with only one of them"
    )


class _Reader:
    """Lookup of shapes by key; a missing key raises an error that names it."""

    def __init__(self, shapes: Shapes):
        self._shapes = shapes

    def config(self) -> ModelConfig:
        """Return the configuration that the shapes determine."""
        encoder = self._encoder()
        queries, width = self._shape(ANCHOR, 2)
        middle, first, *_ = self._shape("mask_decoder.up_16_8.out_conv.conv1.weight", 4)
        multi_head = f"{_READ}.cross_attn.in_proj_weight" in self._shapes
        return ModelConfig(
            encoder=encoder,
            encoder_settings=self._settings(encoder),
            query_attention="multi_head" if multi_head else "discriminative",
            num_blocks=self._count("object_transformer.blocks"),
            num_queries=queries,
            width=width,
            key_dim=self._shape("key_proj.key_proj.weight", 4)[0],
            num_heads=max(1, width // _HEAD_WIDTH),
            ff_dim=self._shape("object_transformer.blocks.0.ffn.linear1.weight", 2)[0],
            decoder_dims=(
                first,
                middle,
                self._shape("mask_decoder.up_8_4.out_conv.conv1.weight", 4)[0],
            ),
            mask_encoder_width=self._shape("mask_encoder.conv1.weight", 4)[0],
            single_object=self._single_object(),
            size_multiple=16 if multi_head and encoder == "resnet" else 32,
            **(_LITE_USE if encoder == "compact_semantic" else {}),
        )

    def _encoder(self) -> str:
        signs = {
            "pixel_encoder.backbone._": "compact_semantic",
            "pixel_encoder.interactions.": "spatial_semantic",
            "pixel_encoder.simfp_": "feature_pyramid",
            "pixel_encoder.res2.": "resnet",
        }
        for beginning, encoder in signs.items():
            if any(key.startswith(beginning) for key in self._shapes):
                return encoder
        raise ConversionError(
            "no known image encoder: looked for keys that begin with " + " or ".join(signs)
        )

    def _settings(self, encoder: str) -> Any:
        if encoder == "compact_semantic":
            return self._compact()
        return self._resnet() if encoder == "resnet" else self._vit()

    def _resnet(self) -> ResNetConfig:
        return ResNetConfig(50 if "pixel_encoder.res2.0.conv3.weight" in self._shapes else 18)

    def _vit(self) -> ViTConfig:
        _, tokens, width = self._shape(f"{_VIT}.pos_embed", 3)
        side = math.isqrt(tokens - 1)
        if side * side != tokens - 1:
            raise ConversionError(
                f"{_VIT}.pos_embed has {tokens} entries, but needs one for the class token "
                "and those of a square grid"
            )
        return ViTConfig(width, self._count(f"{_VIT}.blocks"), self._vit_heads(width), side)

    def _compact(self) -> CompactConfig:
        width = self._shape("pixel_encoder.level_embed", 2)[1]
        return CompactConfig(
            width,
            self._extractor_heads() or max(1, width // _HEAD_WIDTH),
            self._shape("pixel_encoder.spm.stem.0.weight", 4)[0],
            semantic_embedding=any("read_from_cls" in key for key in self._shapes),
            spatial_dependency=self._extractor_heads() is not None,
        )

    def _vit_heads(self, width: int) -> int:
        return self._extractor_heads() or max(1, width // _VIT_HEAD_WIDTH)

    def _extractor_heads(self) -> int | None:
        """Return the number of heads of the deformable attention, or None if there is none."""
        key = f"{_EXTRACTOR}.attention_weights.bias"
        return self._shape(key, 1)[0] // POINTS if key in self._shapes else None

    def _single_object(self) -> bool:
        key = "mask_encoder.conv1.weight"
        channels = self._shape(key, 4)[1]
        if channels not in (4, 5):
            raise ConversionError(
                f"{key} has {channels} input channels; looked for 5 (image, mask, other masks) or "
                "4 (image, mask)"
            )
        return channels == 4

    def _shape(self, key: str, rank: int) -> tuple[int, ...]:
        if key not in self._shapes:
            raise ConversionError(f"not an S3 or Cutie network: looked for {key}, which is missing")
        shape = tuple(self._shapes[key])
        if len(shape) != rank:
            raise ConversionError(f"{key} has shape {shape}; looked for {rank} axes")
        return shape

    def _count(self, beginning: str) -> int:
        pattern = re.compile(re.escape(beginning) + r"\.(\d+)\.")
        numbers = {int(m[1]) for key in self._shapes if (m := pattern.match(key))}
        if not numbers:
            raise ConversionError(f"not an S3 or Cutie network: looked for {beginning}.0, which is "
                                  "missing")  # fmt: skip
        return max(numbers) + 1
