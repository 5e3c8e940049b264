"""Model checkpoints and training runs in an object store."""

from pathlib import Path

import jax
import numpy as np
import pytest

from s3_jax.checkpoints.model import CheckpointError, find_model, load_model, save_model
from s3_jax.config import ModelConfig
from s3_jax.remote import remote_path, upload_directory
from tests.support.stores import Bucket, store  # noqa: F401
from tests.support.tiny_models import NARROW, tiny_variables


def saved(path: str | Path, seed: int, **metadata: object) -> dict:
    variables = tiny_variables(NARROW, seed=seed)
    save_model(path, NARROW, variables, metadata=metadata)
    return variables


def same(path: str | Path, variables: dict) -> bool:
    config, found = load_model(path)
    assert isinstance(config, ModelConfig) and config == NARROW
    pairs = zip(jax.tree.leaves(found["params"]), jax.tree.leaves(variables["params"]), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_a_network_is_saved_and_replaced(store: Bucket) -> None:  # noqa: F811
    assert same("gs://b/model", saved("gs://b/model", 0))
    arrays = {name for name in store.find("/b/model") if "/d/" in name}
    assert same("gs://b/model", saved("gs://b/model", 1))
    assert arrays and not arrays & set(store.find("/b/model"))  # nothing of the old one is left
    assert same(Path("gs://b/model"), tiny_variables(NARROW, seed=1))


def test_of_a_run_the_best_step_is_fetched_and_nothing_else(
    store: Bucket,  # noqa: F811
    tmp_path: Path,
) -> None:
    networks = [saved(tmp_path / "run/checkpoints" / str(step) / "model", step, score=score)
                for step, score in ((1, 0.9), (2, 0.8))]  # fmt: skip
    upload_directory(tmp_path / "run", remote_path("gs://b/run"))
    store.pipe("/b/run/checkpoints/1/training/large", b"x")
    assert same("gs://b/run", networks[0])
    steps = tmp_path / "cache/gs/b/run/checkpoints"
    assert not (steps / "1/training").exists()
    assert [path.name for path in (steps / "2/model").iterdir()] == ["config.json"]


def test_what_is_not_there_is_said(store: Bucket) -> None:  # noqa: F811
    store.pipe("/b/other/readme.txt", b"")
    for path in ("gs://b/none", "gs://b/other"):
        with pytest.raises(CheckpointError, match=path):
            find_model(path)
