"""Files that run with JAX alone."""

import dataclasses
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError
from s3_jax.propagation.export import ExportConfig, write_export
from s3_jax.propagation.frame import Network
from s3_jax.propagation.geometry import frame_geometry, prepare_image
from s3_jax.propagation.load_export import Exported
from s3_jax.propagation.session import Session
from tests.propagation.conftest import TINY, Video

LOADER = Path(__file__).parent.parent.parent / "tools" / "load_export.py"
SIZE = (60, 90)  # no multiple of 32: padding is part of the file
FRAMES = 4
PROPAGATION = PropagationConfig(mem_every=2)
# What runs in the other process: the loader as a user would use it, and a check of what it imports.
RUN = """
import sys
import numpy as np
import load_export
exported = load_export.Exported("model.s3")
video = np.load("video.npz")
state = exported.start(video["frames"][0], video["masks"])
probabilities = []
for frame in video["frames"][1:]:
    state, probability = exported.step(state, frame)
    probabilities.append(np.asarray(probability))
features = exported.encode(video["frames"][0])
np.savez("result.npz", probabilities=np.stack(probabilities), key=features["key"])
foreign = [name for name in sys.modules if name.split(".")[0] in ("s3_jax", "flax", "tools")]
assert not foreign, foreign
"""


@pytest.fixture(scope="module")
def cropped() -> Video:
    return Video(FRAMES, *SIZE, objects=2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_network: Network) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.s3"
    settings = ExportConfig(SIZE, objects=2, propagation=PROPAGATION)
    write_export(path, TINY, tiny_network.variables, settings)
    return path


