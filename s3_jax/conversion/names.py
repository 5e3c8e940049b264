"""Table of PyTorch tensors and Flax parameters, used for conversion in both directions.

Every `Entry` is a PyTorch module (or bare tensor) and the equivalent Flax module (or leaf). Its
kind defines which tensors belong to it and how their axes are transposed.
"""

from collections.abc import Iterator
from typing import NamedTuple

from s3_jax.config import ENCODERS, QUERY_ATTENTIONS, CompactConfig, ModelConfig, ViTConfig
from s3_jax.conversion.errors import ConversionError
from s3_jax.models import efficientnet
from s3_jax.models.encoders import compact_semantic
from s3_jax.models.encoders.spatial_semantic import EXTRA_EXTRACTORS, NUM_BLOCKS
from s3_jax.models.resnet import BLOCKS


class Entry(NamedTuple):
    """One PyTorch module and the equivalent Flax module.

    torch: dotted prefix (or key) in a PyTorch checkpoint.
    flax: slash-separated path in the Flax variables.
    kind: see `s3_jax.conversion.weights.KINDS`.
    """

    torch: str
    flax: str
    kind: str


def entries(config: ModelConfig) -> Iterator[Entry]:
    """Yield all modules of a network with these settings.

    Raises:
      ConversionError: the network has a part without known PyTorch names.
    """
    for part, known in (("encoder", ENCODERS), ("query_attention", QUERY_ATTENTIONS)):
        if getattr(config, part) not in known:
            raise ConversionError(
                f"the network's {part} is {getattr(config, part)}, but only networks with "
                f"{', '.join(known)} have PyTorch names"
            )
    yield from _image_encoder(config)
    yield Entry("pix_feat_proj", "pix_feat_proj", "conv1x1")
    yield from _key_projection()
    yield from _mask_encoder()
    yield from _object_summarizer()
    yield from _pixel_fuser()
    yield from _object_transformer(config)
    yield from _mask_decoder(config)
    yield Entry("aux_computer.sensory_aux.projection", "auxiliary/sensory_proj", "conv1x1")


def _image_encoder(config: ModelConfig) -> Iterator[Entry]:
    torch, flax = "pixel_encoder", "image_encoder"
    if config.encoder == "resnet":
        layers = ("res2", "layer2", "layer3")
        yield from _resnet(torch, flax, config.encoder_settings.depth, layers)
    elif config.encoder == "compact_semantic":
        yield from _compact_semantic(config.encoder_settings)
    elif config.encoder == "feature_pyramid":
        yield from _vit(config.encoder_settings)
        yield from _pyramid_heads()
    else:
        yield from _vit(config.encoder_settings)
        yield from _details()
        for i in range(NUM_BLOCKS):
            extra = EXTRA_EXTRACTORS if i == NUM_BLOCKS - 1 else 0
            yield from _semantic_embedding(i)
            yield from _spatial_dependencies(i, extra)


def _compact_semantic(compact: CompactConfig) -> Iterator[Entry]:
    """Yield the modules of the compact encoder, which the published code does not have.

    Its PyTorch names are those of the spatial-semantic blocks and, below `backbone`, those of the
    public EfficientNet-Lite0 weights.
    """
    torch, flax = "pixel_encoder", "image_encoder"
    yield from efficientnet_entries(f"{torch}.backbone.", f"{flax}/backbone")
    for name in ("local4", "local8"):
        yield Entry(f"{torch}.{name}", f"{flax}/{name}", "conv1x1")
    for i in range(compact_semantic.NUM_BLOCKS):
        yield Entry(f"{torch}.semantic{i}", f"{flax}/semantic{i}", "conv1x1")
        if compact.semantic_embedding:
            yield Entry(f"{torch}.cls{i}", f"{flax}/cls{i}", "linear")
            yield from _semantic_embedding(i)
        if compact.spatial_dependency:
            yield from _spatial_dependencies(i)
    yield from _details()


def efficientnet_entries(torch: str, flax: str) -> Iterator[Entry]:
    """Yield an EfficientNet-Lite0 without its classifier; `torch` ends in a dot or is empty."""
    yield Entry(f"{torch}_conv_stem.weight", f"{flax}/stem_kernel", "kernel")
    yield Entry(f"{torch}_bn0", f"{flax}/stem_norm", "batch_norm")
    for i in range(efficientnet.NUM_BLOCKS):
        t, f = f"{torch}_blocks.{i}", f"{flax}/block{i}"
        if i > 0:  # the first block does not widen
            yield Entry(f"{t}._expand_conv", f"{f}/expand", "conv1x1_no_bias")
            yield Entry(f"{t}._bn0", f"{f}/expand_norm", "batch_norm")
        yield Entry(f"{t}._depthwise_conv.weight", f"{f}/depthwise", "depthwise_kernel")
        yield Entry(f"{t}._bn1", f"{f}/depthwise_norm", "batch_norm")
        yield Entry(f"{t}._project_conv", f"{f}/project", "conv1x1_no_bias")
        yield Entry(f"{t}._bn2", f"{f}/project_norm", "batch_norm")


