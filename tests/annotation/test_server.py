"""The server as seen by a browser, and by hostile clients."""

import json
import threading

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from s3_jax.annotation.access import Access
from s3_jax.annotation.beginning import cells_of_import
from s3_jax.annotation.document import Document
from s3_jax.annotation.export import FORMATS
from s3_jax.annotation.importing import Imported
from s3_jax.annotation.messages import LARGEST
from s3_jax.annotation.server import make_app
from s3_jax.annotation.strokes import pieces_at
from s3_jax.annotation.view import mask_message, view_size
from s3_jax.errors import InputError
from s3_jax.media.mask_files import read_mask
from tests.annotation.projects import COUNT, SIZE, open_studio

TOKEN = "a-secret-token"
HOST = "127.0.0.1:8333"
ORIGIN = {"host": HOST, "origin": f"http://{HOST}"}


@pytest.fixture
def studio(tmp_path):
    return open_studio(tmp_path / "project")


@pytest.fixture
def client(studio):
    app = make_app(studio, Access(TOKEN, "127.0.0.1", 8333))
    with TestClient(app, base_url=f"http://{HOST}") as client:
        yield client


class Page:
    """A page's side of the connection."""

    def __init__(self, socket, name="page-0001"):
        self.socket, self.seq = socket, 0
        self.say(type="hello", page=name)
        self.welcome = self.until("welcome")
        self.state = self.until("state")

    def say(self, **message):
        self.socket.send_text(json.dumps(message))

    def change(self, **message):
        self.seq += 1
        self.say(seq=self.seq, **message)
        return self.until("ack", "refused")

    def edit(self, tool="brush", frame=0, points=((20, 20), (30, 20)), object=1, **more):
        values = {"size": 6, "label": 1, "points": [list(p) for p in points], **more}
        return self.change(type="edit", tool=tool, frame=frame, object=object, **values)

    def add(self, id_=1, name="Cat"):
        return self.change(type="object", object=id_, name=name, colour="#ff6b5e")

    def next(self):
        message = self.socket.receive()
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        if message.get("bytes") is not None:
            return _mask(message["bytes"])
        return json.loads(message["text"])

    def until(self, *types):
        while (message := self.next())["type"] not in types:
            if message["type"] == "state":
                self.state = message
        return message


def _mask(data):
    length = int(np.frombuffer(data[:4], "<u4")[0])
    about = json.loads(data[4 : 4 + length])
    ends, ids = np.frombuffer(data[4 + length :], "<u4").reshape(2, -1)
    pixels = np.repeat(ids, np.diff(ends, prepend=0))
    return {**about, "ids": pixels.reshape(about["height"], about["width"])}


@pytest.fixture
def connect(client):
    def open_socket(token=TOKEN, **headers):
        return client.websocket_connect(f"/{token}/talk", headers={**ORIGIN, **headers})

    return open_socket


def test_the_page_and_its_parts(client):
    page = client.get(f"/{TOKEN}/")
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name, kind in (("page.js", "javascript"), ("page.css", "css"), ("icon.svg", "svg")):
        assert kind in client.get(f"/{TOKEN}/{name}").headers["content-type"]


