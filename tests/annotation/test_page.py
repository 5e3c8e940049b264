"""The page of `s3 annotate` in Chromium, used by mouse and by keyboard.

S3_JAX_SCREENSHOTS=docs/annotate makes the pictures of docs/annotate.md.
"""

import hashlib
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from s3_jax.demo import clip
from s3_jax.media.video_files import open_video
from tests.annotation.browser import CHROMIUM, PICTURES, ROOT, Command, Served, opened_browser
from tests.annotation.projects import COUNT, SIZE, open_studio
from tests.media.videos import write_video_file

pytestmark = pytest.mark.slow

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")


def test_the_built_page_is_that_of_the_sources():
    built = ROOT / "s3_jax" / "annotation" / "page"
    listed = [line.split("  ") for line in (built / "sources.sha256").read_text().splitlines()]
    names = sorted(path.name for path in (ROOT / "page" / "src").iterdir())
    assert [name for _, name in listed[3:]] == [f"src/{name}" for name in names]
    for digest, name in listed:
        source = (ROOT / "page" / name).read_bytes()
        assert hashlib.sha256(source).hexdigest() == digest, f"{name} changed: run `make page`"


@pytest.fixture
def browser():
    with opened_browser() as browser:
        yield browser


@pytest.fixture
def studio(tmp_path):
    return open_studio(tmp_path / "project")


@pytest.fixture
def served(studio):
    served = Served(studio)
    yield served
    served.stop()


@pytest.fixture
def tab(browser, served):
    tab = browser.tab(served.address)
    tab.size = SIZE
    tab.saved()
    return tab


def _settled(browser, address: str) -> None:
    """Check that there were no complaints and no requests to other hosts."""
    assert browser.complaints == []
    hosts = {re.sub(r"^\w+://|/.*", "", url) for url in browser.requests if url[:5] != "blob:"}
    assert hosts == {re.sub(r"^http://|/.*", "", address)}


