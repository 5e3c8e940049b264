"""The files of docs/extend.md, used from outside the package as a reader would use them."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from s3_jax.checkpoints.model import CheckpointError, load_model, save_model
from s3_jax.config import ModelConfig, PropagationConfig, from_dict, to_dict
from s3_jax.errors import InputError
from s3_jax.models.s3 import S3
from s3_jax.propagation.batch import SessionBatch
from s3_jax.propagation.export import ExportConfig, write_export
from s3_jax.propagation.frame import Network
from s3_jax.propagation.geometry import frame_geometry
from s3_jax.propagation.scan import scan
from s3_jax.propagation.session import Session
from s3_jax.training import run_config
from s3_jax.training.train import train
from tests.propagation.conftest import Video
from tests.training.tiny_run import get_config

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extend.md").read_text()
# A file of the page: its name in backquotes ends the text before the code.
FILES = dict(re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
PARTS = {"encoder": "my_encoder:Toy", "query_attention": "my_attention:Cosine"}
CONFIG = PropagationConfig(mem_every=2, max_mem_frames=3)
FRAMES = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory on the path with the page's files, and one whose attention offers nothing."""
    folder = tmp_path_factory.mktemp("stranger")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    silent = re.sub(r".*SIMILARITY, score.*\n", "", FILES["my_attention.py"])
    (folder / "silent_attention.py").write_text(silent)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


def from_flags(*given: str) -> run_config.RunConfig:
    """The tiny run with changes given as on the command line."""
    values = flags.FlagValues()
    steps = (f"--config.stages.{stage}.steps=2" for stage in ("static", "video"))
    line = ["train", "--config.images_every=2", *steps, *given]
    holder = config_flags.DEFINE_config_dict(
        "config", get_config(), flag_values=values, sys_argv=line
    )
    values(line)
    return run_config.from_dict(holder.value.to_dict())


@pytest.fixture(scope="module")
def trained(folder):
    """Both stages, static and video, and the directory they leave."""
    run = from_flags(*(f"--config.model.{part}={name}" for part, name in PARTS.items()))
    outcome = train(run, folder / "run")
    assert outcome.step == 4
    return folder / "run"


def test_files_are_as_short_as_promised():
    assert {"my_encoder.py", "my_attention.py"} <= set(FILES)
    assert all(len(text.splitlines()) <= 40 for text in FILES.values())


@pytest.mark.slow
def test_both_stages_train_it_and_draw_it(trained):
    content = b"".join(f.read_bytes() for f in (trained / "tensorboard").glob("events*"))
    assert b"clip/query_attention" in content
    config, variables = load_model(trained)
    assert (config.encoder, config.encoder_settings.width) == (PARTS["encoder"], 16)
    single, _ = load_model(trained / "stages" / "static")
    assert single == dataclasses.replace(config, single_object=True)
    attention = variables["params"]["object_transformer"]["blocks_0"]["read_from_pixel"]
    assert "temperature" in attention


@pytest.mark.slow
def test_segments_alone_in_a_batch_and_in_a_scan_alike(trained):
    config, variables = load_model(trained)
    video = Video(FRAMES, objects=2)
    session, other, third = (Session(config, variables, CONFIG) for _ in range(3))
    session.add(video.masks[0])
    alone = [session.step(frame) for frame in video.frames]
    batch = SessionBatch([other, third])
    found = [batch.start([video.frames[0]] * 2, [video.masks[0]] * 2)]
    found += [batch.step([frame] * 2) for frame in video.frames[1:]]
    again = Session(config, variables, CONFIG)
    again.add(video.masks[0])
    again.step(video.frames[0])
    network = Network(S3(config), jax.tree.map(jnp.asarray, variables))
    geometry = frame_geometry(video.frames[0].shape[:2], config.size_multiple)
    _, scanned = scan(network, CONFIG, geometry, again.state, jnp.asarray(video.frames[1:]))
    for t in range(1, FRAMES):
        np.testing.assert_allclose(found[t][0].prob, alone[t].prob, atol=1e-4)
        np.testing.assert_allclose(scanned[t - 1], alone[t].prob, atol=1e-4)


