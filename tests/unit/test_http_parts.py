"""The parts of the HTTP transports that need no network: headers, codings, texts, messages."""

from __future__ import annotations

import zlib
from itertools import pairwise

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.types import ErrorData, JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from anyio_mcp.config import Limits
from anyio_mcp.transports._decode import PIECE, decoder
from anyio_mcp.transports._headers import SessionHeaders, media_type, resumable
from anyio_mcp.transports._httperrors import reason_of, rebuilt_error
from anyio_mcp.transports._messages import encode_message, same_id
from anyio_mcp.transports._reading import read_messages
from anyio_mcp.transports._url import redact, visible
from anyio_mcp.transports.base import Outgoing


@given(st.binary(max_size=2000), st.integers(1, 50), st.sampled_from(["gzip", "deflate", "raw"]))
def test_a_coding_is_undone_whatever_the_chunks(data: bytes, size: int, coding: str) -> None:
    wbits = {"gzip": 31, "deflate": 15, "raw": -15}[coding]
    compress = zlib.compressobj(wbits=wbits)
    encoded = compress.compress(data) + compress.flush()
    decode = decoder("deflate" if coding == "raw" else coding)
    # The first chunk holds the two bytes by which zlib's format is known.
    cuts = [0, 2, *range(2 + size, len(encoded), size), len(encoded)]
    chunks = [encoded[a:b] for a, b in pairwise(cuts)]
    assert b"".join(piece for chunk in chunks for piece in decode(chunk)) == data


def test_a_bomb_comes_in_small_pieces() -> None:
    bomb = zlib.compress(b"\0" * 20_000_000)
    pieces = list(decoder("deflate")(bomb))
    assert sum(map(len, pieces)) == 20_000_000
    assert max(map(len, pieces)) <= PIECE


def test_what_follows_a_coding_is_ignored() -> None:
    decode = decoder("deflate")
    assert b"".join(decode(zlib.compress(b"data") + b"and more")) == b"data"
    assert list(decode(b"and more")) == []


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "unknown", "br, utf-8"])
def test_a_coding_that_cannot_be_undone_is_refused_with_those_that_can(coding: str) -> None:
    with pytest.raises(ValueError, match="cannot be undone here, only what `accept-encoding: gzip, deflate`"):
        decoder(coding)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_data_that_is_not_in_its_coding_is_refused(coding: str) -> None:
    with pytest.raises(ValueError, match="broken"):
        list(decoder(coding)(b"\xff\xffcertainly not compressed"))


def test_the_version_of_a_failed_probe_does_not_reach_the_handshake() -> None:
    headers = SessionHeaders()
    probe = headers.stamp(
        Outgoing(
            JSONRPCRequest(jsonrpc="2.0", id=1, method="server/discover"),
            headers={"MCP-Protocol-Version": "2026-07-28"},
        )
    )
    assert probe.modern
    handshake = headers.stamp(Outgoing(JSONRPCRequest(jsonrpc="2.0", id=2, method="initialize")))
    assert "mcp-protocol-version" not in handshake.headers
    assert not handshake.modern
    after = headers.stamp(Outgoing(JSONRPCNotification(jsonrpc="2.0", method="notifications/initialized")))
    assert "mcp-protocol-version" not in after.headers


def test_the_version_of_a_message_goes_with_those_behind_it() -> None:
    headers = SessionHeaders()
    headers.adopt("S-1")
    request = Outgoing(
        JSONRPCRequest(jsonrpc="2.0", id=1, method="ping"), headers={"mcp-protocol-version": "2025-06-18"}
    )
    assert headers.stamp(request).session_id is not None
    answer = headers.stamp(Outgoing(JSONRPCResponse(jsonrpc="2.0", id=1, result={})))
    assert answer.headers["mcp-protocol-version"] == "2025-06-18"
    assert headers.stamp_get("7").headers["last-event-id"] == "7"
    assert headers.stamp_delete().headers["mcp-session-id"] == "S-1"


@pytest.mark.parametrize("session_id", ["", "a b", "a\nb", "ä", "x" * 4097])
def test_a_session_id_that_cannot_be_a_header_is_not_adopted(session_id: str) -> None:
    headers = SessionHeaders()
    assert not headers.adopt(session_id)
    assert headers.session_id is None


@pytest.mark.parametrize(
    ("event_id", "expected"),
    [("1", True), ("ä", True), ("a b", True), ("", False), (" a", False), ("a ", False), ("a\tb", False)],
)
def test_only_an_id_that_can_be_a_header_makes_a_stream_resumable(event_id: str, expected: bool) -> None:
    assert resumable(event_id) is expected
    assert ("last-event-id" in SessionHeaders().stamp_get(event_id).headers) is expected


def test_a_media_type_has_no_parameters_and_no_case() -> None:
    assert media_type(" Application/JSON ; charset=utf-8") == "application/json"
    assert media_type("") == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://user:pass@example.org/a?b=c#d", "http://example.org:80/a"),
        ("https://example.org", "https://example.org:443"),
        ("http://[::1]:8000/mcp", "http://[::1]:8000/mcp"),
        ("http://[oops", "an unreadable URL"),
        ("http://example.org:oops/", "an unreadable URL"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, expected: str) -> None:
    assert visible(url) == expected


def test_urls_in_a_text_lose_their_secrets() -> None:
    text = "GET 'https://me:hush@a.example/x?key=hush' failed, see http://b.example/y#hush (user@host)"
    assert redact(text) == "GET 'https://a.example/x' failed, see http://b.example/y (user@host)"


def test_an_id_may_be_echoed_as_text() -> None:
    assert same_id(1, 1)
    assert same_id("a", "a")
    assert same_id(1, "1")
    assert not same_id(1, "a")
    assert not same_id(1, 2)
    assert not same_id(None, 1)


@pytest.mark.parametrize(
    "message",
    [
        JSONRPCRequest(jsonrpc="2.0", id="a", method="m", params=None),
        JSONRPCNotification(jsonrpc="2.0", method="m", params={"a": None, "b": {"c": None}}),
        JSONRPCResponse(jsonrpc="2.0", id=1, result={"a": None}),
        JSONRPCError(jsonrpc="2.0", id=1, error=ErrorData(code=1, message="m", data={"a": None})),
    ],
)
def test_a_message_survives_being_written(
    message: JSONRPCRequest | JSONRPCNotification | JSONRPCResponse | JSONRPCError,
) -> None:
    text = encode_message(message)
    assert read_messages(text, Limits()) == [message]
    assert b'"params":null' not in text


def test_a_success_is_no_status_error() -> None:
    response = httpx2.Response(200, request=httpx2.Request("GET", "http://a.example/"))
    with pytest.raises(ValueError, match="200"):
        rebuilt_error(response, b"")


def test_an_error_without_a_text_is_named_with_that_of_its_cause() -> None:
    mute = OSError()
    mute.__cause__ = TimeoutError()
    assert reason_of(mute) == "no reason given"
    mute.__cause__.__context__ = ValueError("at https://me:hush@a.example/")
    assert reason_of(mute) == "at https://a.example/"
