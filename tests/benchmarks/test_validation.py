import dataclasses

import numpy as np
import pytest
from PIL import Image

from s3_jax.benchmarks.protocols import PROTOCOLS
from s3_jax.benchmarks.scoring import SequenceTask, score_sequence
from s3_jax.benchmarks.validation import ValidationRules, validate
from s3_jax.data.folders import evaluation_videos
from s3_jax.errors import InputError
from tests.benchmarks.sequences import PALETTE, squares, write_sequence
from tests.tools.fake_session import FakeSession

RULES = {name: ValidationRules(protocol, short_side=-1) for name, protocol in PROTOCOLS.items()}


def write_video(root, name, masks):
    """A DAVIS-like video with the given masks."""
    images = root / "JPEGImages" / name
    images.mkdir(parents=True)
    for index, mask in enumerate(masks):
        noise = np.random.default_rng(index).integers(0, 255, (*mask.shape, 3)).astype(np.uint8)
        Image.fromarray(noise).save(images / f"{index:05d}.jpg")
    write_sequence(root / "Annotations" / name, masks)


def predictions(masks, protocol):
    """Return the results of FakeSession: each object's first mask, moved by a pixel per frame."""
    session, results = FakeSession(), []
    for index, mask in enumerate(masks):
        mask = (mask > 0).astype(int) if protocol.binary else mask
        new = np.where(np.isin(mask, session.object_ids), 0, mask)
        if new.any() and (index == 0 or protocol.objects == "any_frame"):
            session.add(new)
        results.append(session.step(np.zeros((*mask.shape, 3), np.uint8)).index_mask())
    return results


@pytest.mark.parametrize("name", ["davis2016", "davis2017", "mose", "lvos", "generic"])
def test_scores_are_those_of_written_results(tmp_path, name):
    protocol = PROTOCOLS[name]
    masks = squares(6, ids=(1, 2))
    masks[3][30:38, 50:60] = 3  # appears later
    write_video(tmp_path, "clip", masks)
    result = validate(FakeSession, evaluation_videos(tmp_path), RULES[name])
    written = write_sequence(tmp_path / "results", predictions(masks, protocol), PALETTE)
    task = SequenceTask(
        "clip", tmp_path / "Annotations" / "clip", (written,), (written,), protocol,
        allow_unknown_ids=True,
    )  # fmt: skip
    (expected,) = score_sequence(task)
    scores = result.sequences["clip"].scores
    assert scores.objects == expected.objects
    assert 0 < result.overall.score < 1


def test_only_the_first_frames_count(tmp_path):
    masks = squares(8)
    write_video(tmp_path, "long", masks)
    write_video(tmp_path / "cut", "long", masks[:5])
    rules = dataclasses.replace(RULES["davis2017"], max_frames=5)
    limited = validate(FakeSession, evaluation_videos(tmp_path), rules)
    cut = validate(FakeSession, evaluation_videos(tmp_path / "cut"), RULES["davis2017"])
    assert limited.overall == cut.overall


def test_frames_are_shrunk_for_the_session_and_scored_as_they_are(tmp_path):
    write_video(tmp_path, "clip", squares(5))
    sessions = []

    def new_session():
        sessions.append(FakeSession())
        return sessions[-1]

    rules = dataclasses.replace(RULES["davis2017"], short_side=20)
    result = validate(new_session, evaluation_videos(tmp_path), rules)
    assert sessions[0].sizes == [(20, 32, 3)] * 5
    assert sessions[0].ends == [False] * 4 + [True]
    assert result.sequences["clip"].scores.objects[0].frames == ["00001", "00002", "00003"]


def test_each_video_is_told(tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path, name, squares(4))
    done = []
    validate(FakeSession, evaluation_videos(tmp_path), RULES["generic"], lambda: done.append(1))
    assert len(done) == 2


def test_void_pixels_do_not_count(tmp_path):
    masks = squares(4)
    for mask in masks:
        mask[:5] = 255
    write_video(tmp_path, "clip", masks)
    result = validate(FakeSession, evaluation_videos(tmp_path), RULES["davis2017"])
    assert [entry.object_id for entry in result.sequences["clip"].scores.objects] == [1]


def test_mistakes_are_named(tmp_path):
    write_video(tmp_path / "empty", "clip", [np.zeros((40, 64), int)] * 4)
    with pytest.raises(InputError, match=r"clip.*nothing to score"):
        validate(FakeSession, evaluation_videos(tmp_path / "empty"), RULES["davis2017"])
    write_video(tmp_path / "sizes", "clip", squares(4))
    Image.new("RGB", (30, 20)).save(tmp_path / "sizes" / "JPEGImages" / "clip" / "00002.jpg")
    with pytest.raises(InputError, match=r"00002.png is 64x40 but its frame is 30x20"):
        validate(FakeSession, evaluation_videos(tmp_path / "sizes"), RULES["davis2017"])
