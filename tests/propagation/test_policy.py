"""Memory policies: the one of docs/extend.md, used from outside the package as a stranger would."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from s3_jax.checkpoints.model import save_model
from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError
from s3_jax.memory import state
from s3_jax.memory.policy import FirstInFirstOut, MemoryFrame, policy_of
from s3_jax.propagation.batch import SessionBatch
from s3_jax.propagation.export import ExportConfig, write_export
from s3_jax.propagation.geometry import frame_geometry
from s3_jax.propagation.scan import scan
from s3_jax.propagation.session import Session
from tests.propagation.conftest import TINY, Video

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extend.md").read_text()
NAME = "my_policy:Varied"
CONFIG = PropagationConfig(mem_every=1, max_mem_frames=3, memory_policy=NAME)
FRAMES = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory on the path with the page's file in it."""
    (text,) = re.findall(r"`my_policy\.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(text.splitlines()) <= 40
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "my_policy.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


def run(session: Session, video: Video, frames: range = range(FRAMES)) -> list[np.ndarray]:
    if session.frame_index == 0:
        session.add(video.hard_masks(0, 1, 2))
    return [session.step(video.frames[t]).prob for t in frames]


@pytest.fixture(scope="module")
def alone(folder, tiny_network, video) -> list[np.ndarray]:
    """Return the results of a session; the default policy would give different ones."""
    found = run(Session(TINY, tiny_network.variables, CONFIG), video)
    default = PropagationConfig(mem_every=1, max_mem_frames=3)
    other = run(Session(TINY, tiny_network.variables, default), video)
    # The memory is not full before. Two policies are two programs, which round differently.
    np.testing.assert_allclose(found[:4], other[:4], atol=1e-5)
    assert np.abs(found[-1] - other[-1]).max() > 1e-4
    return found


def _admit(policy, memory, number: float):
    """A frame whose every key is `number`."""
    key = jnp.full((1, 4, 3), number)
    return policy.admit(
        memory,
        MemoryFrame(key, key[..., 0], key, key[:, None], jnp.zeros((1, 1, 32, 32)),
                    jnp.zeros(1, jnp.int32), jnp.ones(1, bool), False),
    )  # fmt: skip


def test_the_most_similar_frame_is_given_up(folder):
    policy = policy_of(PropagationConfig(max_mem_frames=4, memory_policy=NAME))
    memory = state.init(policy.layout(4), 1, 1, 1, 3, 3)
    for number in (1, 5, 9, 2, 8, 8.5):
        memory = _admit(policy, memory, float(number))
    assert memory.key[0, 0, ::4, 0].tolist() == [1, 5, 8.5, 2]


@pytest.mark.slow
def test_scan_and_batch_find_the_same(tiny_network, video, alone):
    session = Session(TINY, tiny_network.variables, CONFIG)
    run(session, video, range(1))
    geometry = frame_geometry((64, 96), 32)
    scanned = jax.jit(functools.partial(scan, tiny_network, CONFIG, geometry))
    _, prob = scanned(session.state, jnp.asarray(video.frames[1:FRAMES]))
    np.testing.assert_allclose(prob, alone[1:], atol=2e-5)
    batch = SessionBatch([Session(TINY, tiny_network.variables, CONFIG) for _ in range(2)])
    first = np.where(video.masks[0] < 3, video.masks[0], 0)
    batch.start([video.frames[0]] * 2, [first] * 2)
    for t in range(1, FRAMES):
        for result in batch.step([video.frames[t]] * 2):
            np.testing.assert_allclose(result.prob, alone[t], atol=2e-4)


@pytest.mark.slow
def test_a_saved_session_continues_bit_for_bit(tiny_network, video, alone, tmp_path):
    session = Session(TINY, tiny_network.variables, CONFIG)
    run(session, video, range(5))
    session.save(tmp_path / "state")
    loaded = Session(TINY, tiny_network.variables, CONFIG)
    loaded.load(tmp_path / "state")
    np.testing.assert_array_equal(run(loaded, video, range(5, FRAMES)), alone[5:])
    with pytest.raises(InputError, match="another propagation setting"):
        Session(TINY, tiny_network.variables).load(tmp_path / "state")


@pytest.mark.slow
def test_an_exported_program_has_it(folder, tiny_network, video, alone, tmp_path):
    """The file needs neither this package nor the policy's."""
    write_export(tmp_path / "model.s3", TINY, tiny_network.variables,
                 ExportConfig((64, 96), objects=2, propagation=CONFIG))  # fmt: skip
    masks = np.stack([video.masks[0] == k for k in (1, 2)]).astype(np.float32)
    np.savez(tmp_path / "video.npz", frames=video.frames[:FRAMES], masks=masks)
    code = (
        "import numpy as np, load_export\n"
        "exported, video = load_export.Exported('model.s3'), np.load('video.npz')\n"
        "state = exported.start(video['frames'][0], video['masks'])\n"
        "for frame in video['frames'][1:]: state, found = exported.step(state, frame)\n"
        "np.save('last.npy', np.asarray(found))"
    )
    environment = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT / "tools")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment)
    np.testing.assert_allclose(np.load(tmp_path / "last.npy"), alone[-1], atol=1e-4)


