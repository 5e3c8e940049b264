"""pmap, jit over a mesh, and jit with a sharded state compute the same training."""

import numpy as np
import pytest

from tests.training.test_parallel import Arrays, start_module

pytestmark = pytest.mark.slow

FORMS = ("mesh", "fsdp")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    return start_module("tests.training.meshes", tmp_path_factory.mktemp("meshes") / "x.npz", 4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("network", ["toy", "losses"])
def test_losses_of_twenty_steps_are_equal(found: Arrays, form: str, network: str) -> None:
    expected = found[f"pmap/{network}"]
    assert len(expected) == 20 and len(set(expected)) > 15
    np.testing.assert_allclose(found[f"{form}/{network}"], expected, rtol=1e-5)


def test_a_mesh_trains_a_whole_network_as_replicas_do(found: Arrays) -> None:
    """Both run the same program on each device, so that rounding cannot grow from step to step."""
    assert len(set(found["pmap/s3"])) == 20
    np.testing.assert_allclose(found["mesh/s3"], found["pmap/s3"], rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_saved_is_whole_in_every_form(found: Arrays, form: str) -> None:
    np.testing.assert_allclose(found[f"{form}/w1"], found["pmap/w1"], atol=1e-4)


def test_a_spread_state_takes_a_quarter_of_the_memory(found: Arrays) -> None:
    np.testing.assert_array_equal(found["mesh/held"], found["pmap/held"])
    assert (found["fsdp/held"] <= 1.1 * found["pmap/held"] / 4).all()
