"""HTTP server for the page and its WebSocket connection, on this machine."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from s3_jax.annotation.access import Access, Guard
from s3_jax.annotation.messages import LARGEST, parse
from s3_jax.annotation.studio import Outgoing, Studio
from s3_jax.annotation.view import jpeg
from s3_jax.errors import InputError

_PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
TAKEN_OVER, REFUSED, TOO_LARGE = 4001, 1008, 1009  # WebSocket close codes
_WAITING = 256  # queued messages beyond which masks are dropped; the page requests them again
_RETRY = 3.0  # seconds between attempts to write to a full disk


def make_app(studio: Studio, access: Access) -> Starlette:
    """Return the application that serves one project."""
    server = _Server(studio)
    routes = [
        Route("/frame/{index:int}", server.frame),
        WebSocketRoute("/talk", server.talk),
        *(Route(f"/{name}", _file(*about)) for name, about in _PAGE.items()),
    ]
    return Starlette(
        routes=[Mount("/{token}", routes=routes)],
        middleware=[Middleware(Guard, access=access)],
        lifespan=server.life,
    )


class _Server:
    """The project's studio, and the one page that is connected to it."""

    def __init__(self, studio: Studio) -> None:
        self._studio, self._frames = studio, studio.frames
        self._page: _Page | None = None
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def life(self, app: Starlette) -> AsyncIterator[None]:
        """Forward the studio's messages to the page while the server runs."""
        loop = asyncio.get_running_loop()

        def publish(message: Outgoing) -> None:
            """Forward a message to the page; may be called from any thread."""
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._pass_on, message)

        self._studio.publish = publish
        retry = asyncio.create_task(self._retry())
        try:
            yield
        finally:
            retry.cancel()
            await run_in_threadpool(self._studio.close)

    async def frame(self, request: Request) -> Response:
        """Return a frame as JPEG, or nothing (204) for a damaged one."""
        index = request.path_params["index"]
        if index >= self._frames.count:
            return PlainTextResponse("there is no such frame\n", 404)
        try:
            image = await run_in_threadpool(self._jpeg, index)
        except InputError:
            return Response(status_code=204)
        return Response(image, media_type="image/jpeg", headers={"cache-control": "max-age=3600"})

    async def talk(self, socket: WebSocket) -> None:
        """Serve a page's connection; the newest page takes over the project."""
        await socket.accept()
        page = _Page(socket)
        if self._page is not None:
            self._page.leave()
        self._page = page
        sending = asyncio.create_task(page.send())
        try:
            await self._listen(page)
        except WebSocketDisconnect:
            pass
        finally:
            if self._page is page:
                self._page = None
            sending.cancel()

    async def _listen(self, page: "_Page") -> None:
        while True:
            message = await page.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None or len(text) > LARGEST:
                code = REFUSED if text is None else TOO_LARGE
                await page.socket.close(code, "only short text messages are accepted")
                return
            if self._page is not page:
                return
            if not await self._do(page, text):
                return

    async def _do(self, page: "_Page", text: str) -> bool:
        """Execute a message, and return True if the page may continue."""
        try:
            message = parse(text)
        except InputError as error:
            page.put(self._refused(_number_of(text), error))
            await page.finish(REFUSED, str(error)[:100])
            return False
        try:
            async with self._turn:
                await run_in_threadpool(self._studio.handle, message)
        except (InputError, OSError) as error:
            page.put(self._refused(message.seq, error))
        return True

    def _refused(self, seq: int, error: Exception) -> dict[str, Any]:
        return {"type": "refused", "page": self._studio.page, "seq": seq, "text": str(error)}

    def _jpeg(self, index: int) -> bytes:
        return jpeg(self._frames.image(index))

    def _pass_on(self, message: Outgoing) -> None:
        if self._page is not None:
            self._page.put(message)

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(_RETRY)
            await run_in_threadpool(self._studio.flush)


class _Page:
    """A connection and its queue of outgoing messages."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self._queue: asyncio.Queue[Outgoing | int] = asyncio.Queue()
        self._ended = asyncio.Event()
        self._why = ""

    def put(self, message: Outgoing) -> None:
        """Queue a message, or drop it if it is a mask and too many messages are waiting."""
        if not isinstance(message, bytes) or self._queue.qsize() < _WAITING:
            self._queue.put_nowait(message)

    def leave(self) -> None:
        """Close the connection because another page has taken over."""
        self._why = "another tab has taken over"
        self._queue.put_nowait(TAKEN_OVER)

    async def finish(self, code: int, why: str) -> None:
        """Close the connection after all waiting messages have been sent."""
        self._why = why
        self._queue.put_nowait(code)
        await self._ended.wait()

    async def send(self) -> None:
        """Send until the connection ends."""
        try:
            while not isinstance(message := await self._queue.get(), int):
                if isinstance(message, bytes):
                    await self.socket.send_bytes(message)
                else:
                    await self.socket.send_text(json.dumps(message))
            await self.socket.close(message, self._why)
        except (WebSocketDisconnect, RuntimeError):
            pass  # the page closed it
        finally:
            self._ended.set()


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (files("s3_jax.annotation") / "page" / name).read_bytes()

    async def serve(request: Request) -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-store"})

    return serve


def _number_of(text: str) -> int:
    """Return the `seq` of a message that could not be parsed; 0 if it has none."""
    try:
        seq = json.loads(text)["seq"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return seq if type(seq) is int else 0
