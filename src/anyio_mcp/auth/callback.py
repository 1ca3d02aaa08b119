"""The loopback address a browser is sent back to: a listener that understands one request, and no other.

Anything may connect to it: the browser asking for an icon, a port scanner, a web page that guesses. Only a
request with the `state` of the authorization under way counts. Must not know of tokens or of MCP.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, cast, final
from urllib.parse import parse_qs, urlsplit

import anyio
from anyio.abc import Listener, SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from anyio_mcp._text import get_logger

logger = get_logger(__name__)

HOST: Final = "127.0.0.1"
PATH: Final = "/callback"

MAX_HEAD: Final = 16 * 1024
"""Bytes of one request. What is longer gets no answer."""

MAX_VISITORS: Final = 32
"""Connections at a time. Further ones are closed at once: a browser tries again, a flood gets nowhere."""

VISIT_SECONDS: Final = 10.0
"""How long one connection may take to ask and to be answered."""

_GONE: Final = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.IncompleteRead,
    anyio.DelimiterNotFound,
)

_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:1.1em system-ui;margin:4em auto;max-width:30em}}</style>
<h1>{title}</h1><p>{text}</p></html>
"""


@final
@dataclass(frozen=True, slots=True, repr=False)
class Callback:
    """What the browser brought back. No repr: the code is a secret."""

    code: str
    state: str
    issuer: str | None
    error: str | None
    """The authorization server's word for why there is no code, such as `access_denied`."""


@final
class CallbackListener:
    """Waits for one callback. Made by `listen_for_callback`."""

    __slots__ = ("_callback", "_done", "_state", "_visitors", "port")

    def __init__(self, port: int) -> None:
        self.port = port
        self._state: str | None = None
        self._callback: Callback | None = None
        self._done = anyio.Event()
        self._visitors = 0

    @property
    def redirect_uri(self) -> str:
        return f"http://{HOST}:{self.port}{PATH}"

    def expect(self, state: str) -> None:
        """Take the callback that carries this `state`, and turn all others away."""
        self._state = state

    async def wait(self) -> Callback:
        """The callback. Waits for ever: the deadline is the caller's."""
        await self._done.wait()
        return cast("Callback", self._callback)

    async def visit(self, stream: SocketStream) -> None:
        """Answer one connection. Whatever it does, it ends no other."""
        async with stream:
            if self._visitors >= MAX_VISITORS:
                return
            self._visitors += 1
            brought = False
            try:
                with anyio.move_on_after(VISIT_SECONDS), suppress(*_GONE):
                    head = await BufferedByteReceiveStream(stream).receive_until(b"\r\n\r\n", MAX_HEAD)
                    before = self._callback
                    status, title, text = self._judge(head)
                    brought = self._callback is not before
                    await stream.send(_response(status, title, text))
            finally:
                self._visitors -= 1
                # Not before the page was sent: whoever waits closes the listener at once.
                if brought:
                    self._done.set()

    def _judge(self, head: bytes) -> tuple[str, str, str]:
        """What to answer to a request; a valid callback is taken on the way."""
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "400 Bad Request", "Bad request", "This address takes one request from a browser."
        method, target, _ = words
        try:
            parts = urlsplit(target)
            query = parse_qs(parts.query, keep_blank_values=True, max_num_fields=20)
        except ValueError:
            return "400 Bad Request", "Bad request", "This address takes one request from a browser."
        if parts.path != PATH:
            return "404 Not Found", "Not found", "There is nothing here."
        if method != "GET":
            return "405 Method Not Allowed", "Not allowed", "This address takes one request from a browser."
        return self._take({name: values[0] for name, values in query.items()})

    def _take(self, query: dict[str, str]) -> tuple[str, str, str]:
        state, code, error = query.get("state", ""), query.get("code", ""), query.get("error")
        # Anybody can make a browser come here. Without this check, a code of somebody else's account
        # could be slipped in.
        if self._state is None or not secrets.compare_digest(state.encode(), self._state.encode()):
            logger.warning("a callback with another state was turned away; still waiting for the right one")
            return "400 Bad Request", "Not for this sign-in", "Please start again from your application."
        if not code and error is None:
            return "400 Bad Request", "Nothing to sign in with", "The authorization server sent no code."
        if self._callback is None:
            self._callback = Callback(code, state, query.get("iss"), error)
        if self._callback.error is not None:
            return "200 OK", "Not signed in", "Access was refused. You can close this window."
        return "200 OK", "Signed in", "You can close this window and return to your application."


async def bind_callback(port: int = 0) -> Listener[SocketStream]:
    """Take a port of `127.0.0.1`, a free one unless one is given. Raises `OSError` if it is taken."""
    return await anyio.create_tcp_listener(local_host=HOST, local_port=port)


@asynccontextmanager
async def listen_for_callback(server: Listener[SocketStream]) -> AsyncGenerator[CallbackListener]:
    """Serve at a port taken by `bind_callback`. It is closed, with all visitors, when this is left."""
    failure: Exception | None = None
    async with server:
        fact = server.extra
        listener = CallbackListener(fact(SocketAttribute.local_port))
        async with anyio.create_task_group() as visitors:
            visitors.start_soon(server.serve, listener.visit, visitors, name="anyio_mcp oauth callback")
            try:
                yield listener
            except Exception as error:
                # Not through the task group, which would wrap it.
                failure = error
            visitors.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _response(status: str, title: str, text: str) -> bytes:
    # Nothing of the request is repeated in the page.
    body = _PAGE.format(title=title, text=text).encode()
    head = (
        f"HTTP/1.1 {status}\r\n"
        "content-type: text/html; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\n"
        "cache-control: no-store\r\n"
        "referrer-policy: no-referrer\r\n"
        "content-security-policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
