from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3_jax.benchmarks.protocols import PROTOCOLS, ObjectMeta
from s3_jax.benchmarks.scoring import (
    SequenceScores,
    SequenceTask,
    looks_binary,
    refuse_missing,
    score_all,
    score_sequence,
)
from s3_jax.errors import InputError
from s3_jax.media.palette import voc_palette
from tests.benchmarks.sequences import (
    GOLDEN_CASES,
    GREY,
    RGB,
    read_golden,
    squares,
    write_sequence,
)


def task(annotations: Path, *results: Path | None, protocol: str = "davis2017", **options):
    return SequenceTask(
        name=annotations.name,
        annotations=annotations,
        roots=tuple(Path(f"result{i}") for i in range(len(results))),
        results=results,
        protocol=PROTOCOLS[protocol],
        **options,
    )


def score(annotations: Path, result: Path | None, **options) -> SequenceScores:
    return score_sequence(task(annotations, result, **options))[0]


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_files_score_as_in_the_public_evaluation(case: str, goldens, tmp_path: Path) -> None:
    annotations, predictions, expected = read_golden(goldens, case)
    result = score(
        write_sequence(tmp_path / "truth", annotations),
        write_sequence(tmp_path / "result", predictions),
    )
    assert [entry.object_id for entry in result.objects] == list(expected)
    for entry in result.objects:
        np.testing.assert_allclose(entry.region, expected[entry.object_id]["J"], atol=1e-12)
        np.testing.assert_allclose(entry.boundary, expected[entry.object_id]["F"], atol=1e-12)
        assert entry.frames == [f"{t:05d}" for t in range(1, len(annotations) - 1)]


def test_results_are_scored_together_as_alone(tmp_path: Path) -> None:
    truth = write_sequence(tmp_path / "truth", squares(6, (1, 2)))
    a = write_sequence(tmp_path / "a", squares(6, (1, 2), shift=2))
    b = write_sequence(tmp_path / "b", squares(6, (1, 2), shift=5))
    assert score_sequence(task(truth, a, b)) == [score(truth, a), score(truth, b)]


def test_long_ids_in_colour(tmp_path: Path) -> None:
    ids = (300, 70_000, 255)  # 255 is pure red here, and no void
    masks = squares(5, ids)
    truth = write_sequence(tmp_path / "truth", masks, RGB)
    result = score(truth, write_sequence(tmp_path / "result", masks, RGB))
    assert [entry.object_id for entry in result.objects] == [255, 300, 70_000]
    assert all(entry.region == [1.0] * 3 for entry in result.objects)


def test_binary_protocol_takes_any_id(tmp_path: Path) -> None:
    truth = write_sequence(tmp_path / "truth", squares(5, (255,)), GREY)
    result = score(truth, write_sequence(tmp_path / "r", squares(5, (3,))), protocol="davis2016")
    assert [(o.object_id, o.region) for o in result.objects] == [(1, [1.0] * 3)]
    assert looks_binary([truth])
    assert not looks_binary([truth, write_sequence(tmp_path / "other", squares(2, (1,)))])


def test_later_objects(tmp_path: Path) -> None:
    masks = squares(6, (1, 2))
    for mask in masks[:2]:
        mask[mask == 2] = 0
    truth = write_sequence(tmp_path / "truth", masks)
    generic = score(truth, truth, protocol="generic")
    assert [o.frames for o in generic.objects] == [
        ["00001", "00002", "00003", "00004", "00005"],
        ["00003", "00004", "00005"],
    ]
    davis = score(truth, truth)
    assert [o.object_id for o in davis.objects] == [1]
    assert (generic.unscored, davis.unscored) == ([], [2])


def test_meta_frames(tmp_path: Path) -> None:
    truth = write_sequence(tmp_path / "truth", squares(6, (1, 2)))
    meta = {
        1: ObjectMeta("dog", ("00000", "00002", "00004")),
        2: ObjectMeta("cat", ("00003", "00005")),
    }
    result = score(truth, truth, protocol="youtube_vos", meta=meta)
    assert [o.frames for o in result.objects] == [["00002", "00004"], ["00005"]]


