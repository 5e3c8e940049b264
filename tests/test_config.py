"""Configurations: files of the previous version, and the effect of a single flag."""

import copy
import dataclasses
import functools
import json
import operator
from collections.abc import Iterator
from typing import Any

import pytest

from configs import smoke
from s3_jax.config import (
    MODELS,
    CompactConfig,
    ModelConfig,
    PropagationConfig,
    ResNetConfig,
    ViTConfig,
    from_dict,
    to_dict,
)
from s3_jax.errors import InputError
from s3_jax.models.variables import variable_shapes
from s3_jax.training import run_config

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


def test_settings_are_those_given_else_those_that_suit_the_network():
    lite = PropagationConfig.suiting(MODELS["s3_lite"], mem_every=4, long_term=True)
    assert lite == PropagationConfig(
        mem_every=4, max_mem_frames=4, stagger=1, top_k=20, long_term=True
    )
    assert PropagationConfig.suiting(MODELS["s3_vitb"]) == PropagationConfig()
    with pytest.raises(ValueError, match="top_k is 0"):
        PropagationConfig.suiting(MODELS["s3_lite"], top_k=0)


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


STRANGE = [None, [], {}, "", -1, 1e308, True, 10**400, [[]], {"a": 1}, "../x"]


def _places(values: Any, place: tuple = ()) -> Iterator[tuple]:
    for key in values if isinstance(values, dict) else range(len(values)):
        yield (*place, key)
        if isinstance(values[key], dict | list | tuple):
            yield from _places(values[key], (*place, key))


def test_any_wrong_value_of_a_training_configuration_is_named():
    """Every field in turn, and every part, has values of other kinds."""
    whole = json.loads(smoke.get_config().to_json())
    whole["order"] = [whole["order"].pop()]
    whole["stages"] = {whole["order"][0]: whole["stages"][whole["order"][0]]}
    refused = 0
    for number, place in enumerate(_places(whole)):
        *above, name = place
        for strange in STRANGE[number % 4 :: 4]:
            values = copy.deepcopy(whole)
            part = functools.reduce(operator.getitem, above, values)
            part[name] = strange
            try:
                run_config.to_dict(run_config.from_dict(values))
            except InputError as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 250


@pytest.mark.parametrize(
    ("place", "value"),
    [("validation", None), ("stages", None), ("order", 3), ("model", "s3_lite"), ("seed", 1.5)],
)
def test_a_part_of_the_wrong_kind_is_refused(place, value):
    values = smoke.get_config().to_dict() | {place: value}
    with pytest.raises(InputError, match=f"{place} is .*{value}.*, but must be"):
        run_config.from_dict(values)
