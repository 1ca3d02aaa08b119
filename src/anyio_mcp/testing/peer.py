"""A server that does what a test says: answers, delays, stays silent, breaks the rules, dies.

No bytes, no sockets, no tasks but those of handlers that wait. It speaks JSON-RPC and knows of MCP only
how a session begins, in both eras, and what every result must carry.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, cast, final

import anyio
import anyio.abc
from mcp import MCPError
from mcp.types import (
    METHOD_NOT_FOUND,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from mcp.types.version import LATEST_HANDSHAKE_VERSION, MODERN_PROTOCOL_VERSIONS

from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.testing.connection import ScriptedConnection
from anyio_mcp.transports.base import Connection, Outgoing, Transport

Era: TypeAlias = Literal["modern", "legacy"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class PeerRequest:
    """A request the client has sent, and the means to answer it, at any time."""

    id: RequestId
    method: str
    params: dict[str, Any]
    headers: dict[str, str]
    connection: ScriptedConnection
    received_at: float
    """`anyio.current_time()`."""
    _finish: Callable[[dict[str, Any]], dict[str, Any]]

    def answer(self, result: dict[str, Any] | None = None) -> None:
        """Answer it. What every result of the era must carry is added."""
        self.connection.answer(self.id, self._finish(result or {}))

    def refuse(self, code: int, message: str, data: Any = None) -> None:
        """Answer it with an error."""
        self.connection.refuse(self.id, code, message, data)

    def fault(self, error: Exception) -> None:
        """End its exchange without an answer."""
        self.connection.fault(self.id, error)

    def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Report progress on it, if the client asked for that."""
        token = self.params.get("_meta", {}).get("progressToken")
        if token is not None:
            self.connection.progress(token, progress, total, message)


Handler: TypeAlias = Callable[
    [PeerRequest], "dict[str, Any] | Awaitable[dict[str, Any] | None] | Awaitable[None] | None"
]
"""Answers a request: returns a result, or None to leave it unanswered (for now, or for ever). It may wait.
An `MCPError` it raises is the answer; any other exception ends the exchange without one, except an
`AssertionError`, which breaks the connection's task group and so the test."""


def silence(request: PeerRequest) -> None:
    """The handler that never answers."""