def test_frames_are_pictures(client, studio):
    picture = client.get(f"/{TOKEN}/frame/7")
    assert picture.headers["content-type"] == "image/jpeg"
    shown = cv2.imdecode(np.frombuffer(picture.content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(shown.astype(int) - studio.frames.image(7)).mean() < 10
    assert client.get(f"/{TOKEN}/frame/{COUNT}").status_code == 404


def test_a_damaged_frame_is_no_error_of_the_page(client, studio, monkeypatch):
    def damaged(index):
        raise InputError("frame 3 is damaged")

    monkeypatch.setattr(studio.frames, "image", damaged)
    answer = client.get(f"/{TOKEN}/frame/3")
    assert (answer.status_code, answer.content) == (204, b"")


def test_pictures_of_4k_are_reduced_and_masks_are_not(tmp_path):
    ids = np.zeros((2160, 3840), np.int32)
    ids[1000:1100, 1000:1100] = 300
    shown = _mask(mask_message(ids, {"frame": 0}))["ids"]
    assert shown.shape == view_size((2160, 3840)) == (1080, 1920)
    np.testing.assert_array_equal(shown, ids[::2, ::2])
    document = Document(tmp_path / "history.jsonl", (2160, 3840))
    look = {"name": "Big", "colour": "#ffffff"}
    document.start({("object", 300): look, **document.painted(0, 0 * ids, ids)})
    np.testing.assert_array_equal(document.compose(0, None), ids)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/page.js",
        "/wrong/",
        "/wrong/page.js",
        f"/{TOKEN[:-1]}/",
        f"//{TOKEN}/",
        "/wrong/frame/0",
    ],
)
def test_nothing_is_told_without_the_token(client, path):
    answer = client.get(path)
    assert answer.status_code == 403
    assert "token" in answer.text


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2fserver.py", "page/../../server.py",
     "frame/../../../etc/passwd", "frame/-1", "frame/0.5", "frame/1e3", "frame/%00", "server.py"],
)  # fmt: skip
def test_no_path_leads_elsewhere(client, path):
    answer = client.get(f"/{TOKEN}/{path}")
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8333"},
        {"host": "127.0.0.1"},
        {"host": "127.0.0.1:8334"},
        {"host": ""},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
    ],
)
def test_other_sites_are_refused(client, connect, headers):
    assert client.get(f"/{TOKEN}/", headers=headers).status_code == 403
    with pytest.raises(WebSocketDisconnect) as refused, connect(**headers):
        pass
    assert refused.value.code == 1008


def test_a_connection_needs_an_origin_and_the_token(client, connect):
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"/{TOKEN}/talk"):
        pass
    with pytest.raises(WebSocketDisconnect), connect(token="wrong"):
        pass


def test_localhost_is_this_machine_too(client):
    assert client.get(f"/{TOKEN}/", headers={"host": "localhost:8333"}).status_code == 200


def test_all_interfaces_serve_addresses_in_numbers_only(studio):
    app = make_app(studio, Access(TOKEN, "0.0.0.0", 8333))
    client = TestClient(app)
    assert client.get(f"/{TOKEN}/", headers={"host": "192.168.7.5:8333"}).status_code == 200
    assert client.get(f"/{TOKEN}/", headers={"host": "evil.example:8333"}).status_code == 403


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 10_000, "not JSON"),
        ("[]", "must have one of the types"),
        ('{"type": "drop"}', "must have one of the types"),
        ('{"type": "look"}', "needs the field 'frame'"),
        ('{"type": "look", "frame": -1}', "must be a whole number"),
        ('{"type": "look", "frame": 1.5}', "must be a whole number"),
        ('{"type": "look", "frame": true}', "must be a whole number"),
        ('{"type": "look", "frame": 0, "path": "/etc"}', "has no field 'path'"),
        ('{"type": "hello", "page": "../.."}', "must be 8 to 64 letters"),
        ('{"type": "undo", "seq": 0}', "must be a whole number"),
    ],
)
def test_malformed_messages_end_the_connection(connect, text, said):
    with connect() as socket:
        page = Page(socket)
        socket.send_text(text)
        assert said in page.until("refused")["text"]
        with pytest.raises(WebSocketDisconnect) as ended:
            page.until("nothing")
    assert ended.value.code == 1008


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("points", [[1, 2, 3]], "two numbers"),
        ("points", [["a", "b"]], "number"),
        ("points", [[1e9, 0]], "ordinary size"),
        ("points", [[0, 0]] * 20_001, "at most 20000"),
        ("size", 0, "0.5 to 4096"),
        ("size", "6", "number"),
        ("tool", "rm -rf", "one of"),
        ("label", 2, "whole number"),
    ],
)
def test_malformed_edits_are_refused_with_their_number(connect, field, value, said):
    message = {"type": "edit", "seq": 4, "frame": 0, "object": 1, "tool": "brush", "size": 6,
               "points": [[1, 1]], "label": 1}  # fmt: skip
    with connect() as socket:
        page = Page(socket)
        page.say(**{**message, field: value})
        refused = page.until("refused")
    assert (refused["seq"], said in refused["text"]) == (4, True)


