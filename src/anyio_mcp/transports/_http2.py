"""The HTTP/2 connection of a user's client: which of its streams nobody waits for any more, and its end.

An HTTP client ends an exchange that is given up without telling the server, so its stream stays open, and a
connection has some hundred (https://github.com/encode/httpcore/issues/1022). As with HTTP/1.1, exchanges that
are given up cost a connection, once there are enough of them. It is found and closed by public means alone:
the extensions of responses (https://www.encode.io/httpcore/extensions/). Must not know what is exchanged.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Any, Final, final
from weakref import WeakKeyDictionary

import anyio
import httpx2

from anyio_mcp._text import get_logger
from anyio_mcp.transports._policy import HttpPolicy

logger = get_logger(__name__)

_ROOM: Final = 90
"""Streams that are open at once. RFC 9113, section 6.5.2, has servers allow 100; the rest is left to others
who use the client: a connection that is quite full does not even notice that it is closed."""
_ENOUGH: Final = 32
"""Streams given up, before their connection is closed as soon as no exchange is under way."""
_FEW: Final = 8
"""The part of a connection's streams that others need not wait for without end."""

# What h2 says (https://python-hyper.org/projects/h2), before anything is written.
_REFUSED: Final = re.compile(r"Max outbound streams is (\d{1,9})\b")