def _vit(vit: ViTConfig) -> Iterator[Entry]:
    torch, flax = "pixel_encoder.vit_module", "image_encoder/vit"
    yield Entry(f"{torch}.cls_token", f"{flax}/cls_token", "tensor")
    yield Entry(f"{torch}.pos_embed", f"{flax}/pos_embed", "tensor")
    yield Entry(f"{torch}.patch_embed.proj", f"{flax}/patch_embed", "conv")
    for i in range(vit.depth):
        t, f = f"{torch}.blocks.{i}", f"{flax}/blocks_{i}"
        yield Entry(f"{t}.norm1", f"{f}/norm1", "layer_norm")
        yield Entry(f"{t}.attn.qkv", f"{f}/attention/qkv", "linear")
        yield Entry(f"{t}.attn.proj", f"{f}/attention/proj", "linear")
        yield Entry(f"{t}.ls1.gamma", f"{f}/scale1", "tensor")
        yield Entry(f"{t}.norm2", f"{f}/norm2", "layer_norm")
        yield Entry(f"{t}.mlp.fc1", f"{f}/mlp_in", "linear")
        yield Entry(f"{t}.mlp.fc2", f"{f}/mlp_out", "linear")
        yield Entry(f"{t}.ls2.gamma", f"{f}/scale2", "tensor")


def unused_tensors(config: ModelConfig) -> dict[str, tuple[tuple[int, ...], float]]:
    """Return tensors of PyTorch checkpoints that no output uses: key -> (shape, default value).

    They are kept so that a converted checkpoint can be converted back unchanged.
    """
    if not isinstance(config.encoder_settings, ViTConfig):
        return {}
    prefix, width = "pixel_encoder.vit_module", config.encoder_settings.embed_dim
    return {
        f"{prefix}.mask_token": ((1, width), 0.0),
        f"{prefix}.norm.weight": ((width,), 1.0),
        f"{prefix}.norm.bias": ((width,), 0.0),
    }


def position_buffers() -> tuple[str, str]:
    """Return the keys of the constant frequency tables that PyTorch checkpoints store."""
    return ("object_transformer.spatial_pe.inv_freq", "object_summarizer.pos_enc.inv_freq")


def _details() -> Iterator[Entry]:
    torch, flax = "pixel_encoder", "image_encoder"
    yield from _spatial_prior()
    yield Entry(f"{torch}.level_embed", f"{flax}/level_embed", "tensor")
    yield Entry(f"{torch}.up", f"{flax}/up", "upsample")
    for i, stride in ((1, 4), (2, 8), (3, 16)):
        yield Entry(f"{torch}.norm{i}", f"{flax}/norm{stride}", "batch_norm")


def _spatial_prior() -> Iterator[Entry]:
    torch, flax = "pixel_encoder.spm", "image_encoder/spatial_prior"
    for i, name in ((0, "stem1"), (3, "stem2"), (6, "stem3")):
        yield Entry(f"{torch}.stem.{i}", f"{flax}/{name}_conv", "conv_no_bias")
        yield Entry(f"{torch}.stem.{i + 1}", f"{flax}/{name}_norm", "batch_norm")
    for name in ("conv2", "conv3"):
        yield Entry(f"{torch}.{name}.0", f"{flax}/{name}_conv", "conv_no_bias")
        yield Entry(f"{torch}.{name}.1", f"{flax}/{name}_norm", "batch_norm")
    for i in (1, 2, 3):
        yield Entry(f"{torch}.fc{i}", f"{flax}/proj{i}", "conv1x1")


def _semantic_embedding(block: int) -> Iterator[Entry]:
    torch, flax = f"pixel_encoder.interactions.{block}", f"image_encoder/block{block}"
    embed = f"{flax}/semantic_embedding"
    yield Entry(f"{torch}.read_from_cls.norm", f"{embed}/norm", "layer_norm")
    yield Entry(f"{torch}.read_from_cls.cross_attn", f"{embed}/attend", "attention")


def _spatial_dependencies(block: int, extra: int = 0) -> Iterator[Entry]:
    torch, flax = f"pixel_encoder.interactions.{block}", f"image_encoder/block{block}"
    yield from _spatial_dependency(f"{torch}.extractor", f"{flax}/spatial_dependency0")
    for j in range(extra):
        yield from _spatial_dependency(
            f"{torch}.extra_extractors.{j}", f"{flax}/spatial_dependency{j + 1}"
        )


