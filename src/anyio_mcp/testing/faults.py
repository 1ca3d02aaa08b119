"""Faults injected at the seam between a session and any transport, by a plan drawn in advance.

A plan is data: it can be printed, drawn by Hypothesis (`anyio_mcp.testing.strategies`) and shrunk. The
wrapped transport does not know that it is wrapped.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, final

import anyio
import anyio.lowlevel
from anyio.abc import ObjectReceiveStream
from mcp.types import JSONRPCRequest, RequestId

from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.errors import ConnectError, RequestFailedError, SessionLostError
from anyio_mcp.transports.base import (
    Connection,
    ConnectionLost,
    Incoming,
    Liveness,
    Outgoing,
    RequestFault,
    Transport,
    Violation,
)


class FaultKind(Enum):
    """What can happen to one message on its way."""

    DROP = "drop"
    """It vanishes. Nobody is told."""
    DELAY = "delay"
    """It, and all that comes after it, is late by `seconds`."""
    DUPLICATE = "duplicate"
    """It arrives twice."""
    CORRUPT = "corrupt"
    """Incoming: a `Violation` arrives in its place. Outgoing: it never arrives, as with DROP, for what a
    peer makes of nonsense is up to the peer."""
    FAIL = "fail"
    """Outgoing: a request gets a `RequestFault`, anything else a receipt with an error. Incoming: DROP."""
    LOSE = "lose"
    """The connection is lost in its place."""
    WEDGE = "wedge"
    """It, and all that comes after it in its direction, is stuck for ever."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: what happens to which message of which connection."""

    kind: FaultKind
    way: Literal["out", "in"]
    """"out" is from the session to the peer."""
    message: int
    """Which message in this direction, from 1."""
    connection: int | None = None
    """Which connection of the transport, from 1; None is every one."""
    seconds: float = 1.0
    """How late, for DELAY."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """All that goes wrong. Where two faults name the same message, the first one counts."""

    faults: tuple[Fault, ...] = ()
    failing_connects: tuple[int, ...] = ()
    """Attempts to connect, counted from 1, that fail with a `ConnectError`."""

    def find(self, connection: int, way: Literal["out", "in"], message: int) -> Fault | None:
        """The fault planned for one message."""
        for fault in self.faults:
            if fault.way == way and fault.message == message and fault.connection in (None, connection):
                return fault
        return None


@final
class FaultyTransport(Transport):
    """`inner`, with the faults of `plan`.

    What it does itself keeps the contract of a transport: messages stay in order, a lost connection says
    so once, and nothing outlives the connection.
    """

    def __init__(self, inner: Transport, plan: FaultPlan) -> None:
        self._inner = inner
        self._plan = plan
        self.attempts = 0
        """Connections asked for."""
        self.injected: list[Fault] = []
        """The faults that have happened, in order."""

    @property
    def kind(self) -> Literal["tcp", "pipe", "memory"]:
        return self._inner.kind

    @property
    def describe(self) -> str:
        return f"{self._inner.describe} (with faults)"

    @asynccontextmanager
    async def connect(self, *, timeouts: Timeouts, limits: Limits) -> AsyncGenerator[Connection]:
        self.attempts += 1
        attempt = self.attempts
        if attempt in self._plan.failing_connects:
            raise ConnectError(f"attempt {attempt} to connect fails by plan")
        async with self._inner.connect(timeouts=timeouts, limits=limits) as inner:
            yield _FaultyConnection(inner, self._plan, attempt, self.injected)


BACKLOG: Final = 64
"""Items made here (duplicates, faults of requests) that wait to be received; each is made by one planned
fault, so only a plan as long as this can fill it, and then its oldest item is dropped."""


@final
class _FaultyConnection(Connection):
    def __init__(self, inner: Connection, plan: FaultPlan, number: int, injected: list[Fault]) -> None:
        self._inner = inner
        self._plan = plan
        self._number = number
        self._injected = injected
        self._sent = 0
        self._received = 0
        self._extra: deque[Incoming] = deque(maxlen=BACKLOG)
        self._receiving: anyio.CancelScope | None = None
        """Around the wait for the inner connection: something made here may be received instead."""
        self._holding: anyio.CancelScope | None = None
        """Around the wait with a message that is late: only a loss ends it early."""
        self._stuck_since = math.inf
        """The last traffic before what arrives got stuck: what is stuck is no sign of life."""
        self._lost = False
        self._over = False
        self._incoming = _FaultyIncoming(self)

    @property
    def incoming(self) -> ObjectReceiveStream[Incoming]:
        return self._incoming

    @property
    def last_traffic(self) -> float:
        return min(self._inner.last_traffic, self._stuck_since)

    def liveness(self) -> Liveness:
        return self._inner.liveness()

    def abandon(self, request_id: RequestId) -> bool:
        return self._inner.abandon(request_id)

    async def send(self, outgoing: Outgoing) -> None:
        self._sent += 1
        if self._lost:
            _receipt(outgoing, "the connection was lost by plan")
            return
        fault = self._happens("out", self._sent)
        kind = None if fault is None else fault.kind
        if fault is not None and kind is FaultKind.DELAY:
            await anyio.sleep(fault.seconds)
        if kind is FaultKind.WEDGE:
            await anyio.sleep_forever()
        if kind is FaultKind.LOSE:
            self._lose()
            _receipt(outgoing, "the connection was lost by plan")
        elif kind is FaultKind.FAIL:
            self._fail(outgoing)
        elif kind in (FaultKind.DROP, FaultKind.CORRUPT):
            # Its transport believes it delivered.
            _receipt(outgoing, None)
        else:
            await self._inner.send(outgoing)
            if kind is FaultKind.DUPLICATE:
                # Without the receipt, which is called exactly once.
                await self._inner.send(Outgoing(outgoing.message, outgoing.headers))

    async def receive(self) -> Incoming:
        """The next item for the session, after what the plan made of it."""
        while True:
            if self._over:
                raise anyio.EndOfStream
            if self._lost:
                self._over = True
                return ConnectionLost(SessionLostError("the connection was lost by plan", reason="eof"))
            if self._extra:
                await anyio.lowlevel.checkpoint()
                return self._extra.popleft()
            item = await self._next()
            if item is None or self._lost:
                continue
            self._over = isinstance(item, ConnectionLost)
            return item

    async def _next(self) -> Incoming | None:
        """What comes of the next item of the inner connection; None if nothing does."""
        item: Incoming | None = None
        with anyio.CancelScope() as self._receiving:
            item = await self._inner.incoming.receive()
        self._receiving = None
        if item is None or isinstance(item, ConnectionLost):
            return item
        self._received += 1
        fault = self._happens("in", self._received)
        if fault is None:
            return item
        match fault.kind:
            case FaultKind.DROP | FaultKind.FAIL:
                return None
            case FaultKind.CORRUPT:
                return Violation("corrupted by plan")
            case FaultKind.LOSE:
                self._lost = True
                return None
            case FaultKind.DUPLICATE:
                self._extra.append(item)
            case FaultKind.DELAY | FaultKind.WEDGE:
                if fault.kind is FaultKind.WEDGE:
                    self._stuck_since = self._inner.last_traffic
                with anyio.CancelScope() as self._holding:
                    await anyio.sleep(math.inf if fault.kind is FaultKind.WEDGE else fault.seconds)
                self._holding = None
        return item

    def _happens(self, way: Literal["out", "in"], message: int) -> Fault | None:
        fault = self._plan.find(self._number, way, message)
        if fault is not None:
            self._injected.append(fault)
        return fault

    def _fail(self, outgoing: Outgoing) -> None:
        error = RequestFailedError("failed by plan", reason="transport")
        if isinstance(outgoing.message, JSONRPCRequest):
            self._extra.append(RequestFault(outgoing.message.id, error))
            if self._receiving is not None:
                self._receiving.cancel()
        elif outgoing.receipt is not None:
            outgoing.receipt(error)

    def _lose(self) -> None:
        self._lost = True
        for waiting in (self._receiving, self._holding):
            if waiting is not None:
                waiting.cancel()


@final
class _FaultyIncoming(ObjectReceiveStream[Incoming]):
    def __init__(self, connection: _FaultyConnection) -> None:
        self._connection = connection

    async def receive(self) -> Incoming:
        return await self._connection.receive()

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


def _receipt(outgoing: Outgoing, failure: str | None) -> None:
    if outgoing.receipt is not None:
        error = None if failure is None else RequestFailedError(failure, reason="transport")
        outgoing.receipt(error)
