"""Answers of servers and gateways that exist: readable, though their headers say something else."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import httpx2
import pytest

from anyio_mcp import Client, RequestFailedError, SSETransport
from anyio_mcp.transports._decode import decoder
from tests.faults.http_driver import LEGACY, MODERN, connected, the_fault
from tests.faults.http_liberal import FORMS
from tests.faults.http_server import Handler, Talk, fault_server, session

pytestmark = pytest.mark.anyio


def result(talk: Talk) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": talk.id, "result": {"ok": True}}).encode()


def events(talk: Talk) -> bytes:
    return b": working\n\ndata: " + result(talk) + b"\n\n"


@pytest.mark.parametrize("era", [LEGACY, MODERN], ids=["legacy", "modern"])
@pytest.mark.parametrize("case", FORMS)
async def test_an_answer_is_read_for_what_it_is(case: str, era: Any) -> None:
    form = FORMS[case]

    async def answer(talk: Talk) -> None:
        await talk.reply(200, form.write(result(talk)), form.kind, form.headers)

    async with fault_server(answer) as server, connected(server.url) as driver:
        assert await driver.result(era=era) == {"ok": True}


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_how_a_body_begins_is_seen_however_it_arrives(size: int) -> None:
    async def answer(talk: Talk) -> None:
        await talk.head(200, {"transfer-encoding": "chunked"}, "application/json")
        data = events(talk)
        for start in range(0, len(data), size):
            await talk.chunk(data[start : start + size])
        await talk.end_events()

    async with fault_server(answer) as server, connected(server.url) as driver:
        assert await driver.result() == {"ok": True}


async def test_an_error_page_with_a_good_status_is_named_by_its_type() -> None:
    async def answer(talk: Talk) -> None:
        await talk.reply(200, b"<!doctype html><title>Log in</title>", "text/html")

    error = await the_fault(answer)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "violation"
    assert "text/html" in str(error)


async def test_a_page_of_which_nothing_comes_does_not_hold_its_call_up() -> None:
    async def answer(talk: Talk) -> None:
        await talk.head(200, {"content-length": "100"}, "text/html")
        await talk.hang()

    error = await the_fault(answer)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "violation"


async def test_the_older_transport_reads_a_stream_without_a_type() -> None:
    streams: list[Talk] = []

    async def handler(talk: Talk) -> None:
        if talk.received.method == "GET":
            streams.append(talk)
            await talk.head(200, {"transfer-encoding": "chunked"})
            await talk.chunk(b"event: endpoint\ndata: /messages\n\n")
            await talk.hang()
            return
        await talk.reply(202)
        if talk.received.rpc_method == "initialize":
            info = {
                "protocolVersion": "2024-11-05",
                "capabilities": {},
                "serverInfo": {"name": "s", "version": "1"},
            }
            await streams[0].event({"jsonrpc": "2.0", "id": talk.id, "result": info})
        elif "id" in talk.received.message:
            await streams[0].event({"jsonrpc": "2.0", "id": talk.id, "result": {}})

    async with (
        fault_server(handler) as server,
        Client(SSETransport(server.url), mode="legacy") as client,
    ):
        await client.ping()


# --- what the user asked for -----------------------------------------------------------------------


async def _asked(**options: Any) -> list[str | None]:
    async def answer(talk: Talk) -> None:
        await (talk.result() if "id" in talk.received.message else talk.reply(202))

    async with fault_server(session(answer)) as server, connected(server.url, **options) as driver:
        await driver.initialize()
        await driver.result()
        return [received.headers.get("accept-encoding") for received in server.requests]


async def test_the_accept_encoding_of_the_user_arrives_whichever_way_it_was_given() -> None:
    assert set(await _asked(headers={"Accept-Encoding": "identity"})) == {"identity"}
    for library in (httpx2, httpx):
        async with library.AsyncClient(headers={"Accept-Encoding": "identity"}) as client:
            assert set(await _asked(http_client=client)) == {"identity"}
            assert set(await _asked(http_client=client, headers={"accept-encoding": "gzip"})) == {"gzip"}


async def test_without_one_only_what_can_be_undone_is_asked_for() -> None:
    assert set(await _asked()) == {"gzip, deflate"}
    for library in (httpx2, httpx):
        async with library.AsyncClient() as client:
            assert set(await _asked(http_client=client)) == {"gzip, deflate"}


async def test_a_coding_that_the_user_asked_for_and_cannot_be_undone_is_an_error_that_says_so() -> None:
    async def answer(talk: Talk) -> None:
        await talk.reply(200, b"\x1b\x00", "application/json", {"content-encoding": "br"})

    async with (
        fault_server(answer) as server,
        connected(server.url, headers={"accept-encoding": "br"}) as driver,
    ):
        error = await driver.fault()
    assert isinstance(error, RequestFailedError)
    assert "'br' cannot be undone here" in str(error)


# --- granted and cut -------------------------------------------------------------------------------


def cut_after(pieces: list[bytes]) -> Handler:
    async def get(talk: Talk) -> None:
        await talk.begin_events()
        for piece in pieces:
            await talk.chunk(piece)
        await talk.end_events()

    return get


@pytest.mark.parametrize("pieces", [[], [b": hello\n\n"]], ids=["nothing", "a comment"])
async def test_a_get_stream_that_is_granted_is_opened_again_however_often_it_is_cut(
    pieces: list[bytes],
) -> None:
    async def answer(talk: Talk) -> None:
        await talk.result()

    async with (
        fault_server(session(answer, get=cut_after(pieces))) as server,
        connected(server.url) as driver,
    ):
        await driver.initialize()
        await server.until(lambda s: len(s.of("GET")) >= 12)
        assert await driver.result() == {}


def test_members_without_end_are_undone_in_linear_time() -> None:
    empty = gzip.compress(b"", 1)
    pieces = list(decoder("gzip")(empty * 3000 + gzip.compress(b"end")))
    assert b"".join(pieces) == b"end"
    assert len(pieces) > 3000, "each member is work that is to be counted"
