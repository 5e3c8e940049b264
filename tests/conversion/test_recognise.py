"""Networks are recognised from keys and shapes."""

import dataclasses
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from s3_jax.config import (
    ENCODERS,
    MODELS,
    OF_USE,
    QUERY_ATTENTIONS,
    CompactConfig,
    ModelConfig,
    ResNetConfig,
    ViTConfig,
)
from s3_jax.conversion.recognise import (
    model_names,
    name_of,
    named_model,
    network_part,
    recognise,
)
from s3_jax.conversion.weights import ConversionError, from_torch, to_torch, torch_shapes
from tests.support import tiny
from tests.support.goldens import load_keys

PUBLISHED = [
    *("s3_vitb_depthanything", "s3_vitb", "s3_vitb_mae", "s3_vitl", "s3_fpn_vitb"),
    *("s3_resnet50", "s3_resnet18", "s3_resnet18_single_object", "cutie_base", "cutie_small"),
]


@pytest.fixture(scope="module")
def keys(goldens: Path) -> dict[str, dict[str, tuple[int, ...]]]:
    """Model -> key -> shape of the published state dicts."""
    return load_keys(goldens)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks(keys, name):
    assert recognise(keys[name]) == (name, named_model(name))


def test_names():
    assert set(MODELS) < set(model_names())
    assert all(name_of(named_model(name)) == name for name in model_names())
    assert name_of(ModelConfig(num_blocks=7)) == "custom"
    assert named_model("s3_vitl_single_object").single_object
    with pytest.raises(ConversionError, match=r"no model 's3_vit'.*s3_vitb_mae.*_single_object"):
        named_model("s3_vit")


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "network.", "state_dict.", "weights.", "a.b.module."]
)
def test_a_prefix_of_all_keys_is_passed_over(keys, prefix):
    shapes = {prefix + key: shape for key, shape in keys["s3_resnet18"].items()}
    optimizer = {"optimizer.state.0.exp_avg": (64, 3, 7, 7), "it": ()}
    assert recognise(shapes | optimizer)[0] == "s3_resnet18"
    part, beside = network_part(shapes | optimizer)
    assert part == keys["s3_resnet18"]
    assert beside == list(optimizer)


def test_two_networks_in_a_file_need_a_choice(keys):
    both = {p + k: shape for p in ("model.", "ema.") for k, shape in keys["s3_resnet18"].items()}
    with pytest.raises(ConversionError, match=r"2 times.*'ema\.', 'model\.'.*--prefix"):
        recognise(both)
    part, beside = network_part(both, "ema.")
    assert part == keys["s3_resnet18"]
    assert len(beside) == len(part)


@st.composite
def configurations(draw: st.DrawFn) -> ModelConfig:
    """Settings that shapes tell, with defaults for those that the network does not have."""
    encoder = draw(st.sampled_from(list(ENCODERS)))
    heads = draw(st.integers(1, 3))
    per_head = 64 if encoder == "feature_pyramid" else draw(st.sampled_from([16, 32]))
    depth = 4 * draw(st.integers(1, 2))
    vit = ViTConfig(heads * per_head, depth, heads, position_grid=draw(st.integers(2, 9)))
    attention = draw(st.sampled_from(list(QUERY_ATTENTIONS)))
    resnet, compact = encoder == "resnet", encoder == "compact_semantic"
    own: Any = ResNetConfig(draw(st.sampled_from([18, 50]))) if resnet else vit
    own = CompactConfig(32 * heads, heads, 8) if compact else own
    width = 32 * draw(st.integers(1, 3))
    return ModelConfig(
        encoder=encoder,
        encoder_settings=own,
        query_attention=attention,
        num_blocks=draw(st.integers(1, 2)),
        num_queries=2 * draw(st.integers(1, 5)),
        width=width,
        key_dim=draw(st.integers(1, 40)),
        num_heads=width // 32,
        ff_dim=draw(st.integers(1, 99)),
        decoder_dims=(width, draw(st.integers(1, 40)), draw(st.integers(1, 40))),
        single_object=draw(st.booleans()),
        size_multiple=16 if resnet and attention == "multi_head" else 32,
        **{name: getattr(MODELS["s3_lite" if compact else "s3_vitb"], name) for name in OF_USE},
    )


@settings(max_examples=4, derandomize=True)
@given(configurations())
def test_any_configuration(config):
    assert recognise(torch_shapes(config)) == ("custom", config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"object_transformer.query_init.weight": None}, "ends with object_transformer.query_init"),
        ({"key_proj.key_proj.weight": None}, "looked for key_proj.key_proj.weight, which is miss"),
        ({"key_proj.key_proj.weight": (64, 64)}, r"shape \(64, 64\); looked for 4 axes"),
        ({"mask_encoder.conv1.weight": (64, 3, 7, 7)}, "3 input channels; looked for 5"),
    ],
)
def test_what_is_missing_is_named(keys, change, message):
    shapes = {k: v for k, v in (keys["s3_vitb"] | change).items() if v is not None}
    with pytest.raises(ConversionError, match=rf"(?s){message}.*s3_vitb_mae.*--model="):
        recognise(shapes)


def test_other_networks_are_told_apart_from_damaged_ones(keys):
    torchvision = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 512)}
    with pytest.raises(ConversionError, match=r"2 tensors: conv1\.weight, fc\.weight"):
        recognise(torchvision)
    with pytest.raises(ConversionError, match="no tensors at all"):
        recognise({})
    without_encoder = {k: v for k, v in keys["s3_vitb"].items() if "pixel_encoder" not in k}
    with pytest.raises(ConversionError, match=r"image encoder.*interactions.*simfp_.*res2"):
        recognise(without_encoder)
    position = "pixel_encoder.vit_module.pos_embed"
    with pytest.raises(ConversionError, match=r"has 1000 entries.*square grid"):
        recognise(keys["s3_vitb"] | {position: (1, 1000, 768)})


def test_single_object_stage_of_any_network(keys):
    narrow = {"mask_encoder.conv1.weight": (64, 4, 7, 7)}
    name, config = recognise(keys["s3_vitl"] | narrow)
    assert name == "s3_vitl_single_object"
    assert config == dataclasses.replace(MODELS["s3_vitl"], single_object=True)


def test_the_compact_network_is_recognised_and_converts_exactly() -> None:
    assert recognise(torch_shapes(MODELS["s3_lite"])) == ("s3_lite", MODELS["s3_lite"])
    config = tiny.CONFIGS["compact_semantic"]
    tensors = tiny.tensors(config)
    back = to_torch(from_torch(tensors, config), config)
    assert set(back) == set(tensors)
    assert all((back[key] == tensors[key]).all() for key in tensors)