@final
class Http2Streams:
    """Of one client and one origin. Counts for nothing as long as the two speak HTTP/1.1."""

    __slots__ = (
        "_closing",
        "_given_up",
        "_network",
        "_retired",
        "_room",
        "_under_way",
        "_waiting",
        "generation",
        "spoken",
    )

    def __init__(self) -> None:
        self._room = _ROOM
        self.spoken = False
        """The last response came over HTTP/2."""
        self._under_way = 0
        self._given_up = 0
        """In the present connection, by exchanges that began in it."""
        self._network: Any | None = None
        """Of the present connection, as far as a response has told."""
        self._retired: Any | None = None
        """The one that was closed last. The client notices by the next request that it sends there."""
        self.generation = 0
        """How many connections were closed."""
        self._closing: anyio.Event | None = None
        """Set when the one that is being closed is closed."""
        # As many as there are exchanges that wait for room.
        self._waiting: set[anyio.Event] = set()

    async def enter(self, policy: HttpPolicy) -> None:
        """Wait for a stream to be free, and count as one that is under way.

        As long as many streams are in use, the wait is the one for any server that is busy, and its bound
        the deadline of the call. A few that keep all others waiting have `policy.retire_seconds`.
        """
        if self._closing is not None:
            # What is written meanwhile may be lost, or not.
            await self._closing.wait()
        patience = anyio.current_time() + policy.retire_seconds
        while self.spoken and self._under_way and self._under_way + self._given_up >= self._free():
            outnumbered = self._network is not None and self._under_way <= max(1, self._room // _FEW)
            changed = anyio.Event()
            self._waiting.add(changed)
            try:
                with anyio.CancelScope(deadline=patience if outnumbered else math.inf):
                    await changed.wait()
            finally:
                self._waiting.discard(changed)
            if not changed.is_set():
                await self._retire(policy)
        self._under_way += 1

    def _free(self) -> int:
        # Only a response tells which connection is in use and can be closed. Until one has come, half of its
        # streams are kept for exchanges that go one by one, each of which may bring it.
        return self._room if self._network is not None else self._room // 2

    def heard(self, response: httpx2.Response) -> None:
        """A response has come: it tells over which connection."""
        self.spoken = response.http_version == "HTTP/2"
        network = response.extensions.get("network_stream") if self.spoken else None
        if network is None or network is self._network or network is self._retired:
            return
        if self._network is not None:
            self._given_up = 0  # the server has ended that one
        self._network = network

    async def leave(self, policy: HttpPolicy, generation: int, *, given_up: bool) -> None:
        """An exchange of the given time is over, its stream maybe not."""
        self._under_way -= 1
        if given_up and generation == self.generation:
            self._given_up += 1
        if not self._under_way and self._given_up >= min(_ENOUGH, self._room // 2):
            await self._retire(policy)
        self._wake()

    async def refused(self, policy: HttpPolicy, allowed: int) -> None:
        """A request that counts as under way found none of its streams free."""
        self._room = max(1, min(self._room, allowed - max(1, allowed // 10)))
        others = self._under_way - 1
        self._given_up = max(self._given_up, allowed - others)
        if not others:
            await self._retire(policy)

    async def _retire(self, policy: HttpPolicy) -> None:
        network, self._network = self._network, None
        if network is None:
            return
        self._retired = network
        self._given_up = 0
        self.generation += 1
        self._closing = closing = anyio.Event()
        # Shielded: whoever leaves last may have been cancelled. Closing a socket waits for no peer; the bound
        # is for foreign transports.
        with anyio.move_on_after(policy.release_seconds, shield=True):
            try:
                await network.aclose()
            except Exception as error:  # whatever a foreign transport raises, nobody uses it any more
                logger.debug("closing a connection failed: %r", error)
            finally:
                self._closing = None
                closing.set()
                self._wake()

    def _wake(self) -> None:
        for changed in self._waiting:
            changed.set()


@final
class _WatchedBody(httpx2.AsyncByteStream):
    """The body of a request, in one piece. It knows whether that has been written: its sender asks for what
    comes next only then, and ends the request behind it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._is_taken = False
        self.is_complete = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._is_taken = self.is_complete = False
        return self

    async def __anext__(self) -> bytes:
        if self._is_taken:
            self.is_complete = True
            raise StopAsyncIteration
        self._is_taken = True
        return self._content


@final
class StreamUse:
    """One exchange, from before it is sent to its end."""

    __slots__ = ("_body", "_generation", "_inside", "_policy", "_streams", "over")

    def __init__(self, streams: Http2Streams, policy: HttpPolicy) -> None:
        self._body: _WatchedBody | None = None
        self._streams = streams
        self._policy = policy
        self._inside = False
        self._generation = 0
        self.over = False
        """Whether the stream has ended, so that nothing of it stays behind."""

    async def enter(self) -> None:
        """Wait until a stream is free."""
        await self._streams.enter(self._policy)
        self._inside = True
        self._generation = self._streams.generation
        self.over = False

    async def leave(self) -> None:
        """It has ended, or nobody waits for it any more."""
        if self._inside:
            self._inside = False
            await self._streams.leave(self._policy, self._generation, given_up=not self.over)

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[None]:
        """Around what sends a request: a cancellation waits until the request is written, which it is within
        `policy.write_seconds`.

        HTTP clients lose what they are writing when they are cancelled, and with it the whole connection: all
        that comes behind is out of step (https://github.com/encode/httpcore/issues/830).
        """
        if not self._streams.spoken:
            yield
            return
        done = anyio.Event()
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope(shield=True) as written:
                tasks.start_soon(self._expose, written, done, name="anyio_mcp http2 write")
                try:
                    yield
                except Exception as error:
                    # Not through the task group, which would wrap it.
                    failure = error
                finally:
                    done.set()
        if failure is not None:
            raise failure

    async def _expose(self, written: anyio.CancelScope, done: anyio.Event) -> None:
        # Shielded as what it ends is: a cancellation reaches both alike.
        with anyio.move_on_after(self._policy.write_seconds, shield=True):
            await done.wait()
        written.shield = False

    def watch(self, request: Any) -> None:
        """See how much of `request` is taken to be sent."""
        self._body = None
        if (
            self._streams.spoken
            and request.method == "POST"
            and isinstance(request.stream, httpx2.ByteStream)
        ):
            request.stream = self._body = _WatchedBody(request.content)

    async def is_unsent(self, error: Exception) -> bool:
        """Whether a request failed by `error` before it was written completely, and can be written now.

        So it is where a connection had no stream left, and where it broke before the last of the body was
        written, as it does when it was closed here, or when somebody was cancelled in the middle of a frame:
        of a request that does not end no server makes anything. An error of writing alone does not say so,
        for an HTTP client also writes while it waits for a response. Waits for room.
        """
        kind = type(error).__name__
        refused = _REFUSED.search(str(error)) if kind == "LocalProtocolError" else None
        if refused is not None:
            await self._streams.refused(self._policy, int(refused[1]))
        elif kind != "WriteError" or self._body is None or self._body.is_complete:
            return False
        self.over = True
        await self.leave()
        await self.enter()
        return True


def http2_streams(client: Any, origin: Hashable) -> Http2Streams:
    """Of all who use `client` for `origin`."""
    return _known.setdefault(client, {}).setdefault(origin, Http2Streams())


_known: WeakKeyDictionary[Any, dict[Hashable, Http2Streams]] = WeakKeyDictionary()