@pytest.mark.slow
def test_another_process_without_the_package_gets_the_same_masks(
    exported: Path, cropped: Video, tiny_network: Network
) -> None:
    folder = exported.parent
    masks = np.stack([mask for _, mask in sorted(cropped.hard_masks(0, 1, 2).items())])
    np.savez(folder / "video.npz", frames=cropped.frames, masks=masks.astype(np.float32))
    (folder / "load_export.py").write_bytes(LOADER.read_bytes())
    done = subprocess.run([sys.executable, "-c", RUN], cwd=folder, capture_output=True, text=True,
                          env={"JAX_PLATFORMS": "cpu"}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = np.load(folder / "result.npz")

    session = Session(TINY, tiny_network.variables, PROPAGATION)
    session.add(cropped.masks[0])
    session.step(cropped.frames[0])
    expected = [session.step(frame).prob for frame in cropped.frames[1:]]
    np.testing.assert_allclose(result["probabilities"], np.stack(expected), atol=1e-4)
    image = prepare_image(jnp.asarray(cropped.frames[0]), frame_geometry(SIZE, 32))
    key = tiny_network("encode_image", image).key.key
    np.testing.assert_allclose(result["key"], key, atol=1e-4)


@pytest.mark.slow
def test_small_frames_are_enlarged_as_in_a_session(
    tmp_path: Path, cropped: Video, tiny_network: Network
) -> None:
    model = dataclasses.replace(TINY, min_internal_size=96)
    path = tmp_path / "model.s3"
    settings = ExportConfig(SIZE, objects=2, propagation=PROPAGATION)
    write_export(path, model, tiny_network.variables, settings)
    masks = {i: mask.astype(np.float32) for i, mask in cropped.hard_masks(0, 1, 2).items()}
    session = Session(model, tiny_network.variables, PROPAGATION)
    session.add(masks)
    session.step(cropped.frames[0])
    exported = Exported(path)
    state = exported.start(cropped.frames[0], np.stack([masks[1], masks[2]]))
    for frame in cropped.frames[1:]:
        state, found = exported.step(state, frame)
        np.testing.assert_allclose(found, session.step(frame).prob, atol=1e-4)
    assert session.geometry.inner == (96, 144)


@pytest.mark.slow
def test_encode_read_and_decode_are_the_step(
    exported: Path, cropped: Video, tiny_network: Network
) -> None:
    """Frames are encoded ahead of time; masks are those of the whole step."""
    path = exported.with_name("split.s3")
    settings = ExportConfig(SIZE, objects=2, propagation=PROPAGATION, split=True)
    write_export(path, TINY, tiny_network.variables, settings)
    split, whole = Exported(path), Exported(exported)
    masks = np.stack([mask for _, mask in sorted(cropped.hard_masks(0, 1, 2).items())])
    features = [split.encode(frame) for frame in cropped.frames]
    parts, states = [], [part.start(cropped.frames[0], masks) for part in (split, whole)]
    for frame, encoded in zip(cropped.frames[1:], features[1:], strict=True):
        state, readout = split.read(states[0], encoded)
        state, found = split.decode(state, frame, encoded, readout)
        after, expected = whole.step(states[1], frame)
        states, parts = [state, after], [*parts, (found, expected)]
    for found, expected in parts:
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_array_equal(jnp.argmax(found, 0), jnp.argmax(expected, 0))
    assert {name for name in _parts(path) if name.endswith(".jax")} == {
        "start.jax", "encode.jax", "read.jax", "decode.jax"
    }  # fmt: skip


def test_the_file_says_what_it_holds(exported: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        about = json.loads(archive.read("about.json"))
        assert set(archive.namelist()) == {
            "start.jax", "step.jax", "encode.jax", "weights.npz", "about.json"
        }  # fmt: skip
    assert (about["height"], about["width"], about["objects"]) == (*SIZE, 2)
    assert about["propagation"]["mem_every"] == 2
    assert about["platforms"] == ["cpu"]


@pytest.mark.parametrize(
    ("change", "says"),
    [({"platforms": ("abacus",)}, "choose from cpu"), ({"objects": 0}, "at least 1")],
)
def test_settings_that_cannot_be_are_refused(change: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        ExportConfig(**change)


def test_a_failed_export_leaves_the_old_file(
    exported: Path, tiny_network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = exported.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full_disk)
    monkeypatch.setattr("s3_jax.propagation.export._serialized", lambda *_: {})
    with pytest.raises(OSError, match="No space"):
        write_export(exported, TINY, tiny_network.variables, ExportConfig())
    assert exported.read_bytes() == before
    assert [path.name for path in exported.parent.glob(".*")] == []


def _parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(path: Path, parts: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def test_equal_exports_have_equal_bytes(
    exported: Path, tmp_path: Path, tiny_network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {name: x for name, x in _parts(exported).items() if name.endswith(".jax")}
    monkeypatch.setattr("s3_jax.propagation.export._serialized", lambda *_: dict(programs))
    monkeypatch.setattr("time.localtime", lambda *_: (2031, 1, 2, 3, 4, 5, 0, 2, 0))
    settings = ExportConfig(SIZE, objects=2, propagation=PROPAGATION)
    write_export(tmp_path / "again.s3", TINY, tiny_network.variables, settings)
    assert (tmp_path / "again.s3").read_bytes() == exported.read_bytes()


@pytest.mark.parametrize("part", ["weights.npz", "step.jax"])
def test_changed_parts_are_noticed(exported: Path, tmp_path: Path, part: str) -> None:
    parts = _parts(exported)
    changed = bytearray(parts[part])
    changed[len(changed) // 2] ^= 1
    path = _write(tmp_path / "changed.s3", parts | {part: bytes(changed)})
    with pytest.raises(ValueError, match=rf"changed\.s3 is damaged \({part} has changed\)"):
        Exported(path)


def test_other_files_are_refused(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.s3"
    path.write_bytes(exported.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut\.s3 is damaged or no file of s3 export"):
        Exported(path)
    about = json.dumps({"format": 1}).encode()
    with pytest.raises(ValueError, match="no file of s3 export"):
        Exported(_write(tmp_path / "old.s3", _parts(exported) | {"about.json": about}))


def test_programs_reach_no_code_outside(exported: Path, tmp_path: Path) -> None:
    call = jax.ffi.ffi_call("evil", jax.ShapeDtypeStruct((), jnp.float32))
    unchecked = [jax.export.DisabledSafetyCheck.custom_call("evil")]
    hostile = jax.export.export(jax.jit(lambda x: call(x)), disabled_checks=unchecked)(0.0)
    parts = _parts(exported) | {"encode.jax": bytes(hostile.serialize())}
    about = json.loads(parts["about.json"])
    about["sha256"]["encode.jax"] = hashlib.sha256(parts["encode.jax"]).hexdigest()
    path = _write(tmp_path / "hostile.s3", parts | {"about.json": json.dumps(about).encode()})
    with pytest.raises(ValueError, match="program encode calls evil, code outside of the file"):
        Exported(path)
    Exported(path, calls=["evil"])


def test_a_full_disk_names_the_file(tmp_path: Path, tiny_network: Network, monkeypatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full_disk)
    monkeypatch.setattr("s3_jax.propagation.export._serialized", lambda *_: {})
    with pytest.raises(OSError, match="No space") as caught:
        write_export(tmp_path / "model.s3", TINY, tiny_network.variables, ExportConfig())
    assert caught.value.filename == str(tmp_path / "model.s3")
