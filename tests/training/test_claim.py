"""A run's directory is recognized again, even if the program has new settings since then."""

import dataclasses
import json
from pathlib import Path

import pytest

from s3_jax.errors import InputError
from s3_jax.media.run_json import NAME
from s3_jax.training.run_data import claim
from tests.training.tiny_run import RUN


def _recorded(workdir: Path, change, run=RUN) -> None:
    claim(workdir, run, adopt=False)
    values = json.loads((workdir / NAME).read_text())
    change(values["settings"])
    (workdir / NAME).write_text(json.dumps(values))


def test_settings_that_are_younger_than_the_record_count_as_their_defaults(tmp_path):
    key, model = "encoder_settings", dataclasses.replace(RUN.model, encoder="compact_semantic",
                                                         encoder_settings=None)  # fmt: skip
    run = dataclasses.replace(RUN, model=model)
    _recorded(tmp_path, lambda values: values["model"][key].pop("spatial_dependency"), run)
    claim(tmp_path, run, adopt=False)
    compact = dataclasses.replace(model.encoder_settings, spatial_dependency=False)
    other = dataclasses.replace(RUN, model=dataclasses.replace(model, encoder_settings=compact))
    with pytest.raises(InputError, match="spatial_dependency was True, now False"):
        claim(tmp_path, other, adopt=False)


def test_settings_that_are_gone_are_told(tmp_path):
    _recorded(tmp_path, lambda values: values["model"].update(old_setting=3))
    with pytest.raises(InputError, match=r"model\.old_setting was 3, now None.*--adopt_config"):
        claim(tmp_path, RUN, adopt=False)
    claim(tmp_path, RUN, adopt=True)
    claim(tmp_path, RUN, adopt=False)
