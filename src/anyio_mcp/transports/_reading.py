"""What the bytes of a peer mean: messages, faults of requests, violations. One rule for every transport.

Liberal where the meaning is plain, and never silent: whatever names a request settles it, by a result or by
an error that says what was wrong and keeps what the server said. Must not know where the bytes come from or
who waits for an answer.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, cast

from mcp.types import (
    INTERNAL_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from pydantic_core import from_json, to_json

from anyio_mcp.config import Limits
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports._attribution import answered_request, as_request_id, ends_of
from anyio_mcp.transports._values import holds_more_values
from anyio_mcp.transports.base import RequestFault, Violation

Received: TypeAlias = (
    JSONRPCRequest | JSONRPCNotification | JSONRPCResponse | JSONRPCError | RequestFault | Violation
)
"""What one message of a peer can turn out to be."""

MAX_BATCH: Final = 1000
"""Messages taken from one batch (2025-03-26). What follows is a violation: this client sends none, so that
a server has a handful of answers to put into one."""

MAX_DEPTH: Final = 200
"""Levels of nesting that are read. The parser's own bound, within which nothing that walks over what was
read (repr, copy, pickle, json) comes near to Python's."""

_BOM: Final = b"\xef\xbb\xbf"
_ENVELOPE: Final = frozenset(("jsonrpc", "id", "method", "params", "result", "error"))
_HALF_PAIR: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MOST_MENDED: Final = 100_000
_LONGEST_QUOTE: Final = 1000


def read_messages(data: bytes | bytearray, limits: Limits) -> list[Received]:
    """What one message means: one item, or those of a batch. Never raises, whatever the bytes are.

    * A member that is null is not there, and neither is an error that is empty beside a result.
    * An answer needs no `jsonrpc`. Its error may be a text, its id 3.0 for 3. `[]`, and null alone, are an
      empty result.
    * Half a surrogate pair is U+FFFD. NaN and Infinity, which JSON has not and many servers write, are
      read as the numbers they are. Of members of one name the last counts.
    * An answer that cannot be taken is a `RequestFault` of the request it names, with what it said in
      `RequestFailedError.result`. What names none is a `Violation`.

    The size of the input is the caller's to bound. The number of its values is bounded here, by
    `Limits.max_message_values`, before anything is parsed.
    """
    if data.startswith(_BOM):
        data = data[len(_BOM) :]
    if holds_more_values(data, limits.max_message_values):
        text = f"holds more values than Limits.max_message_values ({limits.max_message_values})"
        return [_unparsed(data, text, "oversized")]
    with collector_paused():
        try:
            value = _parse(data)
        except ValueError as error:
            return [_unparsed(data, f"is no JSON: {str(error)[:100]}", "violation", _mended_answer(data))]
        return _interpret_all(value)


def read_value(value: object, limits: Limits) -> list[Received]:
    """The same of what somebody else has parsed, by rules of their own. Never raises, and changes nothing in
    `value`, which may be theirs.

    What is no value of JSON is left to whoever uses it.
    """
    try:
        if _survey(value, limits.max_message_values):
            value = _mend(_copied(value), [_MOST_MENDED], 0)
        return _interpret_all(value)
    except OverflowError as error:
        return [_unread(value, str(error), "oversized")]
    except Exception as error:  # of an object of another make, as well
        return [
            _unread(value, f"cannot be read: {type(error).__name__}: {error}"[:_LONGEST_QUOTE], "violation")
        ]


def is_taken_as_it_is(value: object, limits: Limits) -> bool:
    """Whether nothing in `value`, which somebody else has parsed, is to be mended or refused."""
    try:
        return not _survey(value, limits.max_message_values)
    except (OverflowError, ValueError):
        return False


def _interpret_all(value: object) -> list[Received]:
    if not isinstance(value, list):
        return [_interpret(value)]
    batch = cast("list[object]", value)
    items = [_interpret(message) for message in batch[:MAX_BATCH]]
    if not batch or len(batch) > MAX_BATCH:
        items.append(Violation(f"a batch of {len(batch)} messages"))
    return items


