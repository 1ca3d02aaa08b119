"""What the server asks of us, on its way to the handlers, each request in a task of its own.

They are bounded in number and in bytes; what exceeds the bound is refused, and counted. It does not know
what the handlers do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast, final

import anyio
import anyio.abc
from mcp import MCPError
from mcp.shared.dispatcher import (
    CallOptions,
    DispatchContext,
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

from anyio_mcp._sendable import check_sendable
from anyio_mcp._session.boundary import Bugs
from anyio_mcp._session.slots import HandlerSlots
from anyio_mcp._session.weight import weigh
from anyio_mcp._text import get_logger

if TYPE_CHECKING:
    from anyio_mcp._session.dispatcher import SessionDispatcher

logger = get_logger(__name__)

REQUEST_BYTES: Final = 16 * 1024 * 1024
"""Memory that the requests of the server hold while they are handled. One that does not fit is refused,
unless it is the only one: what `Limits` let in can be answered."""

_CONTEXT: Final = TransportContext(kind="anyio-mcp", can_send_request=True)

_Answer: TypeAlias = JSONRPCResponse | JSONRPCError


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
class _Handling:
    """A request of the server that is being handled."""

    context: RequestContext
    weight: int
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


@final
class Inbound:
    """The server's requests, on their way to the handlers.

    Its tasks belong to `tasks`, a task group of the session, and end with it. `slots` are shared with
    whatever else brings questions of the server to the handlers.
    """

    def __init__(
        self,
        dispatcher: SessionDispatcher,
        tasks: anyio.abc.TaskGroup,
        *,
        on_request: OnRequest,
        slots: HandlerSlots,
        bugs: Bugs,
    ) -> None:
        self._dispatcher = dispatcher
        self._tasks = tasks
        self._on_request = on_request
        self._slots = slots
        self._bugs = bugs
        self._requests: dict[RequestId, _Handling] = {}
        self._bytes = 0

    def take_request(self, request: JSONRPCRequest) -> None:
        """Start handling a request. An id in use or one request too many is refused."""
        key = coerce_request_id(request.id)
        left = REQUEST_BYTES - self._bytes
        weight = weigh(request.params, left)
        full = bool(self._requests) and weight > left
        if key in self._requests or full or not self._slots.take():
            # Not started as a task: refusals must not pile up where requests may not.
            self._dispatcher.refuse(request.id, "too many requests at once, or an id in use")
            return
        try:
            token = _progress_token(request.params)
            context = RequestContext(self._dispatcher, request_id=request.id, progress_token=token)
            handling = _Handling(context, weight)
            self._tasks.start_soon(self._handle, request, handling, name=f"anyio_mcp {request.method[:40]}")
        except BaseException:
            self._slots.give_back()
            raise
        self._requests[key] = handling
        self._bytes += weight

    def refuse(self, request: JSONRPCRequest, why: str) -> None:
        """Answer with an error what could not even be handled. Does not wait."""
        self._dispatcher.refuse(request.id, why)

    def cancel(self, request_id: RequestId) -> None:
        """The server wants no answer any more: stop the handler, answer nothing (spec: Cancellation)."""
        handling = self._requests.get(coerce_request_id(request_id))
        if handling is not None:
            handling.context.cancel_requested.set()
            handling.scope.cancel()

    async def _handle(self, request: JSONRPCRequest, handling: _Handling) -> None:
        try:
            await self._answer_within(request, handling)
        except Exception as error:  # the handlers and the transport are contained where they are called
            self._bugs.report(f"the handling of {request.method[:80]!r}", error)

    async def _answer_within(self, request: JSONRPCRequest, handling: _Handling) -> None:
        answer: _Answer | None = None
        try:
            with handling.scope:
                answer = await self._answer(request, handling.context)
            if answer is not None:
                await self._dispatcher.deliver_answer(answer)
        finally:
            # Only now: an answer that waits to be taken counts, or a server that asks and does not
            # read would pile them up.
            del self._requests[coerce_request_id(request.id)]
            self._bytes -= handling.weight
            self._slots.give_back()

    async def _answer(self, request: JSONRPCRequest, context: RequestContext) -> _Answer:
        try:
            result = await self._on_request(context, request.method, request.params)
            check_sendable(result, request.method[:80])
        except MCPError as error:
            data = error.error
        except ValidationError:
            data = ErrorData(code=INVALID_PARAMS, message="Invalid request parameters")
        except Exception:  # a user's handler: the server gets an error, the session lives
            logger.exception("the handler of %r raised", request.method[:80])
            data = ErrorData(code=INTERNAL_ERROR, message="The client's handler failed")
        else:
            return JSONRPCResponse(jsonrpc="2.0", id=request.id, result=result)
        return JSONRPCError(jsonrpc="2.0", id=request.id, error=data)


def _progress_token(params: Mapping[str, Any] | None) -> RequestId | None:
    meta: object = (params or {}).get("_meta")
    if not isinstance(meta, Mapping):
        return None
    return as_request_id(cast("Mapping[str, object]", meta).get("progressToken"))
