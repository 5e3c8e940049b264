"""Pages of the site that are not in docs/: README, model card, notebooks, and the API reference.

A link from a page to a file of the repository leads to that file's page of the site, for Python
files to the reference of their room. Files that have no page there are named without a link.
"""

import base64
import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "s3_jax"
# Pages made of files outside docs/, by the name of the page.
PAGES = {
    "readme.md": "README.md",
    "model_card.md": "s3_jax/checkpoints/s3_lite/README.md",
}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s:#]+)(#[^)\s]*)?\)")
PICTURE = re.compile(r"(!\[[^\]]*\])\(([^)\s:#]+)\)")


def rooms() -> list[str]:
    """Return the packages and modules directly below s3_jax that the reference has a page for."""
    found = [p.parent if p.name == "__init__.py" else p for p in PACKAGE.glob("*/__init__.py")]
    found += [p for p in PACKAGE.glob("*.py") if not p.stem.startswith("__")]
    return sorted(path.stem for path in found)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add pages of docs/ that no section names, and a page of the reference for every room."""
    assert config.nav is not None
    named = json.dumps(config.nav)
    docs = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    more = [name for name in docs if f'"{name}"' not in named]
    reference = [{f"s3_jax.{room}": f"reference/{room}.md"} for room in rooms()]
    config.nav[-1:] = [{"More": more}] if more else []
    config.nav.append({"Reference": ["reference/index.md", *reference]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose sources are outside docs/."""
    for name, source in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
        content = notebook_page(json.loads(notebook.read_text()))
        files.append(File.generated(config, f"examples/{notebook.stem}.md", content=content))
    for room in rooms():
        content = f"# {room}\n\n::: s3_jax.{room}\n"
        files.append(File.generated(config, f"reference/{room}.md", content=content))
    files.append(File.generated(config, "reference/index.md", content=reference_index()))
    return files


def reference_index() -> str:
    """Return the page of the names that `import s3_jax` offers."""
    table = re.search(r"_MODULES = \{(.*?)\n\}", (PACKAGE / "__init__.py").read_text(), re.DOTALL)
    assert table is not None
    lines = ["# What `import s3_jax` offers", ""]
    for module, names in re.findall(r'"(s3_jax[\w.]*)": \((.*?)\)', table[1]):
        for name in re.findall(r'"(\w+)"', names):
            lines += [f"::: {module}.{name}", "    options: {skip_local_inventory: true}", ""]
    return "\n".join(lines)


def notebook_page(notebook: dict) -> str:
    """Return a notebook as Markdown: text, code, and what the code printed and drew."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [output_text(output) for output in cell.get("outputs", ())]
    return "\n\n".join(parts) + "\n"


def output_text(output: dict) -> str:
    """Return one output of a cell: pictures where there are some, otherwise text."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            picture = base64.b64encode(base64.b64decode("".join(data[kind]))).decode()
            return f'<img alt="What the cell above draws" src="data:{kind};base64,{picture}">'
    return f"```text\n{''.join(data['text/plain']).rstrip()}\n```"


def on_page_markdown(markdown: str, page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that leave docs/ to pages of the site, or name their files."""
    source = source_of(page.file.src_uri)
    folder = posixpath.dirname(source)
    here = posixpath.dirname(page.file.src_uri)

    def to_page(link: str) -> str | None:
        path = posixpath.normpath(posixpath.join(folder, link))
        if not (ROOT / path).exists():
            return None  # left as it is: MkDocs reports it
        page, hash_, anchor = page_of(path).partition("#")
        found = page in files.src_uris
        return posixpath.relpath(page, here or ".") + hash_ + anchor if found else ""

    def move(match: re.Match) -> str:
        text, link, anchor = match.groups()
        to = to_page(link)
        if to is None:
            return match[0]
        if anchor:
            to = to.partition("#")[0] + anchor
        return f"[{text}]({to})" if to_page(link) else text

    def move_picture(match: re.Match) -> str:
        return f"{match[1]}({to_page(match[2]) or match[2]})"

    return PICTURE.sub(move_picture, LINK.sub(move, markdown))


def source_of(page: str) -> str:
    """Return the path in the repository of a page's source."""
    if page.startswith(("examples/", "reference/")):
        return page
    return PAGES.get(page, f"docs/{page}")


def page_of(path: str) -> str:
    """Return the page of the site that would show a file of the repository."""
    shown = {source: page for page, source in PAGES.items()}
    if path in shown:
        return shown[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("s3_jax/") and path.endswith(".py"):
        room = path.split("/")[1].removesuffix(".py")
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return f"reference/{room}.md#{module}"
    return re.sub(r"\.ipynb$", ".md", path)