def _survey(value: object, limit: int) -> bool:
    """Whether half a surrogate pair is in it. Raises `OverflowError` for more than `limit` values, and
    `ValueError` for more levels than are read.

    Run for every message: level by level, so that a value costs no call of a function.
    """
    count, is_halved = 1, False
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                is_halved = is_halved or (not item.isascii() and _is_halved(item))
            elif isinstance(item, dict):
                members = cast("dict[object, object]", item)
                below += members.values()
                for name in members:
                    if isinstance(name, str) and not name.isascii():
                        is_halved = is_halved or _is_halved(name)
            elif isinstance(item, list):
                below += cast("list[object]", item)
            if len(below) > limit - count:
                raise OverflowError(f"holds more values than Limits.max_message_values ({limit})")
        count += len(below)
        if not below:
            return is_halved
        level = below
    raise ValueError("recursion limit exceeded")


def _is_halved(text: object) -> bool:
    return isinstance(text, str) and not text.isascii() and _LONE_SURROGATE.search(text) is not None


def _copied(value: object) -> object:
    """Containers of its own, so that those of others stay as they are. Surveyed: not too deep."""
    if isinstance(value, dict):
        return {name: _copied(member) for name, member in cast("dict[object, object]", value).items()}
    if isinstance(value, list):
        return [_copied(item) for item in cast("list[object]", value)]
    return value


def _unread(value: object, what: str, reason: Any) -> RequestFault | Violation:
    """The fault of the request that a value answers which cannot be taken."""
    if not isinstance(value, dict):
        return Violation(f"a message that {what}")
    message = cast("dict[str, Any]", value)
    answers = message.get("method") is None and ("result" in message or "error" in message)
    request_id = as_request_id(message.get("id")) if answers else None
    if request_id is None:
        return Violation(f"a message that {what}")
    return RequestFault(request_id, RequestFailedError(f"the answer {what}", reason=reason))


