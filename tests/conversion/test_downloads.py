"""Published weights by name, from a local server that misbehaves on request."""

import dataclasses
import hashlib
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from s3_jax.checkpoints.model import CheckpointError, find_model, load_model
from s3_jax.config import MODELS
from s3_jax.conversion import downloads
from s3_jax.conversion.downloads import PUBLISHED, download
from s3_jax.conversion.torch_write import write_torch_file
from s3_jax.conversion.weights import to_torch
from s3_jax.errors import InputError

CONTENT = np.random.default_rng(0).bytes(300_000)
NAME = "test_weights"


class Server(http.server.ThreadingHTTPServer):
    """Server of one file, in ranges; `cut` is the number of bytes after which it disconnects."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.content, self.status, self.cut = CONTENT, 0, 0
        self.begins: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.pth"


class Answers(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.server.status:
            self.send_error(self.server.status)
            return
        begin = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.server.begins.append(begin)
        rest = self.server.content[begin:]
        self.send_response(206)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.server.cut or None])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    with Server() as running:
        monkeypatch.setenv(downloads.CACHE_VARIABLE, str(tmp_path / "cache"))
        published = dataclasses.replace(
            PUBLISHED["cutie_base_mega"], url=running.url, algorithm="sha256",
            digest=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT),
        )  # fmt: skip
        monkeypatch.setitem(PUBLISHED, NAME, published)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_a_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    file = download(NAME)
    assert file == tmp_path / "cache" / "weights.pth"
    assert file.read_bytes() == CONTENT
    assert download(NAME) == file
    assert server.begins == [0]


def test_a_connection_that_breaks_goes_on_where_it_was(server: Server) -> None:
    server.cut = 100_000
    assert download(NAME).read_bytes() == CONTENT
    assert server.begins == [0, 100_000, 200_000]


def test_what_was_left_by_a_killed_download_is_gone_on_from(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights.pth.part").write_bytes(CONTENT[:1234])
    assert download(NAME).read_bytes() == CONTENT
    assert server.begins == [1234]


def test_a_connection_that_always_breaks_is_given_up_and_kept(
    server: Server, tmp_path: Path
) -> None:
    server.cut = 10
    with pytest.raises(InputError, match=r"test_weights: the connection broke 4 times .*put it at"):
        download(NAME)
    assert (tmp_path / "cache" / "weights.pth.part").read_bytes() == CONTENT[:40]


def test_a_wrong_checksum_is_told_and_the_file_removed(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(InputError, match=r"sha256 of .*weights.pth.part was .*, so it is removed"):
        download(NAME)
    assert not list((tmp_path / "cache").glob("weights*"))


def test_a_file_put_there_by_hand_is_checked_too(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "cache" / "weights.pth"
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    assert download(NAME) == file
    file.write_bytes(b"something else")
    with pytest.raises(InputError, match=r"so it is removed"):
        download(NAME)
    assert server.begins == []


def test_a_missing_file_and_a_missing_network_name_what_to_fetch(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.status = 404
    by_hand = f"fetch {server.url} .* put it at {tmp_path}/cache/weights.pth"
    with pytest.raises(InputError, match=f"the server answers 404 Not Found; .*{by_hand}"):
        download(NAME)
    nowhere = dataclasses.replace(PUBLISHED[NAME], url="http://nowhere.invalid/weights.pth")
    monkeypatch.setitem(PUBLISHED, NAME, nowhere)
    with pytest.raises(InputError, match=r"fetch http://nowhere.invalid/weights.pth"):
        download(NAME)


def test_a_full_disk_is_told_before(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(InputError, match=r"MB are needed, but .*cache has 0 MB free"):
        download(NAME)


def test_two_processes_download_once(server: Server, tmp_path: Path) -> None:
    code = (
        "import dataclasses; from s3_jax.conversion.downloads import PUBLISHED, download\n"
        f"PUBLISHED['x'] = dataclasses.replace(PUBLISHED['cutie_base_mega'], url={server.url!r},"
        f" algorithm='sha256', digest={hashlib.sha256(CONTENT).hexdigest()!r})\n"
        "assert len(download('x').read_bytes()) == 300_000"
    )
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert server.begins == [0]


def test_a_network_is_converted_once_and_used_by_name(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, variables = load_model("s3_lite")
    write_torch_file(tmp_path / "lite.pth", to_torch(variables, config))
    server.content = (tmp_path / "lite.pth").read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()
    monkeypatch.setitem(PUBLISHED, NAME, dataclasses.replace(PUBLISHED[NAME], digest=digest))
    found, again = load_model(NAME)
    assert found == config == MODELS["s3_lite"]
    kernel = variables["params"]["pix_feat_proj"]["kernel"]
    np.testing.assert_array_equal(again["params"]["pix_feat_proj"]["kernel"], kernel)
    (tmp_path / "cache" / "weights.pth").unlink()
    assert find_model(NAME).parent == tmp_path / "cache"
    assert server.begins == [0]
    with pytest.raises(CheckpointError, match=r"or is downloaded .*test_weights"):
        find_model("no_such_network")