def test_missing_masks_are_listed_or_empty(tmp_path: Path) -> None:
    truth = write_sequence(tmp_path / "truth", squares(6))
    result = write_sequence(tmp_path / "result", squares(6))
    (result / "00000.png").unlink()  # not scored, hence not needed
    refuse_missing([task(truth, result)])
    (result / "00002.png").unlink()
    (result / "00003.png").unlink()
    with pytest.raises(InputError) as error:
        refuse_missing([task(truth, result), task(truth, None, result)])
    assert str(error.value).splitlines()[:3] == [
        f"{result} lacks 2 masks: 00002, 00003",
        "result0 has no sequence truth",
        f"{result} lacks 2 masks: 00002, 00003",
    ]
    scores = score(truth, result)
    assert scores.missing == ["00002", "00003"]
    assert scores.objects[0].region == [1.0, 0.0, 0.0, 1.0]
    assert score(truth, None).objects[0].region == [0.0] * 4


def test_absent_objects_score_one_where_nothing_is_predicted(tmp_path: Path) -> None:
    masks = squares(6, (1, 2))
    for mask in masks[3:]:
        mask[mask == 2] = 0
    truth = write_sequence(tmp_path / "truth", masks)
    result = score(truth, write_sequence(tmp_path / "result", squares(6, (1,))))
    assert result.objects[1].region == result.objects[1].boundary == [0.0, 0.0, 1.0, 1.0]


def test_unknown_ids(tmp_path: Path) -> None:
    truth = write_sequence(tmp_path / "truth", squares(5))
    result = write_sequence(tmp_path / "result", squares(5, (1, 9)))
    with pytest.raises(InputError, match=r"00001\.png has object 9, but only 1 are annotated"):
        score(truth, result)
    assert score(truth, result, allow_unknown_ids=True).objects[0].region == [1.0] * 3


def test_sizes_and_damage_are_named(tmp_path: Path) -> None:
    truth = write_sequence(tmp_path / "truth", squares(5))
    small = write_sequence(tmp_path / "small", squares(5, size=(40, 32)))
    with pytest.raises(InputError, match=r"small/00001\.png is 32 x 40, .* annotation is 64 x 40"):
        score(truth, small)
    broken = write_sequence(tmp_path / "broken", squares(5))
    path = broken / "00002.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"cannot read the mask .*broken/00002\.png"):
        score(truth, broken)


def test_annotations_with_nothing_to_score(tmp_path: Path) -> None:
    first = write_sequence(tmp_path / "first", squares(1))
    with pytest.raises(InputError, match="first frame only"):
        refuse_missing([task(first, first)])
    prompts = squares(2, (1, 2))
    prompts[0][prompts[0] == 2] = 0
    prompts[1][prompts[1] == 1] = 0
    given = write_sequence(tmp_path / "given", [np.zeros((40, 64), int), *prompts[1:]])
    with pytest.raises(InputError, match="no object is annotated after its first frame"):
        score(given, given, protocol="generic")
    white = write_sequence(tmp_path / "white", squares(4, (255,)), GREY)
    with pytest.raises(InputError, match="--protocol=davis2016"):
        score(white, white)


def test_problems_of_all_sequences_are_told(tmp_path: Path) -> None:
    truth = write_sequence(tmp_path / "truth", squares(5))
    wrong = write_sequence(tmp_path / "wrong", squares(5, (7,)))
    small = write_sequence(tmp_path / "small", squares(5, size=(40, 32)))
    done: list[int] = []
    tasks = [task(truth, wrong), task(truth, truth), task(truth, small)]
    with pytest.raises(InputError, match=r"(?s)object 7.*\n.*32 x 40"):
        score_all(tasks, 1, lambda: done.append(1))
    assert len(done) == 3
    assert len(score_all(tasks[1:2], 1, lambda: None)) == 1


def test_results_in_the_colours_of_the_palette(tmp_path: Path) -> None:
    masks = squares(4, (1, 2))
    annotations = write_sequence(tmp_path / "ann/a", masks)
    for index, mask in enumerate(masks):
        (tmp_path / "res/a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(voc_palette()[mask]).save(tmp_path / f"res/a/{index:05d}.png")
    task = SequenceTask(
        "a", annotations, (tmp_path / "res",), (tmp_path / "res/a",), PROTOCOLS["davis2017"]
    )
    (scores,) = score_sequence(task)
    assert [entry.object_id for entry in scores.objects] == [1, 2]
    assert all(np.asarray(entry.region).min() == 1 for entry in scores.objects)
