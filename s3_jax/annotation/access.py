"""Access control for the server: requests must have its token, address and origin.

A page from another site that is open in a browser can also send requests here. However, it does not
know the token, its Origin header differs, and the Host header exposes a host name that was pointed
at this machine.
"""

import dataclasses
import ipaddress
import secrets
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = ("127.0.0.1", "localhost")
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclasses.dataclass(frozen=True)
class Access:
    """Requirements for a request.

    token: the first component of every path.
    host, port: the address that the server is bound to.
    """

    token: str
    host: str
    port: int

    def refusal(self, scope: Scope) -> str:
        """Return the reason for refusing a request, or "" if it is accepted."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        origin = headers.get("origin")
        if not self._is_ours(host):
            return "this host name or port is not served"
        if origin != f"http://{host}" and (origin is not None or scope["type"] == "websocket"):
            return "requests from other pages are refused"
        given = scope["path"].split("/")[1].encode()
        if not secrets.compare_digest(given, self.token.encode()):
            return "the address lacks the token: use the one that s3 annotate printed"
        return ""

    def address(self, host: str = "") -> str:
        """Return the page's address."""
        return f"http://{host or self.host}:{self.port}/{quote(self.token)}/"

    def _is_ours(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        if port != str(self.port):
            return False
        return name in (*LOCAL, self.host) or (self.host == "0.0.0.0" and _is_number(name))


class Guard:
    """Middleware that rejects requests according to `Access`, and adds headers to all responses."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        why = self._access.refusal(scope)
        if scope["type"] == "websocket":
            if why:
                await send({"type": "websocket.close", "code": 1008, "reason": why})
            else:
                await self._app(scope, receive, send)
            return
        app = PlainTextResponse(f"{why}\n", 403) if why else self._app
        await app(scope, receive, _with_headers(send))


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return sending


def _is_number(name: str) -> bool:
    """Return True for a numeric address, which no other site can point at this machine."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
