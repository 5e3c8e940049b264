"""Flags that name object stores: `s3` in a process whose gs:// is in memory."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import commands

PREPARED = """
    import sys
    from pathlib import Path
    from tests.support.stores import in_memory

    store = in_memory(Path({cache!r}))
    from s3_jax.cli.main import main

    def s3(*words):
        sys.argv = ["s3", *words]
        try:
            main()
        except SystemExit as end:
            return end.code
"""


def run(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A script with `store` and `s3`."""
    begin = textwrap.dedent(PREPARED).format(cache=str(tmp_path / "cache"))
    code = begin + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )


def test_masks_are_read_from_and_written_to_a_store(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        import io, numpy as np
        from PIL import Image
        for frame, label in (("0", 1), ("1", 1)):
            file = io.BytesIO()
            Image.fromarray(np.full((8, 8), label, np.uint8)).save(file, "png")
            store.pipe(f"/b/all/cats/{frame}.png", file.getvalue())
        code = s3("first-annotations", "--annotations=gs://b/all", "--output=gs://b/first")
        assert code == 0, code
        assert store.find("/b/first") == ["/b/first/cats/0.png"], store.find("/b/first")
        """,
    )
    assert done.returncode == 0, done.stderr
    assert " goes to gs://b/first\n" in done.stdout


def test_results_among_what_is_read_are_refused(tmp_path: Path) -> None:
    flags = '"--annotations=gs://b/all", "--output=gs://b/all/new"'
    done = run(tmp_path, f'sys.exit(s3("first-annotations", {flags}))')
    assert done.returncode == 1
    assert "--output=gs://b/all/new is within --annotations=gs://b/all" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["segment", "--output=ftp://h/x"], "--output is ftp://h/x: ftp:// is not supported"),
        (["segment", "--video=http://h/x.mp4"], "--video is http://h/x.mp4: http:// is not"),
        (["segment", "--points=gs://h/x"], "--points is gs://h/x, but must be a path on this"),
        (["annotate", "--output=gs://h/x", "v"], "--output is gs://h/x, but must be a path on"),
        (["annotate", "gs://h/x.mp4"], "'gs://h/x.mp4' is gs://h/x.mp4, but must be a path on"),
        (["train", "--config=gs://h/x.py"], "--config is gs://h/x.py, but must be a path on this"),
        (["train", "--config=smoke", "--workdir=ftp://h/x"], "--workdir is ftp://h/x: ftp:// is"),
        (
            ["train", "--config=smoke", "--workdir=w", "--config.data_root=ftp://h/x"],
            "data_root is ftp://h/x: ftp:// is not supported",
        ),
        (["predict", "--checkpoint=ftp://h/x"], "--checkpoint is ftp://h/x: ftp:// is not"),
    ],
)
def test_what_is_not_supported_is_said_in_a_line(
    words: list[str], said: str, tmp_path: Path
) -> None:
    done = commands.run("s3_jax", *words, cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
