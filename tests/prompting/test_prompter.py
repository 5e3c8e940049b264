"""`Prompter`, with the prompt head that comes with s3_lite."""

from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from s3_jax.benchmarks.clicks import Example, boxed, clicked, overlap, prompter_answers
from s3_jax.checkpoints.layout import CheckpointError
from s3_jax.checkpoints.model import find_model, load_model
from s3_jax.checkpoints.prompts import (
    load_prompt_variables,
    save_prompt_head,
    trunk_variables,
)
from s3_jax.cli import compilation, prompt_flags
from s3_jax.errors import InputError
from s3_jax.media.mask_files import read_mask
from s3_jax.prompting import Prompter
from s3_jax.prompting.prompter import check_prompt
from s3_jax.prompting.text import ObjectPrompt, prompted_ids

DEVELOPMENT = Path(__file__).parents[3] / "shared" / "data" / "davis2016_dev"


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    return Prompter("s3_lite")


def scene() -> Example:
    """A striped ellipse and a plain square before noise."""
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(60, 140, (240, 360, 3)).astype(np.uint8), (9, 9), 0)
    mask = np.zeros((240, 360), np.uint8)
    cv2.ellipse(mask, (120, 110), (70, 45), 20, 0, 360, 1, -1)
    stripes = np.where(np.arange(360)[None, :, None] // 9 % 2, (200, 60, 40), (230, 120, 60))
    image = np.where(mask[..., None] > 0, stripes, image).astype(np.uint8)
    cv2.rectangle(image, (260, 130), (330, 200), (40, 160, 210), -1)
    return Example("scene", image, mask > 0)


@pytest.mark.slow
def test_one_click_or_a_box_finds_a_drawn_object(prompter: Prompter) -> None:
    example = scene()
    answer = prompter_answers(prompter, example.image)
    after = list(clicked(answer, example.mask, 3))
    assert after[0] > 0.8 and after[-1] > 0.85
    assert boxed(answer, example.mask) > 0.85


@pytest.mark.slow
def test_a_negative_point_takes_away_what_was_caught(prompter: Prompter) -> None:
    image, mask = scene()[1:]
    both = mask.copy()
    both[130:201, 260:331] = True
    features = prompter.encode(image)
    labels, points = [1, 0], [(120, 110), (295, 165)]
    found = prompter.prompt(features, points, labels, previous_mask=both)
    assert found.dtype == np.float32 and found.shape == mask.shape
    assert overlap(mask, found > 0.5) > overlap(mask, both) + 0.1


@pytest.mark.slow
def test_the_same_prompt_gives_the_same_answer(prompter: Prompter) -> None:
    image = scene().image
    features = prompter.encode(image)
    first = prompter.prompt(features, [(120, 110)])
    prompter.prompt(features, [(295, 165)])
    np.testing.assert_array_equal(prompter.prompt(features, [(120, 110)]), first)


@pytest.mark.slow
def test_two_objects_by_their_ids(prompter: Prompter) -> None:
    image, mask = scene()[1:]
    said = {
        2: ObjectPrompt(on=((120.0, 110.0),)),
        7: ObjectPrompt(box=(258.0, 128.0, 333.0, 203.0)),
    }
    ids = prompted_ids(prompter, image, said)
    assert sorted(np.unique(ids)) == [0, 2, 7]
    assert overlap(mask, ids == 2) > 0.8
    assert (ids[135:196, 265:326] == 7).mean() > 0.9


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({}, "nothing says where the object is"),
        ({"points": [(1, 1)], "labels": [0]}, "nothing says where the object is"),
        ({"points": [(10, 5)], "labels": [1, 0]}, "1 points have 2 labels"),
        ({"points": [(10, 5)], "labels": [2]}, "each must be 1 (object) or 0 (not)"),
        ({"points": [(31, 5)]}, "point 31,5 is outside the image of 30x20"),
        ({"points": [(np.nan, 5)]}, "must be finite"),
        ({"points": [("a", 5)]}, "are not numbers"),
        ({"box": (9, 2, 3, 8)}, "left, top, right, bottom"),
        ({"box": (1, 2, 3)}, "left, top, right, bottom"),
        ({"previous_mask": np.ones((3, 4), bool)}, "must have the image's, (20, 30)"),
        ({"previous_mask": np.full((20, 30), 2)}, "probabilities from 0 to 1"),
        ({"previous_mask": np.zeros((20, 30), bool)}, "nothing says where the object is"),
    ],
)
def test_wrong_prompts_are_refused(said: dict, problem: str) -> None:
    whole = {"points": (), "labels": None, "box": None, "previous_mask": None} | said
    with pytest.raises(InputError) as refused:
        check_prompt((20, 30), **whole)
    assert problem in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.slow
