"""What the server asks of us and tells us: requests and notifications, never in the receive loop.

Each request runs in a task of its own; notifications are handed over one after the other, so their
order holds, but one handler that hangs holds the next one up for a moment only. Both are bounded and
what exceeds the bound is refused or dropped, and counted. It does not know what the handlers do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast, final

import anyio
import anyio.abc
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import MCPError
from mcp.shared.dispatcher import (
    CallOptions,
    DispatchContext,
    OnNotify,
    OnRequest,
    as_request_id,
    coerce_request_id,
)
from mcp.shared.message import MessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    ErrorData,
    JSONRPCError,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from pydantic import ValidationError

from anyio_mcp._text import get_logger

if TYPE_CHECKING:
    from anyio_mcp._session.dispatcher import SessionDispatcher

logger = get_logger(__name__)

MAX_REQUESTS: Final = 100
"""Requests of the server handled at once. One more is refused with an error, so that a server cannot
pile up tasks here."""

MAX_SLOW_HANDLERS: Final = 100
"""Notification handlers still running after their turn. At that number notifications wait in the
queue."""

NOTIFICATION_QUEUE: Final = 1024
"""Notifications waiting for a handler. When it is full the newest is dropped and counted: the receive
loop must not wait for a handler."""

TURN: Final = 1.0
"""Seconds a notification handler may hold up the next notification."""

_CONTEXT: Final = TransportContext(kind="anyio-mcp", can_send_request=True)

_Answer: TypeAlias = JSONRPCResponse | JSONRPCError
_Notification: TypeAlias = tuple[str, Mapping[str, Any] | None]


@final
class RequestContext(DispatchContext[TransportContext]):
    """The back channel of one message of the server, as the SDK's handlers expect it."""

    __slots__ = ("_cancel_requested", "_dispatcher", "_progress_token", "_request_id")

    def __init__(
        self,
        dispatcher: SessionDispatcher,
        *,
        request_id: RequestId | None = None,
        progress_token: RequestId | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._request_id = request_id
        self._progress_token = progress_token
        self._cancel_requested = anyio.Event()

    @property
    def transport(self) -> TransportContext:
        return _CONTEXT

    @property
    def can_send_request(self) -> bool:
        return True

    @property
    def request_id(self) -> RequestId | None:
        return self._request_id

    @property
    def message_metadata(self) -> MessageMetadata:
        return None

    @property
    def cancel_requested(self) -> anyio.Event:
        return self._cancel_requested

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        return await self._dispatcher.send_raw_request(method, params, opts)

    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        await self._dispatcher.notify(method, params, opts)

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        if self._progress_token is None:
            return
        params = {
            "progressToken": self._progress_token,
            "progress": progress,
            "total": total,
            "message": message,
        }
        await self.notify("notifications/progress", {k: v for k, v in params.items() if v is not None})


@final
@dataclass(slots=True, eq=False)
class InboundCounters:
    """What was refused or dropped."""

    refused_requests: int = 0
    dropped_notifications: int = 0


@final
class NotificationQueue:
    """Notifications on their way to a handler. Closed by whoever made it, when its readers are gone."""

    __slots__ = ("receive", "send")

    def __init__(self) -> None:
        self.send: MemoryObjectSendStream[_Notification]
        self.receive: MemoryObjectReceiveStream[_Notification]
        self.send, self.receive = anyio.create_memory_object_stream[_Notification](NOTIFICATION_QUEUE)

    def close(self) -> None:
        self.send.close()
        self.receive.close()


@final
class Inbound:
    """The server's requests and notifications, on their way to the handlers.

    Its tasks belong to `tasks`, a task group of the session, and end with it.
    """

    def __init__(
        self,
        dispatcher: SessionDispatcher,
        tasks: anyio.abc.TaskGroup,
        queue: NotificationQueue,
        *,
        on_request: OnRequest,
        on_notify: OnNotify,
        counters: InboundCounters,
    ) -> None:
        self._dispatcher = dispatcher
        self._tasks = tasks
        self._on_request = on_request
        self._on_notify = on_notify
        self._counters = counters
        self._requests: dict[RequestId, tuple[anyio.CancelScope, RequestContext]] = {}
        self._slow = anyio.Semaphore(MAX_SLOW_HANDLERS)
        self._queue = queue
        tasks.start_soon(self._hand_over, name="anyio_mcp notifications")

    def take_request(self, request: JSONRPCRequest) -> None:
        """Start handling a request. An id in use or one request too many is refused."""
        key = coerce_request_id(request.id)
        if key in self._requests or len(self._requests) >= MAX_REQUESTS:
            self._counters.refused_requests += 1
            # Not started as a task: refusals must not pile up where requests may not.
            self._dispatcher.refuse(request.id, "too many requests at once, or an id in use")
            return
        context = RequestContext(
            self._dispatcher, request_id=request.id, progress_token=_progress_token(request.params)
        )
        scope = anyio.CancelScope()
        self._requests[key] = scope, context
        self._tasks.start_soon(self._handle, request, context, scope, name=f"anyio_mcp {request.method}")

    def cancel(self, request_id: RequestId) -> None:
        """The server wants no answer any more: stop the handler, answer nothing (spec: Cancellation)."""
        entry = self._requests.get(coerce_request_id(request_id))
        if entry is not None:
            scope, context = entry
            context.cancel_requested.set()
            scope.cancel()

    def take_notification(self, method: str, params: Mapping[str, Any] | None) -> None:
        """Queue a notification for its handler, or drop it if the handlers are that far behind."""
        try:
            self._queue.send.send_nowait((method, params))
        except anyio.WouldBlock:
            self._counters.dropped_notifications += 1

    async def _handle(
        self, request: JSONRPCRequest, context: RequestContext, scope: anyio.CancelScope
    ) -> None:
        answer: _Answer | None = None
        try:
            with scope:
                answer = await self._answer(request, context)
            if answer is not None:
                await self._dispatcher.deliver_answer(answer)
        finally:
            # Only now: an answer that waits to be taken counts, or a server that asks and does not
            # read would pile them up.
            del self._requests[coerce_request_id(request.id)]

    async def _answer(self, request: JSONRPCRequest, context: RequestContext) -> _Answer:
        try:
            result = await self._on_request(context, request.method, request.params)
        except MCPError as error:
            data = error.error
        except ValidationError:
            data = ErrorData(code=INVALID_PARAMS, message="Invalid request parameters")
        except Exception:  # a user's handler: the server gets an error, the session lives
            logger.exception("the handler of %r raised", request.method)
            data = ErrorData(code=INTERNAL_ERROR, message="The client's handler failed")
        else:
            return JSONRPCResponse(jsonrpc="2.0", id=request.id, result=result)
        return JSONRPCError(jsonrpc="2.0", id=request.id, error=data)

    async def _hand_over(self) -> None:
        async for method, params in self._queue.receive:
            await self._slow.acquire()
            done = anyio.Event()
            self._tasks.start_soon(self._notify, method, params, done, name=f"anyio_mcp {method}")
            with anyio.move_on_after(TURN):
                await done.wait()

    async def _notify(self, method: str, params: Mapping[str, Any] | None, done: anyio.Event) -> None:
        try:
            await self._on_notify(RequestContext(self._dispatcher), method, params)
        except Exception:  # a user's handler, or a notification that does not validate
            logger.exception("the handler of %r raised", method)
        finally:
            done.set()
            self._slow.release()


def _progress_token(params: Mapping[str, Any] | None) -> RequestId | None:
    meta: object = (params or {}).get("_meta")
    if not isinstance(meta, Mapping):
        return None
    return as_request_id(cast("Mapping[str, object]", meta).get("progressToken"))
