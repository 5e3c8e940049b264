"""Every file in configs/ gives a valid run, and the published recipe has the published values."""

import ast
import dataclasses
import importlib
import typing
from pathlib import Path

import pytest

from configs import published
from s3_jax.cli.config_flag import find_config
from s3_jax.config import MODELS, ModelConfig, ViTConfig
from s3_jax.data import recipes
from s3_jax.errors import InputError
from s3_jax.training.run_config import from_dict
from s3_jax.training.step_config import MAIN_TRAINING, PRE_TRAINING

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")
PUBLISHED = sorted(name for name in MODELS if not name.startswith("s3_lite"))


def run_of(name, *arguments):
    """The run that --config=NAME:ARGUMENT describes."""
    file, colon, argument = find_config(":".join((name, *arguments))).partition(":")
    module = importlib.import_module(f"configs.{Path(file).stem}")
    return from_dict(module.get_config(*[argument] * bool(colon)).to_dict())


@pytest.mark.parametrize("name", NAMES)
def test_is_valid_and_says_how_it_is_used(name):
    run = run_of(name)
    assert run.total_steps > 0
    text = importlib.import_module(f"configs.{name}").__doc__
    assert f"--config=configs/{name}.py" in text
    for word in ("Hardware: ", "Expected score: "):
        assert word in text


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_network_has_one(name):
    run = run_of(f"train_{name}")
    assert run.model == MODELS[name]
    assert f"--model={name}_single_object" in importlib.import_module("configs.published").__doc__
    static, video = run.stages
    assert static.single_object
    assert not video.single_object
    assert (static.batch_size, video.batch_size) == (16, 16)
    assert (static.dtype, video.dtype) == ("float32", "bfloat16")


def test_both_stages_are_the_published_ones():
    """docs/propagation.md, section 5.1."""
    static, video = run_of("train_s3_vitb").stages
    assert (static.steps, video.steps) == (80_000, 125_000)
    for stage, crop, frames, references, objects, points, rate in (
        (static, 384, 3, 2, 1, 8_192, 1e-4),
        (video, 480, 8, 3, 3, 12_544, 5e-5),
    ):
        assert stage.data.crop == crop
        assert stage.data.num_frames == frames
        assert stage.data.max_objects == stage.step.clip.num_objects == objects
        assert stage.step.clip.num_ref_frames == references
        assert stage.step.loss.num_points == points
        assert stage.step.optimizer.learning_rate == rate
    assert (static.step.optimizer.decay, video.step.optimizer.decay) == ("constant", "steps")


@pytest.mark.parametrize(
    ("data", "steps", "milestones", "sets"),
    [
        ("base", 125_000, (100_000, 115_000), 2),
        ("mose", 125_000, (100_000, 115_000), 3),
        ("mega", 175_000, (140_000, 165_000), 5),
    ],
)
def test_the_argument_chooses_data(data, steps, milestones, sets):
    video = run_of("train_s3_vitb", data).stages[1]
    assert video.steps == video.data.num_steps == steps
    assert video.step.optimizer.milestones == milestones
    assert len(video.data.sources) == sets


def test_cutie_learns_at_its_own_rate():
    assert run_of("train_cutie_base").stages[1].step.optimizer.learning_rate == 1e-4


def test_unknown_data_is_refused():
    with pytest.raises(InputError, match="'davis' is none of base, mose, mega"):
        run_of("train_s3_vitb", "davis")


def test_other_networks_are_refused():
    with pytest.raises(InputError, match=r"'s3_vitx' is none of s3_vitb_depthanything, s3_vitb"):
        published.get_config("s3_vitx,base")


def test_the_published_numbers_are_the_library_s_defaults():
    static, video = run_of("published", "s3_vitb,base").stages
    assert (static.step, video.step) == (PRE_TRAINING, MAIN_TRAINING)
    reading = {"num_workers": 8}
    assert static.data == recipes.pretraining(".", **reading)
    assert video.data == recipes.main_training(".", **reading)


SPANNED = {"num_steps", "iterations"}  # set by the stage's `steps`
OF_USE_WITH_A_PATH = {"backgrounds", "background_share", "validation"}
SWITCHED_OFF = {"blur", "zoom", "zoom_aspect", "zoom_share"}  # unless a page sets them


def _numbers(cls: type) -> set[str]:
    """Fields that hold numbers or settings, and are not off by default."""
    hints = typing.get_type_hints(cls)
    words = (str, typing.ClassVar[str])
    fields = [field for field in dataclasses.fields(cls) if hints[field.name] not in words]
    names = {field.name for field in fields if field.default not in (False, None, ())}
    return names - SPANNED - OF_USE_WITH_A_PATH - SWITCHED_OFF


@pytest.mark.parametrize("name", ["pretrain_s3_lite", "published", "smoke"])
def test_every_number_is_on_the_page(name):
    """No setting of the run is left to a default that is written elsewhere."""
    module = importlib.import_module(f"configs.{name}")
    unsaid = {}
    for call in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            cls = getattr(module, call.func.id, None)
            if dataclasses.is_dataclass(cls) and cls not in (ModelConfig, ViTConfig):
                said = {word.arg for word in call.keywords}
                said |= {field.name for field in dataclasses.fields(cls)[: len(call.args)]}
                unsaid |= {(call.func.id, call.lineno): _numbers(cls) - said}
    assert len(unsaid) > 5
    assert {place: missing for place, missing in unsaid.items() if missing} == {}
