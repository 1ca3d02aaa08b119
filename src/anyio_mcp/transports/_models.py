"""What an item of a transport of another make means: by the one rule that holds for bytes.

Such a transport has parsed its messages: by the models of the SDK, which refuse what is plain and say so by
an exception, or by models that check nothing. Must not know about streams.
"""

from __future__ import annotations

from typing import Any, Final, cast

from mcp.shared.message import SessionMessage
from mcp.types import (
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)
from pydantic import ValidationError

from anyio_mcp.config import Limits
from anyio_mcp.transports._reading import Received, is_taken_as_it_is, read_messages, read_value
from anyio_mcp.transports.base import Violation

_MODELS: Final = (JSONRPCRequest, JSONRPCNotification, JSONRPCResponse, JSONRPCError)

_TELLING: Final = frozenset(("jsonrpc", "id", "method", "result"))
"""Members of messages, of which what is in messages has none."""

_DETAIL: Final = 200


def read_item(item: object, limits: Limits) -> list[Received]:
    """What an item means, whatever it is: one message, or those of a batch. Never raises."""
    try:
        if isinstance(item, SessionMessage):
            return _read_message(item.message, limits)
        if isinstance(item, ValidationError):
            return _read_refused(item, limits)
    except Exception as error:  # of an object of another make
        return [Violation(f"{type(item).__name__}, which raises {type(error).__name__}"[:_DETAIL])]
    return [Violation(f"{type(item).__name__}: {_text_of(item)}"[:_DETAIL])]


def _read_message(message: object, limits: Limits) -> list[Received]:
    if not isinstance(message, _MODELS):
        return read_value(message, limits)
    if _is_plain(message) and is_taken_as_it_is(message.__dict__, limits):
        return [message]
    members: dict[str, Any] = dict(message)
    error = members.get("error")
    if isinstance(error, ErrorData):
        members["error"] = dict(error)
    return read_value(members, limits)


def _is_plain(message: JSONRPCRequest | JSONRPCNotification | JSONRPCResponse | JSONRPCError) -> bool:
    """Whether a message has the form that is expected: what there is to see at no cost."""
    members = message.__dict__  # without validation there may be others, or some may be missing
    if message.model_extra or len(members) != 3 or members.get("jsonrpc") != "2.0":
        return False
    if isinstance(message, JSONRPCResponse):
        return type(members.get("id")) is int and isinstance(members.get("result"), dict)
    is_notification = isinstance(message, JSONRPCNotification) and isinstance(members.get("method"), str)
    return is_notification and isinstance(members.get("params"), dict)


def _read_refused(error: ValidationError, limits: Limits) -> list[Received]:
    """What a message means that the models of the SDK have refused.

    Of the messages that a union of models refuses pydantic keeps the text, if it was no JSON, or the value.
    https://docs.pydantic.dev/latest/errors/validation_errors/
    """
    for each in error.errors(include_url=False, include_context=False):
        given: object = each["input"]
        if each["type"] == "json_invalid" and isinstance(given, str | bytes | bytearray):
            data = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given
            return read_messages(data, limits)
        # Of a member that is missing, the input is what it is missing from; of one that is wrong, it alone.
        if _looks_like_message(given) or (each["type"] == "model_type" and _is_list(given)):
            return read_value(given, limits)
    return [Violation(f"{type(error).__name__}: {_text_of(error)}"[:_DETAIL])]


def _looks_like_message(given: object) -> bool:
    return isinstance(given, dict) and not _TELLING.isdisjoint(cast("dict[object, object]", given))


def _is_list(given: object) -> bool:
    return isinstance(given, list)


def _text_of(item: object) -> str:
    """What an item says of itself. It is of another make, and may not be able to."""
    try:
        return str(item)
    except Exception as error:
        return f"without a text ({type(error).__name__})"
