"""JSON-RPC over HTTP without I/O: a message as bytes, an SSE event as a message, whose answer it is.

Must not know about connections or statuses.
"""

from __future__ import annotations

from mcp.types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from pydantic_core import to_json

from anyio_mcp.errors import ServerError
from anyio_mcp.transports._sse import SseEvent, SseOverflow
from anyio_mcp.transports.base import RequestFault, Violation, parse_message


def encode_message(message: JSONRPCMessage) -> bytes:
    """The JSON text of `message`: no null members in the envelope, explicit nulls inside it kept.

    Raises `ValueError` for what JSON cannot say, such as lone surrogates.
    """
    members = message.model_dump(by_alias=True, mode="json", exclude_unset=True)
    body = {name: value for name, value in members.items() if value is not None}
    return to_json(body)


def read_event(
    event: SseEvent | SseOverflow,
) -> JSONRPCRequest | JSONRPCNotification | JSONRPCResponse | JSONRPCError | Violation | None:
    """The message in an event; None for one that carries none."""
    if isinstance(event, SseOverflow):
        return Violation("an event larger than Limits.max_message_bytes")
    if event.event != "message" or not event.data:
        return None
    try:
        return parse_message(event.data)
    except ValueError as error:
        return Violation(f"an event that is no message: {error}")


def same_id(one: RequestId | None, other: RequestId | None) -> bool:
    """Whether two ids are one: 1 is not "1"."""
    return type(one) is type(other) and one == other


def settles(
    answer: JSONRPCResponse | JSONRPCError, request_id: RequestId
) -> JSONRPCResponse | JSONRPCError | RequestFault | None:
    """What `answer`, found in the answer to the POST of this request, means for it; None for nothing.

    An error without an id is the server's complaint about what it could not read, and this POST is
    all it was given to read.
    """
    if same_id(answer.id, request_id):
        return answer
    if isinstance(answer, JSONRPCError) and answer.id is None:
        return RequestFault(request_id, ServerError.from_jsonrpc_error(answer))
    return None
