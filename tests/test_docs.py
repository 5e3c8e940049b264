"""Citations in the code and links in the documents lead to something that exists."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3_jax.benchmarks.datasets import BenchmarkConfig
from s3_jax.config import PropagationConfig

ROOT = Path(__file__).parent.parent
ROOTS = (ROOT, ROOT / "s3_jax", ROOT / "tests")  # of paths in documents
ROOMS = ("s3_jax", "tools", "configs", "tests", "docs", "examples")
# These tests' own examples are dangling on purpose.
CODE = sorted(
    {file for room in ROOMS for file in (ROOT / room).rglob("*.py")} - {Path(__file__).resolve()}
)
DOCUMENTS = sorted(
    {*ROOT.glob("*.md")}
    | {file for room in ROOMS for kind in ("*.md", "*.ipynb") for file in (ROOT / room).rglob(kind)}
)
NUMBERS = r"\d[\d.]*\b(?:(?:,? and |,? to |, )\d[\d.]*\b)*"
CITATION = re.compile(rf"(?<![\w/])([\w/.-]+\.md)\b`?(?:[,:]? sections? ({NUMBERS}))?")
PAPER = re.compile(rf"\bpaper(?:'s)? sections? ({NUMBERS})", re.IGNORECASE)
CONTRACT = {"network.md", "propagation.md", "protocol.md"}
LINK = re.compile(r"\]\(<?([^)\s>]+)|(?:src|href)=\"([^\"]+)\"|^\[[^\]]+\]: *(\S+)", re.MULTILINE)
HAND_MADE = re.compile(r"(?:id|name)=\"([^\"]+)\"|\{#([\w-]+)\}")
MODULE = re.compile(r"`((?:\w+/)+\w+\.py)`(?: \(((?:`\w+`(?:, )?)+)\))?")


def read(file: Path) -> str:
    """The text of a file; of a notebook, that of its Markdown."""
    if file.suffix != ".ipynb":
        return file.read_text()
    cells = json.loads(file.read_text())["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def joined(text: str) -> str:
    """The text on one line, without comment signs."""
    return re.sub(r"\s*\n\s*(?:# ?)?", " ", text)


def numbered_sections(document: Path) -> set[str]:
    return set(re.findall(r"^#+ (\d+(?:\.\d+)*)\.? ", document.read_text(), re.MULTILINE))


def paper_sections() -> set[str]:
    """Those that the network's document assigns to something."""
    text = (ROOT / "docs" / "network.md").read_text()
    return set(re.findall(r"^\| section ([\d.]+) \|", text, re.MULTILINE))


def numbers(found: str) -> list[str]:
    return [number.rstrip(".") for number in re.split(r"[^\d.]+", found)]


def citations(text: str) -> Iterator[tuple[str, str]]:
    """Documents in docs/ that a text names, and sections of them or of the paper ("" for none)."""
    line = re.sub(r"\[[^\]]*\]\([^)]*\)", "", joined(text))  # links are followed by themselves
    for name, sections in CITATION.findall(line):
        if name.startswith("docs/") or name in CONTRACT:
            yield from ((name, section) for section in numbers(sections) if section or not sections)
    for sections in PAPER.findall(line):
        yield from (("paper", section) for section in numbers(sections))


def dangling_citations(text: str) -> list[str]:
    def resolves(name: str, section: str) -> bool:
        if name == "paper":
            return section in paper_sections()
        document = ROOT / name
        return document.is_file() and (not section or section in numbered_sections(document))

    return [" ".join(found) for found in citations(text) if not resolves(*found)]


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub makes of headings, and those given by hand."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = {one or other for one, other in HAND_MADE.findall(text)}
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#+ +(.+?) *#*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def links(text: str) -> list[str]:
    """Relative links of a document; what stands in code is none."""
    prose = re.sub(r"^ *```.*?^ *```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    found = ("".join(groups) for groups in LINK.findall(prose))
    return [link for link in found if not re.match(r"[a-z][a-z+.-]*:", link)]


def dangling_links(text: str, document: Path) -> list[str]:
    def resolves(link: str) -> bool:
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or not target.is_relative_to(ROOT.resolve()):
            return False
        return not anchor or target.suffix != ".md" or anchor in anchors(target)

    return [link for link in links(text) if not resolves(link)]


def dangling_modules(text: str) -> list[str]:
    """Paths of modules that do not exist, and names listed after one that it does not define."""
    problems = []
    for path, names in MODULE.findall(joined(text)):
        files = [base / path for base in ROOTS if (base / path).is_file()]
        source = files[0].read_text() if files else ""
        defined = re.findall(r"^(?:def |class |)(\w+)\b(?= ?[(:=])", source, re.MULTILINE)
        problems += [] if files else [path]
        problems += [f"{path} {n}" for n in re.findall(r"\w+", names) if n not in defined]
    return problems


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


CITED = {file: set(citations(read(file))) for file in (*CODE, *DOCUMENTS)}


@pytest.mark.parametrize("file", [file for file in CITED if CITED[file]], ids=relative)
def test_citations_resolve(file: Path) -> None:
    assert dangling_citations(read(file)) == []


@pytest.mark.parametrize("file", DOCUMENTS, ids=relative)
def test_links_and_anchors_resolve(file: Path) -> None:
    assert dangling_links(read(file), file) == []


@pytest.mark.parametrize("file", DOCUMENTS, ids=relative)
def test_modules_that_documents_name_exist(file: Path) -> None:
    assert dangling_modules(read(file)) == []


@pytest.mark.parametrize("name", ["network.md", "propagation.md"])
def test_the_contract_is_cited(name: str) -> None:
    assert any(cited == f"docs/{name}" for file in CODE for cited, _ in CITED[file])


@pytest.mark.parametrize(
    "text",
    [
        "see docs/nowhere.md",
        "network.md section 4",
        "docs/network.md, section 99",
        "docs/network.md, sections 2.1 to 2.99",
        "docs/network.md section 6.\n# section 7: protocol.md",
        "the paper's section 9.9",
    ],
)
def test_a_dangling_citation_is_found(text: str) -> None:
    assert len(dangling_citations(text)) == 1


@pytest.mark.parametrize(
    "text",
    ["[x](nowhere.md)", "[x](network.md#nowhere)", "[x](#nowhere)", '<img src="no.png">',
     "[x](../../outside)", "[x]: nowhere.md"],
)  # fmt: skip
def test_a_dangling_link_is_found(text: str) -> None:
    assert len(dangling_links(text, ROOT / "docs" / "network.md")) == 1


def test_links_in_code_are_none() -> None:
    assert links("`a[i](nowhere)`\n```\nb[i](nowhere)\n```\n") == []


def test_a_dangling_module_is_found() -> None:
    text = "`models/s3.py` (`S3`, `Nothing`), `models/nothing.py`"
    assert dangling_modules(text) == ["models/s3.py Nothing", "models/nothing.py"]


def test_the_defaults_of_the_contract_are_those_of_the_code() -> None:
    """Section 2.6 names every default of the memory, and benchmarks change none of them."""
    text = (ROOT / "docs" / "propagation.md").read_text()
    table = text.split("### 2.6 ")[1].split("\n### ")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([\d, ]+?) \|", table, re.MULTILINE)
    stated = {
        name: int(value.replace(",", ""))
        for names, values in rows
        for name, value in zip(names.replace("`", "").split(", "), values.split(", "), strict=True)
    }
    assert "max_mem_frames" in stated
    assert stated.items() <= dataclasses.asdict(PropagationConfig()).items()
    assert not BenchmarkConfig(short_side=480).propagation().keys() & stated.keys()
