"""Any SDK-style transport: an async context manager that yields a pair of message streams.

The context runs in a task of its own. Such transports own task groups, and one that fails cancels
the task it was entered in: here that is nobody's but its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, final

import anyio
import anyio.abc
import anyio.lowlevel
from anyio.abc import ObjectReceiveStream
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp.types import RequestId

from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.errors import RequestFailedError, SessionLostError
from anyio_mcp.transports._models import read_item
from anyio_mcp.transports.base import (
    Connection,
    ConnectionLost,
    Incoming,
    Outgoing,
    Transport,
)

StreamPair: TypeAlias = tuple[Any, Any]
"""`(read, write)`: the first yields `SessionMessage | Exception`, the second takes `SessionMessage`."""

_CAUSE_PATIENCE: Final = 0.05
"""Seconds to wait for a transport whose stream ended to say why: its exit follows at once."""


@final
@dataclass(frozen=True, slots=True)
class StreamsTransport(Transport):
    """A transport made by `open`, called once per connection.

    What is already a context manager can be given as `lambda: it`; most of the SDK's can be entered
    once only, so a session that died cannot be restarted on one.
    """

    open: Callable[[], AbstractAsyncContextManager[StreamPair]]
    title: str = "a custom transport"
    medium: Literal["tcp", "pipe", "memory"] = "pipe"

    @property
    def kind(self) -> Literal["tcp", "pipe", "memory"]:
        return self.medium

    @property
    def describe(self) -> str:
        return self.title

    @asynccontextmanager
    async def connect(self, *, timeouts: Timeouts, limits: Limits) -> AsyncGenerator[Connection]:
        """Enter the transport. It frames its messages itself, so that `Limits.max_message_bytes` does not
        reach into it; the other limits hold."""
        connection = _StreamsConnection(limits)
        async with anyio.create_task_group() as tg:
            try:
                await tg.start(connection.host, self.open)
                yield connection
            finally:
                # Shielded, so that a cancelled session still lets the transport end what it started
                # (a child process, a server-side session), and bounded, so that it cannot hang here.
                with anyio.move_on_after(timeouts.close_seconds, shield=True):
                    await connection.leave()
                tg.cancel_scope.cancel()


@final
class _StreamsConnection(Connection):
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._read: Any = None
        self._write: Any = None
        self._leaving = anyio.Event()
        self._ended = anyio.Event()
        self._entered = False
        self._error: Exception | None = None
        self._last_traffic = anyio.current_time()
        self._incoming = _Incoming(self)
        # The rest of what one item of the transport has turned out to be: of a batch, bounded by its reader.
        self._at_hand: deque[Incoming] = deque()

    @property
    def incoming(self) -> ObjectReceiveStream[Incoming]:
        return self._incoming

    @property
    def last_traffic(self) -> float:
        return self._last_traffic

    async def host(
        self,
        open_transport: Callable[[], AbstractAsyncContextManager[StreamPair]],
        *,
        task_status: anyio.abc.TaskStatus[None],
    ) -> None:
        """Hold the transport open until told to leave, and keep what it raises to itself."""
        try:
            async with open_transport() as (self._read, self._write):
                self._entered = True
                task_status.started()
                await self._leaving.wait()
        except Exception as error:
            if not self._entered:
                raise
            self._error = error
        finally:
            self._ended.set()

    async def leave(self) -> None:
        """Have the transport exit, and wait for it."""
        if self._entered:
            self._leaving.set()
            await self._ended.wait()

    async def send(self, outgoing: Outgoing) -> None:
        headers = outgoing.headers
        metadata = ClientMessageMetadata(headers=dict(headers)) if headers is not None else None
        failure: Exception | None = None
        try:
            await self._write.send(SessionMessage(outgoing.message, metadata))
        except Exception as error:  # closed, or whatever a transport of other makes raises
            text = f"the transport takes no messages any more: {type(error).__name__}: {error}"
            failure = RequestFailedError(text, reason="transport", cause=error)
            self._error = self._error or failure
            # Half a connection is none: leaving ends the reading side too, and with it the session.
            self._leaving.set()
        if outgoing.receipt is not None:
            outgoing.receipt(failure)

    def abandon(self, request_id: RequestId) -> bool:
        return False

    async def next_message(self) -> Incoming:
        """What the transport's stream yields next, in this library's words."""
        if self._at_hand:
            await anyio.lowlevel.checkpoint()
            return self._at_hand.popleft()
        try:
            item = await self._read.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            return await self._lost()
        except Exception as error:  # whatever a transport of other makes raises
            self._error = self._error or error
            return await self._lost()
        self._last_traffic = anyio.current_time()
        first, *others = read_item(item, self._limits)
        self._at_hand += others
        return first

    async def _lost(self) -> ConnectionLost:
        with anyio.move_on_after(_CAUSE_PATIENCE):
            await self._ended.wait()
        text = "the transport ended" if self._error is None else f"the transport failed: {self._error!r}"
        return ConnectionLost(SessionLostError(text, reason="eof", cause=self._error))


@final
class _Incoming(ObjectReceiveStream[Incoming]):
    """Reads the transport's stream directly: a task in between would cost every message a switch."""

    def __init__(self, connection: _StreamsConnection) -> None:
        self._connection = connection
        self._over = False

    async def receive(self) -> Incoming:
        if self._over:
            raise anyio.EndOfStream
        item = await self._connection.next_message()
        self._over = isinstance(item, ConnectionLost)
        return item

    async def aclose(self) -> None:
        self._over = True
        await anyio.lowlevel.checkpoint()