def _spatial_dependency(torch: str, flax: str) -> Iterator[Entry]:
    yield Entry(f"{torch}.query_norm", f"{flax}/query_norm", "layer_norm")
    yield Entry(f"{torch}.feat_norm", f"{flax}/feature_norm", "layer_norm")
    yield Entry(f"{torch}.attn.sampling_offsets", f"{flax}/attend/offsets", "linear")
    yield Entry(f"{torch}.attn.attention_weights", f"{flax}/attend/weights", "linear")
    yield Entry(f"{torch}.attn.value_proj", f"{flax}/attend/value", "linear")
    yield Entry(f"{torch}.attn.output_proj", f"{flax}/attend/out", "linear")
    yield Entry(f"{torch}.ffn_norm", f"{flax}/feed_forward_norm", "layer_norm")
    yield Entry(f"{torch}.ffn.fc1", f"{flax}/feed_forward/fc1", "linear")
    yield Entry(f"{torch}.ffn.dwconv.dwconv", f"{flax}/feed_forward/depthwise", "depthwise")
    yield Entry(f"{torch}.ffn.fc2", f"{flax}/feed_forward/fc2", "linear")


def _pyramid_heads() -> Iterator[Entry]:
    for number, stride, doublings in ((2, 4, 2), (3, 8, 1), (4, 16, 0)):
        torch, flax = f"pixel_encoder.simfp_{number}", f"image_encoder/head{stride}"
        if doublings > 0:
            yield Entry(f"{torch}.0", f"{flax}/up1", "upsample")
        if doublings > 1:
            yield Entry(f"{torch}.1", f"{flax}/up_norm", "layer_norm")
            yield Entry(f"{torch}.3", f"{flax}/up2", "upsample")
        first = {0: 0, 1: 1, 2: 4}[doublings]
        yield Entry(f"{torch}.{first}", f"{flax}/proj", "conv1x1_no_bias")
        yield Entry(f"{torch}.{first}.norm", f"{flax}/proj_norm", "layer_norm")
        yield Entry(f"{torch}.{first + 1}", f"{flax}/conv", "conv_no_bias")
        yield Entry(f"{torch}.{first + 1}.norm", f"{flax}/conv_norm", "layer_norm")


def _resnet(torch: str, flax: str, depth: int, layers: tuple[str, ...]) -> Iterator[Entry]:
    yield Entry(f"{torch}.conv1", f"{flax}/stem_conv", "conv_no_bias")
    yield Entry(f"{torch}.bn1", f"{flax}/stem_norm", "batch_norm")
    convs = 3 if depth == 50 else 2
    for layer, (name, blocks) in enumerate(zip(layers, BLOCKS[depth], strict=True), start=1):
        for block in range(blocks):
            t, f = f"{torch}.{name}.{block}", f"{flax}/layer{layer}_{block}"
            for i in range(1, convs + 1):
                yield Entry(f"{t}.conv{i}", f"{f}/conv{i}", "conv_no_bias")
                yield Entry(f"{t}.bn{i}", f"{f}/norm{i}", "batch_norm")
            if block == 0 and (layer > 1 or depth == 50):
                yield Entry(f"{t}.downsample.0", f"{f}/shortcut_conv", "conv_no_bias")
                yield Entry(f"{t}.downsample.1", f"{f}/shortcut_norm", "batch_norm")


def _key_projection() -> Iterator[Entry]:
    torch, flax = "key_proj", "key_projection"
    yield Entry(f"{torch}.pix_feat_proj", f"{flax}/proj", "conv1x1")
    for t, f in (("key_proj", "key"), ("d_proj", "shrinkage"), ("e_proj", "selection")):
        yield Entry(f"{torch}.{t}", f"{flax}/{f}", "conv")


def _fuser(torch: str, flax: str) -> Iterator[Entry]:
    yield Entry(f"{torch}.distributor.x_transform", f"{flax}/image_proj", "conv1x1")
    yield Entry(f"{torch}.distributor.g_transform", f"{flax}/object_proj", "conv1x1")
    for block in ("block1", "block2"):
        yield from _channel_attention_block(f"{torch}.{block}", f"{flax}/{block}")


def _channel_attention_block(torch: str, flax: str) -> Iterator[Entry]:
    yield Entry(f"{torch}.conv1", f"{flax}/conv1", "conv")
    yield Entry(f"{torch}.conv2", f"{flax}/conv2", "conv")
    yield Entry(f"{torch}.conv.weight", f"{flax}/channel_kernel", "vector")


