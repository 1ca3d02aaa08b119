"""What the bytes of a peer mean: messages, faults of requests, violations. Never an exception."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.types import INTERNAL_ERROR, JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from anyio_mcp.config import Limits
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports._messages import named_request
from anyio_mcp.transports._reading import MAX_BATCH, read_messages
from anyio_mcp.transports._values import holds_more_values
from anyio_mcp.transports.base import RequestFault, Violation

KINDS = JSONRPCRequest | JSONRPCNotification | JSONRPCResponse | JSONRPCError | RequestFault | Violation
LIMITS = Limits()


def read(data: str | bytes | bytearray, limits: Limits = LIMITS) -> Any:
    """The one item that a message is."""
    [item] = read_messages(data.encode() if isinstance(data, str) else data, limits)
    return item


def message(**fields: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", **fields})


@pytest.mark.parametrize("encode", [str.encode, lambda text: bytearray(text.encode())])
def test_the_four_kinds_of_messages_are_told_apart(encode: Any) -> None:
    request = read(encode(message(id=1, method="tools/call", params={"name": "ä"})))
    assert request == JSONRPCRequest(jsonrpc="2.0", id=1, method="tools/call", params={"name": "ä"})
    notification = read(encode(message(method="notifications/x")))
    assert notification == JSONRPCNotification(jsonrpc="2.0", method="notifications/x")
    response = read(encode(message(id="a", result={"b": None})))
    assert response == JSONRPCResponse(jsonrpc="2.0", id="a", result={"b": None})
    error = read(encode(message(id=2, error={"code": -1, "message": "no", "data": [1]})))
    assert isinstance(error, JSONRPCError)
    assert (error.id, error.error.code, error.error.message, error.error.data) == (2, -1, "no", [1])


def test_an_error_for_no_request_has_no_id() -> None:
    error = read(message(id=None, error={"code": -32700, "message": "what?"}))
    assert isinstance(error, JSONRPCError)
    assert error.id is None


def test_ids_are_kept_as_they_came() -> None:
    for request_id in (0, -1, 10**15, "", "7", "ä"):
        response = read(message(id=request_id, result={}))
        assert isinstance(response, JSONRPCResponse)
        assert response.id == request_id
        assert type(response.id) is type(request_id)


RESULT = {"content": []}


@pytest.mark.parametrize(
    "text",
    [
        message(id=1, result=RESULT, error=None),
        message(id=1, result=RESULT, error=""),
        message(id=1, result=RESULT, error={}),
        message(id=1, result=RESULT, error=[]),
        message(id=1, result=RESULT, error=False),
        message(id=1, result=RESULT, error=None, method=None, params=None),
        message(id=1.0, result=RESULT),
        message(id=1, result=RESULT, method="tools/call"),
        json.dumps({"id": 1, "result": RESULT}),
        json.dumps({"id": 1, "result": RESULT, "error": None}),
        json.dumps({"jsonrpc": "1.0", "id": 1, "result": RESULT}),
        json.dumps({"jsonrpc": 2.0, "id": 1, "result": RESULT}),
        "\ufeff" + message(id=1, result=RESULT),
        f"[{message(id=1, result=RESULT)}]",
        " \r\n" + message(id=1, result=RESULT) + "\r\n",
    ],
)
def test_an_answer_whose_meaning_is_plain_is_the_result(text: str) -> None:
    assert read(text) == JSONRPCResponse(jsonrpc="2.0", id=1, result=RESULT)


@pytest.mark.parametrize("void", [None, [], {}, "", False])
def test_a_result_that_says_nothing_is_an_empty_one(void: Any) -> None:
    assert read(message(id=1, result=void)) == JSONRPCResponse(jsonrpc="2.0", id=1, result={})
    assert read(message(id=1, result=void, error=None)).result == {}


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ({"code": -32602, "message": "gone"}, -32602, "gone"),
        ({"code": -32602.0, "message": "gone"}, -32602, "gone"),
        ({"code": "-32602", "message": "gone"}, -32602, "gone"),
        ({"code": "NOT_FOUND", "message": "gone"}, INTERNAL_ERROR, "gone"),
        ({"code": None, "message": "gone"}, INTERNAL_ERROR, "gone"),
        ({"code": True, "message": "gone"}, INTERNAL_ERROR, "gone"),
        ({"code": 1.5, "message": "gone"}, INTERNAL_ERROR, "gone"),
        ({"message": "gone"}, INTERNAL_ERROR, "gone"),
        ({"code": 5}, 5, '{"code":5}'),
        ({"code": 5, "message": {"en": "gone"}}, 5, '{"en":"gone"}'),
        ({"reason": "gone"}, INTERNAL_ERROR, '{"reason":"gone"}'),
        ("gone", INTERNAL_ERROR, "gone"),
        (["gone"], INTERNAL_ERROR, '["gone"]'),
        (17, INTERNAL_ERROR, "17"),
        ({}, INTERNAL_ERROR, "the server says nothing about its error"),
    ],
)
def test_an_error_of_any_form_keeps_what_the_server_said(error: Any, code: int, words: str) -> None:
    for more in ({}, {"result": None}, {"result": {}}, {"result": []}):
        found = read(message(id=1, error=error, **more))
        if error == {} and more:
            assert isinstance(found, JSONRPCResponse)
            continue
        assert isinstance(found, JSONRPCError)
        assert (found.id, found.error.code, found.error.message) == (1, code, words)
        if isinstance(error, dict) and (code, words) != (error.get("code"), error.get("message")):
            assert found.error.data is not None or "data" not in error


@pytest.mark.parametrize("value", ["text", 17, True, [1, 2], 1.5, ["a", {"b": 1}]])
def test_a_result_that_is_no_object_is_a_violation_of_its_request_and_is_kept(value: Any) -> None:
    for request_id in (3, "three", 3.0):
        found = read(message(id=request_id, result=value))
        assert isinstance(found, RequestFault)
        assert found.request_id == request_id
        assert isinstance(found.error, RequestFailedError)
        assert found.error.reason == "violation"
        assert found.error.result == value


def test_result_and_error_at_once_are_a_violation_that_keeps_both() -> None:
    found = read(message(id=1, result={"a": 1}, error={"code": 1, "message": "no such tool"}))
    assert isinstance(found, RequestFault)
    assert isinstance(found.error, RequestFailedError)
    assert "no such tool" in str(found.error)
    assert found.error.result == {"a": 1}


@pytest.mark.parametrize(
    "data",
    [
        b'{"jsonrpc": "2.0", "id": 3}',
        b'{"jsonrpc": "2.0", "id": 3, "error": null}',
        b'{"jsonrpc": "2.0", "id": 3, "result": {"big": ' + b"9" * 10_000 + b"}}",
        b'{"jsonrpc": "2.0", "id": 3, "result": {"deep": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}",
        b'{"jsonrpc": "2.0", "id": 3, "result": {"deep": ' + b"[" * 900 + b'"\\ud800"' + b"]" * 900 + b"}}",
        b'{"jsonrpc": "2.0", "id": 3, "result": {"deep": ' + b"[" * 5000 + b'"\\ud800"' + b"]" * 5000 + b"}}",
        b'{"jsonrpc": "2.0", "id": 3, "result": {"half": "',
        b'{"jsonrpc": "2.0", "id": 3, "result": {}} trailing',
        b'{"jsonrpc": "2.0", "id": 3, "result": {"bad": 01}}',
        b'{"jsonrpc": "2.0", "method": null, "id": 3, "result": {"bad": 01}}',
        b'{"jsonrpc": "2.0", "result": {"bad": 01}, "id": 3}',
        b'{"jsonrpc": "2.0", "result": {"bad": 01}, "id": 3.0}',
        b'{"jsonrpc": "2.0", "id": 3, "result": {"tab": "a\tb"}}',
    ],
)
def test_an_answer_that_cannot_be_read_is_a_violation_of_the_request_it_names(data: bytes) -> None:
    found = read(data)
    assert isinstance(found, RequestFault)
    assert found.request_id == 3
    assert isinstance(found.error, RequestFailedError)
    assert found.error.reason == "violation"
    assert len(str(found.error)) < 300


def test_an_answer_that_is_not_utf_8_is_a_violation_that_keeps_what_can_be_read() -> None:
    found = read(b'{"jsonrpc": "2.0", "id": 3, "result": {"text": "caf\xe9"}}')
    assert isinstance(found, RequestFault)
    assert isinstance(found.error, RequestFailedError)
    assert found.error.result == {"text": "caf\ufffd"}


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (r'"cut \ud83d"', "cut \ufffd"),
        (r'"\udc00 tail"', "\ufffd tail"),
        (r'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (r'"\\ud83d \ud83d"', "\\ud83d \ufffd"),
        (r'["a", {"b": "\ud800"}, 1.0, null]', ["a", {"b": "\ufffd"}, 1.0, None]),
        (r'{"\ud800": 1, "b": 2}', {"\ufffd": 1, "b": 2}),
    ],
)
def test_half_a_surrogate_pair_is_the_replacement_character(text: str, mended: Any) -> None:
    found = read('{"jsonrpc": "2.0", "id": 3, "result": {"value": ' + text + "}}")
    assert found == JSONRPCResponse(jsonrpc="2.0", id=3, result={"value": mended})


def test_numbers_arrive_as_they_were_sent() -> None:
    text = '{"jsonrpc":"2.0","id":3,"result":{"value":[1,1.0,-0.0,1e3,9007199254740993,1%s]}}' % ("0" * 400)
    values = read(text).result["value"]
    assert [str(value) for value in values] == [
        "1",
        "1.0",
        "-0.0",
        "1000.0",
        "9007199254740993",
        str(10**400),
    ]


def test_numbers_that_json_has_not_are_read_as_what_their_writers_mean() -> None:
    values = read('{"jsonrpc":"2.0","id":3,"result":{"value":[NaN,Infinity,-Infinity,1e400]}}').result[
        "value"
    ]
    assert [str(value) for value in values] == ["nan", "inf", "-inf", "inf"]


def test_of_members_of_one_name_the_last_counts() -> None:
    assert read('{"jsonrpc":"2.0","id":1,"id":2,"result":{"a":1},"result":{"a":2}}').result == {"a": 2}


MALFORMED: list[tuple[bytes, str]] = [
    (b"", "EOF"),
    (b" ", "EOF"),
    (b"{", "EOF"),
    (b"nonsense", "expected"),
    (b'{"jsonrpc": "2.0", "method": "\xff"}', "unicode"),
    (b"\xff\xfe{\x00}\x00", "expected"),
    (b"[" * 100_000, "recursion"),
    (b'{"a":' * 100_000, "recursion"),
    (b"null", "a bare NoneType is no"),
    (b"7", "a bare int is no"),
    (b'"text"', "a bare str is no"),
    (b"[]", "a batch of 0 messages"),
    (b"[[]]", "a batch in a batch"),
    (b"{}", "jsonrpc"),
    (b'{"level": "info", "id": 1, "error": "refused"}', "jsonrpc"),
    (b'{"error": "not found"}', "jsonrpc"),
    (b'{"result": {}}', "jsonrpc"),
    (b'{"method": "GET", "id": 1}', "jsonrpc"),
    (b'{"jsonrpc": "2.0", "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": null, "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": true, "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": 1.5, "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": 1e400, "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": NaN, "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": [1], "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": "' + b"x" * 5000 + b'", "result": {}}', "id"),
    (b'{"jsonrpc": "2.0", "id": 1, "method": 7}', "method"),
    (b'{"jsonrpc": "2.0", "method": null}', "neither"),
    (b'{"jsonrpc": "2.0", "id": 1.5, "method": "x"}', "id"),
    (b'{"jsonrpc": "2.0", "method": "x", "params": [1]}', "params"),
    (b'{"jsonrpc": "2.0", "id": 1, "method": "x", "params": "y"}', "params"),
]


@pytest.mark.parametrize(("data", "why"), MALFORMED, ids=lambda value: str(value[:40]))
def test_what_names_no_request_is_a_violation_that_says_why(data: bytes, why: str) -> None:
    found = read(data)
    assert isinstance(found, Violation)
    assert why in found.detail
    assert len(found.detail) < 300, "short, whatever the peer sent"


def test_a_request_or_notification_without_params_may_write_them_out() -> None:
    assert read(message(method="x", params=None)).params is None
    assert read(message(method="x", params=[])).params == {}
    assert read(message(id=None, method="ping")) == JSONRPCNotification(jsonrpc="2.0", method="ping")
    assert read(message(id=4.0, method="ping")).id == 4


def test_the_messages_of_a_batch_are_taken_one_by_one() -> None:
    batch = [
        {"jsonrpc": "2.0", "method": "n"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        17,
        {"jsonrpc": "2.0", "id": 2, "result": [1]},
    ]
    kinds = [type(item) for item in read_messages(json.dumps(batch).encode(), LIMITS)]
    assert kinds == [JSONRPCNotification, JSONRPCResponse, Violation, RequestFault]


def test_a_batch_without_end_is_cut() -> None:
    items = read_messages(b"[" + b"1," * 20_000 + b"1]", LIMITS)
    assert len(items) == MAX_BATCH + 1
    assert items[-1] != items[0]


@pytest.mark.parametrize("unit", [b"[]", b"{}", b"1", b'"a"', b'"\\"a,b"', b"null", b'{"a":1}', b"[[[]]]"])
@pytest.mark.parametrize("whose", [b'"id":3,"result"', b'"result"'])
def test_an_answer_of_more_values_than_allowed_fails_its_request_unparsed(unit: bytes, whose: bytes) -> None:
    data = b'{"jsonrpc":"2.0",%b:{"v":[%b]}%b}' % (
        whose,
        b",".join([unit] * 1000),
        b"" if b"id" in whose else b',"id":3',
    )
    found = read(data, Limits(max_message_values=900))
    assert isinstance(found, RequestFault)
    assert found.request_id == 3
    assert isinstance(found.error, RequestFailedError)
    assert found.error.reason == "oversized"
    assert "max_message_values (900)" in str(found.error)


def test_commas_and_brackets_in_texts_are_no_values() -> None:
    for text in (",[{" * 5000, "\\" * 5001, '",' * 5000, '\\",[' * 5000, "\\\\,"):
        data = message(id=1, result={"text": text})
        assert read(data, Limits(max_message_values=10)).result == {"text": text}


def count(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + (not value) + sum(map(count, value.values()))
    if isinstance(value, list):
        return 1 + (not value) + sum(map(count, value))
    return 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.booleans())
def test_the_number_of_values_is_exact(value: Any, ascii_only: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    number = count(value)
    assert holds_more_values(data, number - 1)
    assert not holds_more_values(data, number)


def test_the_garbage_collector_is_left_as_it_was() -> None:
    for data in (message(id=1, result={}), "nonsense"):
        gc.disable()
        try:
            read(data)
            assert not gc.isenabled()
        finally:
            gc.enable()
        read(data)
        assert gc.isenabled()


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
def test_any_json_value_is_read_as_something(value: Any) -> None:
    data = json.dumps(value).encode()
    for found in read_messages(data, LIMITS):
        assert isinstance(found, KINDS)
        if isinstance(value, dict) and named_request(found) is not None:
            assert named_request(found) == value["id"]
        if isinstance(found, JSONRPCRequest):
            assert (found.id, found.method) == (value["id"], value["method"])
        elif isinstance(found, JSONRPCResponse) and isinstance(value["result"], dict):
            assert len(found.result) == len(value["result"])


@given(st.fixed_dictionaries({"id": st.integers(min_value=-(2**63), max_value=2**63) | st.text()}), JSON)
def test_a_message_comes_out_of_its_own_text_as_it_was(fields: dict[str, Any], value: Any) -> None:
    sent = JSONRPCResponse(jsonrpc="2.0", id=fields["id"], result={"value": value})
    text = sent.model_dump_json(by_alias=True)
    assert read(text).model_dump_json(by_alias=True) == text


@given(st.binary() | st.binary().map(lambda noise: b'{"jsonrpc":"2.0","id":1,"result":{}' + noise))
def test_arbitrary_bytes_are_read_as_something(data: bytes) -> None:
    assert all(isinstance(item, KINDS) for item in read_messages(data, LIMITS))


@given(st.text())
def test_arbitrary_text_is_read_as_something(text: str) -> None:
    assert all(isinstance(item, KINDS) for item in read_messages(text.encode(), LIMITS))


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "objects"])
def test_deep_nesting_is_a_message_or_a_violation(opening: bytes, closing: bytes) -> None:
    def parse(depth: int) -> object:
        nested = opening * depth + b"1" + closing * depth
        return read(b'{"jsonrpc":"2.0","id":1,"result":{"deep":' + nested + b"}}")

    for depth in (1, 50, 150):
        assert isinstance(parse(depth), JSONRPCResponse)
    for depth in (250, 1_000, 50_000):
        assert isinstance(parse(depth), RequestFault)
    for depth in range(150, 250):
        assert isinstance(parse(depth), JSONRPCResponse | RequestFault)