@pytest.mark.slow
def test_the_command_takes_it(folder, tiny_network, video, alone, tmp_path):
    save_model(tmp_path / "tiny", TINY, tiny_network.variables)
    (tmp_path / "frames").mkdir()
    for t in range(FRAMES):
        Image.fromarray(video.frames[t]).save(tmp_path / "frames" / f"{t:05d}.png")
    Image.fromarray(np.where(video.masks[0] < 3, video.masks[0], 0)).save(tmp_path / "first.png")
    flags = {"video": tmp_path / "frames", "masks": tmp_path / "first.png", "mem_every": 1,
             "checkpoint": tmp_path / "tiny", "max_mem_frames": 3, "memory_policy": NAME,
             "output": tmp_path / "out"}  # fmt: skip
    command = [sys.executable, "-m", "tools.segment"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu", "S3_JAX_CACHE": str(ROOT / ".cache/xla"), "PYTHONPATH": str(folder)
    }  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    masks = sorted((tmp_path / "out" / "masks").iterdir())
    found = np.stack([np.asarray(Image.open(path)) for path in masks])
    expected = np.stack([prob.argmax(0) for prob in alone])
    assert (found == expected).mean() > 0.999


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("newest", r"memory_policy 'newest' is unknown: choose one of first_in_first_out, long_t"),
        ("my_policy:Vary", r"my_policy.py has no Vary"),
        ("nobodys_policy:Varied", r"memory_policy nobodys_policy:Varied cannot be imported"),
        ("json:JSONDecoder", r"json:JSONDecoder is not a subclass of s3_jax.memory.policy.Memory"),
    ],
)
def test_others_are_refused(folder, tiny_network, video, name, message):
    session = Session(TINY, tiny_network.variables, PropagationConfig(memory_policy=name))
    with pytest.raises(InputError, match=message):
        run(session, video, range(1))


class Counting(FirstInFirstOut):
    """Policy that counts the frames offered to every bucket and stores every second one."""

    def notes(self, buckets):
        return {"offered": jnp.zeros(buckets, jnp.int32)}

    def admit(self, memory, frame):
        offered = memory.notes["offered"]
        taken = frame._replace(active=frame.active & (offered % 2 == 0))
        memory = super().admit(memory, taken)
        return memory.replace(notes={"offered": offered + frame.active})


def test_notes_grow_and_are_cleared_with_their_bucket():
    policy = Counting(PropagationConfig(max_mem_frames=3))
    memory = state.init(policy.layout(4), 1, 1, 1, 3, 3, notes=policy.notes(1))
    for number in (1, 2, 3):
        memory = _admit(policy, memory, float(number))
    assert memory.key[0, 0, ::4, 0].tolist() == [1, 3, 0]
    memory = state.grow(memory, buckets=2)
    assert memory.notes["offered"].tolist() == [3, 0]
    memory = state.clear_buckets(memory, jnp.array([True, False]))
    assert memory.notes["offered"].tolist() == [0, 0]
    assert memory.notes["offered"].dtype == jnp.int32
