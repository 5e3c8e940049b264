"""Ablations differ in the network alone, and their files are configurations of `tools.train`."""

import pytest

from configs import ablation_s3_lite, train_s3_lite
from s3_jax.config import MODELS
from s3_jax.training import run_config

NAMES = [name for name in MODELS if name.startswith("s3_lite")]


def test_all_are_trained_equally() -> None:
    runs = [run_config.from_dict(ablation_s3_lite.get_config(name).to_dict()) for name in NAMES]
    assert [run.model for run in runs] == [MODELS[name] for name in NAMES]
    assert len({run.model for run in runs}) == 4
    assert all((run.stages, run.seed) == (runs[0].stages, runs[0].seed) for run in runs)
    assert all(run.validation == runs[0].validation for run in runs)


def test_data_are_those_of_the_long_training() -> None:
    long, short = train_s3_lite.get_config(), ablation_s3_lite.get_config()
    assert short.model == long.model
    data = short.stages.short.data
    assert data.crop < long.stages.short.data.crop
    data.crop = long.stages.short.data.crop
    assert data == long.stages.short.data
    assert short.stages.short.steps < sum(stage.steps for stage in long.stages.values()) / 2


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no ablation 's3_vitb'; write one of s3_lite, "):
        ablation_s3_lite.get_config("s3_vitb")
