"""Networks on the Hugging Face Hub, which a local server stands in for."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from s3_jax.checkpoints.hub import parse, push_model
from s3_jax.checkpoints.model import find_model, load_model, save_model
from s3_jax.errors import InputError
from tests.support.tiny_models import NARROW, tiny_variables

pytest.importorskip("huggingface_hub")


class Hub:
    """Repositories with one revision each: files by name."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.down = False

    def commit(self, repo: str) -> str:
        return hashlib.sha1(repr(sorted(self.repos[repo].items())).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """What `huggingface_hub` asks when it uploads a folder and downloads a snapshot."""

    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self.path.strip("/").split("/")
        if parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.hub.repos.setdefault(name, {})
            self.answer({"url": f"https://huggingface.co/{name}", "name": name})
        elif parts == ["api", "validate-yaml"]:
            self.answer({"errors": [], "warnings": []})
        elif parts[-2] == "preupload":
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for f in files]  # fmt: skip
            self.answer({"files": modes})
        elif parts[-2] == "commit":
            self.take("/".join(parts[2:4]), body)
        else:
            self.answer({"error": self.path}, 404)

    def take(self, repo: str, body: bytes) -> None:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.hub.repos[repo][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "deletedFile":
                del self.hub.repos[repo][value["path"]]
        commit = self.hub.commit(repo)
        url = f"https://huggingface.co/{repo}/commit/{commit}"
        self.answer({"commitUrl": url, "commitOid": commit, "success": True})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.hub.down:
            self.answer({"error": "down"}, 503)
            return
        path, _, _ = self.path.partition("?")
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repo = "/".join(parts[2:4])
            if repo not in self.hub.repos:
                self.answer({"error": "Repository not found"}, 404, "RepoNotFound")
                return
            files = self.hub.repos[repo]
            if "tree" in parts:
                self.answer([{"type": "file", "path": n, "size": len(x), "oid": "0" * 40}
                             for n, x in files.items()])  # fmt: skip
            else:
                self.answer({"id": repo, "sha": self.hub.commit(repo),
                             "siblings": [{"rfilename": name} for name in files]})  # fmt: skip
            return
        repo, name = "/".join(parts[:2]), "/".join(parts[4:])
        if name not in self.hub.repos.get(repo, {}):
            self.answer({"error": self.path}, 404)
            return
        content = self.hub.repos[repo][name]
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.hub.commit(repo))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def answer(self, value: Any, code: int = 200, error: str = "") -> None:
        content = json.dumps(value).encode()
        self.send_response(code)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_network_goes_to_the_hub_and_comes_back(hub: Hub, tmp_path: Path) -> None:
    variables = tiny_variables(NARROW, seed=0)
    save_model(tmp_path / "model", NARROW, variables, metadata={"licence": "MIT"})
    page = push_model(tmp_path / "model", "hf://me/cats")
    assert page.endswith("/me/cats")
    files = hub.repos["me/cats"]
    assert b"s3 segment --checkpoint=hf://me/cats" in files["README.md"]
    assert b"license_name: MIT" in files["README.md"]
    config, found = load_model("hf://me/cats")
    assert config == NARROW
    jax.tree.map(np.testing.assert_array_equal, found["params"], variables["params"])
    hub.down = True  # what is in the cache needs no network
    assert load_model("hf://me/cats")[0] == NARROW


def test_a_second_push_leaves_nothing_of_the_first(hub: Hub, tmp_path: Path) -> None:
    for seed in (0, 1):
        save_model(tmp_path / "model", NARROW, tiny_variables(NARROW, seed=seed))
        push_model(tmp_path / "model", "hf://me/cats")
    assert len([name for name in hub.repos["me/cats"] if name.startswith("d/")]) >= 1
    stored = {p.relative_to(tmp_path / "model").as_posix()
              for p in (tmp_path / "model").rglob("*") if p.is_file()}  # fmt: skip
    assert set(hub.repos["me/cats"]) - {"README.md"} <= stored
    found = load_model("hf://me/cats")[1]
    jax.tree.map(
        np.testing.assert_array_equal, found["params"], tiny_variables(NARROW, seed=1)["params"]
    )


def test_what_cannot_be_had_is_said_in_a_line(hub: Hub) -> None:
    with pytest.raises(
        InputError, match=r"^hf://me/none cannot be downloaded \(.*hf download me/none"
    ):
        find_model("hf://me/none")
    hub.repos["me/other"] = {"weights.pth": b"x"}
    with pytest.raises(InputError, match=r"hf://me/other has no config\.json.*s3 convert"):
        find_model("hf://me/other")
    with pytest.raises(InputError, match="write it like hf://org/name"):
        find_model("hf://me")


def test_addresses() -> None:
    assert parse("hf://me/cats") == ("me/cats", None)
    assert parse("hf:/me/cats@v1.0") == ("me/cats", "v1.0")
