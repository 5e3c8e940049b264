"""Configuration: one frozen dataclass per part of the program; unknown keys are refused.

`MODELS` holds the published networks and their ablations by name (paper sections 3 and 4.3). A
checkpoint carries its own `ModelConfig`, so settings need not be given twice.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from absl import logging

from s3_jax import references
from s3_jax.errors import InputError
from s3_jax.limits import require_within

T = TypeVar("T")
_SCALARS = {bool, int, float, str, types.NoneType}
_LARGEST = 2**127  # about the largest float32 number


def _require(ok: bool, name: str, value: Any, rule: str) -> None:
    if not ok:
        raise ValueError(f"{name} is {value}, but must be {rule}")


def _sizes(config: Any) -> Iterator[tuple[str, int]]:
    """Yield the name and value of every integer in a configuration."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for size in value if isinstance(value, tuple) else (value,):
            if type(size) is int:
                yield field.name, size


def _require_positive(config: Any) -> None:
    for name, size in _sizes(config):
        _require(size >= 1, name, size, "at least 1")


class _Network:
    """Settings of a network or of a part of it, whose sizes are checked on loading.

    Otherwise an oversized network might take hours to build before its weights are rejected.
    """

    def require_within_limits(self) -> None:
        """Raise an InputError for a number above its budget."""
        for name, size in _sizes(self):
            budget = "network_blocks" if name in ("num_blocks", "depth") else "network_channels"
            require_within(budget, float(min(size, 2**63)), f"{name} is {size}")


