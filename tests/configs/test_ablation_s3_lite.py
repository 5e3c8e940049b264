"""Ablations differ in one part alone, and their files are configurations of `s3 train`."""

import dataclasses

import pytest

from configs import ablation_s3_lite, train_s3_lite
from s3_jax.config import MODELS
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig

NETWORKS = [name for name in MODELS if name.startswith("s3_lite")]


def run(name: str) -> RunConfig:
    return run_config.from_dict(ablation_s3_lite.get_config(name).to_dict())


def test_networks_are_trained_equally() -> None:
    runs = [run(name) for name in NETWORKS]
    assert [run.model for run in runs] == [MODELS[name] for name in NETWORKS]
    assert len({run.model for run in runs}) == 4
    assert all(dataclasses.replace(run, model=runs[0].model) == runs[0] for run in runs)


@pytest.mark.parametrize("name", ablation_s3_lite.DATA)
def test_data_differ_in_one_kind_of_source(name: str) -> None:
    whole, less = run("s3_lite"), run(name)
    kinds = ablation_s3_lite.DATA[name]
    sources = [source for source in whole.stages[0].data.sources if source.kind not in kinds]
    assert 0 < len(sources) < len(whole.stages[0].data.sources)
    data = dataclasses.replace(whole.stages[0].data, sources=tuple(sources))
    assert less.stages == (dataclasses.replace(whole.stages[0], data=data),)
    assert dataclasses.replace(less, stages=whole.stages) == whole


def test_data_are_those_of_the_long_training() -> None:
    long, short = train_s3_lite.video(), run("s3_lite").stages[0]
    assert short.data.sources == long.data.sources
    assert (short.data.image, short.data.video) == (long.data.image, long.data.video)
    assert short.steps < long.steps


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no ablation 's3_vitb'; write one of s3_lite, "):
        ablation_s3_lite.get_config("s3_vitb")
