"""The notebooks of examples/: small, with outputs that equal those of a run today."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def code_cells(notebook: Path) -> list[dict]:
    cells = json.loads(notebook.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def printed(notebook: Path) -> list[str]:
    """Return what every cell prints, with every number as 0: they differ in the last digits."""
    texts = (
        "".join(line for output in cell["outputs"] for line in output.get("text", ()))
        for cell in code_cells(notebook)
    )
    return [re.sub(r"[\d.]+", "0", text) for text in texts]


def pictures(notebook: Path) -> list[int]:
    """Return how many pictures every cell draws."""
    return [
        sum("image/png" in output.get("data", ()) for output in cell["outputs"])
        for cell in code_cells(notebook)
    ]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_small_and_has_been_run_from_the_top(notebook):
    assert notebook.stat().st_size < 500_000
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert any(printed(notebook)) and any(pictures(notebook))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_does_today_what_it_shows(notebook, tmp_path):
    again = tmp_path / notebook.name
    command = [Path(sys.executable).with_name("jupyter-execute"), notebook, f"--output={again}"]
    where = {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "xla")}
    done = subprocess.run(command, env=os.environ | where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert printed(again) == printed(notebook)
    assert pictures(again) == pictures(notebook)
