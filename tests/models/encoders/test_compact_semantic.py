"""The compact encoder, whole and with one half of its blocks left out."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from s3_jax.config import MODELS, CompactConfig
from s3_jax.conversion.recognise import name_of, recognise
from s3_jax.conversion.weights import from_torch, to_torch, torch_shapes
from s3_jax.models.encoders.compact_semantic import CompactSemanticEncoder
from s3_jax.models.layers import Linear
from tests.support import tiny

COMPACT = CompactConfig(embed_dim=24, num_heads=3, stem_width=8)
VARIANTS = {
    "whole": COMPACT,
    "without semantic embedding": dataclasses.replace(COMPACT, semantic_embedding=False),
    "without spatial dependency": dataclasses.replace(COMPACT, spatial_dependency=False),
}
SKIP = 8  # channels of the decoder's projection of the stride-4 map
IMAGE = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)


class Encoder(nn.Module):
    """The encoder, and the decoder's layer that it is given."""

    compact: CompactConfig

    def setup(self) -> None:
        self.encoder = CompactSemanticEncoder(self.compact)
        self.skip = Linear(SKIP)

    def __call__(self, image: jax.Array) -> Any:
        f16, f8, f4, project4 = self.encoder(image)
        return f4, f8, f16, self.skip(f4) if project4 is None else project4(self.skip)


@functools.cache
def parameters(variant: str) -> dict[str, bool]:
    """Path -> whether any output depends on the parameter, by the traced program."""
    encoder = Encoder(VARIANTS[variant])
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), IMAGE)

    def apply(params: Any, image: jax.Array) -> Any:
        statistics = jax.tree.map(jnp.ones_like, shapes["batch_stats"])
        return encoder.apply({"params": params, "batch_stats": statistics}, image)

    params = flatten_dict(shapes["params"], sep="/")
    program = jax.make_jaxpr(apply)(shapes["params"], IMAGE).jaxpr
    needed = set(map(id, program.outvars))
    for equation in reversed(program.eqns):
        if any(id(variable) in needed for variable in equation.outvars):
            needed.update(map(id, equation.invars))
    used = [id(variable) in needed for variable in program.invars[:-1]]
    # Leaves of a dictionary come in the order of its sorted keys.
    paths = sorted(params, key=lambda path: path.split("/"))
    return {
        path.removeprefix("encoder/"): matters
        for path, matters in zip(paths, used, strict=True)
        if path.startswith("encoder/")
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_matters(variant: str) -> None:
    assert [path for path, used in parameters(variant).items() if not used] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_maps_have_the_documented_shapes(variant: str) -> None:
    encoder = Encoder(VARIANTS[variant])
    maps, _ = jax.eval_shape(encoder.init_with_output, jax.random.key(0), IMAGE)
    sizes = [(1, 16, 24, 24), (1, 8, 12, 24), (1, 4, 6, 24), (1, 16, 24, SKIP)]
    assert [x.shape for x in maps] == sizes


def test_what_is_left_out_is_a_half_of_every_block() -> None:
    whole = set(parameters("whole"))
    embedding = {p for p in whole if "semantic_embedding" in p or p.startswith("cls")}
    dependency = {p for p in whole if "spatial_dependency" in p}
    assert embedding
    assert set(parameters("without semantic embedding")) == whole - embedding
    assert set(parameters("without spatial dependency")) == whole - dependency
    assert {p.split("/")[0] for p in dependency} == {"block0", "block1", "block2"}


def test_blocks_that_do_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks without both do nothing"):
        CompactConfig(semantic_embedding=False, spatial_dependency=False)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_conversion_knows_every_variant(variant: str) -> None:
    config = dataclasses.replace(
        tiny.CONFIGS["compact_semantic"], encoder_settings=VARIANTS[variant]
    )
    tensors = tiny.tensors(config)
    back = to_torch(from_torch(tensors, config), config)
    assert set(back) == set(tensors)
    assert all((back[key] == tensors[key]).all() for key in tensors)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("s3_lite")])
def test_named_ablations_are_recognised_from_their_tensors(name: str) -> None:
    assert recognise(torch_shapes(MODELS[name])) == (name, MODELS[name])
    assert name_of(MODELS[name]) == name