def test_only_pictures_of_bytes_are_encoded(prompter: Prompter) -> None:
    with pytest.raises(InputError, match=r"the image is float64 of shape \(4, 4\)"):
        prompter.encode(np.zeros((4, 4)))


@pytest.mark.slow
def test_a_head_belongs_to_its_trunk(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.symlink_to(find_model("s3_lite"))
    with pytest.raises(CheckpointError, match="has no prompt head"):
        load_prompt_variables(copy)
    trunk, head = load_prompt_variables("s3_lite")
    save_prompt_head(tmp_path / "copy_prompts.safetensors", trunk, head)
    assert len(load_prompt_variables(copy)[1]) == len(head)
    other = trunk_variables(copy, load_model("s3_lite")[1])
    other = {**other, "batch_stats": {"other": np.ones(3, np.float32)}}
    save_prompt_head(tmp_path / "copy_prompts.safetensors", other, head)
    with pytest.raises(CheckpointError, match="belongs to other weights"):
        load_prompt_variables(copy)
    (tmp_path / "copy_prompts.safetensors").write_bytes(b"no such thing")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_prompt_variables(copy)


@pytest.mark.slow
@pytest.mark.skipif(not DEVELOPMENT.exists(), reason="needs the DAVIS development sequences")
def test_overlap_on_first_frames(prompter: Prompter) -> None:
    rows = []
    for folder in sorted((DEVELOPMENT / "JPEGImages" / "480p").iterdir()):
        image = np.array(Image.open(folder / "00000.jpg").convert("RGB"))
        file = DEVELOPMENT / "Annotations" / "480p" / folder.name / "00000.png"
        mask = np.array(Image.open(file).convert("L")) > 127
        answer = prompter_answers(prompter, image)
        after = list(clicked(answer, mask, 5))
        rows.append((after[0], after[-1], boxed(answer, mask)))
    one, five, box = np.mean(rows, 0)
    assert one >= 0.60 and five >= 0.85 and box >= 0.75


@pytest.mark.slow
def test_prepared_programs_are_not_compiled_again(prompter: Prompter, caplog) -> None:
    image = scene().image
    prompter.prepare(image.shape[:2])
    with jax.log_compiles(), caplog.at_level("WARNING"):
        prompter.prompt(prompter.encode(image), [(120, 110)])
    assert not [r for r in caplog.records if "Compiling" in r.getMessage()]


@pytest.mark.slow
def test_flags_make_the_first_mask_once(prompter: Prompter, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("s3_jax.prompting.Prompter", lambda checkpoint: prompter)
    monkeypatch.setattr(compilation, "prepare_compilation", lambda: None)
    image, mask = scene()[1:]

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()

    def make(points: list[str], overwrite: bool = False) -> Path:
        with flagsaver.flagsaver((prompt_flags.POINTS, points)):
            return prompt_flags.make_first_mask(image, Path("s3_lite"), tmp_path, overwrite)

    first = make(["120,110:4"])
    assert overlap(mask, read_mask(first).ids == 4) > 0.8
    assert make(["120,110:4"]) == first
    with pytest.raises(InputError, match="choose another --output or pass --overwrite"):
        make(["295,165:4"])
    make(["295,165:4"], overwrite=True)
    assert read_mask(first).ids[165, 295] == 4
