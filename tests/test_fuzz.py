"""Damaged and hostile inputs: correct results or one line that names the file, within limits.

  FUZZ_SECONDS=3600 FUZZ_SEED=7 python -m pytest tests/test_fuzz.py -s

The kinds of input share the time, by default a few seconds with the same inputs every time.
"""

import io
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3_jax.benchmarks.layouts.burst import read_annotations
from s3_jax.benchmarks.protocols import read_meta
from s3_jax.checkpoints.layout import FORMAT, VERSION, read_header
from s3_jax.config import MODELS, to_dict
from s3_jax.conversion.errors import ConversionError
from s3_jax.conversion.torch_file import (
    TorchFileError,
    read_tensors,
    write_safetensors,
    write_torch_file,
)
from s3_jax.errors import InputError
from s3_jax.media.mask_files import MaskConfig, MaskFiles
from s3_jax.media.rle import decode_rle
from s3_jax.media.run_json import differences, new_record
from s3_jax.media.video_files import open_video
from s3_jax.propagation import snapshot
from s3_jax.segmentation.run_record import read_run_records
from tests.media.videos import moving_pictures, write_video_file

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("FUZZ_SECONDS", "40"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
MOST = 60 if "FUZZ_SECONDS" not in os.environ else 10**9
SLOWEST, LARGEST = 10.0, 500e6  # seconds and bytes for one small input
Random = np.random.Generator
Made = tuple[bytes, str]


def _mask(rng: Random) -> Made:
    mode = rng.choice(["P", "L", "RGB", "RGBA", "LA", "1", "I;16"])
    blobs = (rng.random((6, 8)) > 0.6).repeat(8, 0).repeat(8, 1)
    values = blobs * rng.integers(1, 256)
    if rng.random() < 0.5:
        values = rng.integers(0, rng.integers(2, 256), (48, 64))
    image = Image.fromarray(values.astype(np.uint8))
    if mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16) * 200)
    elif mode != "L":
        image = image.convert(str(mode))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue(), "png"


def _video(rng: Random) -> Made:
    suffix, codec = (("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4"))[rng.integers(3)]
    path = Path(os.environ["FUZZ_DIR"]) / f"base.{suffix}"
    if not path.exists():
        write_video_file(path, moving_pictures(12), codec)
    return path.read_bytes(), suffix


def _checkpoint(rng: Random) -> Made:
    path = Path(os.environ["FUZZ_DIR"]) / "base.pth"
    if not path.exists():
        tensors = {f"layer{i}.weight": np.ones((3, i + 1), np.float32) for i in range(5)}
        write_torch_file(path, tensors)
    return path.read_bytes(), "pth"


def _meta(rng: Random) -> Made:
    content = {"videos": {"a": {"objects": {"1": {"category": "x", "frames": ["0", "1"]}}}}}
    return _mutated_json(rng, content), "json"


def _burst(rng: Random) -> Made:
    content = {
        "sequences": [
            {
                "dataset": "d", "seq_name": "s", "width": 4, "height": 4,
                "annotated_image_paths": ["0.jpg"], "segmentations": [{"1": {"rle": "0"}}],
            }
        ]
    }  # fmt: skip
    return _mutated_json(rng, content), "json"


def _safetensors(rng: Random) -> Made:
    path = Path(os.environ["FUZZ_DIR"]) / "base.safetensors"
    if not path.exists():
        write_safetensors(path, {f"layer{i}": np.ones((3, i), np.float32) for i in range(4)})
    return path.read_bytes(), "safetensors"


def _config(rng: Random) -> Made:
    content = {"format": FORMAT, "version": VERSION, "model": to_dict(MODELS["s3_lite"])}
    return _mutated_json(rng, content | {"metadata": {}, "files": {"a": "3 00ff"}}), "json"


def _read_config(path: Path) -> None:
    directory = path.parent / path.name.replace(".", "_")
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_bytes(path.read_bytes())
    try:
        read_header(directory)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error


def _run(rng: Random) -> Made:
    settings = {"video": "a", "size": -1, "mem_every": 5}
    return _mutated_json(rng, new_record("prediction", settings) | {"videos": {"a": {}}}), "json"


