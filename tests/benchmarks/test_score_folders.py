from pathlib import Path

import pytest

from s3_jax.benchmarks.score_folders import (
    choose_sequences,
    distinct_names,
    find_images,
    find_sequences,
    frame_names,
    missing_frames,
    other_numbering,
    read_sequence_list,
)
from s3_jax.errors import InputError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@pytest.mark.parametrize("inner", ["", "Annotations", "Annotations/480p", "480p"])
def test_finds_sequences_inside_the_folders_of_benchmarks(tmp_path: Path, inner: str) -> None:
    root = tmp_path / inner
    touch(root / "b10/00000.png", root / "b9/00000.png", root / "empty/notes.txt")
    assert list(find_sequences(tmp_path, "--results").items()) == [
        ("b9", root / "b9"),
        ("b10", root / "b10"),
    ]


def test_other_folders_beside_annotations_are_no_sequences(tmp_path: Path) -> None:
    touch(tmp_path / "Annotations/480p/bear/00000.png", tmp_path / "prompts/bear.png")
    assert list(find_sequences(tmp_path, "--annotations")) == ["bear"]


def test_says_what_is_wrong_with_a_root(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a directory"):
        find_sequences(tmp_path / "absent", "--results")
    with pytest.raises(InputError, match="holds no folders of PNG masks"):
        find_sequences(tmp_path, "--results")
    touch(tmp_path / "00000.png")
    with pytest.raises(InputError, match="single sequence: give the directory it lies in"):
        find_sequences(tmp_path, "--results")


def test_frames_in_natural_order_and_what_is_missing(tmp_path: Path) -> None:
    touch(tmp_path / "f10.png", tmp_path / "f9.png", tmp_path / ".f1.png", tmp_path / "f8.jpg")
    assert frame_names(tmp_path) == ["f9", "f10"]
    assert missing_frames(tmp_path, ["f8", "f9"]) == ["f8"]
    assert missing_frames(None, ["f8", "f9"]) == ["f8", "f9"]


def test_lists_of_sequences(tmp_path: Path) -> None:
    path = tmp_path / "val.txt"
    path.write_text(
        "# a comment\n\nbear\n  two words \nbear\nv1.2\n"
        "/JPEGImages/480p/bus/00000.jpg /Annotations/480p/bus/00000.png\n"
        "/JPEGImages/480p/bus/00001.jpg /Annotations/480p/bus/00001.png\n"
    )
    assert read_sequence_list(path) == ["bear", "two words", "v1.2", "bus"]
    path.write_text("# nothing\n")
    with pytest.raises(InputError, match="lists no sequences"):
        read_sequence_list(path)
    with pytest.raises(InputError, match="cannot read the list"):
        read_sequence_list(tmp_path)


def test_split_files_of_another_set_are_refused(tmp_path: Path) -> None:
    annotations = {"bear": tmp_path / "bear", "dog-agility": tmp_path / "dog-agility"}
    assert list(choose_sequences(annotations, ["dog-agility"], "val.txt")) == ["dog-agility"]
    assert choose_sequences(annotations, None, None) == annotations
    with pytest.raises(InputError, match=r"val.txt names 1 of 2 .*: dog-agilty; did you mean dog-"):
        choose_sequences(annotations, ["bear", "dog-agilty"], "val.txt")
    with pytest.raises(InputError, match="another split"):
        choose_sequences(annotations, ["00a23ccf53"], "val.txt")


def test_images_beside_annotations_or_where_told(tmp_path: Path) -> None:
    sequences = {"bear": tmp_path / "DAVIS/Annotations/480p/bear"}
    touch(sequences["bear"] / "00000.png")
    assert find_images(sequences, None) is None
    images = tmp_path / "DAVIS/JPEGImages/480p"
    touch(images / "bear/00000.jpg")
    assert find_images(sequences, None) == images
    assert find_images(sequences, tmp_path / "DAVIS") == images
    with pytest.raises(InputError, match="has no folder for bear"):
        find_images(sequences, tmp_path)


def test_names_tell_results_apart() -> None:
    assert distinct_names([Path("runs/a/masks")]) == ["masks"]
    assert distinct_names([Path("r/a/masks"), Path("r/b/masks")]) == ["a/masks", "b/masks"]
    with pytest.raises(InputError, match="twice"):
        distinct_names([Path("a"), Path("./a")])


def test_lists_of_any_editor(tmp_path):
    path = tmp_path / "val.txt"
    path.write_bytes(b"\xef\xbb\xbfdog\r\nname with spaces\r\n\r\n/J/a b/0.jpg /A/a b/0.png\r\n")
    assert read_sequence_list(path) == ["dog", "name with spaces", "a b"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["0", "1", "2"], "named 0, 1, 2, but the annotations 00000, 00001, 00002"),
        (["00001", "00002", "00003"], "named 00001, 00002, 00003, but the annotations"),
        (["frame_00000", "frame_00001", "frame_00002"], "named frame_00000, frame_00001"),
        (["00000", "00001", "00002"], ""),
        (["00000", "00001"], ""),
        (["00000", "00001", "00002", "00003"], ""),
    ],
)
def test_results_numbered_otherwise_are_told(tmp_path: Path, names: list[str], said: str) -> None:
    touch(*(tmp_path / f"a/{i:05d}.png" for i in range(3)))
    touch(*(tmp_path / f"r/{name}.png" for name in names))
    found = other_numbering(tmp_path / "r", tmp_path / "a")
    assert said in found if said else found == ""
