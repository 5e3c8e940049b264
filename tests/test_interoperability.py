"""The code of docs/interoperability.md, run as it stands there."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s3_jax
from s3_jax.media.mask_files import MaskEncoding, read_mask
from s3_jax.media.palette import voc_palette
from s3_jax.media.writers import write_mask
from s3_jax.models.s3 import S3
from s3_jax.ops.similarity import similarity
from s3_jax.propagation.frame import Network
from s3_jax.propagation.state import assign_slots, init_state
from tests.propagation.conftest import TINY, Video, tiny_network  # noqa: F401

PAGE = Path(__file__).parents[1] / "docs" / "interoperability.md"
BRIDGE, STEP, LOOK = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
CONFIG = s3_jax.PropagationConfig()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tiny_network: Network) -> dict[str, Any]:  # noqa: F811
    """The names that the page's code leaves behind."""
    video = Video(2, 64, 64, objects=2)
    names: dict[str, Any] = {
        "config": TINY, "variables": tiny_network.variables,
        "frames": video.frames, "first_mask": video.masks[0],
    }  # fmt: skip
    for code in (BRIDGE, STEP, LOOK):
        exec(code, names)
    return names


def test_the_bridge_computes_what_the_network_computes(page: dict[str, Any]) -> None:
    image, variables = page["image"], page["variables"]
    found = page["network"].encode_image(image)
    expected = S3(TINY).apply(variables, image, method=S3.encode_image)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_step_of_the_bridge_is_the_step(page: dict[str, Any]) -> None:
    network, image = Network(S3(TINY), page["variables"]), page["image"]
    known = jnp.ones(1, bool)
    empty = assign_slots(init_state(TINY, CONFIG, (64, 64), 1), known, jnp.int32(0))
    masks = jnp.zeros((1, 1, 64, 64)).at[:, :, 10:30, 10:30].set(1)
    state, _ = s3_jax.annotate(network, CONFIG, empty, image, masks, known)
    found, prob = page["step"](state, image)
    expected, prob_too = jax.jit(_step)(network.variables, state, image)
    # nnx.jit compiles a program of its own, whose fusions round differently.
    np.testing.assert_allclose(prob, prob_too, atol=1e-5)
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def _step(variables: Any, state: Any, image: Any) -> Any:
    return s3_jax.step(Network(S3(TINY), variables), CONFIG, state, image)


def test_what_is_looked_at_has_the_shapes_that_are_said(page: dict[str, Any]) -> None:
    features, affinity = page["features"], page["affinity"]
    assert features.f16.shape[1:3] == (4, 4) and features.f4.shape[1:3] == (16, 16)
    assert page["seen"].queries.shape[:3] == (TINY.num_blocks, 2, TINY.num_queries)
    np.testing.assert_allclose(affinity.sum(-1), 1, rtol=1e-5)
    # Only the first frame is in memory: 4 x 4 tokens.
    assert np.count_nonzero(affinity.max(1)) == 16
    tokens = [x[:, 0] for x in (page["memory"].key, page["memory"].shrinkage)]
    pixels = [page["flat"](x) for x in (features.key.key, features.key.selection)]
    scores = similarity(*tokens, *pixels)
    best = jnp.where(affinity > 0, scores, -jnp.inf).argmax(-1)
    assert (affinity.argmax(-1) == best).all()


def test_masks_stack_to_labels(page: dict[str, Any], tmp_path: Path) -> None:
    """As napari takes them: integers, zero for background, one map a frame."""
    encoding = MaskEncoding("palette", voc_palette().tobytes())
    for i, ids in enumerate((page["first_mask"], np.roll(page["first_mask"], 3, axis=1))):
        write_mask(tmp_path / f"{i:05d}.png", ids, encoding)
    labels = np.stack([read_mask(file).ids for file in sorted(tmp_path.glob("*.png"))])
    assert labels.shape == (2, 64, 64) and np.issubdtype(labels.dtype, np.integer)
    assert (labels[0] == page["first_mask"]).all()