def _mask_encoder() -> Iterator[Entry]:
    layers = ("layer1", "layer2", "layer3")
    yield from _resnet("mask_encoder", "mask_encoder/resnet", 18, layers)
    yield from _fuser("mask_encoder.fuser", "mask_encoder/fuser")
    yield Entry("mask_encoder.sensory_update.transform", "deep_update/gates", "conv")


def _object_summarizer() -> Iterator[Entry]:
    torch, flax = "object_summarizer", "object_summarizer"
    yield Entry(f"{torch}.input_proj", f"{flax}/proj", "linear")
    for t, f in (("feature_pred", "feature"), ("weights_pred", "weight")):
        yield Entry(f"{torch}.{t}.0", f"{flax}/{f}_in", "linear")
        yield Entry(f"{torch}.{t}.2", f"{flax}/{f}_out", "linear")


def _pixel_fuser() -> Iterator[Entry]:
    yield from _fuser("pixel_fuser.fuser", "pixel_fuser/fuser")
    yield Entry("pixel_fuser.sensory_compress", "pixel_fuser/state_proj", "conv1x1")


def _object_transformer(config: ModelConfig) -> Iterator[Entry]:
    torch, flax = "object_transformer", "object_transformer"
    for name in ("query_init", "query_emb"):
        yield Entry(f"{torch}.{name}.weight", f"{flax}/{name}", "tensor")
    yield Entry(f"{torch}.summary_to_query_init", f"{flax}/summary_to_init", "linear")
    yield Entry(f"{torch}.summary_to_query_emb", f"{flax}/summary_to_emb", "linear")
    yield Entry(f"{torch}.pixel_init_proj", f"{flax}/pixel_init", "conv1x1")
    yield Entry(f"{torch}.pixel_emb_proj", f"{flax}/pixel_emb", "conv1x1")
    for i in range(config.num_blocks):
        yield from _transformer_block(config, f"{torch}.blocks.{i}", f"{flax}/blocks_{i}")
    for i in range(config.num_blocks + 1):
        yield Entry(f"{torch}.mask_pred.{i}.1", f"{flax}/mask_heads_{i}", "conv1x1")


def _transformer_block(config: ModelConfig, torch: str, flax: str) -> Iterator[Entry]:
    read, flax_read = f"{torch}.read_from_pixel", f"{flax}/read_from_pixel"
    yield Entry(f"{read}.norm", f"{flax_read}/norm", "layer_norm")
    if config.query_attention == "multi_head":
        yield Entry(f"{read}.cross_attn", f"{flax_read}/attend", "attention")
    else:
        yield Entry(f"{read}.alpha", f"{flax_read}/alpha", "vector")
        yield Entry(f"{read}.proj", f"{flax_read}/proj", "linear")
        yield Entry(f"{read}.final", f"{flax_read}/out", "linear")
    yield Entry(f"{torch}.self_attn.norm", f"{flax}/self_attention/norm", "layer_norm")
    yield Entry(f"{torch}.self_attn.self_attn", f"{flax}/self_attention/attend", "attention")
    yield Entry(f"{torch}.ffn.norm", f"{flax}/feed_forward/norm", "layer_norm")
    yield Entry(f"{torch}.ffn.linear1", f"{flax}/feed_forward/fc1", "linear")
    yield Entry(f"{torch}.ffn.linear2", f"{flax}/feed_forward/fc2", "linear")
    yield Entry(f"{torch}.read_from_query.cross_attn", f"{flax}/read_from_query", "attention")
    yield from _channel_attention_block(f"{torch}.pixel_ffn.conv", f"{flax}/pixel_feed_forward")


def _mask_decoder(config: ModelConfig) -> Iterator[Entry]:
    torch, flax = "mask_decoder", "mask_decoder"
    for stride in (16, 8, 4):
        yield Entry(
            f"{torch}.sensory_update.g{stride}_conv", f"{flax}/sensory_from_{stride}", "conv1x1"
        )
    yield Entry(f"{torch}.sensory_update.transform", f"{flax}/gated_update/gates", "conv")
    for i, stride in enumerate((8, 4)):
        yield Entry(f"{torch}.decoder_feat_proc.transforms.{i}", f"{flax}/skip{stride}", "conv1x1")
    dims = config.decoder_dims
    for name, before, after in (("up_16_8", *dims[:2]), ("up_8_4", *dims[1:])):
        t, f = f"{torch}.{name}.out_conv", f"{flax}/{name}"
        if before != after:
            yield Entry(f"{t}.downsample", f"{f}/shortcut", "conv1x1")
        yield Entry(f"{t}.conv1", f"{f}/conv1", "conv")
        yield Entry(f"{t}.conv2", f"{f}/conv2", "conv")
    yield Entry(f"{torch}.pred", f"{flax}/predict", "conv")
