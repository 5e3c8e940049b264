"""Commands restart once to get large pages, and only when they run as commands."""

import os
import sys
import types
from pathlib import Path

import pytest

from s3_jax.cli import large_pages


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Return the list of commands that `python -m tools.train --config=x` executes.

    The kernel is one that grants large pages on request.
    """
    setting = tmp_path / "enabled"
    setting.write_text("always [madvise] never\n")
    monkeypatch.setattr(large_pages, "_KERNEL_SETTING", setting)
    monkeypatch.setenv(large_pages.VARIABLE, "")  # so that it is put back afterwards
    monkeypatch.delenv(large_pages.VARIABLE)
    main = types.SimpleNamespace(__spec__=types.SimpleNamespace(name="tools.train"))
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "tools.train", "--config=x"])
    found: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, words: found.append([path, *words]))
    return found


def test_a_command_starts_again_once_with_its_words(started: list[list[str]]) -> None:
    large_pages.ask_for_large_pages()
    words = [sys.executable, sys.executable, "-m", "tools.train", "--config=x"]
    assert started == [words]
    assert os.environ[large_pages.VARIABLE] == large_pages.LARGE_PAGES
    large_pages.ask_for_large_pages()
    assert started == [words]


@pytest.mark.parametrize("setting", ["[always] madvise never", "always madvise [never]", None])
def test_nothing_starts_where_the_kernel_does_not_wait_to_be_asked(
    setting: str | None, started: list[list[str]]
) -> None:
    large_pages._KERNEL_SETTING.unlink()
    if setting:
        large_pages._KERNEL_SETTING.write_text(setting)
    large_pages.ask_for_large_pages()
    assert not started


def test_nothing_starts_in_other_programs(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = types.SimpleNamespace(__spec__=types.SimpleNamespace(name="pytest.__main__"))
    monkeypatch.setitem(sys.modules, "__main__", other)
    large_pages.ask_for_large_pages()
    monkeypatch.setitem(sys.modules, "__main__", types.SimpleNamespace(__file__="/x/notebook.py"))
    large_pages.ask_for_large_pages()
    assert not started