@final
@dataclass(eq=False)
class ScriptedPeer:
    """A server for tests. Give `Client` its `transport`.

    As made, it lets a session begin (in the era given), answers `ping` and `tools/call`, lists one tool,
    and does not know other methods. `on()` changes what it does with a method, `on_connect` what it does
    with a connection; the methods of `connection`, or of a request in `requests`, make things happen.

    It records everything: `requests`, `notifications`, `answers`, `abandoned`, and how many connections
    were attempted, opened and are open.
    """

    era: Era = "modern"
    capabilities: dict[str, Any] = field(default_factory=lambda: {"tools": {}})
    on_connect: Callable[[int], Awaitable[None]] | None = None
    """Awaited before the n-th connection, counted from 1, is there. It may raise, wait, or hang."""
    farewell: float = 0.0
    """Seconds a connection takes to close; `math.inf` for a server that never lets go. Like any transport
    it gives up at `Timeouts.close`."""
    abandoning_tells: bool = False
    """What `abandon()` returns: whether the peer learns from it that nobody waits."""
    kind: Literal["tcp", "pipe", "memory"] = "memory"

    requests: list[PeerRequest] = field(default_factory=list[PeerRequest], init=False)
    notifications: list[JSONRPCNotification] = field(default_factory=list[JSONRPCNotification], init=False)
    answers: list[JSONRPCResponse | JSONRPCError] = field(
        default_factory=list[JSONRPCResponse | JSONRPCError], init=False
    )
    """What the client answered to requests of the peer."""
    abandoned: list[RequestId] = field(default_factory=list[RequestId], init=False)
    attempts: int = field(default=0, init=False)
    """Connections asked for, whether or not they were made."""
    connections: list[ScriptedConnection] = field(default_factory=list[ScriptedConnection], init=False)
    """Every connection made, the newest last."""
    open_connections: int = field(default=0, init=False)
    most_open_connections: int = field(default=0, init=False)
    """How many were open at the same time, at most."""

    def __post_init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._receipts: dict[str, Exception | None] = {}
        self._tasks: dict[ScriptedConnection, anyio.abc.TaskGroup] = {}
        self._changed = anyio.Event()
        self._asked = 0

    @property
    def transport(self) -> Transport:
        """A transport to this peer. All connections of all transports are this peer's."""
        return _ScriptedTransport(self)

    @property
    def connection(self) -> ScriptedConnection:
        """The newest connection."""
        return self.connections[-1]

    # The script

    def on(self, method: str, handler: Handler | dict[str, Any]) -> None:
        """Answer requests of this method with `handler`, or with a fixed result."""
        if callable(handler):
            self._handlers[method] = handler
        else:
            result = handler
            self._handlers[method] = lambda _: result

    def on_delivery(self, method: str, error: Exception | None) -> None:
        """Report to the client that notifications of this method failed with `error`.

        None: never report anything, as a server that takes a POST and does not answer it.
        """
        self._receipts[method] = error

    def ask(self, method: str, params: dict[str, Any] | None = None) -> RequestId:
        """Send the client a request, and return its id; `answer_to()` waits for the answer."""
        self._asked += 1
        request_id = f"peer-{self._asked}"
        self.connection.request(request_id, method, params)
        return request_id

    async def answer_to(self, request_id: RequestId) -> JSONRPCResponse | JSONRPCError:
        """The client's answer to a request of the peer. Waits for it, without a bound of its own."""
        while True:
            for answer in self.answers:
                if answer.id == request_id:
                    return answer
            await self._changed.wait()

    async def received(self, method: str, count: int = 1) -> list[PeerRequest]:
        """The requests of this method, once there are `count`. Waits for them, without a bound of its own."""
        await self.until(lambda: len(self.requests_of(method)) >= count)
        return self.requests_of(method)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()` holds; looked at whenever the peer has seen something new."""
        while not condition():
            await self._changed.wait()

    def requests_of(self, method: str) -> list[PeerRequest]:
        """The requests of this method so far."""
        return [request for request in self.requests if request.method == method]

    def notifications_of(self, method: str) -> list[dict[str, Any]]:
        """The parameters of the notifications of this method so far."""
        return [each.params or {} for each in self.notifications if each.method == method]

    # The connections

    @asynccontextmanager
    async def connect(self, timeouts: Timeouts) -> AsyncGenerator[Connection]:
        """One connection, as the transport makes it."""
        self.attempts += 1
        self._note()
        if self.on_connect is not None:
            await self.on_connect(self.attempts)
        connection = ScriptedConnection(
            len(self.connections) + 1, deliver=self._deliver, abandoned=self._abandon
        )
        try:
            async with anyio.create_task_group() as tg:
                self._tasks[connection] = tg
                self.connections.append(connection)
                self.open_connections += 1
                self.most_open_connections = max(self.open_connections, self.most_open_connections)
                self._note()
                try:
                    yield connection
                finally:
                    # Shielded as the goodbye of a real transport would be, and bounded like it.
                    with anyio.move_on_after(timeouts.close_seconds, shield=True):
                        if self.farewell:
                            await anyio.sleep(self.farewell)
                    tg.cancel_scope.cancel()
        finally:
            connection.close()
            if self._tasks.pop(connection, None) is not None:
                self.open_connections -= 1
            self._note()

    def _note(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _abandon(self, connection: ScriptedConnection, request_id: RequestId) -> bool:
        self.abandoned.append(request_id)
        self._note()
        return self.abandoning_tells

    def _deliver(self, connection: ScriptedConnection, outgoing: Outgoing) -> None:
        message = outgoing.message
        match message:
            case JSONRPCRequest():
                self._take_request(connection, message, dict(outgoing.headers or {}))
            case JSONRPCNotification():
                self.notifications.append(message)
                self._acknowledge(outgoing, message.method)
            case _:
                self.answers.append(message)
                self._acknowledge(outgoing, None)
        self._note()

    def _acknowledge(self, outgoing: Outgoing, method: str | None) -> None:
        if outgoing.receipt is None:
            return
        if method not in self._receipts:
            outgoing.receipt(None)
            return
        error = self._receipts[method]
        if error is not None:
            outgoing.receipt(error)

    def _take_request(
        self, connection: ScriptedConnection, message: JSONRPCRequest, headers: dict[str, str]
    ) -> None:
        request = PeerRequest(
            id=message.id,
            method=message.method,
            params=message.params or {},
            headers=headers,
            connection=connection,
            received_at=anyio.current_time(),
            _finish=lambda result: {**_demanded(self.era, message.method), **result},
        )
        self.requests.append(request)
        handler = self._handlers.get(request.method) or self._usual
        try:
            result = handler(request)
        except Exception as error:
            _settle(request, error)
            return
        if inspect.isawaitable(result):
            waiting = cast("Awaitable[dict[str, Any] | None]", result)
            self._tasks[connection].start_soon(
                self._handle, request, waiting, name=f"anyio_mcp.testing {request.method}"
            )
        elif result is not None:
            request.answer(result)

    async def _handle(self, request: PeerRequest, waiting: Awaitable[dict[str, Any] | None]) -> None:
        try:
            result = await waiting
        except Exception as error:
            _settle(request, error)
            return
        if result is not None:
            request.answer(result)

    def _usual(self, request: PeerRequest) -> dict[str, Any]:
        """What a server does with a method that no script mentions."""
        match request.method, self.era:
            case "server/discover", "modern":
                return {
                    "supportedVersions": list(MODERN_PROTOCOL_VERSIONS),
                    "capabilities": self.capabilities,
                }
            case "initialize", "legacy":
                return {
                    "protocolVersion": LATEST_HANDSHAKE_VERSION,
                    "capabilities": self.capabilities,
                    "serverInfo": {"name": "scripted peer", "version": "1"},
                }
            case "ping", "legacy":
                return {}
            case "tools/list", _:
                return {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
            case "tools/call", _:
                return {"content": [{"type": "text", "text": str(request.params.get("name"))}]}
            case _:
                raise MCPError(METHOD_NOT_FOUND, "Method not found")


_CACHED: Final = frozenset(
    {
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)


def _demanded(era: Era, method: str) -> dict[str, Any]:
    """What a result of this method must carry, by the specification."""
    if era == "legacy":
        return {}
    caching = {"ttlMs": 0, "cacheScope": "private"} if method in _CACHED else {}
    return {"resultType": "complete", **caching}


def _settle(request: PeerRequest, error: Exception) -> None:
    if isinstance(error, AssertionError):
        raise error
    if isinstance(error, MCPError):
        request.refuse(error.code, error.message, error.data)
    else:
        request.fault(error)


@final
@dataclass(frozen=True, slots=True, eq=False)
class _ScriptedTransport(Transport):
    peer: ScriptedPeer

    @property
    def kind(self) -> Literal["tcp", "pipe", "memory"]:
        return self.peer.kind

    @property
    def describe(self) -> str:
        return "a scripted peer"

    def connect(self, *, timeouts: Timeouts, limits: Limits) -> AbstractAsyncContextManager[Connection]:
        return self.peer.connect(timeouts)
