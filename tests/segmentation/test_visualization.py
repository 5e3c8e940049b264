"""Pictures of videos: the frames and objects that they show."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image

from s3_jax.errors import InputError
from s3_jax.media.contact_sheet import GAP
from s3_jax.media.heat_map import colour_bar, draw_heat
from s3_jax.media.mask_files import Mask
from s3_jax.media.query_pictures import BACKGROUND, FOREGROUND, QueryChoices, draw_choices
from s3_jax.media.video_files import open_video
from s3_jax.media.writers import write_scores
from s3_jax.segmentation.visualization import (
    SheetConfig,
    write_heat_maps,
    write_overlay,
    write_query_choices,
    write_sheet,
)
from tests.benchmarks.benchmark_files import mask, numbered, write_masks
from tests.benchmarks.sequences import PALETTE

OPTIONS = SheetConfig(frames=3, columns=3, width=64)
GREY = np.full((40, 64, 3), 100, np.uint8)


@pytest.fixture
def source(tmp_path):
    """Five grey frames of 64 x 40."""
    (tmp_path / "frames").mkdir()
    for name in numbered(5):
        Image.fromarray(GREY).save(tmp_path / "frames" / f"{name}.png")
    return open_video(tmp_path / "frames")


def _tile(sheet, column: int) -> np.ndarray:
    left = GAP + column * (64 + GAP)
    return sheet[GAP : GAP + 40, left : left + 64].astype(int)


def _read(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_sheet_shows_frames_with_masks_at_even_distances(source, tmp_path):
    masks = {name: mask(1 if name != "00004" else 3) for name in numbered(5)}
    del masks["00001"]
    folder = write_masks(tmp_path / "masks", masks)
    write_sheet(tmp_path / "sheet.jpg", source, folder, OPTIONS)
    sheet = _read(tmp_path / "sheet.jpg")
    for column in range(3):
        red, _, blue = _tile(sheet, column)[6:9, 5:8].mean((0, 1))
        assert red > blue + 15
        assert np.abs(_tile(sheet, column)[30:, 40:] - 100).max() < 12
    # The last of the frames shown has object 3, which is yellow.
    assert _tile(sheet, 2)[6:9, 5:8, 1].mean() > _tile(sheet, 0)[6:9, 5:8, 1].mean() + 20


def test_masks_of_another_size_than_the_frames(source, tmp_path):
    folder = write_masks(tmp_path / "masks", {"00000": mask(1, size=(20, 32))})
    write_sheet(tmp_path / "sheet.jpg", source, folder, OPTIONS)
    assert _read(tmp_path / "sheet.jpg").shape[1] == 64 + 2 * GAP


def test_an_overlay_has_the_frames_that_have_masks(source, tmp_path):
    folder = write_masks(tmp_path / "masks", {n: mask(1) for n in ("00001", "00003")})
    assert write_overlay(tmp_path / "o.mp4", source, folder, Fraction(10)) == 2
    assert len(list(open_video(tmp_path / "o.mp4").frames())) == 2


@pytest.mark.parametrize("draw", ["sheet", "overlay", "heat"])
def test_results_of_another_video(source, tmp_path, draw):
    folder = write_masks(tmp_path / "masks", {"frame7": mask(1)})
    write_scores(folder / "frame7.npz", np.ones((2, 4, 4), np.float32), (1,))
    with pytest.raises(InputError, match="is named like"):
        if draw == "sheet":
            write_sheet(tmp_path / "x.jpg", source, folder, OPTIONS)
        elif draw == "overlay":
            write_overlay(tmp_path / "x.mp4", source, folder, Fraction(10))
        else:
            write_heat_maps(tmp_path / "x", source, folder, OPTIONS)
    with pytest.raises(InputError, match=r"holds no \.npz files"):
        write_heat_maps(tmp_path / "x", source, tmp_path / "frames", OPTIONS)


def test_a_heat_map_for_every_object_and_the_scale(source, tmp_path):
    (tmp_path / "scores").mkdir()
    for t, name in enumerate(numbered(5)):
        prob = np.zeros((3 if t else 2, 40, 64), np.float32)
        prob[1, :, :32] = 1
        write_scores(tmp_path / "scores" / f"{name}.npz", prob, (4, 9) if t else (4,))
    paths = write_heat_maps(tmp_path / "heat", source, tmp_path / "scores", OPTIONS)
    assert [p.name for p in paths] == ["heat_4.jpg", "heat_9.jpg"]
    first = _tile(_read(paths[0]), 1)
    assert first[10:30, 5:25, 0].mean() > first[10:30, 40:60, 0].mean() + 20  # red where likely
    assert _read(paths[0]).shape[0] > _read(paths[1]).shape[0]  # three frames and the scale, two


def test_heat_colours_go_from_blue_to_red():
    bar = colour_bar(256).astype(int)
    assert bar[0, 10, 2] > bar[0, 10, 0]
    assert bar[0, 245, 0] > bar[0, 245, 2]
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    low = draw_heat(image, np.zeros((10, 15), np.float32))
    assert low.shape == image.shape
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float).ravel()
    assert np.corrcoef(low.mean(-1).ravel(), grey)[0, 1] > 0.99  # the frame shows through


def _choices(rows, columns, inside) -> QueryChoices:
    shape = (1, 1, 1, len(rows))
    return QueryChoices(
        np.array(rows, float).reshape(shape), np.array(columns, float).reshape(shape),
        np.array(inside, bool)[None, None],
    )  # fmt: skip


def test_dots_mark_the_picks_and_grow_with_their_number():
    inside = np.zeros((4, 4), bool)
    inside[:, :2] = True
    choices = _choices([8, 8, 8, 30], [8, 8, 8, 50], inside)  # two foreground, two background
    picture = draw_choices(np.full((40, 64, 3), 200, np.uint8), choices, 0, 0)
    assert tuple(picture[30, 50]) == BACKGROUND
    assert tuple(picture[8, 8]) == FOREGROUND  # drawn over a background pick of the same pixel
    assert (picture[20, 20] == 200).all()
    assert (picture[20, 60] == 110).all()  # what foreground queries may not read is dark
    counts = [int((picture == np.array(c)).all(-1).sum()) for c in (FOREGROUND, BACKGROUND)]
    assert counts[0] > 1.2 * counts[1]


class FakeWatcher:
    """Records what it is asked."""

    def __init__(self):
        self.object_ids: tuple[int, ...] = ()
        self.log = []
        self._given = None

    def add(self, masks):
        ids = [int(i) for i in np.unique(masks) if i]
        self.object_ids += tuple(ids)
        self.log.append(("add", ids))

    def choices(self, image):
        self.log.append("choices")
        shape = (2, len(self.object_ids), 1, 2)
        return QueryChoices(np.zeros(shape), np.zeros(shape),
                            np.ones((2, len(self.object_ids), 2, 4), bool))  # fmt: skip

    def slot(self, object_id):
        return self.object_ids.index(object_id)

    def step(self, image):
        self.log.append(image.shape[:2])


class Masks:
    path = None
    first = None

    def __init__(self, masks):
        self._masks = masks

    def read(self, index):
        return self._masks.get(index)


def test_queries_are_watched_in_frames_after_the_first(source, tmp_path):
    given = {1: Mask(tmp_path, mask(5), PALETTE), 2: Mask(tmp_path, mask(5, 7), PALETTE)}
    watcher = FakeWatcher()
    paths = write_query_choices(
        tmp_path / "q", watcher, source, Masks(given), 20, SheetConfig(3, 9, 64)
    )
    assert [p.name for p in paths] == ["q_5.jpg", "q_7.jpg"]
    step = (20, 32)
    assert watcher.log == [
        ("add", [5]), step, ("add", [7]), step, "choices", step, "choices", step,
    ]  # fmt: skip
    sheet = _read(paths[0])
    assert sheet.shape[1] == GAP + 2 * (64 + GAP)  # a column for each block
    with pytest.raises(InputError, match="no frame follows the first mask"):
        write_query_choices(tmp_path / "q", FakeWatcher(), source, Masks({}), 20, OPTIONS)
