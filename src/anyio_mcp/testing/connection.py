"""One connection to a scripted peer: what the client's session holds, and the other end in one object.

It moves messages and keeps what the script decided (wedged, lost). It does not know what the messages
mean; that is the peer's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

import anyio
import anyio.lowlevel
from anyio.abc import ObjectReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.types import (
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)

from anyio_mcp.errors import LossReason, RequestFailedError, SessionLostError
from anyio_mcp.transports.base import (
    Connection,
    ConnectionLost,
    Incoming,
    Liveness,
    Outgoing,
    RequestFault,
    Violation,
)

CAPACITY: Final = 200_000
"""Items a script may send without the session reading any. One more raises `anyio.WouldBlock` in the
script: a test that goes there tests its own memory."""


@final
class ScriptedConnection(Connection):
    """One connection, seen from both ends.

    The session uses `incoming`, `last_traffic`, `send`, `abandon` and `liveness`; the script uses the rest.
    All that the script does is synchronous, so a test decides exactly what happens before what.
    """

    def __init__(
        self,
        number: int,
        *,
        deliver: Callable[[ScriptedConnection, Outgoing], None],
        abandoned: Callable[[ScriptedConnection, RequestId], bool],
    ) -> None:
        self.number = number
        """Which connection of its peer this is, from 1."""
        self._deliver = deliver
        self._abandoned = abandoned
        self._inbox: MemoryObjectSendStream[Incoming]
        self._incoming: MemoryObjectReceiveStream[Incoming]
        self._inbox, self._incoming = anyio.create_memory_object_stream[Incoming](CAPACITY)
        self._last_traffic = anyio.current_time()
        self.evidence = Liveness.UNKNOWN
        """What the session is told of a peer that says nothing."""
        self._freed: anyio.Event | None = None
        self._lost = False
        self.sending = 0
        """How many `send()` are under way: never more than one, by the contract of a connection."""

    # What the session uses

    @property
    def incoming(self) -> ObjectReceiveStream[Incoming]:
        return self._incoming

    @property
    def last_traffic(self) -> float:
        return self._last_traffic

    async def send(self, outgoing: Outgoing) -> None:
        self.sending += 1
        try:
            await anyio.lowlevel.checkpoint()
            while self._freed is not None:
                await self._freed.wait()
            if self._lost:
                _not_delivered(outgoing)
            else:
                self._deliver(self, outgoing)
        finally:
            self.sending -= 1

    def abandon(self, request_id: RequestId) -> bool:
        return self._abandoned(self, request_id)

    def liveness(self) -> Liveness:
        return self.evidence

    # What the script uses

    @property
    def is_lost(self) -> bool:
        """Whether the script has ended this connection."""
        return self._lost

    def wedge(self) -> None:
        """From now on `send()` does not return: the peer has stopped reading."""
        if self._freed is None:
            self._freed = anyio.Event()

    def unwedge(self) -> None:
        """The peer reads again."""
        if self._freed is not None:
            self._freed.set()
            self._freed = None

    def push(self, item: Incoming) -> None:
        """Let the session receive `item`. Ignored once the connection is lost.

        Raises `anyio.WouldBlock` when the session is `CAPACITY` items behind.
        """
        if self._lost:
            return
        self._last_traffic = anyio.current_time()
        self._inbox.send_nowait(item)

    def answer(self, request_id: RequestId, result: dict[str, Any]) -> None:
        """Answer a request of the client."""
        self.push(JSONRPCResponse(jsonrpc="2.0", id=request_id, result=result))

    def refuse(self, request_id: RequestId | None, code: int, message: str, data: Any = None) -> None:
        """Answer a request of the client with an error; None answers no request in particular."""
        error = ErrorData(code=code, message=message, data=data)
        self.push(JSONRPCError(jsonrpc="2.0", id=request_id, error=error))

    def fault(self, request_id: RequestId, error: Exception) -> None:
        """End the exchange of a request without an answer, as an HTTP status or a refused POST does."""
        self.push(RequestFault(request_id, error))

    def violate(self, detail: str = "not JSON") -> None:
        """Send something that is no message."""
        self.push(Violation(detail))

    def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        """Send a notification."""
        self.push(JSONRPCNotification(jsonrpc="2.0", method=method, params=params))

    def progress(
        self, token: RequestId, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Report progress on the request that gave `token`."""
        params = {"progressToken": token, "progress": progress, "total": total, "message": message}
        given = {key: value for key, value in params.items() if value is not None}
        self.notify("notifications/progress", given)

    def request(self, request_id: RequestId, method: str, params: dict[str, Any] | None = None) -> None:
        """Ask something of the client."""
        self.push(JSONRPCRequest(jsonrpc="2.0", id=request_id, method=method, params=params))

    def lose(
        self,
        reason: LossReason = "eof",
        *,
        text: str = "the scripted connection was lost",
        cause: BaseException | None = None,
        exit_code: int | None = None,
        stderr_tail: tuple[str, ...] = (),
    ) -> None:
        """Lose the connection, with a reason. Nothing arrives any more, in either direction."""
        if self._lost:
            return
        error = SessionLostError(
            text, reason=reason, cause=cause, exit_code=exit_code, stderr_tail=stderr_tail
        )
        self.push(ConnectionLost(error))
        self.end()

    def end(self) -> None:
        """End the stream without a word. Transports of this library say why; others may not."""
        self._lost = True
        self._inbox.close()

    def close(self) -> None:
        """Both ends are gone."""
        self.end()
        self._incoming.close()


def _not_delivered(outgoing: Outgoing) -> None:
    if outgoing.receipt is not None:
        outgoing.receipt(RequestFailedError("the connection is lost", reason="transport"))
