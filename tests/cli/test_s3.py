"""The command `s3`: its help, its names for commands, and the doors to them in tools/."""

import ast
import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from s3_jax.cli import command, config_flag
from s3_jax.cli.commands import COMMANDS, GROUPS
from s3_jax.cli.extras import EXTRAS
from s3_jax.cli.main import help_text
from s3_jax.errors import InputError

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _python(code: str) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-c", code]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60)


def _s3(*words: str) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-m", "s3_jax", *words]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_importing_the_package_imports_no_jax():
    loaded = "import sys, s3_jax; print(sorted({'jax', 'numpy', 'absl'} & set(sys.modules)))"
    assert _python(loaded).stdout == "[]\n"


def test_the_package_offers_what_it_lists():
    package = importlib.import_module("s3_jax")
    assert dir(package) == sorted([*package.__all__, "__version__"])
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="module 's3_jax' has no attribute 'Sesion'"):
        _ = package.Sesion


def test_help_teaches_and_needs_nothing():
    code = "import sys; sys.argv = ['s3', '--help']; from s3_jax.cli.main import main; main()\n"
    done = _python(f"{code}assert not {{'jax', 'absl', 'numpy'}} & set(sys.modules)")
    assert done.returncode == 0, done.stderr
    assert "s3 segment --video=cats.mp4 --masks=first.png --checkpoint=s3_lite" in done.stdout
    for name, entry in COMMANDS.items():
        assert f"s3 {name} " in done.stdout
        assert entry.purpose in done.stdout
    assert done.stdout == f"{help_text()}\n"


def test_every_command_is_in_one_group():
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(COMMANDS)


def test_bench_alone_lists_its_commands():
    done = _s3("bench")
    assert done.returncode == 0
    assert "s3 bench frame" in done.stdout
    assert "s3 segment" not in done.stdout


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("segmnt",), "s3: there is no command 'segmnt'; did you mean s3 segment?\n"),
        (("bench", "metric"), "'bench metric'; did you mean s3 bench metrics?\n"),
        (("qqqq",), "s3: there is no command 'qqqq'; s3 --help lists the commands\n"),
        (("score", "--vide=x"), "s3 score: Unknown command line flag 'vide'; --help lists all"),
        (("score", "--results=x"), "s3 score: --annotations is missing (see --help)\n"),
        (("train", "--config=smok"), "s3 train: flag --config=smok: smok is not a file, and"),
    ],
)
def test_mistakes_are_a_line(words, error):
    done = _s3(*words)
    assert done.returncode == 1
    assert error in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_of_a_command_names_commands_as_typed():
    typed = _s3("score", "--help")
    assert typed.returncode == 0
    assert "  s3 score --results=DIR --annotations=DIR --output=DIR\n" in typed.stdout
    assert "--annotations:" in typed.stdout
    assert "--[no]debug:" in typed.stdout


def test_no_help_has_a_sign_that_absl_replaces_by_the_command():
    for one in COMMANDS.values():
        path = ROOT / "s3_jax" / "cli" / one.module.replace(".", "/")
        assert "%" not in (ast.get_docstring(ast.parse(path.with_suffix(".py").read_text())) or "")


@pytest.mark.parametrize(
    ("text", "as_tool"),
    [
        ("  s3 bench frame       once", "  python -m tools.benchmark       once"),
        ("next: s3 score --results=x", "next: python -m tools.score --results=x"),
        ("not made by s3 predict: choose", "not made by tools.predict: choose"),
        ("`s3 convert` makes s3_jax's", "`tools.convert_checkpoint` makes s3_jax's"),
    ],
)
def test_commands_are_named_as_the_user_started_this_one(monkeypatch, text, as_tool):
    monkeypatch.setattr(sys, "argv", ["s3 segment"])
    assert command.as_typed(text) == text
    monkeypatch.setattr(sys, "argv", ["tools/segment.py"])
    assert command.as_typed(text) == as_tool


def test_tools_are_doors():
    tools = {path.stem: path for path in (ROOT / "tools").glob("*.py")}
    # A file to copy, and what needs a checkout's recordings or tests.
    no_doors = {"__init__", "load_export", "gpu_check", "check_versions"}
    assert set(tools) - no_doors == {entry.tool for entry in COMMANDS.values()}
    for name, entry in COMMANDS.items():
        lines = tools[entry.tool].read_text().splitlines()
        assert len(lines) <= 5
        assert lines[-1] == f'    run("{name}")'


def test_a_missing_package_is_named_with_its_extra():
    code = "import sys; sys.modules['ml_collections'] = None; sys.argv = ['s3', 'train']\n"
    done = _python(f"{code}from s3_jax.cli.main import main; main()")
    assert done.returncode == 1
    assert done.stderr == (
        "s3 train: this needs ml_collections, which is not installed: pip install 's3_jax[train]'\n"
    )


def test_extras_bring_what_messages_say():
    for package, extra in EXTRAS.items():
        names = [_name(entry) for entry in PROJECT["optional-dependencies"][extra]]
        assert package.replace("_", "-") in names


def _name(requirement: str) -> str:
    return requirement.partition(">")[0].partition("=")[0].strip().replace("_", "-")


def test_tested_versions_are_within_the_ranges():
    pins = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line]
    tested = {_name(pin) for pin in pins}
    asked = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["train"]
    assert {_name(entry) for entry in asked} <= tested


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("smoke", "smoke.py"),
        ("configs/smoke.py", "smoke.py"),
        ("published:s3_vitl,mega", "published.py:s3_vitl,mega"),
        ("train_s3_vitb:base", "published.py:s3_vitb,base"),
        ("configs/train_cutie_base.py", "published.py:cutie_base,base"),
        ("train_s3_lite", "train_s3_lite.py"),
    ],
)
def test_configurations_have_names_that_hold_anywhere(monkeypatch, tmp_path, given, found):
    monkeypatch.chdir(tmp_path)
    assert config_flag.find_config(given) == str(ROOT / "configs" / found)


def test_a_file_goes_before_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke").touch()
    assert config_flag.find_config("smoke:x") == "smoke:x"
    with pytest.raises(InputError, match=r"there is no file elsewhere/smoke\.py"):
        config_flag.find_config("elsewhere/smoke.py")


DISTRIBUTIONS = {"absl": "absl-py", "cv2": "opencv-python-headless", "orbax": "orbax-checkpoint",
                 "PIL": "Pillow", "ml_dtypes": "jax"}  # fmt: skip


def test_every_package_that_is_imported_is_asked_for():
    imported = set()
    for path in (ROOT / "s3_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
    packages = {name.partition(".")[0] for name in imported} - {"s3_jax", *sys.stdlib_module_names}
    groups = (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    asked = {_name(entry) for group in groups for entry in group}
    assert {DISTRIBUTIONS.get(name, name).replace("_", "-") for name in packages} <= asked


@pytest.mark.parametrize("words", [("--help",), ("segment", "--help")])
def test_a_reader_that_leaves_early_is_no_error(words: tuple[str, ...]):
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [sys.executable, "-m", "s3_jax", *words]
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run(
            arguments, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, b"")
