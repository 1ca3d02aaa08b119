"""The seam between the session actor and a transport.

A transport is configuration; `connect()` makes one connection of it, and a connection moves JSON-RPC
messages. It does not correlate, does not time calls out, and does not decide when a session ends: it
reports what happened, in order, and the session decides.

The contract, kept by one test suite over every implementation:

* `connect()` enters only when messages can be sent. Whatever stops it is raised as it is, or as a
  `ConnectError` that carries more (a child's exit code). Leaving it is bounded by `Timeouts.close`,
  also under cancellation, and leaves no task, socket or child process behind.
* `incoming` yields what arrives, in order. A connection that is lost yields `ConnectionLost` once,
  as its last item; every request whose exchange ended without an answer yields a `RequestFault`.
* `send()` takes a message over, in the order of the calls. It may wait (a full pipe), and only one
  task calls it at a time.
* Nothing is raised into a task of the session: a failure of one message is a `RequestFault` (or the
  error given to the message's `receipt`), a failure of the connection is `ConnectionLost`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol, TypeAlias

from anyio.abc import ObjectReceiveStream
from mcp.types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)

from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.errors import SessionLostError

INBOX_SIZE = 1024
"""Items an inbox holds. When it is full the transport stops reading, so the peer is slowed down."""


@dataclass(frozen=True, slots=True, eq=False)
class Outgoing:
    """One message for the peer."""

    message: JSONRPCMessage
    headers: Mapping[str, str] | None = None
    """HTTP headers of this message; transports without headers ignore them."""
    receipt: Callable[[Exception | None], None] | None = None
    """Called exactly once for a notification or an answer: None when delivered, else why not."""
    probe: bool = False
    """A question of the heartbeat: it must not take the place of anything that somebody waits for."""
    delayed: Callable[[str], None] | None = None
    """To be told what a request waits for that the transport was given and has not, or may not have, sent; ""
    once it has been sent."""


@dataclass(frozen=True, slots=True, eq=False)
class RequestFault:
    """The exchange of one request ended without an answer; the connection lives."""

    request_id: RequestId
    error: Exception


@dataclass(frozen=True, slots=True, eq=False)
class Violation:
    """Something arrived that is no JSON-RPC message. Counted; nobody's call fails for it."""

    detail: str
    count: int = 1
    """How many of its kind came one after the other."""


@dataclass(frozen=True, slots=True, eq=False)
class ConnectionLost:
    """The connection is gone, and why. Always the last item."""

    error: SessionLostError


Incoming: TypeAlias = (
    JSONRPCRequest
    | JSONRPCNotification
    | JSONRPCResponse
    | JSONRPCError
    | RequestFault
    | Violation
    | ConnectionLost
)


class Liveness(Enum):
    """What a transport knows about a peer from which nothing comes. Silence itself proves nothing: a server
    that works on one request at a time answers no question meanwhile."""

    UNKNOWN = "unknown"
    """Nothing, and asking the peer would tell nothing: the deadlines of the calls decide."""
    ASK = "ask"
    """Nothing, but the answer to a question may tell that the session is gone."""
    STOPPED = "stopped"
    """The process of the peer is stopped, as the operating system says: it cannot answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Remarks:
    """What the program behind a connection said that was no message: the best there is to know of a server
    that starts and does not answer."""

    stderr_tail: tuple[str, ...] = ()
    stray_lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The line most likely to say why; empty if there is none."""
        if self.stderr_tail:
            return self.stderr_tail[-1]
        return self.stray_lines[0] if self.stray_lines else ""


class Connection(Protocol):
    """One live connection, used by one session."""

    @property
    def incoming(self) -> ObjectReceiveStream[Incoming]:
        """What the peer sent, and what became of the requests sent to it."""
        ...

    @property
    def last_traffic(self) -> float:
        """`anyio.current_time()` of the last bytes that came from the peer."""
        ...

    async def send(self, outgoing: Outgoing) -> None:
        """Take one message over. Returns when the next one may be sent."""
        ...

    def abandon(self, request_id: RequestId) -> bool:
        """Nobody waits for this request any more: free what it holds, at once.

        Returns whether that alone tells the peer. If not, the session sends
        `notifications/cancelled`.
        """
        ...

    def liveness(self) -> Liveness:
        """What is known of the peer, by other evidence than its silence. Does not wait."""
        return Liveness.UNKNOWN

    def remarks(self) -> Remarks:
        """What the peer said beside its messages, so far. Does not wait."""
        return Remarks()


class Transport(Protocol):
    """A way to reach one server. Immutable; each `connect()` is a new, independent connection."""

    @property
    def kind(self) -> Literal["tcp", "pipe", "memory"]:
        """`network.transport` of the OpenTelemetry conventions."""
        ...

    @property
    def describe(self) -> str:
        """The server in a few words for errors and logs, without secrets."""
        ...

    def connect(self, *, timeouts: Timeouts, limits: Limits) -> AbstractAsyncContextManager[Connection]:
        """A context manager for one connection. The caller bounds the time it takes to enter."""
        ...
