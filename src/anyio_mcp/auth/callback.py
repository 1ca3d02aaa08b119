"""The loopback address a browser is sent back to: a listener that understands one request, and no other.

Anything may connect to it: the browser asking for an icon, a port scanner, a web page that guesses. Only a
request with the `state` of the authorization under way counts, and whoever says nothing makes room for the
next. Must not know of tokens or of MCP.
"""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, cast, final
from urllib.parse import parse_qs, urlsplit

import anyio
from anyio import aclose_forcefully
from anyio.abc import Listener, SocketAttribute, SocketStream, TaskGroup
from anyio.streams.buffered import BufferedByteReceiveStream

from anyio_mcp._text import get_logger

logger = get_logger(__name__)

HOST: Final = "127.0.0.1"
PATH: Final = "/callback"

_ADDRESSES: Final = {"localhost": ("127.0.0.1", "::1")}
"""Where a browser looks for a host. Whoever else listened at one of the addresses would be sent the code."""

_PORTS: Final = 10
"""Free ports that are tried, until one is free at each address."""

MAX_HEAD: Final = 16 * 1024
"""Bytes of one request. What is longer gets no answer."""

MAX_VISITORS: Final = 64
"""Connections at a time. One more takes the place of the oldest, which has had the longest time to say
something."""

VISIT_SECONDS: Final = 10.0
"""How long one connection may take to ask and to be answered."""

_PAUSE_SECONDS: Final = 0.1
"""Before a visitor is accepted again, when that has failed."""

_NO_SUCH_ADDRESS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL})
"""Of `bind`, on a machine without IPv6."""

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
    description: str | None


@final
class CallbackListener:
    """Waits for one callback. Made by `listen_for_callback`."""

    __slots__ = ("_callback", "_done", "_path", "_state", "_visitors", "port")

    def __init__(self, port: int, path: str = PATH) -> None:
        self.port = port
        self._path = path
        self._state: str | None = None
        self._callback: Callback | None = None
        self._done = anyio.Event()
        # From the oldest on.
        self._visitors: dict[int, anyio.CancelScope] = {}

    @property
    def redirect_uri(self) -> str:
        return f"http://{HOST}:{self.port}{self._path}"

    def expect(self, state: str) -> None:
        """Take the callback that carries this `state`, and turn all others away."""
        self._state = state

    async def wait(self) -> Callback:
        """The callback. Waits for ever: the deadline is the caller's."""
        await self._done.wait()
        return cast("Callback", self._callback)

    async def visit(self, stream: SocketStream) -> None:
        """Answer one connection. Whatever it does, it ends no other."""
        brought = False
        scope = anyio.CancelScope(deadline=anyio.current_time() + VISIT_SECONDS)
        if len(self._visitors) >= MAX_VISITORS:
            self._visitors.pop(next(iter(self._visitors))).cancel()
        self._visitors[id(scope)] = scope
        try:
            with scope, suppress(*_GONE):
                async with stream:
                    head = await BufferedByteReceiveStream(stream).receive_until(b"\r\n\r\n", MAX_HEAD)
                    before = self._callback
                    status, title, text = self._judge(head)
                    brought = self._callback is not before
                    await stream.send(_response(status, title, text))
        except Exception as error:  # whatever comes from a socket is one visitor's
            logger.debug("a visitor of the callback failed: %s", type(error).__name__)
        finally:
            self._visitors.pop(id(scope), None)
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
        if parts.path != self._path:
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
            self._callback = Callback(code, state, query.get("iss"), error, query.get("error_description"))
        if self._callback.error is not None:
            return "200 OK", "Not signed in", "Access was refused. You can close this window."
        return "200 OK", "Signed in", "You can close this window and return to your application."


async def bind_callback(port: int = 0, host: str = HOST) -> list[Listener[SocketStream]]:
    """Take a port at every address of `host`, a free one unless one is given. Raises `OSError` if it is
    taken."""
    problem: OSError | None = None
    for _ in range(1 if port else _PORTS):
        bound: list[Listener[SocketStream]] = []
        try:
            for address in _ADDRESSES.get(host, (host,)):
                taken = _port(bound[0]) if bound else port
                try:
                    bound.append(await anyio.create_tcp_listener(local_host=address, local_port=taken))
                except OSError as error:
                    missing = isinstance(error, socket.gaierror) or error.errno in _NO_SUCH_ADDRESS
                    if not (missing and bound):
                        raise
        except BaseException as error:
            for listener in bound:
                await aclose_forcefully(listener)
            if not isinstance(error, OSError):
                raise
            problem = error
        else:
            return bound
    raise problem or OSError(f"no port of {host} is free")


@asynccontextmanager
async def listen_for_callback(
    servers: list[Listener[SocketStream]], path: str = PATH
) -> AsyncGenerator[CallbackListener]:
    """Serve at the port taken by `bind_callback`. It is closed, with all visitors, when this is left."""
    failure: Exception | None = None
    async with AsyncExitStack() as ports:
        for server in servers:
            await ports.enter_async_context(server)
        listener = CallbackListener(_port(servers[0]), path)
        async with anyio.create_task_group() as visitors:
            for server in servers:
                visitors.start_soon(_serve, server, listener, visitors, name="anyio_mcp oauth callback")
            try:
                yield listener
            except Exception as error:
                # Not through the task group, which would wrap it.
                failure = error
            visitors.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _serve(server: Listener[SocketStream], listener: CallbackListener, visitors: TaskGroup) -> None:
    while True:
        try:
            await server.serve(listener.visit, visitors)
        except OSError as error:
            # No file descriptor is free, or the visitor left at once. The user may come back later all the
            # same.
            logger.debug("the callback could not accept a visitor: %s", error)
            await anyio.sleep(_PAUSE_SECONDS)


def _port(server: Listener[SocketStream]) -> int:
    fact = server.extra
    return fact(SocketAttribute.local_port)


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
