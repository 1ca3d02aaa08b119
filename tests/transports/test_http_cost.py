"""What a server's bytes may cost: short steps between two checkpoints, and nothing in vain for ever."""

from __future__ import annotations

import gzip
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import httpx2
import pytest

from anyio_mcp import RequestFailedError
from anyio_mcp.transports import _cookies
from anyio_mcp.transports._budget import BarrenBudget
from anyio_mcp.transports._url import redact
from tests.faults.http_driver import LEGACY, MODERN, connected
from tests.faults.http_server import Talk, fault_server, session

pytestmark = pytest.mark.anyio

# 50 ms on a quiet machine; the tests of a busy one are given four times that.
STEP = 0.2
MIB = 1024 * 1024


class Steps:
    """The longest that the event loop has worked on without giving anybody else a turn, in CPU time."""

    longest = 0.0


@asynccontextmanager
async def steps() -> AsyncGenerator[Steps]:
    seen = Steps()

    async def look() -> None:
        while True:
            began = time.process_time()
            await anyio.sleep(0)
            seen.longest = max(seen.longest, time.process_time() - began)

    async with anyio.create_task_group() as tg:
        tg.start_soon(look)
        yield seen
        tg.cancel_scope.cancel()


BARREN = {
    "blank lines": b"\n" * (2 * MIB),
    "carriage returns": b"\r" * (2 * MIB),
    "comments": b":\n" * (2 * MIB),
    "pings": b": ping\n\n" * MIB,
    "unknown fields": b"x\n" * (2 * MIB),
    "one comment": b": " + b"x" * (8 * MIB) + b"\n",
    "ids": b"id:1\n" * (2 * MIB),
    "empty data": b"data:\n" * (2 * MIB),
}


@pytest.mark.parametrize("era", [LEGACY, MODERN], ids=["legacy", "modern"])
@pytest.mark.parametrize("case", BARREN)
@pytest.mark.usefixtures("unmeasured")
async def test_a_compressed_stream_of_no_events_ends_its_call_in_short_steps(
    case: str, era: dict[str, str]
) -> None:
    bomb = gzip.compress(BARREN[case], 9)

    async def answer(talk: Talk) -> None:
        await talk.head(
            200, {"transfer-encoding": "chunked", "content-encoding": "gzip"}, "text/event-stream"
        )
        await talk.chunk(bomb)
        await talk.hang()

    async with fault_server(answer) as server, connected(server.url, seconds=30) as driver:
        async with steps() as seen:
            error = await driver.fault(era=era)
        assert isinstance(error, RequestFailedError)
        assert error.reason == "violation"
        assert "next to no events" in str(error)
    assert seen.longest < STEP


@pytest.mark.usefixtures("unmeasured")
async def test_such_a_stream_on_the_get_of_an_idle_session_delays_nobody() -> None:
    bomb = gzip.compress(BARREN["blank lines"], 9)

    async def get(talk: Talk) -> None:
        await talk.head(
            200, {"transfer-encoding": "chunked", "content-encoding": "gzip"}, "text/event-stream"
        )
        await talk.chunk(bomb)
        await talk.hang()

    async def answer(talk: Talk) -> None:
        await talk.result()

    async with (
        fault_server(session(answer, get=get)) as server,
        connected(server.url, seconds=30) as driver,
    ):
        await driver.initialize()
        async with steps() as seen:
            await server.until(lambda s: len(s.of("GET")) == 3)
            assert await driver.result() == {}
    assert seen.longest < STEP


@pytest.mark.usefixtures("unmeasured")
async def test_a_body_in_chunks_of_a_byte_is_read_in_short_steps() -> None:
    chunks = b"1\r\n \r\n" * 20_000

    async def answer(talk: Talk) -> None:
        await talk.head(200, {"transfer-encoding": "chunked"}, "application/json")
        await talk.raw(chunks)
        await talk.chunk(b'{"jsonrpc": "2.0", "id": 1, "result": {}}')
        await talk.end_events()

    async with (
        fault_server(answer) as server,
        connected(server.url, seconds=60) as driver,
        steps() as seen,
    ):
        assert await driver.result() == {}
    assert seen.longest < STEP


async def test_a_large_event_and_a_stream_that_only_lives_are_not_in_vain() -> None:
    text = "x" * (8 * MIB)
    lines = gzip.compress(f'data: {{"jsonrpc":"2.0","id":1,"result":{{"text":"{text}"}}}}\n\n'.encode(), 9)

    async def answer(talk: Talk) -> None:
        await talk.head(
            200, {"transfer-encoding": "chunked", "content-encoding": "gzip"}, "text/event-stream"
        )
        await talk.chunk(lines)
        await talk.end_events()

    async with fault_server(answer) as server, connected(server.url, seconds=30) as driver:
        assert (await driver.result())["text"] == text


async def test_a_budget_is_paid_for_by_what_is_received() -> None:
    budget = BarrenBudget()
    for _ in range(10_000):
        budget.receive(1024)
        assert budget.spend(1024 * 64)
    assert not budget.spend(10 * MIB)


@pytest.mark.parametrize(
    "piece", ["://", "://a@", "http://", "://?", "http://u:p@h ", "'://", "://a@b?c#d", "@", "?"]
)
def test_a_text_is_redacted_in_linear_time(piece: str) -> None:
    began = time.process_time()
    assert len(redact(piece * (MIB // len(piece)))) <= 2000
    assert redact(piece * 30_000, 200)[:1] in {":", "h", "'", "@", "?", ""}
    assert time.process_time() - began < STEP


def test_what_a_cut_leaves_of_a_url_holds_no_secret() -> None:
    for length in range(3900, 4300):
        text = "x" * length + " http://user:s3cret@host/path?key=s3cret"
        assert "s3cret" not in redact(text + " y" * 5000, 4100)
        assert "s3c" not in redact(text + " y" * 5000, 2000)


async def test_a_client_of_our_own_keeps_few_small_cookies_and_sends_back_ascii_alone() -> None:
    count = 0

    async def answer(talk: Talk) -> None:
        nonlocal count
        body = f'{{"jsonrpc": "2.0", "id": {talk.id}, "result": {{}}}}'.encode()
        lines = ["HTTP/1.1 200 OK", f"content-length: {len(body)}", "content-type: application/json"]
        for _ in range(20):
            count += 1
            lines.append(f"set-cookie: c{count}={'x' * 500}; Path=/; Max-Age=9999")
        lines += [f"set-cookie: big={'x' * 5000}; Path=/", "set-cookie: caf\xe9=1", "set-cookie: ok=caf\xe9"]
        await talk.raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        talk.complete = True

    async with fault_server(answer) as server, connected(server.url, seconds=30) as driver:
        for _ in range(8):
            assert await driver.result() == {}
        cookie = server.requests[-1].headers["cookie"]
    names = [part.split("=")[0].strip() for part in cookie.split(";")]
    assert len(names) == _cookies.COOKIES
    assert "c140" in names
    assert "c1" not in names
    assert "big" not in names


async def test_an_error_keeps_a_bounded_part_of_the_headers() -> None:
    async def answer(talk: Talk) -> None:
        await talk.reply(500, b"", "text/plain", {f"x-{number}": "y" * 40 for number in range(1500)})

    async with fault_server(answer) as server, connected(server.url) as driver:
        error = await driver.fault()
    assert isinstance(error, httpx2.HTTPStatusError)
    assert len(error.response.headers) <= 101
