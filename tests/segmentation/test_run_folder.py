import json
from pathlib import Path

import numpy as np
import pytest

from s3_jax.errors import InputError
from s3_jax.media.mask_files import MaskEncoding
from s3_jax.media.writers import write_mask
from s3_jax.segmentation.run_folder import RunFolder, fingerprint

IDENTITY = {"video": "a 123", "mem_every": 5, "size": -1}


class Counter:
    """A session that is just a number."""

    def __init__(self, value: int = 0):
        self.value = value

    def save(self, path: Path) -> None:
        path.write_text(str(self.value))

    def load(self, path: Path) -> None:
        self.value = int(path.read_text())


def _with_a_mask(path: Path) -> RunFolder:
    folder = RunFolder(path, IDENTITY)
    (folder.masks / "00000.png").write_bytes(b"mask")
    return folder


def test_new_and_continued(tmp_path):
    folder = _with_a_mask(tmp_path / "deep" / "out")
    assert folder.finished_frames is None
    assert folder.load_session(Counter()) == 0
    again = RunFolder(folder.path, dict(IDENTITY))
    assert again.finished_frames is None
    again.finish(1)
    assert RunFolder(folder.path, IDENTITY).finished_frames == 1
    (folder.masks / "00000.png").unlink()
    assert RunFolder(folder.path, IDENTITY).finished_frames is None


def test_sessions_are_kept_and_the_newest_is_used(tmp_path):
    folder = _with_a_mask(tmp_path)
    folder.save_session(Counter(7), 9)
    folder.save_session(Counter(8), 1_000_010)
    assert len(list(tmp_path.glob("*.state"))) == 1
    session = Counter()
    assert RunFolder(tmp_path, IDENTITY).load_session(session) == 1_000_010
    assert session.value == 8
    folder.finish(1)
    assert not list(tmp_path.glob("*.state"))


def test_a_failed_save_keeps_the_one_before(tmp_path):
    class Broken(Counter):
        def save(self, path: Path) -> None:
            path.write_text("1")
            raise OSError("disk full")

    folder = _with_a_mask(tmp_path)
    folder.save_session(Counter(7), 9)
    with pytest.raises(OSError, match="disk full"):
        folder.save_session(Broken(), 10)
    session = Counter()
    assert folder.load_session(session) == 9
    assert session.value == 7
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "masks", "resume_000009.state", "run.json",
    ]  # fmt: skip


def test_a_damaged_state_is_named(tmp_path):
    folder = _with_a_mask(tmp_path)
    (tmp_path / "resume_000004.state").write_text("not a number")
    with pytest.raises(InputError, match=r"delete .*resume_000004\.state to start over"):
        folder.load_session(Counter())


def test_other_settings_are_refused_by_name_or_overwritten(tmp_path):
    folder = _with_a_mask(tmp_path)
    folder.save_session(Counter(), 1)
    (tmp_path / "notes.txt").write_text("mine")
    other = IDENTITY | {"mem_every": 10}
    with pytest.raises(InputError, match=r"another mem_every \(5, now 10\).*--overwrite"):
        RunFolder(tmp_path, other)
    assert (folder.masks / "00000.png").exists()
    fresh = RunFolder(tmp_path, other, overwrite=True)
    assert not list(fresh.masks.iterdir())
    assert fresh.load_session(Counter()) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert json.loads((tmp_path / "run.json").read_text())["settings"] == other


def test_a_run_without_results_binds_nobody(tmp_path):
    RunFolder(tmp_path, IDENTITY)
    RunFolder(tmp_path, IDENTITY | {"mem_every": 10})


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_results_are_never_touched(tmp_path, overwrite):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "00000.png").write_text("precious")
    with pytest.raises(InputError, match="choose another --output"):
        RunFolder(tmp_path, IDENTITY, overwrite=overwrite)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        RunFolder(tmp_path, IDENTITY, overwrite=overwrite)
    assert (tmp_path / "masks" / "00000.png").read_text() == "precious"


@pytest.mark.parametrize("inside", ["masks", "masks/00000.png", "overlay.mp4", "scores/deep/x"])
def test_inputs_must_not_lie_among_the_results(tmp_path, inside):
    _with_a_mask(tmp_path)
    with pytest.raises(InputError, match="would write over it"):
        RunFolder(tmp_path, IDENTITY, inputs=[tmp_path / inside], overwrite=True)
    assert (tmp_path / "masks" / "00000.png").exists()
    RunFolder(tmp_path, IDENTITY, inputs=[tmp_path, tmp_path / "frames"])


def test_unwritable_places_are_named(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/nowhere")):
        with pytest.raises(InputError, match=r"cannot write to the output directory"):
            RunFolder(place, IDENTITY)


def test_fingerprints_tell_names_and_contents_apart(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 300_000)
    (tmp_path / "b").write_bytes(b"x" * 300_001)
    (tmp_path / "c").write_bytes(b"x" * 299_999 + b"y")
    prints = [fingerprint(["n"], [tmp_path / f]) for f in "abc"]
    prints += [fingerprint(["m"], [tmp_path / "a"]), fingerprint(["n"])]
    assert len(set(prints)) == 5
    assert fingerprint(["n"], [tmp_path / "a"]) == prints[0]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-5]])
def test_a_mask_cut_off_is_not_finished(tmp_path, damage):
    folder = RunFolder(tmp_path / "out", IDENTITY)
    write_mask(folder.masks / "0.png", np.ones((8, 8), np.uint8), MaskEncoding("grey"))
    folder.finish(1)
    assert RunFolder(folder.path, IDENTITY).finished_frames == 1
    mask = folder.masks / "0.png"
    mask.write_bytes(damage(mask.read_bytes()))
    assert RunFolder(folder.path, IDENTITY).finished_frames is None
