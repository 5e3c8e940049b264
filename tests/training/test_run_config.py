import dataclasses
import json

import pytest
from ml_collections import ConfigDict

from s3_jax.config import ModelConfig
from s3_jax.data.config import DataConfig
from s3_jax.errors import InputError
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig, StageConfig, ValidationConfig, from_dict, to_dict
from s3_jax.training.step_config import StepConfig
from tests.training.tiny_run import RUN, get_config


def test_survives_json_and_config_dicts():
    assert from_dict(json.loads(json.dumps(to_dict(RUN)))) == RUN
    assert from_dict(ConfigDict(to_dict(RUN)).to_dict()) == RUN
    assert from_dict(get_config().to_dict()) == RUN


def test_order_chooses_stages():
    values = to_dict(RUN) | {"order": ("video",)}
    assert [stage.name for stage in from_dict(values).stages] == ["video"]


def test_schedules_span_the_stage():
    stage = StageConfig("a", steps=7)
    assert stage.data.num_steps == stage.step.optimizer.iterations == 7


def changed(**values):
    """The tiny run's dictionary with some values, by dotted name."""
    config = to_dict(RUN)
    for name, value in values.items():
        place = config
        *path, last = name.split("__")
        for part in path:
            place = place[part]
        place[last] = value
    return config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stepz": 3}, ["'stepz'", "log_every"]),
        ({"stages__static__stepz": 3}, ["stages.static.'stepz'"]),
        ({"stages__static__step__clip__objects": 3}, ["stages.static.step.clip.'objects'"]),
        ({"stages__static__data__cropp": 3}, ["cropp"]),
        ({"stages__static__data__num_steps": 3}, ["num_steps", "stages.static.steps"]),
        ({"stages__static__step__optimizer__iterations": 3}, ["iterations", "static.steps"]),
        ({"stages__static__steps": "many"}, ["stages.static.steps", "'many'", "int"]),
        ({"stages__static__steps": 0}, ["static", "steps is 0", "at least 1"]),
        ({"stages__static__dtype": "float16"}, ["dtype", "bfloat16"]),
        ({"stages__static__data__max_objects": 3}, ["max_objects is 3", "num_objects (1)"]),
        ({"stages__static__data__crop": 33}, ["crop is 33", "multiple of 32"]),
        ({"stages__static__data__num_frames": 1}, ["num_frames is 1"]),
        ({"stages__static__step__clip__num_objects": 2}, ["num_objects is 2", "single_object"]),
        ({"order": ("static", "film")}, ["film", "static", "video"]),
        ({"order": ("static", "static")}, ["order"]),
        ({"order": ()}, ["order"]),
        ({"log_every": True}, ["log_every", "int"]),
        ({"save_every": 0}, ["save_every is 0"]),
        ({"validation__protocol": "davis"}, ["protocol is davis", "davis2016"]),
        ({"validation__max_frames": 2}, ["max_frames is 2"]),
        ({"model__single_object": True}, ["single_object", "stages"]),
    ],
)
def test_mistakes_are_named(values, words):
    with pytest.raises(InputError) as error:
        from_dict(changed(**values))
    for word in words:
        assert word in str(error.value)


def test_missing_values_are_named():
    values = to_dict(RUN)
    del values["stages"]["static"]["steps"]
    with pytest.raises(InputError, match=r"stages\.static\.steps is missing"):
        from_dict(values)


def test_whole_numbers_are_fine_where_fractions_are():
    run = from_dict(changed(divergence=5, stages__static__step__ema_decay=None))
    assert run.divergence == 5.0
    assert run.stages[0].step.ema_decay is None


def test_published_settings_fit_together():
    """Defaults are those of the published main stage, and are valid."""
    run = RunConfig(ModelConfig(), (StageConfig("main", 125_000),), ValidationConfig())
    assert run.stages[0].data == DataConfig(num_steps=125_000)
    assert run.stages[0].step == StepConfig()
    assert run.total_steps == 125_000
    several = dataclasses.replace(run, stages=(StageConfig("one", 5), StageConfig("two", 7)))
    assert [several.first_step(i) for i in range(3)] == [0, 5, 12]


def test_flat_names():
    assert run_config.flat({"a": {"b": 1, "c": {"d": (2,)}}, "e": 3}) == {
        "a.b": 1,
        "a.c.d": (2,),
        "e": 3,
    }
