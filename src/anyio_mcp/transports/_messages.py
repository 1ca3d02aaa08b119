"""JSON-RPC over HTTP without I/O: a message as bytes, an SSE event as a message, whose answer it is.

Must not know about connections or statuses.
"""

from __future__ import annotations

from mcp.shared.dispatcher import coerce_request_id
from mcp.types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from pydantic_core import to_json

from anyio_mcp.config import Limits
from anyio_mcp.errors import MCPError
from anyio_mcp.transports._reading import Received, read_messages
from anyio_mcp.transports._sse import SseEvent, SseOverflow
from anyio_mcp.transports.base import RequestFault, Violation


def encode_message(message: JSONRPCMessage) -> bytes:
    """The JSON text of `message`: no null members in the envelope, explicit nulls inside it kept.

    Raises `ValueError` for what JSON cannot say, such as lone surrogates.
    """
    if isinstance(message, JSONRPCRequest | JSONRPCNotification | JSONRPCResponse):
        # Plain values already: its members, and what is in them as it is.
        members = dict(message)
    else:
        members = message.model_dump(by_alias=True, mode="json", exclude_unset=True)
    body = {name: value for name, value in members.items() if value is not None}
    return to_json(body)


def read_event(event: SseEvent | SseOverflow, limits: Limits) -> list[Received]:
    """The messages in an event: mostly one, none in an event that carries none."""
    if isinstance(event, SseOverflow):
        return [Violation("an event larger than Limits.max_message_bytes")]
    if event.event != "message" or not event.data:
        return []
    return read_messages(event.data, limits)


def size_of(event: SseEvent | SseOverflow) -> int:
    """What an event counts in an inbox, in bytes."""
    return len(event.data) if isinstance(event, SseEvent) else 0


def same_id(one: RequestId | None, other: RequestId | None) -> bool:
    """Whether two ids are one. "1" is 1, since servers echo either."""
    if one is None or other is None:
        return one is other
    return coerce_request_id(one) == coerce_request_id(other)


def settles(item: Received, request_id: RequestId) -> JSONRPCResponse | JSONRPCError | RequestFault | None:
    """What `item`, found in the answer to the POST of this request, means for it; None for nothing.

    An error without an id is the server's complaint about what it could not read, and this POST is
    all it was given to read.
    """
    match item:
        case JSONRPCError(id=None):
            return RequestFault(request_id, MCPError.from_jsonrpc_error(item))
        case JSONRPCResponse() | JSONRPCError():
            return item if same_id(item.id, request_id) else None
        case RequestFault():
            return item if same_id(item.request_id, request_id) else None
        case _:
            return None


def named_request(item: Received) -> RequestId | None:
    """The id of the request that `item` answers; None for what answers none."""
    match item:
        case JSONRPCResponse() | JSONRPCError():
            return item.id
        case RequestFault():
            return item.request_id
        case _:
            return None
