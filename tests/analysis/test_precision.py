"""Errors of bfloat16, stage by stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.analysis.precision import StageError, relative_error, stage_errors
from s3_jax.propagation.frame import Network
from tests.propagation.conftest import TINY, Video, tiny_network  # noqa: F401


@pytest.fixture(scope="module")
def errors(tiny_network: Network) -> dict[str, StageError]:  # noqa: F811
    video = Video(1, 64, 96, objects=2)
    masks = np.stack([video.masks[0] == k for k in (1, 2)])[None].astype(np.float32)
    image = jnp.asarray(video.frames[:1] / 255, jnp.float32)
    found = stage_errors(TINY, tiny_network.variables, image, jnp.asarray(masks))
    return {one.result: one for one in found}


@pytest.mark.slow
def test_every_stage_of_a_frame_is_there(errors: dict[str, StageError]) -> None:
    stages = list(dict.fromkeys(one.stage for one in errors.values()))
    assert stages == [
        *("encode_image", "encode_mask", "update_sensory_deep", "read_memory", "fuse_pixels"),
        *("transform_objects", "decode_mask", "finish"),
    ]


@pytest.mark.slow
def test_errors_are_those_of_eight_bits(errors: dict[str, StageError]) -> None:
    for name in ("f16", "value", "fused", "logits"):
        assert 1e-4 < errors[name].own < 0.05, errors[name]


@pytest.mark.slow
def test_errors_add_up_along_the_chain(errors: dict[str, StageError]) -> None:
    assert errors["f16"].chain == errors["f16"].own  # nothing comes before it
    assert errors["readout"].own < errors["readout"].chain


def test_relative_error() -> None:
    exact = jnp.array([3.0, 4.0])
    assert relative_error(exact * 1.01, exact) == pytest.approx(0.01, rel=1e-4)
    assert relative_error(jnp.zeros(2), jnp.zeros(2)) == 0
    assert relative_error(jax.numpy.ones(2), jnp.zeros(2)) == 1
