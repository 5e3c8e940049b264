"""Model checkpoints are loaded as saved; nothing is lost, half-written or misread."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from s3_jax.checkpoints import model as checkpoint
from s3_jax.checkpoints.model import (
    CheckpointError,
    ModelHandler,
    ModelRestore,
    ModelSave,
    find_model,
    load_model,
    read_header,
    save_model,
    stored_arrays,
)
from s3_jax.conversion.weights import Variables, flatten
from tests.support.tiny_models import TINY_RESNET, TINY_VIT, tiny_variables

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "original"
    save_model(path, TINY_VIT, tiny_variables())
    return path


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """A checkpoint of TINY_VIT with seed 0, to be spoilt."""
    return Path(shutil.copytree(original, tmp_path / "saved"))


def assert_same(loaded: Variables, expected: Variables) -> None:
    loaded, expected = flatten(loaded), flatten(expected)
    assert set(loaded) == set(expected)
    for path, value in expected.items():
        assert loaded[path].dtype == value.dtype, path
        np.testing.assert_array_equal(loaded[path], value, err_msg=path)


def edit_config(directory: Path, **changes: object) -> None:
    content = json.loads((directory / "config.json").read_text())
    content["model"] |= changes
    (directory / "config.json").write_text(json.dumps(content))


def data_files(directory: Path) -> list[str]:
    return sorted(read_header(directory).files)


@pytest.mark.parametrize("config", [TINY_VIT, TINY_RESNET], ids=["vit", "resnet"])
def test_loads_what_was_saved(tmp_path, config):
    variables = tiny_variables(config)
    save_model(tmp_path / "a" / "b", config, variables, metadata={"name": "x", "steps": [1, 2]})
    loaded_config, loaded = load_model(tmp_path / "a" / "b")
    assert loaded_config == config
    assert_same(loaded, variables)
    assert read_header(tmp_path / "a" / "b").metadata == {"name": "x", "steps": [1, 2]}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_names_no_path_of_the_machine(original):
    for file in original.rglob("*"):
        assert file.is_dir() or str(original.parent).encode() not in file.read_bytes(), file


def test_survives_being_moved_and_copied(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    saved.rename(tmp_path / "moved")
    assert_same(load_model(tmp_path / "copy")[1], tiny_variables())
    assert_same(load_model(tmp_path / "moved")[1], tiny_variables())


def test_a_relative_path_will_do(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    save_model("another", TINY_VIT, tiny_variables())
    assert_same(load_model("another")[1], load_model(saved.name)[1])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", jnp.bfloat16])
def test_half_precision_takes_half_the_space_and_loads_as_float32(saved, tmp_path, dtype):
    variables = tiny_variables()
    save_model(tmp_path / "half", TINY_VIT, variables, dtype=dtype)

    def rounded(x: np.ndarray) -> np.ndarray:
        return x.astype(dtype).astype(np.float32) if x.dtype == np.float32 else x

    assert_same(load_model(tmp_path / "half")[1], jax.tree.map(rounded, variables))
    sizes = [sum(f.stat().st_size for f in p.rglob("*")) for p in (saved, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    assert {dtype for _, dtype in stored_arrays(tmp_path / "half").values()} == {
        jnp.dtype(dtype).name,
        "int32",
    }


def test_values_beyond_half_precision_are_refused(tmp_path):
    variables = tiny_variables()
    variables["batch_stats"]["mask_encoder"]["resnet"]["stem_norm"]["var"][3] = 70_000
    with pytest.raises(CheckpointError, match=r"mask_encoder/resnet/stem_norm/var .* 65504"):
        save_model(tmp_path / "half", TINY_VIT, variables, dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_replaces_an_older_checkpoint(saved):
    save_model(saved, TINY_RESNET, tiny_variables(TINY_RESNET, seed=5))
    config, loaded = load_model(saved)
    assert config == TINY_RESNET
    assert_same(loaded, tiny_variables(TINY_RESNET, seed=5))
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_an_empty_directory_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    save_model(tmp_path / "empty", TINY_VIT, tiny_variables())
    assert_same(load_model(tmp_path / "empty")[1], tiny_variables())


def test_a_link_to_a_checkpoint_stays_a_link(saved, tmp_path):
    (tmp_path / "link").symlink_to(saved)
    save_model(tmp_path / "link", TINY_VIT, tiny_variables(seed=1))
    assert (tmp_path / "link").is_symlink()
    assert_same(load_model(saved)[1], tiny_variables(seed=1))


@pytest.mark.parametrize("file", ["notes.txt", "config.json", "a/b.png"])
def test_other_directories_are_left_alone(tmp_path, file):
    path = tmp_path / "precious" / file
    path.parent.mkdir(parents=True)
    path.write_text('{"model_type": "clip"}')
    with pytest.raises(CheckpointError, match=r"precious: .*is not a model checkpoint"):
        save_model(tmp_path / "precious", TINY_VIT, tiny_variables())
    assert path.read_text() == '{"model_type": "clip"}'


def test_a_checkpoint_with_other_files_in_it_is_left_alone(saved):
    (saved / "results").mkdir()
    (saved / "results" / "mine.txt").write_text("precious")
    with pytest.raises(CheckpointError, match=r"results/mine\.txt"):
        save_model(saved, TINY_VIT, tiny_variables(seed=1))
    assert (saved / "results" / "mine.txt").read_text() == "precious"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file/x: cannot be written"):
        save_model(tmp_path / "file" / "x", TINY_VIT, tiny_variables())
    with pytest.raises(CheckpointError, match=r"file: exists and is not a model checkpoint"):
        save_model(tmp_path / "file", TINY_VIT, tiny_variables())


def test_a_full_disk_is_one_line_and_keeps_the_old_checkpoint(saved):
    """Files of more than a megabyte cannot be written here."""
    script = f"""