@pytest.mark.slow
def test_explains_what_its_attention_offers(trained):
    config, variables = load_model(trained)
    video = Video(2, objects=2)
    session = Session(config, variables, CONFIG)
    with pytest.raises(InputError, match="step over a frame with a mask first"):
        session.explain(video.frames[0])
    session.add(video.masks[0])
    session.step(video.frames[0])
    found = session.explain(video.frames[1])
    assert found.queries.shape == (1, 2, 2, config.width)
    assert found.similarity.shape == (1, 2, 1, 2, 4, 6)  # blocks, objects, heads, queries, tokens
    foreground, background = found.similarity[0, :, 0, 0], found.similarity[0, :, 0, 1]
    np.testing.assert_array_equal(np.isfinite(foreground), found.readable[0, :, 0])
    np.testing.assert_array_equal(np.isfinite(background), found.readable[0, :, 1])
    silent = dataclasses.replace(config, query_attention="silent_attention:Cosine")
    session = Session(silent, variables, CONFIG)
    session.add(video.masks[0])
    session.step(video.frames[0])
    without = session.explain(video.frames[1])
    assert without.similarity is None
    assert without.row.shape == (1, 2, 0, 2)
    np.testing.assert_allclose(without.queries, found.queries, atol=1e-5)


@pytest.mark.slow
def test_exports(trained, tmp_path):
    config, variables = load_model(trained)
    variables = {name: variables[name] for name in ("params", "batch_stats")}
    parts = write_export(tmp_path / "toy.s3", config, variables, ExportConfig((64, 64)))
    assert parts["step.jax"] > 0


@pytest.mark.slow
def test_a_checkpoint_keeps_settings_and_says_what_it_misses(trained, tmp_path, monkeypatch):
    config, variables = load_model(trained)
    save_model(tmp_path / "copy", config, variables)
    assert load_model(tmp_path / "copy")[0] == config
    header = tmp_path / "copy" / "config.json"
    header.write_text(header.read_text().replace("my_encoder:", "gone_encoder:"))
    with pytest.raises(
        CheckpointError,
        match=r"this checkpoint's encoder gone_encoder:Toy cannot "
        r"be imported .*gone_encoder.*install its package, or put it on the path",
    ):
        load_model(tmp_path / "copy")


@pytest.mark.slow
def test_what_an_attention_does_not_offer_is_left_out(folder):
    run = from_flags(f"--config.model.encoder={PARTS['encoder']}",
                     "--config.model.query_attention=silent_attention:Cosine",
                     "--config.order=('static',)")  # fmt: skip
    train(run, folder / "silent")
    content = b"".join(f.read_bytes() for f in (folder / "silent/tensorboard").glob("events*"))
    assert b"clip/prediction" in content
    assert b"clip/query_attention" not in content


def test_settings_come_as_a_dataclass_as_a_mapping_or_not_at_all(folder):
    from my_encoder import ToyConfig

    name = PARTS["encoder"]
    wide = ModelConfig(encoder=name, encoder_settings=ToyConfig(width=24))
    assert ModelConfig(encoder=name, encoder_settings={"width": 24}) == wide
    assert from_dict(ModelConfig, to_dict(wide)) == wide
    assert ModelConfig(encoder=name).encoder_settings == ToyConfig()
    with pytest.raises(ValueError, match=r"unknown key encoder_settings.'wdth'.*'width'"):
        ModelConfig(encoder=name, encoder_settings={"wdth": 24})


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("encoder", "resnet51", r"encoder 'resnet51' is unknown.*spatial_semantic.*resnet"),
        ("encoder", "my_encoder:Toi", r"my_encoder.py has no Toi"),
        ("encoder", "my_attention:Cosine", r"my_attention:Cosine is not a subclass of .*Encoder"),
        ("query_attention", "hard", r"query_attention 'hard' is unknown.*discriminative"),
        (
            "query_attention",
            "my_encoder:Toy",
            r"my_encoder:Toy is not a subclass of .*QueryAttention",
        ),
    ],
)
def test_unknown_parts_are_refused(folder, part, value, message):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(
            S3(ModelConfig(**{part: value})).init,
            jax.random.key(0),
            jnp.zeros((1, 64, 64, 3)),
            jnp.zeros((1, 1, 64, 64)),
        )