@pytest.mark.parametrize(("data", "code"), [("x" * (LARGEST + 1), 1009), (b"bytes", 1008)])
def test_huge_and_binary_messages_end_the_connection(connect, data, code):
    with connect() as socket:
        page = Page(socket)
        (socket.send_bytes if isinstance(data, bytes) else socket.send_text)(data)
        with pytest.raises(WebSocketDisconnect) as ended:
            page.until("nothing")
    assert ended.value.code == code


def test_painting_shows_at_once_and_is_undone_and_redone(connect, studio):
    with connect() as socket:
        page = Page(socket)
        assert page.welcome["frames"] == COUNT
        page.add()
        assert page.edit()["saved"]
        painted = page.until("mask")
        assert (painted["frame"], painted["ids"].sum() > 50) == (0, True)
        np.testing.assert_array_equal(painted["ids"], studio.shown(0))
        page.change(type="undo")
        assert not page.until("mask")["ids"].any()
        page.change(type="redo")
        np.testing.assert_array_equal(page.until("mask")["ids"], painted["ids"])


def test_a_change_that_is_sent_twice_is_done_once(connect, studio):
    with connect() as socket:
        page = Page(socket)
        page.add()
        page.edit()
        page.seq -= 1
        page.edit(points=[(5, 40)])
    assert len(studio.document._done) == 2
    assert studio.shown(0)[40, 5] == 0


def test_objects_are_followed_and_masks_stream(connect, studio):
    with connect() as socket:
        page = Page(socket)
        page.add()
        page.edit()
        page.until("mask")
        page.say(type="propagate", first=0, last=COUNT - 1, direction="forward")
        seen, progress = {}, []
        while (message := page.next()) and not (
            message["type"] == "progress" and progress and not message["doing"]
        ):
            if message["type"] == "mask":
                seen[message["frame"]] = message
            if message["type"] == "progress" and message["doing"]:
                progress.append(message)
    assert list(seen) == list(range(COUNT))
    assert progress[-1]["done"] == COUNT
    assert progress[-1]["rate"] > 0
    np.testing.assert_array_equal(seen[9]["ids"], np.roll(seen[0]["ids"], 9, axis=1))
    assert seen[9]["confidence"] == {"1": 75}
    assert sorted(f.name for f in (studio.project.path / "masks").iterdir())[-1] == "00019.png"


def test_nothing_to_follow_is_said(connect):
    with connect() as socket:
        page = Page(socket)
        page.say(type="propagate", first=0, last=3, direction="forward")
        assert "paint one first" in page.until("refused")["text"]


def test_a_second_tab_takes_over_and_nothing_is_lost(connect, studio):
    with connect() as first:
        page = Page(first)
        page.add()
        page.edit()
        with connect() as second:
            other = Page(second, "page-0002")
            with pytest.raises(WebSocketDisconnect) as ended:
                page.until("nothing")
            assert ended.value.code == 4001
            assert other.state["annotated"] == [0]
            other.edit(frame=3)
            assert other.state["annotated"] == [0, 3]


def test_a_killed_project_is_as_it_was(connect, studio):
    with connect() as socket:
        page = Page(socket)
        page.add()
        page.edit()
        page.edit(frame=4, points=[(40, 10), (50, 10), (50, 20)], tool="polygon")
        page.change(type="undo")
    studio.project.close()
    again = open_studio(studio.project.path)
    np.testing.assert_array_equal(again.shown(0), studio.shown(0))
    assert again.state() | {"version": 0} == studio.state() | {"version": 0}
    assert again.document.is_known(("page-0001", 4))
    again.close()


