import dataclasses
import errno
import functools
import resource
import shutil

import jax
import numpy as np
import pytest

from s3_jax.checkpoints.model import find_model, load_model
from s3_jax.errors import InputError
from s3_jax.models.s3 import S3
from s3_jax.training import checkpoints as checkpoints_module
from s3_jax.training.checkpoints import Checkpoints, Record, resumed
from s3_jax.training.clip_loss import make_trainer
from s3_jax.training.state import evaluation_variables
from s3_jax.training.step import init_state
from s3_jax.training.step_config import StepConfig
from tests.support.marks import slow
from tests.support.tiny_models import TINY_VIT, tiny_variables

PLAIN = StepConfig()
AVERAGED = StepConfig(ema_decay=0.9)


@functools.lru_cache
def first_state(settings):
    return init_state(make_trainer(S3(TINY_VIT), settings), tiny_variables(TINY_VIT), 0)


def state_of(settings=PLAIN, seed=0):
    """A state in which no two arrays are equal, as after some steps."""
    leaves, structure = jax.tree.flatten(first_state(settings))
    rng = np.random.default_rng(seed)
    changed = [rng.uniform(0, 100, x.shape).astype(x.dtype) for x in leaves]
    return jax.tree.unflatten(structure, jax.device_put(changed))


def record(step, score=None):
    return Record("main", step - 1, step, {"seed": 0}, 1, 1, score)


def save(workdir, *steps, settings=PLAIN, keep=3, scores=()):
    with Checkpoints(workdir, keep) as checkpoints:
        for i, step in enumerate(steps):
            score = scores[i] if scores else None
            checkpoints.save(TINY_VIT, state_of(settings, step), record(step, score))
        checkpoints.wait()
        return checkpoints.steps()


def restore(workdir, settings=PLAIN):
    with Checkpoints(workdir, 3) as checkpoints:
        restored = checkpoints.restore()
        return restored.record, resumed(restored, state_of(settings, 99))


@pytest.mark.parametrize("settings", [PLAIN, slow(AVERAGED)])
def test_every_bit_comes_back(tmp_path, settings):
    save(tmp_path, 7, settings=settings)
    found, state = restore(tmp_path, settings)
    assert found == record(7)
    expected = state_of(settings, 7)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for mine, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype


def test_the_model_item_is_what_videos_are_segmented_with(tmp_path):
    save(tmp_path, 7, settings=AVERAGED)
    config, variables = load_model(tmp_path)
    assert config == TINY_VIT
    expected = evaluation_variables(state_of(AVERAGED, 7))
    jax.tree.map(np.testing.assert_array_equal, variables["params"], expected["params"])


def test_nothing_there_is_no_mistake(tmp_path):
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert checkpoints.restore() is None


def test_keeps_the_latest_and_the_best(tmp_path):
    kept = save(tmp_path, 1, 2, 3, 4, 5, keep=2, scores=(0.1, 0.9, 0.3, 0.5, 0.2))
    assert kept == [2, 4, 5]


@pytest.mark.slow
def test_checkpoints_without_score_go_too(tmp_path):
    kept = save(tmp_path, 1, 2, 3, 4, 5, keep=2, scores=(None, 0.9, None, None, None))
    assert kept == [2, 4, 5]


@pytest.mark.slow
def test_the_best_is_of_the_latest_stage(tmp_path):
    """The score of an earlier stage's network does not matter."""
    with Checkpoints(tmp_path, 1) as checkpoints:
        for step, (stage, score) in enumerate([("a", 0.9), ("b", 0.4), ("b", 0.3), ("b", 0.2)]):
            made = dataclasses.replace(record(step, score), stage=stage, run={"order": ["a", "b"]})
            checkpoints.save(TINY_VIT, state_of(seed=step), made)
        checkpoints.wait()
        assert checkpoints.steps() == [1, 3]


def damage_array(step):
    file = next((step / "training" / "d").iterdir())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(step):
    file = max((step / "model" / "d").iterdir(), key=lambda f: f.stat().st_size)
    file.write_bytes(file.read_bytes()[:100])


FIRST = "a flipped bit"
DAMAGES = {
    FIRST: damage_array,
    "a truncated file": truncate,
    "no record": lambda step: (step / "training" / "training.json").unlink(),
    "half a record": lambda step: (step / "training" / "training.json").write_text('{"form'),
    "no model": lambda step: shutil.rmtree(step / "model"),
    "nothing at all": lambda step: [shutil.rmtree(step / item) for item in ("model", "training")],
}


@pytest.mark.parametrize("damage", [FIRST, *(slow(name) for name in DAMAGES if name != FIRST)])
def test_goes_back_to_a_checkpoint_that_can_be_read(tmp_path, damage, caplog):
    save(tmp_path, 1, 2)
    DAMAGES[damage](tmp_path / "checkpoints" / "2")
    found, _ = restore(tmp_path)
    assert found == record(1)
    assert "checkpoint 2 cannot be read" in caplog.text
    assert (tmp_path / "damaged" / "2").is_dir()
    assert save(tmp_path, 2) == [1, 2]
    assert restore(tmp_path)[0] == record(2)


def test_all_damaged_is_told_and_nothing_removed(tmp_path):
    save(tmp_path, 1, 2)
    for step in (1, 2):
        truncate(tmp_path / "checkpoints" / str(step))
    with Checkpoints(tmp_path, 1) as checkpoints:
        with pytest.raises(InputError, match="none of 2 checkpoints can be read"):
            checkpoints.restore()
        assert checkpoints.steps() == [1, 2]


def test_leftovers_of_a_killed_save_are_no_checkpoint(tmp_path):
    save(tmp_path, 1)
    directory = tmp_path / "checkpoints"
    shutil.copytree(directory / "1", directory / "2.orbax-checkpoint-tmp")
    assert restore(tmp_path)[0] == record(1)
    assert [path.name for path in directory.iterdir()] == ["1"]
    assert find_model(tmp_path).parent.name == "1"


def test_a_full_disk_is_one_line_and_keeps_what_is_there(tmp_path):
    save(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(tmp_path, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(InputError) as error:
            checkpoints.save(TINY_VIT, state_of(seed=2), record(2))
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert "cannot write a checkpoint" in str(error.value)
    assert "intact: [1]" in str(error.value)
    assert restore(tmp_path)[0] == record(1)


def test_writers_of_a_failed_save_are_outlasted(tmp_path, monkeypatch):
    """Orbax cannot delete a directory while its threads write there."""
    save(tmp_path, 1)
    manager = checkpoints_module._manager
    busy = [OSError(errno.ENOTEMPTY, "Directory not empty"), OSError(errno.ENOTEMPTY, "again")]

    def managed(*arguments):
        if busy:
            raise busy.pop()
        return manager(*arguments)

    monkeypatch.setattr(checkpoints_module, "_manager", managed)
    assert restore(tmp_path)[0] == record(1)
    assert not busy


def test_another_optimizer_or_average_is_refused(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(InputError, match="ema_decay"):
        restore(tmp_path, AVERAGED)
    with Checkpoints(tmp_path, 1) as checkpoints:
        restored = checkpoints.restore()
    fewer = {"opt_state": {}, "step": 0, "rng": 0}
    with pytest.raises(InputError, match="another network or optimizer"):
        resumed(dataclasses.replace(restored, arrays=fewer), state_of())