@needs_chromium
def test_every_tool_draws_and_every_change_is_undone(browser, served, tab, studio):
    tab.press("b")
    tab.drag((10, 10), (30, 10))
    tab.saved()
    ids = studio.shown(0)
    assert ids[10, 10] == ids[10, 29] == 1
    tab.press("a")
    tab.polygon((40, 20), (60, 20), (60, 40), (40, 40))
    tab.saved()
    assert (studio.shown(0)[22:38, 42:58] == 2).all()
    tab.press("e")
    tab.drag((45, 30), (55, 30))
    tab.saved()
    assert studio.shown(0)[30, 50] == 0
    tab.press("f")
    tab.saved()
    assert studio.shown(0)[30, 50] == 2
    tab.press("1", "c")
    tab.click(50, 5)
    tab.saved()
    assert (studio.shown(0)[:, SIZE[1] // 2 + 1 :] == 1).all()
    tab.press("x")
    tab.drag((4, 30), (20, 44))
    tab.saved()
    assert (studio.shown(0)[32:42, 6:18] == 1).all()
    assert studio.document.undoable == "Box of Object 1, frame 0"
    for _ in range(8):
        tab.press("Control+z")
    tab.saved()
    assert not studio.shown(0).any()
    expect(tab.page.locator("#undo")).to_be_disabled()
    for _ in range(8):
        tab.press("Control+y")
    tab.saved()
    assert (studio.shown(0)[32:42, 6:18] == 1).all()
    _settled(browser, served.address)


@needs_chromium
def test_the_keyboard_alone_reaches_everything(browser, served, tab, studio):
    reached = set()
    for _ in range(60):
        tab.press("Tab")
        reached.add(tab.page.evaluate("document.activeElement.id"))
    enabled = tab.page.evaluate(
        "[...document.querySelectorAll('button, input, canvas')]"
        ".filter(e => e.checkVisibility() && !e.disabled).map(e => e.id)"
    )
    assert {id_ for id_ in enabled if id_} <= reached
    for tool in ("click", "box", "brush", "erase", "polygon", "hand"):
        tab.page.locator(f"#tool-{tool}").focus()
        tab.press("Enter")
        expect(tab.page.locator(f"#tool-{tool}")).to_have_attribute("aria-pressed", "true")
    tab.press("b", "k", "Enter", *["ArrowRight"] * 12, "Enter")
    tab.saved()
    assert (studio.shown(0)[SIZE[0] // 2, SIZE[1] // 2 : SIZE[1] // 2 + 12] == 1).all()
    tab.press("p", *["Shift+ArrowUp"] * 2, "Enter", "Shift+ArrowLeft", "Enter")
    tab.press("Shift+ArrowDown", "Enter", "Control+Enter")
    tab.saved()
    assert studio.document.undoable == "Outline Object 1, frame 0"
    tab.press("Escape", "w")
    expect(tab.page.locator("#frame")).to_have_value(str(COUNT - 1))
    tab.followed()
    expect(tab.page.locator("#frame-about")).to_contain_text("followed")
    assert len(studio.project.found) == COUNT
    _settled(browser, served.address)


@needs_chromium
def test_labels_and_contrast(browser, tab):
    tab.press("b")
    tab.drag((10, 10), (30, 10))
    tab.saved()
    assert tab.violations() == []
    tab.press("?")
    expect(tab.page.locator("#help")).to_be_visible()
    assert tab.violations() == []
    tab.press("Escape", "Control+e")
    expect(tab.page.locator("#export")).to_be_visible()
    assert tab.violations() == []


@needs_chromium
def test_what_is_drawn_without_a_connection_arrives_later(browser, tmp_path):
    first = Served(open_studio(tmp_path / "project"))
    tab = browser.tab(first.address)
    tab.size = SIZE
    tab.saved()
    tab.press("b")
    tab.drag((10, 10), (30, 10))
    tab.saved()
    first.stop()
    expect(tab.page.locator("#banner")).to_be_visible()
    tab.drag((10, 40), (30, 40))
    tab.press("a")
    tab.drag((40, 40), (50, 40))
    expect(tab.page.locator("#banner")).to_contain_text("connection is lost")
    again = open_studio(tmp_path / "project")
    second = Served(again, first.port)
    expect(tab.page.locator("#banner")).to_be_hidden()
    tab.saved()
    ids = again.shown(0)
    assert (ids[10, 20], ids[40, 20], ids[40, 45]) == (1, 1, 2)
    second.stop()


@needs_chromium
def test_what_a_closed_tab_could_not_send_is_sent_by_the_next(browser, tmp_path):
    first = Served(open_studio(tmp_path / "project"))
    tab = browser.tab(first.address)
    tab.size = SIZE
    tab.saved()
    first.stop()
    tab.press("b")
    tab.drag((10, 40), (30, 40))
    tab.page.close()
    again = open_studio(tmp_path / "project")
    second = Served(again, first.port)
    tab = browser.tab(second.address)
    expect(tab.page.locator("#objects li")).to_have_count(1)
    tab.saved()
    assert again.shown(0)[40, 20] == 1
    second.stop()


@needs_chromium
def test_a_second_tab_takes_over_and_gives_back(browser, served, tab, studio):
    other = browser.tab(served.address)
    other.size = SIZE
    other.saved()
    expect(tab.page.locator("#taken")).to_be_visible()
    other.press("b")
    other.drag((10, 10), (30, 10))
    other.saved()
    tab.page.bring_to_front()
    tab.page.get_by_role("button", name="Use it here").click()
    tab.saved()
    expect(other.page.locator("#taken")).to_be_visible()
    expect(tab.page.locator("#objects li")).to_have_count(1)
    tab.drag((10, 40), (30, 40))
    tab.saved()
    assert (studio.shown(0)[10, 20], studio.shown(0)[40, 20]) == (1, 1)
    _settled(browser, served.address)


@pytest.fixture
def start():
    commands: list[Command] = []

    def command(*arguments: object) -> Command:
        commands.append(Command(*arguments))
        return commands[-1]

    yield command
    for one in commands:
        one.kill()


@pytest.mark.slow
@needs_chromium
def test_a_video_from_nothing_to_masks(browser, tmp_path, start):
    """The whole way, with the network that comes along."""
    video, frames = tmp_path / "koi.mp4", 16
    pictures = [frame.image for frame in open_video(clip.VIDEO).frames()][: 2 * frames : 2]
    write_video_file(video, pictures)
    folder = tmp_path / "project"
    arguments = (video, f"--output={folder}", "--port=0", "--max_internal_size=144")
    command = start(*arguments)
    tab = browser.tab(command.address)
    tab.size = pictures[0].shape[:2]
    tab.saved()

    # A fish by a click, or where there is no prompt head, by its outline.
    truth = clip.true_masks()
    tab.press("c")
    expect(tab.page.locator("#hint")).not_to_contain_text("loaded", timeout=180_000)
    able = "Not available" not in tab.page.locator("#hint").inner_text()
    if able:
        tab.click(*_middle(truth[0] == 1))
    else:
        print(f"outlined instead of clicked: {tab.page.locator('#hint').inner_text()}")
        tab.polygon(*_outline(truth[0] == 1))
    tab.saved()
    # A second one by brush.
    tab.press("a", "b")
    _paint(tab, truth[0] == 2)
    tab.saved()
    tab.picture("painted")
    tab.follow("w")
    assert len(list((folder / "masks").glob("*.png"))) == frames
    tab.seek(8)
    expect(tab.page.locator("#frame-about")).to_contain_text("followed")
    tab.picture("followed")

    # A correction, and only what it touches again.
    tab.press("2", "e")
    _paint(tab, truth[16] == 2)
    tab.polygon(*_outline(truth[16] == 2))
    tab.saved()
    before = (folder / "masks" / "00012.png").stat().st_mtime_ns
    tab.follow("u")
    assert (folder / "masks" / "00012.png").stat().st_mtime_ns > before

    # A third object that is painted in the middle, backwards.
    tab.seek(8)
    tab.press("a")
    tab.polygon(*_outline(truth[16] == 3))
    tab.saved()
    tab.follow("q")
    assert 3 in np.unique(_read(folder / "masks" / "00003.png"))
    tab.seek(3)
    tab.picture("backward")

    # Undo, redo, and reloading.
    tab.press("b")
    tab.drag((10, 10), (40, 10))
    tab.saved()
    expect(tab.page.locator("#undo")).to_have_attribute("title", "Undo: Paint Object 3, frame 3")
    tab.press("Control+z")
    tab.saved()
    expect(tab.page.locator("#redo")).to_be_enabled()
    about = tab.about()
    tab.page.reload()
    tab.saved()
    expect(tab.page.locator("#objects li")).to_have_count(3)
    assert tab.about() == about

    # Export: what the frames show.
    tab.press("Control+e")
    tab.picture("export")
    tab.page.get_by_role("button", name="Export", exact=True).click()
    expect(tab.page.locator("#export-about")).to_contain_text("Written", timeout=60_000)
    exported = folder / "exports" / "masks"
    assert len(list(exported.iterdir())) == frames
    for path in (folder / "masks").iterdir():
        np.testing.assert_array_equal(_read(exported / path.name), _read(path))
    tab.press("Escape")

    # A kill, and the same command.
    command.kill()
    tab.page.close()
    _settled(browser, command.address)
    command = start(*arguments)
    tab = browser.tab(command.address)
    tab.size = pictures[0].shape[:2]
    tab.saved()
    expect(tab.page.locator("#objects li")).to_have_count(3)
    expect(tab.page.locator("#redo")).to_be_enabled()
    tab.press("?")
    tab.picture("shortcuts")
    tab.press("Escape")
    command.process.terminate()
    command.process.wait(timeout=30)
    if PICTURES:
        print(f"screenshots are in {PICTURES}")


def _read(path):
    with Image.open(path) as image:
        return np.array(image)


def _middle(mask):
    rows, columns = np.nonzero(mask)
    return float(np.median(columns)), float(np.median(rows))


def _outline(mask):
    """Some corners of a mask's outline."""
    import cv2

    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(outlines, key=cv2.contourArea)
    return [tuple(map(float, point[0])) for point in cv2.approxPolyDP(largest, 2, True)]


def _paint(tab, mask):
    """Drag the brush along the middle of a mask."""
    rows, columns = np.nonzero(mask)
    along = np.linspace(columns.min() + 8, columns.max() - 8, 5)
    near = [rows[np.abs(columns - x) < 3].mean() for x in along]
    tab.drag(*zip(along.tolist(), map(float, near), strict=True))
