"""Complete runs of the smallest network in this process; tests/tools/test_train.py kills runs."""

import contextlib
import dataclasses
import itertools
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from s3_jax.checkpoints.model import load_model
from s3_jax.data.config import VideoFolderConfig
from s3_jax.errors import InputError
from s3_jax.training import fit, run_data
from s3_jax.training import train as usual
from s3_jax.training.checkpoints import Record
from s3_jax.training.progress import Journal, read_metrics
from s3_jax.training.run_config import ValidationConfig
from s3_jax.training.stages import first_variables
from s3_jax.training.train import train
from tests.benchmarks.sequences import squares
from tests.benchmarks.test_validation import write_video
from tests.training.tiny_run import RUN, STATIC


def run_of(**changes):
    """The tiny run with changes of its first stage only."""
    return dataclasses.replace(RUN, stages=(dataclasses.replace(STATIC, **changes),))


def begin(run):
    return fit.begin(usual.usual_stages(run), 0, None, run.seed)


def losses(workdir):
    return [x for e in read_metrics(workdir / "metrics.jsonl") for x in e.get("losses", [])]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run, with validation and pictures."""
    root = tmp_path_factory.mktemp("finished")
    write_video(root / "videos", "clip", squares(4))
    validation = ValidationConfig("videos", protocol="davis2016", short_side=32, every=3)
    run = dataclasses.replace(
        RUN, validation=validation, data_root=str(root), save_every=4, images_every=5
    )
    return root / "run", run, train(run, root / "run")


@pytest.mark.slow
def test_runs_all_stages_and_says_so(finished, capsys):
    workdir, run, outcome = finished
    assert (outcome.step, outcome.stopped) == (10, False)
    assert outcome.score is not None
    assert len(losses(workdir)) == 10
    assert train(run, workdir).step == 10  # again: nothing is left to do
    assert "going on from step 4 of stage video" in capsys.readouterr().out
    assert len(losses(workdir)) == 10


@pytest.mark.slow
def test_stages_hand_their_network_on(finished):
    workdir, _, _ = finished
    config, static = load_model(workdir / "stages" / "static")
    assert config.single_object
    wide_config, wide = load_model(workdir)
    assert wide_config == RUN.model
    narrow_kernel, wide_kernel = (
        v["params"]["pixel_fuser"]["state_proj"]["kernel"] for v in (static, wide)
    )
    assert wide_kernel.shape[-2] == narrow_kernel.shape[-2] + 1
    # Four small steps away from where the first stage ended.
    assert np.abs(wide_kernel[..., :-1, :] - narrow_kernel).max() < 0.02


@pytest.mark.slow
def test_measures_before_during_and_at_the_end_of_stages(finished):
    workdir, _, outcome = finished
    entries = [e for e in read_metrics(workdir / "metrics.jsonl") if "validation" in e]
    assert [e["step"] for e in entries] == [0, 3, 6, 9, 10]
    assert entries[-1]["validation"]["J&F-Mean"] == outcome.score
    assert entries[-1]["videos"] == {"clip": outcome.score}


@pytest.mark.slow
def test_draws_curves_and_pictures(finished):
    workdir, _, _ = finished
    content = b"".join(f.read_bytes() for f in (workdir / "tensorboard").glob("events*"))
    names = ["training/total", "training/learning_rate", "validation/J_F-Mean"]
    names += [f"clip/{name}" for name in ("input", "prediction", "truth", "query_attention")]
    for name in names:
        assert name.encode() in content


@pytest.mark.slow
def test_sigterm_saves_and_ends_well(finished, tmp_path, monkeypatch):
    """Stopped after every other step, the run still comes to the same end."""
    workdir, run, _ = finished
    journal_log = Journal.log

    def log(self, report, step):
        journal_log(self, report, step)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Journal, "log", log)
    run = dataclasses.replace(
        run, validation=ValidationConfig(), images_every=0, stages=run.stages[:1]
    )
    outcome = train(run, tmp_path)
    assert (outcome.step, outcome.stopped) == (4, True)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    outcome = train(run, tmp_path)
    assert (outcome.step, outcome.stopped) == (6, False)
    assert losses(tmp_path) == losses(workdir)[:6]


@pytest.mark.slow
def test_a_directory_of_another_configuration_is_refused(finished, tmp_path):
    workdir, run, _ = finished
    stage = dataclasses.replace(run.stages[0], batch_size=4)
    other = dataclasses.replace(run, stages=(stage, *run.stages[1:]), seed=3)
    with pytest.raises(InputError) as error:
        train(other, workdir)
    assert "stages.static.batch_size was 2, now 4" in str(error.value)
    assert "seed was 0, now 3" in str(error.value)
    unimportant = dataclasses.replace(run, log_every=7, keep=9, validation=ValidationConfig())
    run_data.claim(workdir, unimportant, adopt=False)
    shutil.copytree(workdir, tmp_path / "copy")
    run_data.claim(tmp_path / "copy", other, adopt=True)
    run_data.claim(tmp_path / "copy", other, adopt=False)


@pytest.mark.slow
def test_numbers_that_are_not_finite_stop_it_and_the_batch_is_kept(tmp_path, monkeypatch):
    def spoilt(run):
        variables = first_variables(run)
        variables["params"]["mask_decoder"] = jax.tree.map(
            lambda x: x * np.nan, variables["params"]["mask_decoder"]
        )
        return variables

    monkeypatch.setattr(usual, "first_variables", spoilt)
    run = dataclasses.replace(run_of(), log_every=3, save_every=3)
    with pytest.raises(InputError, match="step 0 of stage static: the loss is not finite") as error:
        train(run, tmp_path)
    file = tmp_path / "bad_batch_static_0.npz"
    assert str(file) in str(error.value)
    with np.load(file) as saved, run_data.batches(run, run.stages[0], 0) as batches:
        batch = next(batches)
        assert set(saved) == set(batch)
        for name, value in batch.items():
            np.testing.assert_array_equal(saved[name], value)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.slow
def test_missing_data_is_named_before_anything_is_compiled(tmp_path):
    data = dataclasses.replace(STATIC.data, sources=(VideoFolderConfig("nowhere"),))
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        train(dataclasses.replace(run_of(data=data), data_root="/data"), tmp_path)
    run = dataclasses.replace(run_of(), validation=ValidationConfig("no_videos"))
    with pytest.raises(InputError, match=r"no_videos does not exist"):
        train(run, tmp_path / "other")


@pytest.mark.slow
def test_what_was_learnt_is_safe_when_the_data_fails(finished, tmp_path, monkeypatch):
    """The steps up to there are in a checkpoint, and the run goes on when the data is mended."""
    workdir, _, _ = finished
    open_batches = run_data.batches

    @contextlib.contextmanager
    def failing(*args):
        def some(batches):
            yield from itertools.islice(batches, 3)
            raise InputError("12 of 100 clips met files that cannot be read")

        with open_batches(*args) as batches:
            yield some(batches)

    run = dataclasses.replace(run_of(), save_every=100)
    monkeypatch.setattr(run_data, "batches", failing)
    with pytest.raises(InputError, match="12 of 100"):
        train(run, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    monkeypatch.undo()
    train(run, tmp_path)
    assert losses(tmp_path) == losses(workdir)[:6]


def test_a_batch_that_cannot_be_divided_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(InputError, match=r"batch_size of 2 cannot be divided over 3 devices"):
        train(run_of(), tmp_path)


def test_another_number_of_devices_is_told(capsys, caplog):
    record = Record("static", 4, 4, {}, processes=2, replicas=8)
    fit._tell_where(record)
    assert "step 4 of stage static" in capsys.readouterr().out
    assert "was on 8 devices of 2 processes, now it is on 1 of 1" in caplog.text


@pytest.mark.slow
def test_begins_from_a_checkpoint(finished, tmp_path):
    workdir, run, _ = finished
    run = dataclasses.replace(run, initial_checkpoint=str(workdir), stages=run.stages[1:])
    start = begin(run)
    _, variables = load_model(workdir)
    jax.tree.map(np.testing.assert_array_equal, start.state.params, variables["params"])
    other = dataclasses.replace(run, model=dataclasses.replace(run.model, ff_dim=32))
    with pytest.raises(InputError, match="ff_dim is 16, here 32"):
        begin(other)
    with pytest.raises(InputError, match="single_object is False, here True"):
        begin(dataclasses.replace(run, stages=RUN.stages))
