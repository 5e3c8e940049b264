"""Configurations: what the version before wrote, and what one flag changes."""

import dataclasses
import json

import pytest

from s3_jax.config import (
    MODELS,
    CompactConfig,
    ModelConfig,
    ResNetConfig,
    ViTConfig,
    from_dict,
    to_dict,
)

BEFORE = {
    "vit": {"embed_dim": 48, "depth": 8, "num_heads": 3, "position_grid": 4},
    "compact": {"embed_dim": 24},
    "resnet_depth": 18,
}


@pytest.mark.parametrize(
    ("encoder", "settings"),
    [
        ("spatial_semantic", ViTConfig(48, 8, 3, 4)),
        ("feature_pyramid", ViTConfig(48, 8, 3, 4)),
        ("compact_semantic", CompactConfig(24)),
        ("resnet", ResNetConfig(18)),
    ],
)
def test_reads_what_the_version_before_wrote(encoder, settings):
    found = from_dict(ModelConfig, {"encoder": encoder, "width": 64, **BEFORE})
    assert found == ModelConfig(encoder=encoder, encoder_settings=settings, width=64)


@pytest.mark.parametrize("name", MODELS)
def test_networks_survive_json(name):
    values = json.loads(json.dumps(to_dict(MODELS[name])))
    assert from_dict(ModelConfig, values) == MODELS[name]


def test_another_encoder_keeps_settings_of_the_same_kind_and_no_others():
    large = to_dict(MODELS["s3_vitl"])
    pyramid = from_dict(ModelConfig, large | {"encoder": "feature_pyramid"})
    assert pyramid == dataclasses.replace(MODELS["s3_vitl"], encoder="feature_pyramid")
    resnet = from_dict(ModelConfig, large | {"encoder": "resnet"})
    assert resnet.encoder_settings == ResNetConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"widht": 3}, r"unknown key 'widht' for ModelConfig; known keys: .*'width'"),
        ({"encoder_settings": {"dept": 3}}, r"unknown key encoder_settings.'dept' for ViTConfig"),
        ({"width": "3"}, r"width is '3', but must be of type int"),
        ({"encoder_settings": ResNetConfig()}, r"ResNetConfig, but .*spatial_semantic takes a ViT"),
        ({"encoder": "resnet", "encoder_settings": {"depth": 34}}, r"depth is 34.*18 or 50"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict(ModelConfig, values)