@dataclasses.dataclass(frozen=True)
class ViTConfig(_Network):
    """Frozen settings of a plain vision transformer with patches of 16 x 16 pixels.

    position_grid: side of the square grid, in patches, for which position embeddings are stored.
    """

    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    position_grid: int = 37

    def __post_init__(self) -> None:
        _require(self.depth >= 0, "depth", self.depth, "0 or more")
        for name in ("embed_dim", "num_heads", "position_grid"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")


@dataclasses.dataclass(frozen=True)
class CompactConfig(_Network):
    """Frozen settings of spatial-semantic blocks around an EfficientNet-Lite0 instead of a ViT.

    stem_width: channels of the spatial prior's first convolutions.
    semantic_embedding, spatial_dependency: the two halves of a block; either can be left out for an
      ablation.
    """

    embed_dim: int = 96
    num_heads: int = 3
    stem_width: int = 16
    semantic_embedding: bool = True
    spatial_dependency: bool = True

    def __post_init__(self) -> None:
        _require_positive(self)
        _require(
            self.semantic_embedding or self.spatial_dependency,
            "spatial_dependency",
            self.spatial_dependency,
            "True if semantic_embedding is False: blocks without both do nothing",
        )


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """Frozen settings of a residual network of 18 or 50 layers."""

    depth: int = 50

    def __post_init__(self) -> None:
        _require(self.depth in (18, 50), "depth", self.depth, "18 or 50")


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """Empty settings, for encoders without any."""


class BuiltIn(NamedTuple):
    """A built-in encoder: `package.module:Name`, and the class of its settings."""

    reference: str
    settings: type


_ENCODERS = "s3_jax.models.encoders"
ENCODERS: dict[str, BuiltIn] = {
    "spatial_semantic": BuiltIn(f"{_ENCODERS}.spatial_semantic:SpatialSemanticEncoder", ViTConfig),
    "compact_semantic": BuiltIn(
        f"{_ENCODERS}.compact_semantic:CompactSemanticEncoder", CompactConfig
    ),
    "feature_pyramid": BuiltIn(f"{_ENCODERS}.feature_pyramid:FeaturePyramidEncoder", ViTConfig),
    "resnet": BuiltIn(f"{_ENCODERS}.resnet:ResNetEncoder", ResNetConfig),
}
QUERY_ATTENTIONS: dict[str, str] = {
    "discriminative": "s3_jax.models.object_attention:DiscriminativeCrossAttention",
    "multi_head": "s3_jax.models.object_attention:MultiHeadCrossAttention",
}


def load_encoder(name: str) -> Any:
    """Return the class of the encoder that a configuration names (`s3_jax.models.encoders`)."""
    known = {ours: entry.reference for ours, entry in ENCODERS.items()}
    return references.load(name, known, "encoder")


def load_query_attention(name: str) -> Any:
    """Return the attention class that a configuration names (`s3_jax.models.object_attention`)."""
    return references.load(name, QUERY_ATTENTIONS, "query_attention")


def encoder_settings_class(name: str) -> type:
    """Return the frozen dataclass of an encoder's settings.

    Raises:
      InputError: the encoder is unknown, or its `settings` are not typed as a frozen dataclass.
    """
    if name in ENCODERS:
        return ENCODERS[name].settings
    encoder = load_encoder(name)
    settings = typing.get_type_hints(encoder).get("settings", Any)
    if settings is Any:
        return NoSettings
    if not dataclasses.is_dataclass(settings) or settings.__hash__ is None:
        raise InputError(f"encoder {name}: annotate its `settings` with a frozen dataclass")
    return typing.cast(type, settings)


# Before version 0.1, a configuration had settings for all encoders, under these names.
_SETTINGS_BEFORE = {
    "spatial_semantic": "vit",
    "feature_pyramid": "vit",
    "compact_semantic": "compact",
    "resnet": "resnet_depth",
}


def _settings_of(encoder: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded settings, or an empty dictionary if they belong to another encoder."""
    own = {name: value for name, value in values.items() if name != "of"}
    other = values.get("of", encoder)
    _require(isinstance(other, str), "encoder_settings.of", other, "a name")
    if other == encoder or encoder_settings_class(other) is encoder_settings_class(encoder):
        return own
    logging.warning(
        "the encoder is %s with its default settings; settings for %s are ignored", encoder, other
    )
    return {}


@dataclasses.dataclass(frozen=True)
class ModelConfig(_Network):
    """Frozen settings that determine a network's parameters and what they compute.

    encoder: image encoder; one of `ENCODERS`, or any other as `package.module:Name`.
    encoder_settings: settings of the encoder: its frozen dataclass, a mapping of the fields that
      differ from its defaults, or None for the defaults.
    query_attention: cross attention from object queries to pixels: "discriminative" is S3's masked
      attention (the most similar pixel per head), "multi_head" is that of its ancestor Cutie, and
      any other is named as `package.module:Name`.
    mask_encoder_width: channels of the first layers of the mask encoder's ResNet-18.
    single_object: the network of the static pre-training stage, whose mask encoder and pixel fuser
      do not see the other objects.
    size_multiple: frames are padded so that height and width are multiples of this many pixels.
    min_internal_size: short side, in pixels, to which smaller frames are enlarged, but at most to
      twice their size. `PropagationConfig.max_internal_size` limits it.
    mem_every, max_mem_frames, stagger, top_k: the settings of `PropagationConfig` that suit the
      network.

    Raises:
      ValueError: a setting is out of range, or a named part is unknown.
    """

    encoder: str = "spatial_semantic"
    encoder_settings: Any = None
    query_attention: str = "discriminative"
    num_blocks: int = 3
    num_queries: int = 16
    width: int = 256
    key_dim: int = 64
    num_heads: int = 8
    ff_dim: int = 2048
    decoder_dims: tuple[int, int, int] = (256, 128, 128)
    mask_encoder_width: int = 64
    single_object: bool = False
    size_multiple: int = 32
    min_internal_size: int = 1
    mem_every: int = 5
    max_mem_frames: int = 5
    stagger: int = 5
    top_k: int = 30

    def __post_init__(self) -> None:
        _require_positive(self)
        expected, settings = encoder_settings_class(self.encoder), self.encoder_settings
        if settings is None:
            settings = expected()
        elif isinstance(settings, Mapping):
            settings = from_dict(expected, dict(settings), "encoder_settings.")
        elif not isinstance(settings, expected):
            raise InputError(
                f"encoder_settings is a {type(settings).__name__}, but the encoder {self.encoder} "
                f"takes a {expected.__name__}"
            )
        object.__setattr__(self, "encoder_settings", settings)
        if self.query_attention not in QUERY_ATTENTIONS:
            load_query_attention(self.query_attention)  # refuses unknown ones

    def recorded(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return `values` with the encoder's name added to its settings.

        This lets a single flag change the encoder.
        """
        return values | {"encoder_settings": {"of": self.encoder, **values["encoder_settings"]}}

    @staticmethod
    def upgraded(values: dict[str, Any]) -> dict[str, Any]:
        """Convert `values` from an older version to the current layout.

        Settings that belong to another encoder are left out.
        """
        encoder = values.get("encoder", ModelConfig.encoder)
        _require(isinstance(encoder, str), "encoder", encoder, "a name")
        before = {name: values.pop(name) for name in _SETTINGS_BEFORE.values() if name in values}
        if before and "encoder_settings" not in values:
            name = _SETTINGS_BEFORE.get(encoder)
            own = before.get(name, {}) if name else {}
            values["encoder_settings"] = {"depth": own} if name == "resnet_depth" else own
        if isinstance(values.get("encoder_settings"), Mapping):
            values["encoder_settings"] = _settings_of(encoder, values["encoder_settings"])
        return values


@dataclasses.dataclass(frozen=True)
class PropagationConfig:
    """Frozen settings of video processing (protocol of the paper's section 4.1).

    mem_every: interval, in frames, at which a frame is written to memory.
    max_mem_frames: number of frames in working memory, including the permanent first frame.
    stagger: number of frames per memory interval at which the decoder updates sensory memory.
    top_k: number of memory tokens read per query pixel.
    memory_policy: policy that decides what is kept, read and evicted: "first_in_first_out",
      "long_term", "auto" to follow `long_term`, or any other as `package.module:Name`
      (docs/extend.md).
    long_term: compress old working memory into long-term prototypes; the `lt_` values below then
      replace `max_mem_frames`.
    lt_max_frames: number of working-memory frames, including the permanent one, that triggers
      consolidation.
    lt_min_frames: number of working-memory frames that consolidation keeps.
    lt_prototypes: number of tokens that consolidation makes.
    lt_max_tokens: capacity of long-term memory in tokens.
    lt_buffer_tokens: number of tokens freed when long-term memory is full.
    flip: also run the mirrored frame and average the results.
    chunk_size: number of objects processed at a time; -1 for all. It limits memory use and never
      changes a result.
    max_internal_size: short side, in pixels, at which larger frames are segmented; -1 for no limit.
      Smaller frames are enlarged at most to it (`ModelConfig.min_internal_size`).

    Raises:
      ValueError: a setting is out of range.
    """

    mem_every: int = 5
    max_mem_frames: int = 5
    stagger: int = 5
    top_k: int = 30
    memory_policy: str = "auto"
    long_term: bool = False
    lt_max_frames: int = 10
    lt_min_frames: int = 5
    lt_prototypes: int = 128
    lt_max_tokens: int = 10_000
    lt_buffer_tokens: int = 2_000
    flip: bool = False
    chunk_size: int = -1
    max_internal_size: int = -1

    def __post_init__(self) -> None:
        _require(self.mem_every >= 1, "mem_every", self.mem_every, "at least 1")
        _require(self.max_mem_frames >= 1, "max_mem_frames", self.max_mem_frames, "at least 1")
        _require(self.stagger >= 1, "stagger", self.stagger, "at least 1")
        _require(self.top_k >= 1, "top_k", self.top_k, "at least 1")
        _require(self.lt_min_frames >= 1, "lt_min_frames", self.lt_min_frames, "at least 1")
        _require(
            self.lt_max_frames > self.lt_min_frames,
            "lt_max_frames",
            self.lt_max_frames,
            f"more than lt_min_frames ({self.lt_min_frames})",
        )
        _require(self.lt_prototypes >= 1, "lt_prototypes", self.lt_prototypes, "at least 1")
        _require(self.lt_buffer_tokens >= 0, "lt_buffer_tokens", self.lt_buffer_tokens, "0 or more")
        _require(
            self.lt_max_tokens >= self.lt_prototypes + self.lt_buffer_tokens,
            "lt_max_tokens",
            self.lt_max_tokens,
            "at least lt_prototypes + lt_buffer_tokens",
        )
        _require(self.chunk_size == -1 or self.chunk_size >= 1, "chunk_size", self.chunk_size,
                 "-1 or at least 1")  # fmt: skip
        _require(
            self.max_internal_size == -1 or self.max_internal_size >= 32,
            "max_internal_size",
            self.max_internal_size,
            "-1 or at least 32",
        )

    @classmethod
    def suiting(cls, model: ModelConfig, **settings: Any) -> "PropagationConfig":
        """Return the memory settings that suit a network, and defaults; `settings` replace both."""
        return cls(**{name: getattr(model, name) for name in OF_MEMORY} | settings)

    def at_most(self, short_side: int) -> "PropagationConfig":
        """Return the settings for frames that were shrunk to this short side; -1 if none were."""
        limits = [size for size in (self.max_internal_size, short_side) if size > 0]
        return dataclasses.replace(self, max_internal_size=min(limits, default=-1))


# Fields that `ModelConfig` and `PropagationConfig` share.
OF_MEMORY = ("mem_every", "max_mem_frames", "stagger", "top_k")
# Fields of `ModelConfig` that affect how a network is used, not its weights.
OF_USE = ("min_internal_size", *OF_MEMORY)

MODELS: dict[str, ModelConfig] = {
    "s3_vitb_depthanything": ModelConfig(num_blocks=5, num_queries=8),
    "s3_vitb": ModelConfig(),
    "s3_vitb_mae": ModelConfig(encoder_settings=ViTConfig(position_grid=14)),
    "s3_vitl": ModelConfig(encoder_settings=ViTConfig(embed_dim=1024, depth=24, num_heads=16)),
    "s3_fpn_vitb": ModelConfig(encoder="feature_pyramid"),
    "s3_resnet50": ModelConfig(encoder="resnet", encoder_settings=ResNetConfig(50)),
    "s3_resnet18": ModelConfig(encoder="resnet", encoder_settings=ResNetConfig(18)),
    "s3_lite": ModelConfig(
        encoder="compact_semantic",
        num_blocks=2,
        num_queries=8,
        width=96,
        num_heads=3,
        ff_dim=384,
        decoder_dims=(96, 64, 32),
        mask_encoder_width=32,
        min_internal_size=416,
        mem_every=3,
        max_mem_frames=4,
        stagger=1,
        top_k=20,
    ),
    "cutie_base": ModelConfig(
        encoder="resnet",
        encoder_settings=ResNetConfig(50),
        query_attention="multi_head",
        size_multiple=16,
    ),
    "cutie_small": ModelConfig(
        encoder="resnet",
        encoder_settings=ResNetConfig(18),
        query_attention="multi_head",
        size_multiple=16,
    ),
}

_LITE = MODELS["s3_lite"]
MODELS |= {
    "s3_lite_without_semantic_embedding": dataclasses.replace(
        _LITE, encoder_settings=CompactConfig(semantic_embedding=False)
    ),
    "s3_lite_without_spatial_dependency": dataclasses.replace(
        _LITE, encoder_settings=CompactConfig(spatial_dependency=False)
    ),
    "s3_lite_multi_head": dataclasses.replace(_LITE, query_attention="multi_head"),
}


def to_dict(config: Any) -> dict[str, Any]:
    """Convert a dataclass to dictionaries, lists and numbers, as in JSON."""
    values = {
        field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)
    }
    return config.recorded(values) if hasattr(config, "recorded") else values


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `cls`, with nested ones, from the output of `to_dict` or a user's values.

    A class may have a static method `upgraded`, which converts values of an older layout, and a
    method `recorded`, which post-processes the output of `to_dict`.

    Args:
      values: values by field name; omitted fields have their defaults.
      where: prefix of key names in messages.

    Raises:
      ValueError: a key is unknown or missing, or a value has the wrong type; the message names the
        key, its place and the known keys.
    """
    upgraded = getattr(cls, "upgraded", None)
    values = upgraded(dict(values)) if upgraded else values
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(
            f"unknown key {where}{unknown[0]!r} for {cls.__name__}; known keys: {sorted(fields)}"
        )
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}{name} is missing")
    config = cls(**{name: _value(hints[name], x, f"{where}{name}") for name, x in values.items()})
    if isinstance(config, _Network):
        config.require_within_limits()
    return config


def _value(hint: Any, value: Any, where: str) -> Any:
    """Convert one field: dataclasses from mappings, tuples from lists, and checked scalars."""
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(typing.cast(type, hint), value, f"{where}.")
    if typing.get_origin(hint) is tuple:
        return _tuple(typing.get_args(hint), value, where)
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        _require(any(value == choice for choice in choices), where, value, f"one of {choices}")
        return value
    accepted = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if hint is Any or not all(isinstance(kind, type) for kind in accepted):
        return _tuples(value)
    return _scalar(accepted, value, where)


def _scalar(accepted: tuple[type, ...], value: Any, where: str) -> Any:
    exact = set(accepted) <= _SCALARS
    if float in accepted and int not in accepted and type(value) is int:
        value = float(max(-_LARGEST, min(_LARGEST, value)))
    if type(value) not in accepted if exact else not isinstance(value, accepted):
        names = " or ".join(kind.__name__ for kind in accepted)
        raise ValueError(f"{where} is {value!r}, but must be of type {names}")
    if type(value) in (int, float):
        _require(abs(value) < _LARGEST, where, value, "a number in the range of float32")
    return value


def _tuple(hints: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _require(isinstance(value, list | tuple), where, repr(value), "a list")
    if hints[-1:] == (...,):
        hints = hints[:1] * len(value)
    _require(len(value) == len(hints), where, value, f"a list of {len(hints)}")
    return tuple(
        _value(hint, x, f"{where}[{i}]")
        for i, (hint, x) in enumerate(zip(hints, value, strict=True))
    )


def _tuples(value: Any) -> Any:
    """Convert lists, as JSON has them, to tuples at every level."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
