import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from s3_jax.benchmarks.report import Report
from s3_jax.benchmarks.report_page import write_page
from s3_jax.benchmarks.worst_frames import WorstFrame
from tests.benchmarks.reports import BEAR, BUS, WORSE_BEAR, entry, report, sequence

VOID_ELEMENTS = {"meta", "img", "br", "polyline", "line", "circle"}


class Page(HTMLParser):
    """Text, attributes and the balance of tags."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(tmp_path: Path, of: Report, pictures=None) -> Page:
    write_page(tmp_path / "report.html", of, pictures or {})
    parsed = Page((tmp_path / "report.html").read_text())
    assert parsed.open == []
    return parsed


def test_one_file_that_loads_nothing(tmp_path: Path) -> None:
    picture = WorstFrame("00002", 0.6, 0.2, b"\xff\xd8jpeg")
    parsed = page(tmp_path, report(("ours", [BEAR, BUS])), {"bear": [[picture]]})
    links = [a.get("src") or a.get("href") or "" for _, a in parsed.tags]
    assert all(link.startswith(("data:", "#")) for link in links if link)
    text = (tmp_path / "report.html").read_text()
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not any(name in text for name in ("@import", "url(", "fetch(", "XMLHttpRequest"))


def test_numbers_and_curves_are_there_without_the_script(tmp_path: Path) -> None:
    parsed = page(tmp_path, report(("ours", [BEAR, BUS])))
    for value in ("75.0", "20.0", "66.7"):
        assert value in parsed.text
    assert {a["id"] for a in parsed.all("details")} == {"sequence-bear", "sequence-bus"}
    lines = {a["data-name"]: a["points"] for a in parsed.all("polyline") if "data-name" in a}
    assert set(lines) == {"object 1", "object 2", "J", "F"}
    assert lines["object 1"] == "36.0,41.2 748.0,72.4", "0.8, 0.6 between 10 (1) and 166 (0)"
    assert {a["href"] for a in parsed.all("a")} == {"#sequence-bear", "#sequence-bus"}


def test_results_side_by_side(tmp_path: Path) -> None:
    row = [WorstFrame("00002", 0.6, 0.2, b"a"), WorstFrame("00002", 0.1, 0.1, b"b")]
    both = report(("ours", [BEAR]), ("theirs", [WORSE_BEAR]))
    parsed = page(tmp_path, both, {"bear": [row]})
    assert [a["data-name"] for a in parsed.all("polyline") if "data-name" in a] == [
        "ours", "theirs",
    ]  # fmt: skip
    assert "ours, frame 00002: J 60.0, F 20.0" in parsed.text
    assert "theirs, frame 00002: J 10.0, F 10.0" in parsed.text
    assert "Spread" in parsed.text and "67.5" in parsed.text


@pytest.mark.parametrize("name", ['<b>"x"&', "two words", "ü"])
def test_names_are_text(tmp_path: Path, name: str) -> None:
    parsed = page(tmp_path, report((name, [sequence(name, entry(1, [0.5], [0.5]))])))
    assert name in parsed.text
    (target,) = (a["id"] for a in parsed.all("details"))
    assert parsed.all("a")[0]["href"] == f"#{target}"


def test_notes_are_shown(tmp_path: Path) -> None:
    incomplete = sequence("bear", entry(1, [0.0], [0.0]), missing=["00001"])
    assert any("lacks 1 masks" in text for text in page(tmp_path, report(("r", [incomplete]))).text)