def _read_run(path: Path) -> None:
    run = path.parent / "run.json"
    run.write_bytes(path.read_bytes())
    try:
        for record in read_run_records(path.parent):
            differences(record["settings"], {"video": "b"})
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error


def _session(rng: Random) -> Made:
    path = Path(os.environ["FUZZ_DIR"]) / "base.state"
    if not path.exists():
        masks = {(3, 1): np.ones((4, 5), np.float32)}
        snapshot.save(path, None, {"slots": {}, "next_frame": 0}, masks)
    return path.read_bytes(), "state"


def _mutated_json(rng: Random, content: object) -> bytes:
    """One value, somewhere, becomes another."""
    strange = [None, [], {}, "", -1, 1e308, "../x", "x" * 5000, True, 10**400, [[[]]], "\x1b[2J"]

    def changed(value: object) -> object:
        if rng.random() < 0.15:
            return strange[rng.integers(len(strange))]
        if isinstance(value, dict):
            return {key: changed(v) for key, v in value.items() if rng.random() > 0.05}
        return [changed(v) for v in value] if isinstance(value, list) else value

    return json.dumps(changed(content)).encode()


def _broken(rng: Random, data: bytes) -> bytes:
    """Bits flipped, a part overwritten, cut, repeated, or nothing at all."""
    broken = bytearray(data)
    match rng.integers(5):
        case 0:
            for place in rng.integers(0, max(1, len(data)), rng.integers(1, 6)):
                broken[place] ^= 1 << int(rng.integers(8))
        case 1:
            place = int(rng.integers(len(data)))
            noise = rng.bytes(int(rng.integers(1, 64)))
            broken[place : place + len(noise)] = noise
        case 2:
            del broken[int(rng.integers(len(data))) :]
        case 3:
            place = int(rng.integers(len(data)))
            broken[place:place] = data[: int(rng.integers(1, 200))]
    return bytes(broken)


def _read_mask(path: Path) -> None:
    mask = MaskFiles(path, None, config=MaskConfig()).first
    assert mask.object_ids
    assert mask.ids.max() <= mask.encoding.largest_id


def _read_video(path: Path) -> None:
    source = open_video(path, keep_going=True)
    places = [frame.index for frame in source.frames()]
    assert places == sorted(set(places))
    assert not set(places) & set(source.lost)


def _read_rle(path: Path) -> None:
    decode_rle(path.read_bytes().decode("latin-1"), (48, 64))


def _rle(rng: Random) -> Made:
    return bytes(rng.integers(40, 120, rng.integers(1, 200)).astype(np.uint8)), "rle"


KINDS: dict[str, tuple[Callable[[Random], Made], Callable[[Path], object], bool]] = {
    "mask": (_mask, _read_mask, True),
    "video": (_video, _read_video, True),
    "checkpoint": (_checkpoint, read_tensors, True),
    "meta": (_meta, read_meta, True),
    "burst": (_burst, read_annotations, True),
    "rle": (_rle, _read_rle, False),
    "safetensors": (_safetensors, read_tensors, True),
    "config": (_config, _read_config, True),
    "run": (_run, _read_run, True),
    "session": (_session, snapshot.read, True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_right_or_one_line(tmp_path: Path, kind: str, monkeypatch):
    monkeypatch.setenv("FUZZ_DIR", str(tmp_path))
    make, read, named = KINDS[kind]
    rng = np.random.default_rng([SEED, *kind.encode()])
    end, tried, refused = time.monotonic() + SECONDS / len(KINDS), 0, 0
    tracemalloc.start()
    try:
        while time.monotonic() < end and tried < MOST:
            data, suffix = make(rng)
            path = tmp_path / f"input.{suffix}"
            path.write_bytes(_broken(rng, data))
            begin = time.process_time()  # a busy machine may let any input wait
            tracemalloc.reset_peak()
            try:
                read(path)
            except (InputError, ConversionError, TorchFileError) as error:
                refused += 1
                message = str(error)
                assert message and "\n" not in message.strip()
                assert path.name in message or not named, message
            tried += 1
            assert time.process_time() - begin < SLOWEST, path
            assert tracemalloc.get_traced_memory()[1] < LARGEST, path
    finally:
        tracemalloc.stop()
    print(f"{kind}: {tried} inputs, {refused} refused")
    assert tried > 0