@contextmanager
def collector_paused() -> Generator[None]:
    """Keep the garbage collector out while a large value is built, all of which is alive.

    It would walk over what is there once more for each few hundred objects that are new.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _parse(data: bytes | bytearray) -> object:
    try:
        return from_json(data)
    except ValueError:
        # The parser refuses half a surrogate pair: what a server makes that cuts a text in the middle.
        if _HALF_PAIR.search(data) is None:
            raise
    try:
        return _mend(json.loads(data.decode()), [_MOST_MENDED], 0)
    except RecursionError:
        raise ValueError("recursion limit exceeded") from None


def _mend(value: Any, left: list[int], depth: int) -> Any:
    """`value` without lone surrogates, in place where that can be done."""
    if isinstance(value, str):
        return _mend_text(value, left)
    if depth > MAX_DEPTH:
        raise ValueError("recursion limit exceeded")
    if isinstance(value, list):
        items = cast("list[Any]", value)
        for index, item in enumerate(items):
            items[index] = _mend(item, left, depth + 1)
        return items
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        for name, member in members.items():
            members[name] = _mend(member, left, depth + 1)
        if any(map(_is_halved, members)):
            return {_mend_text(name, left): member for name, member in members.items()}
        return members
    return value


def _mend_text(text: str, left: list[int]) -> str:
    if text.isascii():
        return text
    # Counted over the message, since a replacement costs more than what a peer pays for it.
    mended, number = _LONE_SURROGATE.subn("\ufffd", text, count=left[0] + 1)
    left[0] -= number
    if left[0] < 0:
        raise ValueError("too many lone surrogates")
    return mended


def _mended_answer(data: bytes | bytearray) -> Any:
    """What an answer says whose text is not UTF-8, for the error about it. None if it cannot be read."""
    try:
        data.decode()
    except UnicodeDecodeError:
        try:
            value = from_json(data.decode("utf-8", "replace"))
        except ValueError:
            return None
        if isinstance(value, dict):
            return cast("dict[str, Any]", value).get("result")
    return None


def _unparsed(
    data: bytes | bytearray, what: str, reason: Any, answer: object = None
) -> RequestFault | Violation:
    request_id = answered_request(*ends_of(data))
    if request_id is None:
        return Violation(f"a message that {what}")
    return RequestFault(request_id, RequestFailedError(f"the answer {what}", reason=reason, result=answer))


def _interpret(value: object) -> Received:
    """The message that a JSON value is."""
    if not isinstance(value, dict):
        kind = "a batch in a batch" if isinstance(value, list) else f"a bare {type(value).__name__}"
        return Violation(f"{kind} is no JSON-RPC message")
    message = cast("dict[str, Any]", value)
    method, result, error = message.get("method"), message.get("result"), message.get("error")
    if error is None and result is None and "result" not in message and method is not None:
        return _call(message)
    request_id = as_request_id(message.get("id"))
    if message.get("jsonrpc") is None and (request_id is None or not _ENVELOPE.issuperset(message)):
        # A line of a log can have an id and an error too, and must fail nobody's call.
        return Violation("jsonrpc: a JSON object without it is no JSON-RPC message")
    if error is not None and not ("result" in message and _is_void(error)):
        if not _is_void(result):
            return _fault(request_id, f"has both result and error: {_error_data(error).message}", result)
        return JSONRPCError(jsonrpc="2.0", id=request_id, error=_error_data(error))
    if "result" not in message:
        return _fault(request_id, "has neither method, result nor error", None)
    if request_id is None:
        return Violation("id: an answer without an id that can be read")
    if _is_void(result):
        result = {}
    if not isinstance(result, dict):
        return _fault(request_id, f"has a result that is no object, but of type {_kind(result)}", result)
    return JSONRPCResponse(jsonrpc="2.0", id=request_id, result=cast("dict[str, Any]", result))


def _call(message: dict[str, Any]) -> JSONRPCRequest | JSONRPCNotification | Violation:
    """A request or a notification of the peer. Its id, if it has one, is the peer's own."""
    method, given_id = message["method"], message.get("id")
    params: Any = message.get("params")
    if message.get("jsonrpc") != "2.0":
        return Violation("jsonrpc: a request or a notification without it is no JSON-RPC message")
    if not isinstance(method, str):
        return Violation(f"method: of type {_kind(method)}")
    if _is_void(params):
        params = None if params is None or params == "" else {}
    elif not isinstance(params, dict):
        return Violation(f"params: of type {_kind(params)}")
    else:
        params = cast("dict[str, Any]", params)
    if given_id is None:
        return JSONRPCNotification(jsonrpc="2.0", method=method, params=params)
    request_id = as_request_id(given_id)
    if request_id is None:
        return Violation("id: a request with an id that can be none")
    return JSONRPCRequest(jsonrpc="2.0", id=request_id, method=method, params=params)


def _fault(request_id: RequestId | None, what: str, answer: object) -> RequestFault | Violation:
    if request_id is None:
        return Violation(f"an answer that {what}"[:_LONGEST_QUOTE])
    text = f"the answer {what}"[:_LONGEST_QUOTE]
    return RequestFault(request_id, RequestFailedError(text, reason="violation", result=answer))


def _error_data(error: object) -> ErrorData:
    """The error as JSON-RPC has it, made from what there is: the server's words must not be lost."""
    if not isinstance(error, dict):
        return ErrorData(code=INTERNAL_ERROR, message=_words(error))
    members = cast("dict[str, Any]", error)
    given, message, data = members.get("code"), members.get("message"), members.get("data")
    code = as_request_id(given)
    if isinstance(code, str):
        code = int(code) if re.fullmatch(r"-?\d{1,9}", code, re.ASCII) else None
    if isinstance(code, int) and isinstance(message, str):
        return ErrorData(code=code, message=message, data=data)
    words = _words(members if message is None else message)
    return ErrorData(
        code=code if isinstance(code, int) else INTERNAL_ERROR,
        message=words,
        data=members if data is None else data,
    )


def _words(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    if _is_void(value):
        return "the server says nothing about its error"
    return to_json(value)[: 4 * _LONGEST_QUOTE].decode("utf-8", "ignore")[:_LONGEST_QUOTE]


def _is_void(value: object) -> bool:
    """Whether a member says nothing: PHP writes an empty object as an empty array, others as a text."""
    return value is None or value == "" or value == [] or value == {} or value is False


def _kind(value: object) -> str:
    return type(value).__name__
