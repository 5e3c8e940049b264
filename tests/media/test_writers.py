import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from s3_jax.errors import InputError
from s3_jax.files import replacing
from s3_jax.media.mask_files import MaskEncoding, read_mask
from s3_jax.media.palette import voc_palette
from s3_jax.media.writers import write_csv, write_json, write_mask, write_scores

PALETTE = voc_palette().tobytes()
ENCODINGS = [
    MaskEncoding("palette", PALETTE),
    MaskEncoding("grey"),
    MaskEncoding("grey16"),
    MaskEncoding("bilevel"),
    MaskEncoding("rgb"),
    MaskEncoding("grey_rgb"),
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.kind)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_masks_come_back_as_they_were(tmp_path, encoding, dtype):
    largest = min(encoding.largest_id, np.iinfo(dtype).max)
    ids = np.zeros((5, 7), dtype)
    ids[1:3, 2:5] = 1
    ids[4, 4] = largest
    write_mask(tmp_path / "m.png", ids, encoding)
    mask = read_mask(tmp_path / "m.png", encoding=encoding)
    assert np.array_equal(mask.ids, ids)
    assert mask.encoding == encoding


@pytest.mark.parametrize("colours", [2, 5, 22, 256])
def test_palette_and_bytes_are_kept(tmp_path, colours):
    """A mask that is read and written again is the same file."""
    ids = (np.arange(60).reshape(6, 10) % colours).astype(np.uint8)
    palette = np.random.default_rng(0).integers(0, 256, 3 * colours, dtype=np.uint8).tobytes()
    image = Image.frombytes("P", (10, 6), ids.tobytes())
    image.putpalette(palette)
    image.save(tmp_path / "a.png")
    mask = read_mask(tmp_path / "a.png")
    assert mask.encoding.palette[: len(palette)] == palette
    write_mask(tmp_path / "b.png", mask.ids, mask.encoding)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_short_palette_is_continued(tmp_path):
    write_mask(tmp_path / "m.png", np.full((2, 2), 9), MaskEncoding("palette", b"\1\2\3\4\5\6"))
    mask = read_mask(tmp_path / "m.png")
    assert mask.object_ids == (9,)
    assert mask.encoding.palette[:30] == b"\1\2\3\4\5\6" + PALETTE[6:30]


def test_ids_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"m\.png: object id 256 does not fit into a grey mask"):
        write_mask(tmp_path / "m.png", np.full((2, 2), 256), MaskEncoding("grey"))
    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, 4), st.integers(1, 9), st.integers(1, 9))
def test_scores_come_back_and_are_reproducible(tmp_path_factory, objects, height, width):
    folder = tmp_path_factory.mktemp("scores")
    rng = np.random.default_rng(0)
    prob = rng.random((objects + 1, height, width), dtype=np.float32)
    ids = tuple(range(5, 5 + objects))
    for name in ("a.npz", "b.npz"):
        write_scores(folder / name, prob, ids)
    with np.load(folder / "a.npz") as scores:
        assert np.array_equal(scores["prob"], prob)
        assert scores["prob"].dtype == np.float32
        assert tuple(scores["ids"]) == ids
    assert (folder / "a.npz").read_bytes() == (folder / "b.npz").read_bytes()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    write_json(tmp_path / "a.json", {"x": 1})
    before = (tmp_path / "a.json").read_bytes()
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    with pytest.raises(OSError, match="full") as caught:  # noqa: SIM117
        with replacing(tmp_path / "a.json") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "full")
    assert caught.value.filename == str(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_table_runs_no_formula(tmp_path: Path):
    rows = [["name", "value"], ["=cmd|' /C calc'!A0", -0.5], ["@x", "-0.25"], ["a,b", "+1+1"]]
    write_csv(tmp_path / "t.csv", rows)
    assert (tmp_path / "t.csv").read_text() == (
        "name,value\n'=cmd|' /C calc'!A0,-0.5\n'@x,-0.25\n\"a,b\",'+1+1\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
