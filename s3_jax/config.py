"""Configuration: one frozen dataclass per part of the program; unknown keys are refused.

`MODELS` holds the published networks and their ablations by name (paper sections 3 and 4.3);
a checkpoint carries its own `ModelConfig`, so that nothing has to be said twice.
"""

import dataclasses
import typing
from typing import Any, Literal, TypeVar

Encoder = Literal["spatial_semantic", "compact_semantic", "feature_pyramid", "resnet"]
QueryAttention = Literal["discriminative", "multi_head"]
T = TypeVar("T")


def _require(ok: bool, name: str, value: Any, rule: str) -> None:
    if not ok:
        raise ValueError(f"{name} is {value}, but must be {rule}")


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """A plain vision transformer with patches of 16 x 16 pixels.

    position_grid: side of the square grid for which position embeddings are stored.
    """

    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    position_grid: int = 37


@dataclasses.dataclass(frozen=True)
class CompactConfig:
    """Spatial-semantic blocks around an EfficientNet-Lite0 in place of a vision transformer.

    stem_width: channels of the spatial prior's first convolutions.
    semantic_embedding, spatial_dependency: the two halves of a block; either can be left out, to
      see what it is good for.
    """

    embed_dim: int = 96
    num_heads: int = 3
    stem_width: int = 16
    semantic_embedding: bool = True
    spatial_dependency: bool = True

    def __post_init__(self) -> None:
        _require(
            self.semantic_embedding or self.spatial_dependency,
            "spatial_dependency",
            self.spatial_dependency,
            "True where semantic_embedding is False: blocks without both do nothing",
        )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that decides which parameters a network has and what they compute.

    encoder: image encoder; "spatial_semantic" and "feature_pyramid" use `vit`,
      "compact_semantic" uses `compact`, "resnet" uses `resnet_depth` (18 or 50).
    query_attention: how object queries read pixels: "discriminative" is S3's masked cross
      attention (one most similar pixel per head), "multi_head" the ancestor Cutie's.
    mask_encoder_width: channels of the first layers of the mask encoder's ResNet-18.
    single_object: the network of the static pre-training stage, whose mask encoder and pixel
      fuser do not see the other objects.
    size_multiple: frames are padded to a multiple of this many pixels.
    """

    encoder: Encoder = "spatial_semantic"
    vit: ViTConfig = ViTConfig()
    compact: CompactConfig = CompactConfig()
    resnet_depth: int = 50
    query_attention: QueryAttention = "discriminative"
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


@dataclasses.dataclass(frozen=True)
class PropagationConfig:
    """How a video is processed (protocol of the paper's section 4.1).

    mem_every: a frame enters the memory every this many frames.
    max_mem_frames: frames in working memory, the permanent first frame included.
    stagger: number of frames per memory interval at which the decoder updates sensory memory.
    top_k: memory tokens read per query pixel.
    memory_policy: what is kept, read and evicted: "first_in_first_out", "long_term", "auto" for
      the one that `long_term` says, or anyone's as `package.module:Name` (docs/extend.md).
    long_term: compress old working memory into long-term prototypes; the `lt_` values below
      then replace `max_mem_frames`.
    lt_max_frames: working-memory frames (permanent one included) that trigger consolidation.
    lt_min_frames: working-memory frames kept by a consolidation.
    lt_prototypes: tokens made by a consolidation.
    lt_max_tokens: capacity of long-term memory in tokens.
    lt_buffer_tokens: tokens freed when long-term memory is full.
    flip: run the mirrored frame too and average.
    chunk_size: objects processed at a time; -1 for all. Bounds memory, never changes a result.
    max_internal_size: frames whose short side is longer are segmented at this size; -1 for never.
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


MODELS: dict[str, ModelConfig] = {
    "s3_vitb_depthanything": ModelConfig(num_blocks=5, num_queries=8),
    "s3_vitb": ModelConfig(),
    "s3_vitb_mae": ModelConfig(vit=ViTConfig(position_grid=14)),
    "s3_vitl": ModelConfig(vit=ViTConfig(embed_dim=1024, depth=24, num_heads=16)),
    "s3_fpn_vitb": ModelConfig(encoder="feature_pyramid"),
    "s3_resnet50": ModelConfig(encoder="resnet", resnet_depth=50),
    "s3_resnet18": ModelConfig(encoder="resnet", resnet_depth=18),
    "s3_lite": ModelConfig(
        encoder="compact_semantic",
        num_blocks=2,
        num_queries=8,
        width=96,
        num_heads=3,
        ff_dim=384,
        decoder_dims=(96, 64, 32),
        mask_encoder_width=32,
    ),
    "cutie_base": ModelConfig(
        encoder="resnet", resnet_depth=50, query_attention="multi_head", size_multiple=16
    ),
    "cutie_small": ModelConfig(
        encoder="resnet", resnet_depth=18, query_attention="multi_head", size_multiple=16
    ),
}

_LITE = MODELS["s3_lite"]
MODELS |= {
    "s3_lite_without_semantic_embedding": dataclasses.replace(
        _LITE, compact=dataclasses.replace(_LITE.compact, semantic_embedding=False)
    ),
    "s3_lite_without_spatial_dependency": dataclasses.replace(
        _LITE, compact=dataclasses.replace(_LITE.compact, spatial_dependency=False)
    ),
    "s3_lite_multi_head": dataclasses.replace(_LITE, query_attention="multi_head"),
}


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain dictionaries, lists and numbers (for JSON)."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], values: dict[str, Any], where: str = "") -> T:
    """The dataclass `cls` from what `to_dict` made.

    Raises:
      ValueError: a key is unknown; the message names it, its place and the known keys.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(
            f"unknown key {where}{unknown[0]!r} for {cls.__name__}; known keys: {sorted(fields)}"
        )
    converted = {}
    for name, value in values.items():
        if isinstance(value, dict):
            value = from_dict(hints[name], value, where=f"{where}{name}.")
        converted[name] = tuple(value) if isinstance(value, list) else value
    return cls(**converted)
