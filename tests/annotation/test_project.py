"""A project's folder: saved content survives a kill, and other folders are refused."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from s3_jax.annotation.annotator import Annotator
from s3_jax.annotation.looks import ObjectLook
from s3_jax.annotation.project import Project
from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError
from s3_jax.media.mask_files import MaskFiles
from s3_jax.propagation.session import Session
from tests.propagation.conftest import TINY

FRAMES = 8
NAMES = [f"frame_{i:03d}" for i in range(FRAMES)]
VIDEO = {"name": "bear.mp4", "fingerprint": "abc", "size": [64, 96], "frames": FRAMES}


def opened(path: Path) -> Project:
    return Project(path, VIDEO, NAMES)


def annotator_of(project: Project, network, video) -> Annotator:
    session = Session(TINY, network.variables, PropagationConfig(mem_every=3))
    return Annotator(
        session, lambda i: video.frames[i], FRAMES, given=project.given, found=project.found
    )


def test_everything_comes_back(tmp_path, tiny_network, video):
    with opened(tmp_path / "project") as project:
        annotator = annotator_of(project, tiny_network, video)
        annotator.annotate(2, video.hard_masks(2, 1), prompts=[{"click": [3, 4], "label": 1}])
        annotator.annotate(2, {7: video.masks[2] == 2})
        project.set_look(7, ObjectLook("bear", (250, 120, 0), visible=False))
        project.set_settings({"brush": 12, "tool": "polygon"})
        found = {f.index: f for f in annotator.propagate(0, 5)}
        annotator.annotate(4, {1: video.masks[4] == 3}, prompts="brush")
        due = annotator.due()
        assert (len(found) == 6 and due == [(3, 3), (4, 7)]) or due
    with opened(tmp_path / "project") as project:
        again = annotator_of(project, tiny_network, video)
        assert project.objects == {7: ObjectLook("bear", (250, 120, 0), visible=False)}
        assert project.look(1).name == "object 1"
        assert project.settings == {"brush": 12, "tool": "polygon"}
        assert again.due() == due and again.object_ids == (1, 7)
        assert again.prompts(4) == "brush"
        for index, masks in annotator.annotated.items():
            for id_, mask in masks.items():
                np.testing.assert_array_equal(again.given(index)[id_], mask)
        for index in (0, 1, 2, 3, 5):
            np.testing.assert_array_equal(again.found(index).ids, found[index].ids)
            assert again.found(index).origin == found[index].origin
        assert again.found(1).confidence[1] == pytest.approx(found[1].confidence[1], abs=1e-4)


def test_results_are_masks_that_segment_takes(tmp_path, tiny_network, video):
    with opened(tmp_path) as project:
        project.set_look(1, ObjectLook("bear", (250, 120, 0)))
        annotator = annotator_of(project, tiny_network, video)
        annotator.annotate(0, video.hard_masks(0, 1, 2))
        found = list(annotator.propagate(0, FRAMES - 1))
        masks = MaskFiles(tmp_path / "masks", NAMES)
        for f in found:
            np.testing.assert_array_equal(masks.read(f.index).ids, f.ids)
        assert masks.first.encoding.palette[3:6] == bytes((250, 120, 0))


def test_a_deleted_object_stays_deleted(tmp_path, tiny_network, video):
    with opened(tmp_path) as project:
        annotator = annotator_of(project, tiny_network, video)
        annotator.annotate(0, video.hard_masks(0, 1, 2))
        list(annotator.propagate(0, 3))
        annotator.delete(2)
        annotator.withdraw(0, [1])
    with opened(tmp_path) as project:
        again = annotator_of(project, tiny_network, video)
        assert again.object_ids == () and not again.found(3).ids.any()


WORK = """
import sys
import numpy as np
from pathlib import Path
from s3_jax.annotation.found import Found
from s3_jax.annotation.project import Project
project = Project(Path(sys.argv[1]), {video!r}, {names!r})
for n in range(10_000):
    index = n % 8
    ids = np.full((64, 96), n % 250 + 1, np.uint8)
    project.given.put(index, {{1: ids > n % 100}}, prompts=n)
    project.found[index] = Found(index, ids, {{1: 0.5}}, "forward")
    project.found.settle(index)
    project.set_settings({{"count": n}})
    print(n, flush=True)
"""


def test_a_killed_process_leaves_what_it_had_saved(tmp_path):
    script = WORK.format(video=VIDEO, names=NAMES)
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(30):
            last = int(process.stdout.readline())
        time.sleep(0.02)
        process.kill()
        last = max([last, *map(int, process.stdout.read().split())])
    with opened(tmp_path) as project:
        assert project.settings["count"] in (last, last + 1)
        assert project.found.settled == set(range(8))
        for index in range(8):
            n = project.given.prompts(index)
            assert n % 8 == index and last - n < 16
            assert (project.found[index].ids > 0).all()


def test_a_log_that_was_cut_off_costs_its_last_line(tmp_path, tiny_network, video):
    with opened(tmp_path) as project:
        annotator = annotator_of(project, tiny_network, video)
        annotator.annotate(0, video.hard_masks(0, 1))
        list(annotator.propagate(0, 3))
    log = tmp_path / "found.jsonl"
    log.write_bytes(log.read_bytes()[:-8])
    with opened(tmp_path) as project:
        assert len(project.found) == 4 and len(project.found.settled) == 3


def test_two_processes_do_not_share_a_project(tmp_path):
    with opened(tmp_path), pytest.raises(InputError, match="another process"):
        opened(tmp_path)
    opened(tmp_path).close()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("project.json", "{", "cannot be read as a project"),
        ("project.json", '{"format": "COCO", "version": 1}', "something else"),
        ("given/000001.json", '{"size": [64, 96]}', "000001.json cannot be read"),
        ("given/000001.json", '{"size": [1, 1], "masks": {}, "prompts": null}', "another video"),
        (
            "given/000001.json",
            '{"size": [64, 96], "masks": {"0": "P0"}, "prompts": null}',
            "not an object id",
        ),
        (
            "given/000001.json",
            '{"size": [64, 96], "masks": {"1": "P0"}, "prompts": null}',
            "run lengths",
        ),
        ("given/000099.json", '{"size": [64, 96], "masks": {}, "prompts": null}', "another video"),
    ],
)
def test_damaged_files_are_told(tmp_path, name, content, message):
    opened(tmp_path).close()
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        opened(tmp_path)


def test_the_project_of_another_video_is_refused(tmp_path):
    opened(tmp_path).close()
    with pytest.raises(InputError, match="another video"):
        Project(tmp_path, VIDEO | {"fingerprint": "xyz"}, NAMES)
    assert json.loads((tmp_path / "project.json").read_text())["video"] == VIDEO


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match="belongs to no project"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "colour"), [("", (1, 2, 3)), ("a\n", (1, 2, 3)), ("a", (1, 2, 256))]
)
def test_looks_that_cannot_be_are_refused(name, colour):
    with pytest.raises(InputError):
        ObjectLook(name, colour)
