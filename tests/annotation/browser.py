"""Debian's Chromium, driven through Playwright, and a server for it."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from playwright.sync_api import Page, expect, sync_playwright

from s3_jax.annotation.access import Access
from s3_jax.annotation.server import make_app
from s3_jax.annotation.studio import Studio

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PICTURES = os.environ.get("S3_JAX_SCREENSHOTS")  # directory for screenshots of the page
AXE = Path(__file__).with_name("axe.min.js")
expect.set_options(timeout=20_000)


@contextlib.contextmanager
def opened_browser() -> Iterator["Browser"]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Browser(chromium)
        chromium.close()


class Browser:
    """Tabs, with what they complain about and whom they ask.

    complaints: console errors and uncaught exceptions. requests: addresses asked for.
    """

    def __init__(self, chromium):
        self._context = chromium.new_context(viewport={"width": 1360, "height": 820})
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def tab(self, address: str) -> "Tab":
        page = self._context.new_page()
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.goto(address)
        return Tab(page)

    def _note(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


class Tab:
    """The page of `s3 annotate`, used as people do."""

    def __init__(self, page: Page):
        self.page = page
        self.size = (0, 0)

    def saved(self) -> None:
        """Wait until everything is saved."""
        expect(self.page.locator("#saved")).to_have_text("All changes saved")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of a video pixel on the screen, with the picture fitted."""
        height, width = self.size
        box = self.page.locator("#canvas").bounding_box()
        scale = min((box["width"] - 24) / width, (box["height"] - 24) / height)
        left = box["x"] + (box["width"] - width * scale) / 2
        top = box["y"] + (box["height"] - height * scale) / 2
        return left + x * scale, top + y * scale

    def drag(self, *points: tuple[float, float]) -> None:
        mouse = self.page.mouse
        mouse.move(*self.at(*points[0]))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.at(*point), steps=6)
        mouse.up()

    def click(self, x: float, y: float, button: str = "left") -> None:
        self.page.mouse.click(*self.at(x, y), button=button)

    def polygon(self, *points: tuple[float, float]) -> None:
        self.press("p")
        for point in points:
            self.click(*point)
        self.press("Enter")

    def seek(self, frame: int) -> None:
        self.press("Escape", "g")
        self.page.keyboard.insert_text(str(frame))
        self.press("Enter")
        expect(self.page.locator("#frame")).to_have_value(str(frame))

    def followed(self) -> None:
        """Wait for the end of following."""
        expect(self.page.locator("#running")).to_be_hidden(timeout=300_000)

    def follow(self, key: str) -> None:
        self.press(key)
        expect(self.page.locator("#running")).to_be_visible()
        self.followed()

    def about(self) -> str:
        return self.page.locator("#frame-about").inner_text()

    def picture(self, name: str) -> None:
        """Keep a screenshot where the environment asks for them."""
        if PICTURES:
            self.page.mouse.move(5, 400)
            self.page.wait_for_timeout(400)
            self.page.screenshot(path=Path(PICTURES) / f"{name}.png")

    def violations(self) -> list[str]:
        """Return the accessibility problems that axe finds."""
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']}: {one['nodes'][0]['html'][:120]}: {one['nodes'][0]['failureSummary']}"
            for one in found["violations"]
        ]


class Served:
    """A studio served on a port of its own, in a thread; it may go away and come back."""

    def __init__(self, studio: Studio, port: int = 0, token: str = "a-secret-token"):
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        access = Access(token, "127.0.0.1", self.port)
        self.address = access.address()
        config = uvicorn.Config(
            make_app(studio, access), log_level="error", ws="websockets-sansio",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


class Command:
    """`s3 annotate` as a process."""

    def __init__(self, *arguments: object):
        words = [sys.executable, "-m", "s3_jax", "annotate", *map(str, arguments), "--nobrowser"]
        self.process = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"S3_JAX_CACHE": str(ROOT / ".cache/xla"), "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        self.address = self.warned = ""
        for line in self.process.stdout or ():
            if found := re.match(r"page:\s+(\S+)", line):
                self.address = found[1]
                break
            self.warned += line

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
