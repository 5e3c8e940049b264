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
from s3_jax.errors import InputError
from s3_jax.models.variables import variable_shapes

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


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_blocks": 3000}, "num_blocks is 3000, above the limit of 200"),
        ({"encoder_settings": {"depth": 10**4}}, "depth is 10000, above the limit of 200"),
        ({"decoder_dims": [10**6, 1, 1]}, "decoder_dims is 1000000, above the limit"),
        ({"num_heads": 0}, "num_heads is 0, but must be at least 1"),
    ],
)
def test_networks_that_cannot_be_are_refused_at_once(values, words):
    with pytest.raises(ValueError, match=words):
        from_dict(ModelConfig, values)


def test_a_limit_is_raised_by_the_environment(monkeypatch):
    monkeypatch.setenv("S3_JAX_LIMITS", "network_blocks=3000")
    assert from_dict(ModelConfig, {"num_blocks": 3000}).num_blocks == 3000


def test_a_network_without_sense_is_named():
    config = from_dict(ModelConfig, {"encoder": "resnet", "width": 64, "num_heads": 7})
    with pytest.raises(InputError, match="no network can be built from the configuration"):
        variable_shapes(config)
