"""ONNX programs in ONNX Runtime, beside JAX."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from s3_jax.errors import InputError
from s3_jax.propagation.export import ExportConfig
from s3_jax.propagation.export_onnx import OnnxPrograms, write_onnx
from s3_jax.propagation.frame import Network
from tests.propagation.conftest import TINY

CONFIG = ExportConfig(size=(60, 90), objects=2)  # padding is part of the programs


def test_programs_take_the_shapes_that_they_state(tiny_network: Network) -> None:
    calls = OnnxPrograms(TINY, tiny_network.variables, CONFIG).calls()
    found = {name: jax.eval_shape(function, **shapes) for name, (function, shapes) in calls.items()}
    assert found["remember"]["sensory"].shape == calls["decode"][1]["sensory"].shape
    assert found["decode"].keys() >= {"sensory"}


def test_no_array_is_empty(tiny_network: Network) -> None:
    """ONNX cannot reshape an array without elements."""
    calls = OnnxPrograms(TINY, tiny_network.variables, CONFIG).calls()
    for function, shapes in calls.values():
        program = str(jax.make_jaxpr(function)(**shapes))
        assert re.search(r"f32\[[\d,]+\]", program)
        assert not re.search(r"\b[a-z]+\d+\[([1-9]\d*,)*0[],]", program)


@pytest.mark.slow
def test_programs_compute_what_jax_computes(tmp_path: Path, tiny_network: Network) -> None:
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    write_onnx(tmp_path, TINY, tiny_network.variables, CONFIG)
    draw = np.random.default_rng(0)
    programs = OnnxPrograms(TINY, tiny_network.variables, CONFIG)
    for name, (function, shapes) in programs.calls().items():
        arrays = {
            key: draw.integers(0, 255, x.shape, np.uint8) if key == "frame"
            else draw.random(x.shape, np.float32) for key, x in shapes.items()
        }  # fmt: skip
        session = runtime.InferenceSession(tmp_path / f"{name}.onnx")
        inputs = {x.name: arrays[x.name.removesuffix("_in")] for x in session.get_inputs()}
        results = [x.name for x in session.get_outputs()]
        found = dict(zip(results, session.run(None, inputs), strict=True))
        expected = jax.jit(function)(**arrays)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            # ONNX Runtime adds products in another order, so the rounding of small sums is that of
            # a map's largest values (6 for f16).
            atol = 2e-5 * max(1, float(abs(value).max()))
            np.testing.assert_allclose(found[key], value, atol=atol, rtol=1e-5, err_msg=key)


def test_another_type_is_refused(tmp_path: Path, tiny_network: Network) -> None:
    half = ExportConfig(size=(60, 90), dtype="bfloat16")
    with pytest.raises(InputError, match="float32, not in bfloat16"):
        write_onnx(tmp_path, TINY, tiny_network.variables, half)