import resource, sys
from s3_jax.checkpoints.model import CheckpointError, save_model
from tests.support.tiny_models import TINY_VIT, tiny_variables
variables = tiny_variables(seed=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    save_model({str(saved)!r}, TINY_VIT, variables)
except CheckpointError as error:
    print(error, file=sys.stderr)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert result.stderr == (
        f"{saved}: cannot be written (File too large); check the path, its permissions and the "
        "free space\n"
    )
    assert_same(load_model(saved)[1], tiny_variables())
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_variables_that_do_not_fit_are_not_saved(tmp_path):
    variables = tiny_variables()
    del variables["params"]["pix_feat_proj"]["bias"]
    variables["params"]["extra"] = np.zeros(3, np.float32)
    variables["params"]["pix_feat_proj"]["kernel"] = np.zeros((2, 2), np.float32)
    with pytest.raises(CheckpointError) as caught:
        save_model(tmp_path / "x", TINY_VIT, variables)
    assert "3 problems" in str(caught.value)
    for part in (
        "missing: params/pix_feat_proj/bias (32,)",
        "unknown: params/extra (3,)",
        "params/pix_feat_proj/kernel is (2, 2), the configuration needs (64, 32)",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_every_damaged_file_is_noticed_and_named(saved, tmp_path):
    for name in data_files(saved):
        original = (saved / name).read_bytes()
        flipped = bytearray(original)
        flipped[len(original) // 2] ^= 1
        damages = {"has": original[:-1], "is damaged": bytes(flipped), "is missing": None}
        for message, content in damages.items():
            (saved / name).unlink(missing_ok=True)
            if content is not None:
                (saved / name).write_bytes(content)
            with pytest.raises(CheckpointError, match=f"{name} {message}.*again"):
                load_model(saved)
        (saved / name).write_bytes(original)
    assert_same(load_model(saved)[1], tiny_variables())


def test_all_damaged_files_are_listed(saved):
    for name in data_files(saved)[:3]:
        (saved / name).unlink()
    with pytest.raises(CheckpointError, match="3 problems"):
        load_model(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "config.json is damaged"),
        ('{"format": "s3_jax model", "version": 1', "config.json is damaged"),
        ('{"format": "s3_jax model", "version": 1}', "config.json is damaged"),
        ("[]", "config.json is of something else"),
        ('{"format": "s3_jax model", "version": 9}', "version 9, but only 1.*update"),
    ],
)
def test_a_damaged_config_is_named(saved, content, message):
    (saved / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_model(saved)


def test_unknown_settings_are_named(saved):
    edit_config(saved, widht=3)
    with pytest.raises(CheckpointError, match=r"config\.json: unknown key 'widht'.*'width'"):
        load_model(saved)


def test_arrays_that_do_not_fit_the_config_are_all_listed(saved):
    edit_config(saved, num_queries=6, num_blocks=2)
    with pytest.raises(CheckpointError) as caught:
        load_model(saved)
    assert "query_init is (4, 32), the configuration needs (6, 32)" in str(caught.value)
    assert "missing: params/object_transformer/blocks_1/" in str(caught.value)


def test_a_config_without_sense_is_named(saved):
    edit_config(saved, num_heads=5)
    with pytest.raises(CheckpointError, match="no network can be built from the configuration"):
        load_model(saved)


def test_what_is_no_checkpoint_is_explained(saved, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.pth").write_bytes(b"PK")
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "s3.safetensors").write_bytes(b"")
    (saved / "config.json").unlink()
    convert = r"s3 convert --input="
    for name, message in {
        "nowhere": "nowhere: there is no such file or directory.*s3_jax",
        "empty": r"empty is not a model checkpoint.*config\.json",
        "weights.pth": convert + r".*weights\.pth",
        "downloads": convert + r".*s3\.safetensors",
        "saved": "saved has arrays but no config.json",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            load_model(tmp_path / name)


def test_names_of_shipped_checkpoints(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    monkeypatch.chdir(ROOT)
    assert checkpoint.shipped_names() == ["saved"]
    assert find_model("saved") == saved
    assert_same(load_model("saved")[1], tiny_variables())
    with pytest.raises(CheckpointError, match=r"svaed: .*\(there are: saved\)"):
        load_model("svaed")


def test_a_training_run_is_read_at_its_latest_step(tmp_path):
    """Training writes one item of the steps of an (asynchronous) checkpoint manager."""
    handlers = {"model": ModelHandler(), "training": ocp.StandardCheckpointHandler()}
    steps = tmp_path / "checkpoints"
    with ocp.CheckpointManager(steps, item_handlers=handlers) as manager:
        for step in (9, 100):
            variables = jax.tree.map(jnp.asarray, tiny_variables(seed=step))
            items = {
                "model": ModelSave(TINY_VIT, variables, {"step": step}),
                "training": ocp.args.StandardSave({"count": np.full(3, step)}),
            }
            manager.save(step, args=ocp.args.Composite(**items))
        manager.wait_until_finished()
        restored = manager.restore(9, args=ocp.args.Composite(model=ModelRestore()))
    assert_same(restored["model"][1], tiny_variables(seed=9))
    for place in (tmp_path, steps, steps / "100", steps / "100" / "model"):
        assert read_header(place).metadata == {"step": 100}
        assert_same(load_model(place)[1], tiny_variables(seed=100))
    shutil.rmtree(steps / "100" / "model")
    assert find_model(tmp_path) == steps / "9" / "model"


@pytest.mark.parametrize(
    ("scores", "taken", "words"),
    [
        ({10: 0.6, 20: 0.7, 30: 0.5, 40: None}, 20, "best of 3 validated steps (score 0.700)"),
        ({10: 0.7, 20: 0.7}, 20, "best of 2 validated steps"),
        ({10: None, 20: None}, 20, "last step, 20"),
    ],
)
def test_a_training_run_is_its_best_step_and_says_so(tmp_path, caplog, scores, taken, words):
    for step, score in scores.items():
        folder = tmp_path / "checkpoints" / str(step) / "model"
        save_model(folder, TINY_VIT, tiny_variables(), metadata={"step": step, "score": score})
    with caplog.at_level("INFO", "s3_jax"):
        assert find_model(tmp_path).parent.name == str(taken)
    assert words in caplog.text
    assert caplog.text.count("\n") == 1


def test_scores_of_another_network_are_another_stage(tmp_path):
    """The first stage, of single objects, may well have the higher score."""
    single = dataclasses.replace(TINY_VIT, single_object=True)
    for step, config, score in ((1, single, 0.9), (2, TINY_VIT, 0.4), (3, TINY_VIT, 0.3)):
        folder = tmp_path / "checkpoints" / str(step) / "model"
        metadata = {"step": step, "score": score}
        save_model(folder, config, tiny_variables(config), metadata=metadata)
    assert find_model(tmp_path).parent.name == "2"
    (tmp_path / "checkpoints/2/model/config.json").write_text("{")
    assert find_model(tmp_path).parent.name == "3"


@pytest.mark.slow
def test_sharded_arrays_load_on_one_device(tmp_path):
    script = f"""
import jax, numpy as np
from s3_jax.checkpoints.model import save_model
from tests.support.tiny_models import TINY_VIT, tiny_variables
mesh = jax.make_mesh((4,), ("x",))
def shard(a):
    split = a.ndim and a.shape[0] % 4 == 0
    spec = jax.P("x") if split else jax.P()
    return jax.device_put(a, jax.NamedSharding(mesh, spec))
variables = jax.tree.map(shard, tiny_variables())
assert len(jax.tree.leaves(variables)[0].devices()) == 4
save_model({str(tmp_path / "sharded")!r}, TINY_VIT, variables)
"""
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    command = ["env", *(f"{k}={v}" for k, v in environment.items()), sys.executable, "-c", script]
    subprocess.run(command, cwd=ROOT, check=True)
    assert len(jax.devices()) == 1
    assert_same(load_model(tmp_path / "sharded")[1], tiny_variables())


def test_a_replacement_killed_between_its_renames_loses_nothing(saved):
    """The moment is too short to be hit by chance: its traces are made by hand."""
    previous = saved.with_name(".saved.previous")
    saved.rename(previous)
    assert_same(load_model(saved)[1], tiny_variables())
    shutil.copytree(previous, saved.with_name(".saved.new"))
    save_model(saved, TINY_VIT, tiny_variables(seed=1))
    assert_same(load_model(saved)[1], tiny_variables(seed=1))
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


KILLED_SAVER = """
import os, shutil, signal, sys
import numpy as np
from pathlib import Path
from s3_jax.checkpoints.model import CheckpointError, load_model, save_model
from tests.support.tiny_models import TINY_VIT, tiny_variables

path, trials = Path(sys.argv[1]), int(sys.argv[2])
versions = [tiny_variables(seed=seed) for seed in (0, 1)]
loaded_version = lambda: [v["params"]["pix_feat_proj"]["bias"][0] for v in versions].index(
    load_model(path)[1]["params"]["pix_feat_proj"]["bias"][0])

def in_child(action):
    child = os.fork()
    if child == 0:
        try:
            os._exit(action())
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(99)
    return child

def save(version):
    save_model(path, TINY_VIT, versions[version])
    return 0

def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def check():
    try:
        return loaded_version()
    except CheckpointError as error:
        return 2 if "there is no such file" in str(error) else 98

# What saves kills itself at one of its accesses to files: nothing depends on time.
ACCESSES = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"}
accesses, last = 0, -1

def count(event, arguments):
    global accesses
    if event in ACCESSES and str(path.parent) in str(arguments[0]):
        accesses += 1
        if accesses == last:
            os.kill(os.getpid(), signal.SIGKILL)

def counted(version, kill_at=-1):
    global accesses, last
    accesses, last = 0, kill_at
    save(version)
    return accesses

sys.addaudithook(count)
new, over = (exit_code(in_child(lambda: counted(0))) for _ in range(2))
half, killed = trials // 2, 0
for trial in range(trials):
    if trial <= half or found == 1:
        assert exit_code(in_child(lambda: save(0))) == 0
        if trial >= half:  # first over an old checkpoint, then where there is none
            shutil.rmtree(path)
    access = 1 + trial % half * ((over if trial < half else new) - 1) // (half - 1)
    killed += exit_code(in_child(lambda: counted(1, access))) == -signal.SIGKILL
    found = exit_code(in_child(check))
    assert found in ((0, 1) if trial < half else (1, 2)), (trial, found)
assert killed >= trials - 2, killed  # threads of Orbax make one access more or less
assert exit_code(in_child(lambda: save(1))) == 0 and exit_code(in_child(check)) == 1
assert os.listdir(path.parent) == [path.name], os.listdir(path.parent)
"""


@pytest.mark.slow
def test_killed_savers_leave_the_old_checkpoint_or_the_new_one(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", KILLED_SAVER, str(tmp_path / "model"), "12"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr[-3000:]
