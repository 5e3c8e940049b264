"""Names with escape codes reach no terminal."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from s3_jax.cli.visible_output import visible_output
from s3_jax.errors import visible

ROOT = Path(__file__).parents[2]
HOSTILE = "a\x1b[2J\x07\u202eb"


def test_control_characters_are_shown_as_codes():
    assert visible("a b\nc\td é 漢") == "a b\nc\td é 漢"
    assert visible(HOSTILE) == "a\\x1b[2J\\x07\\u202eb"
    assert visible("cut \udce9") == "cut \\udce9"  # bytes of a name that is not UTF-8


def test_what_is_printed_and_logged(capsys):
    with visible_output():
        print(f"writes {HOSTILE}\nand {1}", end="")
        sys.stdout.flush()
    assert capsys.readouterr().out == "writes a\\x1b[2J\\x07\\u202eb\nand 1"


def test_a_hostile_name_through_a_command(tmp_path: Path):
    video = tmp_path / HOSTILE
    video.mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(video / f"{HOSTILE}1.png")
    (video / f"{HOSTILE}.txt").write_text("not an image")
    mask = Image.fromarray(np.zeros((40, 40), np.uint8))
    mask.putpixel((3, 3), 1)
    mask.save(tmp_path / f"{HOSTILE}.png")
    command = [
        *(sys.executable, "-m", "s3_jax", "segment", f"--video={video}"),
        *(f"--masks={tmp_path / HOSTILE}.png", f"--checkpoint={HOSTILE}", "--output=x"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 1
    for stream in (done.stdout, done.stderr):
        assert b"\\x1b[2J" in stream
        assert b"\x1b" not in stream and b"\x07" not in stream and b"\xe2\x80\xae" not in stream
