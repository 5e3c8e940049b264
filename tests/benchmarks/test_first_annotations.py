"""Annotations reduced to the first mask of every object."""

import numpy as np
import pytest

from s3_jax.benchmarks.first_annotations import write_first_annotations
from s3_jax.errors import InputError
from s3_jax.media.mask_files import read_mask
from tests.benchmarks.benchmark_files import mask, write_masks
from tests.benchmarks.sequences import RGB


def test_every_object_is_kept_once(tmp_path):
    masks = {"00000": mask(4), "00001": mask(4), "00005": mask(4, 2), "00006": mask(9, 2)}
    source = write_masks(tmp_path / "all", masks)
    found = write_first_annotations(source, tmp_path / "first")
    assert found == {4: "00000", 2: "00005", 9: "00006"}
    written = {p.stem: read_mask(p) for p in sorted((tmp_path / "first").iterdir())}
    assert {name: m.object_ids for name, m in written.items()} == {
        "00000": (4,), "00005": (2,), "00006": (9,),
    }  # fmt: skip
    assert np.array_equal(written["00005"].ids, np.where(masks["00005"] == 2, 2, 0))
    assert (tmp_path / "first/00000.png").read_bytes() == (source / "00000.png").read_bytes()
    assert written["00006"].encoding == read_mask(source / "00006.png").encoding


def test_void_is_no_object_and_is_taken_out(tmp_path):
    source = write_masks(tmp_path / "all", {"00000": mask(1, 255), "00001": mask(255)})
    assert write_first_annotations(source, tmp_path / "first", void=255) == {1: "00000"}
    assert read_mask(tmp_path / "first/00000.png").object_ids == (1,)


def test_colour_masks_stay_colour_masks(tmp_path):
    source = write_masks(tmp_path / "all", {"0": mask(300), "1": mask(300, 131586)}, RGB)
    assert write_first_annotations(source, tmp_path / "first") == {300: "0", 131586: "1"}
    assert read_mask(tmp_path / "first/0.png").encoding.kind == "rgb"


def test_nothing_to_keep(tmp_path):
    source = write_masks(tmp_path / "all", {"00000": mask()})
    with pytest.raises(InputError, match="no mask with an object"):
        write_first_annotations(source, tmp_path / "first")
    assert not (tmp_path / "first").exists()
    with pytest.raises(InputError, match="cannot list"):
        write_first_annotations(tmp_path / "nothing", tmp_path / "first")
