"""One JSON-RPC message from its text, or a `ValueError` that says why not. Nothing else, ever."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from anyio_mcp.transports.base import parse_message

KINDS = JSONRPCRequest | JSONRPCNotification | JSONRPCResponse | JSONRPCError


def message(**fields: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", **fields})


@pytest.mark.parametrize("encode", [lambda text: text, str.encode, lambda text: bytearray(text.encode())])
def test_the_four_kinds_of_messages_are_told_apart(encode: Any) -> None:
    request = parse_message(encode(message(id=1, method="tools/call", params={"name": "ä"})))
    assert request == JSONRPCRequest(jsonrpc="2.0", id=1, method="tools/call", params={"name": "ä"})
    notification = parse_message(encode(message(method="notifications/x")))
    assert notification == JSONRPCNotification(jsonrpc="2.0", method="notifications/x")
    response = parse_message(encode(message(id="a", result={"b": None})))
    assert response == JSONRPCResponse(jsonrpc="2.0", id="a", result={"b": None})
    error = parse_message(encode(message(id=2, error={"code": -1, "message": "no", "data": [1]})))
    assert isinstance(error, JSONRPCError)
    assert (error.id, error.error.code, error.error.message, error.error.data) == (2, -1, "no", [1])


def test_an_error_for_no_request_has_no_id() -> None:
    error = parse_message(message(id=None, error={"code": -32700, "message": "what?"}))
    assert isinstance(error, JSONRPCError)
    assert error.id is None


def test_ids_are_kept_as_they_came() -> None:
    for request_id in (0, -1, 10**15, "", "7", "ä"):
        response = parse_message(message(id=request_id, result={}))
        assert isinstance(response, JSONRPCResponse)
        assert response.id == request_id
        assert type(response.id) is type(request_id)


MALFORMED: list[tuple[bytes, str]] = [
    (b"", "EOF"),
    (b" ", "EOF"),
    (b"{", "EOF"),
    (b"nonsense", "expected"),
    (b'{"jsonrpc": "2.0", "id": 1, "result": {}} trailing', "trailing"),
    (b'{"jsonrpc": "2.0", "id": 1, "result": {}}\n{}', "trailing"),
    (b'{"jsonrpc": "2.0", "method": "\xff"}', "unicode"),
    (b"\xff\xfe{\x00}\x00", "expected"),
    (b"[" * 100_000, "recursion"),
    (b'{"a":' * 100_000, "recursion"),
    (b"null", "a bare NoneType is not"),
    (b"7", "a bare int is not"),
    (b'"text"', "a bare str is not"),
    (b"[]", "a batch is not"),
    (b'[{"jsonrpc": "2.0", "id": 1, "result": {}}]', "a batch is not"),
    (b"{}", "neither method, result nor error"),
    (b'{"jsonrpc": "2.0", "id": 1}', "neither method, result nor error"),
    (b'{"id": 1, "result": {}}', "jsonrpc"),
    (b'{"jsonrpc": "1.0", "id": 1, "result": {}}', "jsonrpc"),
    (b'{"jsonrpc": 2.0, "id": 1, "result": {}}', "jsonrpc"),
    (b'{"jsonrpc": "2.0", "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": null, "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": true, "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": 1.5, "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": 1e400, "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": [1], "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": 1, "result": null}', "result"),
    (b'{"jsonrpc": "2.0", "id": 1, "result": []}', "result"),
    (b'{"jsonrpc": "2.0", "id": 1, "result": "text"}', "result"),
    (
        b'{"jsonrpc": "2.0", "id": 1, "result": {}, "error": {"code": 1, "message": ""}}',
        "both result and error",
    ),
    (b'{"jsonrpc": "2.0", "id": 1, "error": null}', "error"),
    (b'{"jsonrpc": "2.0", "id": 1, "error": "no"}', "error"),
    (b'{"jsonrpc": "2.0", "id": 1, "error": {"code": "x", "message": ""}}', "error.code"),
    (b'{"jsonrpc": "2.0", "id": 1, "error": {"code": 1}}', "error.message"),
    (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', "id"),
    (b'{"jsonrpc": "2.0", "id": 1, "method": 7}', "method"),
    (b'{"jsonrpc": "2.0", "method": null}', "method"),
    (b'{"jsonrpc": "2.0", "method": "x", "params": [1]}', "params"),
    (b'{"jsonrpc": "2.0", "id": 1, "method": "x", "params": "y"}', "params"),
    (b'{"jsonrpc": "2.0", "id": 1, "result": {"big": ' + b"9" * 10_000 + b"}}", "number"),
]


def test_what_is_no_message_is_a_value_error_that_says_why() -> None:
    for data, why in MALFORMED:
        with pytest.raises(ValueError) as caught:
            parse_message(data)
        assert why in str(caught.value), data[:80]
        assert len(str(caught.value)) < 300, "short, whatever the peer sent"


def test_the_error_does_not_repeat_what_the_peer_sent() -> None:
    with pytest.raises(ValueError) as caught:
        parse_message(message(id=1, result="secret" * 10_000))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = {
    "jsonrpc": st.just("2.0") | JSON,
    "id": st.integers() | st.text() | JSON,
    "method": st.text() | JSON,
    "params": st.dictionaries(st.text(), JSON, max_size=3) | JSON,
    "result": st.dictionaries(st.text(), JSON, max_size=3) | JSON,
    "error": st.fixed_dictionaries({"code": st.integers(), "message": st.text()}) | JSON,
    "more": JSON,
}
NEARLY_MESSAGES = st.fixed_dictionaries({}, optional=FIELDS)


@given(JSON | NEARLY_MESSAGES)
def test_any_json_value_is_a_message_or_a_value_error(value: Any) -> None:
    try:
        found = parse_message(json.dumps(value).encode())
    except ValueError:
        return
    assert isinstance(found, KINDS)
    assert value["jsonrpc"] == "2.0"
    if isinstance(found, JSONRPCRequest):
        assert (found.id, found.method) == (value["id"], value["method"])
    elif isinstance(found, JSONRPCNotification):
        assert "id" not in value
        assert found.method == value["method"]
    elif isinstance(found, JSONRPCResponse):
        assert found.id == value["id"]
        assert found.result.keys() == value["result"].keys()
    else:
        assert found.error.code == value["error"]["code"]
        assert "result" not in value


@given(st.fixed_dictionaries({"id": st.integers(min_value=-(2**63), max_value=2**63) | st.text()}), JSON)
def test_a_message_comes_out_of_its_own_text_as_it_was(fields: dict[str, Any], value: Any) -> None:
    sent = JSONRPCResponse(jsonrpc="2.0", id=fields["id"], result={"value": value})
    text = sent.model_dump_json(by_alias=True)
    assert parse_message(text).model_dump_json(by_alias=True) == text


@given(st.binary() | st.binary().map(lambda noise: b'{"jsonrpc":"2.0","id":1,"result":{}' + noise))
def test_arbitrary_bytes_are_a_message_or_a_value_error(data: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(parse_message(data), KINDS)


@given(st.text())
def test_arbitrary_text_is_a_message_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert isinstance(parse_message(text), KINDS)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "objects"])
def test_deep_nesting_is_a_message_or_a_value_error(opening: bytes, closing: bytes) -> None:
    def parse(depth: int) -> object:
        nested = opening * depth + b"1" + closing * depth
        return parse_message(b'{"jsonrpc":"2.0","id":1,"result":{"deep":' + nested + b"}}")

    for depth in (1, 50, 150):
        assert isinstance(parse(depth), JSONRPCResponse)
    for depth in (250, 1_000, 50_000):
        with pytest.raises(ValueError, match="recursion"):
            parse(depth)
    for depth in range(150, 250):
        with suppress(ValueError):
            assert isinstance(parse(depth), JSONRPCResponse)