def test_a_full_disk_loses_nothing(connect, studio, monkeypatch):
    def full(self, text):
        raise OSError(28, "No space left on device")

    with connect() as socket:
        page = Page(socket)
        page.add()
        with monkeypatch.context() as patch:
            patch.setattr("s3_jax.annotation.journal.Journal._write", full)
            assert not page.edit()["saved"]
            assert "No space left" in page.until("saved")["problem"]
            assert page.until("mask")["ids"].any()
        studio.flush()
        assert page.until("saved")["problem"] == ""
    studio.project.close()
    again = open_studio(studio.project.path)
    np.testing.assert_array_equal(again.shown(0), studio.shown(0))
    again.close()


def test_clicks_and_boxes_ask_the_prompt_head(connect):
    with connect() as socket:
        page = Page(socket)
        page.add()
        page.edit(tool="click", points=[(5, 5)])
        ids = page.until("mask")["ids"]
        assert ids[:, : SIZE[1] // 2].all()
        assert not ids[:, SIZE[1] // 2 :].any()
        assert page.edit(tool="click", points=[])["text"] == "a click needs a point"
        assert page.edit(tool="box", points=[(1, 1)])["text"] == "a box needs two points"
        page.edit(tool="box", points=[(20, 30), (10, 10)], frame=1)
        ids = page.until("mask")["ids"]
        assert ids[10:30, 10:20].all()
        assert ids.sum() == 200


def test_exports_equal_what_is_shown(connect, studio):
    with connect() as socket:
        page = Page(socket)
        page.add()
        page.edit()
        page.edit(frame=7, points=[(40, 30), (50, 30)])
        for layout in FORMATS:
            page.say(type="export", format=layout)
            exported = page.until("exported", "problem")
            assert exported["path"].startswith(str(studio.project.path / "exports"))
        page.say(type="export", format="exe")
        assert "no layout 'exe'" in page.until("refused")["text"]
    masks = studio.project.path / "exports" / "masks"
    assert sorted(path.name for path in masks.iterdir()) == ["00000.png", "00007.png"]
    for frame in (0, 7):
        written = read_mask(masks / f"{frame:05d}.png").ids
        np.testing.assert_array_equal(written, studio.shown(frame))


def test_masks_of_other_programs_begin_a_project(studio, tmp_path):
    document, made = studio.document, np.zeros(SIZE, bool)
    made[10:20, 10:30] = True
    document.start(cells_of_import(Imported(lambda: iter([(3, {4: made})]), {4: "Koi"})))
    assert document.objects[4]["name"] == "Koi"
    np.testing.assert_array_equal(studio.shown(3), 4 * made)
    assert document.new_object()[0] == 5
    assert document.undoable == ""


def test_a_click_takes_the_piece_that_it_is_on():
    mask = np.zeros(SIZE, bool)
    mask[5:10, 5:10] = mask[20:30, 40:50] = True
    assert pieces_at(mask, [(7.5, 6.5)]).sum() == 25
    assert pieces_at(mask, [(7.5, 6.5), (45.0, 25.0)]).sum() == 125
    assert pieces_at(mask, [(0.0, 0.0)]).sum() == 125


def test_without_a_prompt_head_clicks_say_so(tmp_path):
    def missing():
        raise ImportError("no head here")

    studio = open_studio(tmp_path / "project", missing)
    app = make_app(studio, Access(TOKEN, "127.0.0.1", 8333))
    with (
        TestClient(app, base_url=f"http://{HOST}") as client,
        client.websocket_connect(f"/{TOKEN}/talk", headers=ORIGIN) as socket,
    ):
        page = Page(socket)
        assert page.until("prompts")["problem"] == "no head here"
        page.add()
        assert page.edit(tool="click", points=[(5, 5)])["text"] == "no head here"


def test_no_thread_is_left(tmp_path):
    before = set(threading.enumerate())
    open_studio(tmp_path / "project").close()
    assert set(threading.enumerate()) <= before
