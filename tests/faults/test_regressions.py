"""The thirteen worst faults of the clients before this one. Each test is named after what must not happen.

They go through the public `Client` to real sockets and processes, or, where neither takes part, through
virtual time. A guard stands around every test: one that hangs fails.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import sys
import textwrap
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio
import httpx2
import pytest
from anyio.abc import ByteStream, SocketAttribute
from mcp import MCPError

from anyio_mcp import (
    Client,
    DeadlineExceededError,
    Limits,
    RequestFailedError,
    SessionLostError,
    StreamableHttpTransport,
    Timeouts,
)
from anyio_mcp.testing import ScriptedPeer, check_at_rest, check_never_hangs, silence
from tests.faults.http_driver import QUICK
from tests.faults.http_server import (
    FaultServer,
    Handler,
    Talk,
    close,
    error_answer,
    fault_server,
    garbage,
    never,
    reset,
)
from tests.faults.stdio_cells import MODES as STDIO_MODES
from tests.faults.stdio_cells import pids, stdio_transport, until_gone
from tests.leaks import child_processes, is_alive

pytestmark = pytest.mark.anyio

Era: TypeAlias = Literal["legacy", "modern"]

MODES = {"legacy": "legacy", "modern": "2026-07-28"}

PATIENCE = 30.0
"""Seconds after which a test has hung. Generous: the machine may be busy."""

MEGABYTE = 1024 * 1024

both_eras = pytest.mark.parametrize("era", ["legacy", "modern"])


def guarded(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(function)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        with anyio.fail_after(PATIENCE):
            await function(*args, **kwargs)

    return bounded


# --- servers --------------------------------------------------------------------------------------


def text_result(text: str = "works") -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "resultType": "complete"}


def mcp(calls: Handler, **others: Handler) -> Handler:
    """A server of both eras. `calls` takes the tool calls, `others` the requests of other methods, with
    `_` for `/`: `tools_list`, `notifications_cancelled`, and `GET`."""

    async def handler(talk: Talk) -> None:
        rpc = talk.received.rpc_method
        known = others.get(talk.received.method if rpc is None else rpc.replace("/", "_"))
        if known is not None:
            await known(talk)
        elif talk.received.method == "GET":
            await talk.reply(405)
        elif talk.received.method == "DELETE":
            await talk.reply(204)
        elif rpc == "initialize":
            await talk.result(
                {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "raw", "version": "1"},
                },
                {"mcp-session-id": "S-1"},
            )
        elif rpc == "tools/call":
            await calls(talk)
        elif rpc == "ping":
            await talk.result()
        else:
            await talk.reply(202)

    return handler


def by_tool(**tools: Handler) -> Handler:
    """Each tool its own handler; any other just works."""

    async def handler(talk: Talk) -> None:
        tool = tools.get(talk.received.message["params"]["name"])
        await (talk.result(text_result()) if tool is None else tool(talk))

    return handler


@asynccontextmanager
async def http_client(
    handler: Handler,
    era: Era,
    *,
    url: Callable[[FaultServer], Any] = lambda server: server.url,
    **options: Any,
) -> AsyncGenerator[tuple[Client, FaultServer]]:
    """A client that never gets a second session, so that a test which goes on proves that the first
    one lives."""
    settings = {"restart": None, "timeouts": Timeouts(close=0.5), **options}
    async with (
        fault_server(handler) as server,
        Client(url(server), mode=MODES[era], **settings) as client,
    ):
        yield client, server


def stdio_client(
    directory: Path,
    fault: str,
    *arguments: object,
    trigger: Any = "call",
    era: Era = "modern",
    **options: Any,
) -> Client:
    settings = {"restart": None, "timeouts": Timeouts(close=0.4), **options}
    transport = stdio_transport(directory, fault, *arguments, trigger=trigger, era=era)
    return Client(transport, mode=STDIO_MODES[era], **settings)


@asynccontextmanager
async def never_reads() -> AsyncGenerator[str]:
    """The URL of a server that accepts, and reads not a byte."""

    async def sit(stream: ByteStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener,
        anyio.create_task_group() as tg,
    ):
        tg.start_soon(listener.serve, sit)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/mcp"
        tg.cancel_scope.cancel()


# --- 1: a deadline that starts after the write ----------------------------------------------------


@both_eras
@guarded
async def test_a_full_pipe_does_not_outlast_the_deadline_of_a_call(era: Era, tmp_path: Path) -> None:
    async with stdio_client(tmp_path, "never_reads", trigger="behind", era=era, heartbeat=None) as client:
        await client.call_tool("fault")
        for _ in range(2):
            # The second one does not even get to the pipe, which the first one fills.
            with pytest.raises(DeadlineExceededError) as caught:
                await client.call_tool("echo", {"text": "x" * 3 * MEGABYTE}, timeout=0.2)
            assert (caught.value.phase, caught.value.seconds) == ("call", 0.2)


@guarded
async def test_a_stalled_post_does_not_outlast_the_deadline_of_a_call() -> None:
    async with (
        never_reads() as url,
        Client(url, mode="2026-07-28", heartbeat=None, timeouts=Timeouts(close=0.5)) as client,
    ):
        with pytest.raises(DeadlineExceededError) as caught:
            await client.call_tool("echo", {"text": "x" * 10 * MEGABYTE}, timeout=0.2)
        assert caught.value.phase == "call"


# --- 2: notifications and answers written inline, in the one writer -------------------------------


@guarded
async def test_a_stalled_notification_does_not_hold_up_any_call() -> None:
    handler = mcp(by_tool(), notifications_roots_list_changed=never)
    async with http_client(handler, "legacy", roots=[]) as (client, server), anyio.create_task_group() as tg:
        tg.start_soon(client.send_roots_list_changed)
        await server.until(lambda s: s.requests[-1].rpc_method == "notifications/roots/list_changed")
        assert (await client.call_tool("echo")).content
        tg.cancel_scope.cancel()


@guarded
async def test_a_stalled_answer_to_the_server_does_not_hold_up_any_call() -> None:
    answers = 0

    async def asks_first(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event({"jsonrpc": "2.0", "id": "ask", "method": "ping"})
        await server.until(lambda _: answers == 1)
        await talk.event({"jsonrpc": "2.0", "id": talk.id, "result": text_result()})
        await talk.end_events()

    usual = mcp(by_tool(asks=asks_first))

    async def handler(talk: Talk) -> None:
        nonlocal answers
        if talk.received.body and "result" in talk.received.message:
            answers += 1
            server.changed()
            await talk.hang()
        else:
            await usual(talk)

    async with http_client(handler, "legacy") as (client, server):
        assert (await client.call_tool("asks")).content
        assert (await client.call_tool("echo")).content
        assert answers == 1


def test_an_unacknowledged_initialized_does_not_hold_up_any_call(backend: str) -> None:
    async def scenario() -> None:
        peer = ScriptedPeer(era="legacy")
        peer.on_delivery("notifications/initialized", None)
        async with Client(peer.transport) as client:
            began = anyio.current_time()
            assert (await client.call_tool("echo")).content
            assert anyio.current_time() == began

    check_never_hangs(scenario, backend=backend)


# --- 3: a cancelled call that waits for its courtesy ----------------------------------------------


@guarded
async def test_a_cancelled_call_does_not_wait_for_its_courtesy() -> None:
    handler = mcp(by_tool(slow=never), notifications_cancelled=never)
    async with http_client(handler, "legacy") as (client, server), anyio.create_task_group() as tg:
        tg.start_soon(client.call_tool, "slow")
        await server.until(lambda s: s.requests[-1].rpc_method == "tools/call")
        tg.cancel_scope.cancel()
    # Left without a word of the server's: it never answers what it was told.
    assert server.of("POST")[-1].rpc_method in ("tools/call", "notifications/cancelled")


def test_a_cancelled_call_does_not_wait_for_a_wedged_wire(backend: str) -> None:
    async def scenario() -> None:
        peer = ScriptedPeer(era="legacy")
        peer.on("tools/call", silence)
        async with Client(peer.transport) as client:
            async with anyio.create_task_group() as tg:
                tg.start_soon(client.call_tool, "slow")
                (request,) = await peer.received("tools/call")
                peer.connection.wedge()
                began = anyio.current_time()
                tg.cancel_scope.cancel()
            assert anyio.current_time() == began
            peer.connection.unwedge()
            await peer.until(lambda: bool(peer.notifications_of("notifications/cancelled")))
            assert peer.notifications_of("notifications/cancelled") == [{"requestId": request.id}]

    check_never_hangs(scenario, backend=backend)


@guarded
async def test_a_cancelled_call_does_not_wait_for_a_full_pipe(tmp_path: Path) -> None:
    async with stdio_client(tmp_path, "never_reads", trigger="behind", heartbeat=None) as client:
        await client.call_tool("fault")
        ended: list[str] = []
        async with anyio.create_task_group() as tg:

            async def call(scope: anyio.CancelScope) -> None:
                with scope:
                    await client.call_tool("echo", {"text": "x" * MEGABYTE})
                ended.append("call")

            scopes = [anyio.CancelScope() for _ in range(3)]
            for scope in scopes:
                tg.start_soon(call, scope)
            while client.stats().calls_in_flight < len(scopes):
                await anyio.lowlevel.checkpoint()
            for scope in scopes:
                scope.cancel()
        assert ended == ["call"] * 3
        assert client.is_connected(), "nobody had to wait for the session to end"
        assert client.stats().calls_in_flight == 0


# --- 4: POSTs that stay open when nobody waits ----------------------------------------------------


@both_eras
@pytest.mark.parametrize("way", ["cancelled", "late"])
@guarded
async def test_calls_nobody_waits_for_do_not_keep_their_posts_open(era: Era, way: str) -> None:
    number = 120
    async with http_client(mcp(by_tool(slow=never)), era) as (client, server):

        async def late() -> None:
            with pytest.raises(DeadlineExceededError):
                await client.call_tool("slow", timeout=1.0)

        async with anyio.create_task_group() as tg:
            for _ in range(number):
                tg.start_soon(late if way == "late" else functools.partial(client.call_tool, "slow"))
            if way == "cancelled":
                await server.until(
                    lambda s: [each.rpc_method for each in s.requests].count("tools/call") == number
                )
                tg.cancel_scope.cancel()
        await server.until(lambda s: s.open < 10)
        assert (await client.call_tool("echo")).content
        assert client.stats().sessions_started == 1


# --- 5: the fault of one exchange ends the session, its siblings and the caller ---------------------


async def cut_off(talk: Talk) -> None:
    await talk.head(200, {"content-length": "100"}, "application/json")
    await talk.raw(b'{"jsonrpc"')
    await talk.close()


async def chunk_cut_off(talk: Talk) -> None:
    await talk.begin_events()
    await talk.raw(b"ff\r\nhalf")
    await talk.reset()


@both_eras
@pytest.mark.parametrize("fault", [close, reset, garbage, cut_off, chunk_cut_off], ids=lambda f: f.__name__)
@guarded
async def test_a_broken_exchange_does_not_cancel_its_siblings_or_the_caller(era: Era, fault: Handler) -> None:
    broken = anyio.Event()

    async def waits(talk: Talk) -> None:
        await broken.wait()
        await talk.result(text_result("sibling"))

    answers: list[str] = []
    async with http_client(mcp(by_tool(broken=fault, sibling=waits)), era) as (client, server):

        async def sibling() -> None:
            answers.append((await client.call_tool("sibling")).content[0].text)

        async with anyio.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(sibling)
            await server.until(lambda s: [each.rpc_method for each in s.requests].count("tools/call") == 3)
            with pytest.raises(RequestFailedError) as caught:
                await client.call_tool("broken")
            assert caught.value.reason == "transport"
            broken.set()
        assert answers == ["sibling"] * 3
        assert (await client.call_tool("echo")).content


@guarded
async def test_a_small_connection_pool_does_not_cancel_anybody() -> None:
    """One connection and a pool timeout: what waits for its turn waits within its own deadline."""
    free = anyio.Event()

    async def waits(talk: Talk) -> None:
        await free.wait()
        await talk.result(text_result())

    limits = httpx2.Limits(max_connections=1)
    async with httpx2.AsyncClient(limits=limits, timeout=httpx2.Timeout(5, pool=0.01)) as pool:

        def transport(server: FaultServer) -> StreamableHttpTransport:
            return StreamableHttpTransport(server.url, http_client=pool)

        async with http_client(mcp(by_tool(waits=waits)), "modern", url=transport) as (client, server):
            async with anyio.create_task_group() as tg:
                tg.start_soon(client.call_tool, "waits")
                await server.until(lambda s: bool(s.requests))
                with pytest.raises(DeadlineExceededError):
                    await client.call_tool("echo", timeout=0.2)
                free.set()
            assert (await client.call_tool("echo")).content


# --- 6: an exchange is over and its call goes on waiting --------------------------------------------


def foreign_answers(request_id: Any) -> dict[str, bytes]:
    request = {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": {"name": "wrong"}}
    other = {"jsonrpc": "2.0", "id": 4711, "result": text_result()}
    return {
        "wrong id": json.dumps(other).encode(),
        "error with id null": error_answer(None),
        "a notification": b'{"jsonrpc": "2.0", "method": "notifications/message"}',
        "an echo": json.dumps(request).encode(),
        "nothing": b"",
    }


@both_eras
@pytest.mark.parametrize("framing", ["json", "event"])
@pytest.mark.parametrize("kind", list(foreign_answers(0)))
@guarded
async def test_an_answer_to_nobody_does_not_leave_the_call_waiting(era: Era, framing: str, kind: str) -> None:
    async def wrong(talk: Talk) -> None:
        body = foreign_answers(talk.id)[kind]
        if framing == "json":
            await talk.reply(200, body, "application/json")
            return
        await talk.begin_events()
        if body:
            await talk.event(body)
        await talk.end_events()

    async with http_client(mcp(by_tool(wrong=wrong)), era, heartbeat=None) as (client, _):
        with pytest.raises((RequestFailedError, MCPError)) as caught:
            await client.call_tool("wrong", timeout=None)
        if isinstance(caught.value, MCPError):
            assert kind == "error with id null"
        assert (await client.call_tool("echo")).content


# --- 7: resumption without bounds -------------------------------------------------------------------


def quick_transport(server: FaultServer) -> StreamableHttpTransport:
    return StreamableHttpTransport(server.url, _policy=QUICK)


async def ends_resumable(talk: Talk) -> None:
    await talk.begin_events()
    await talk.chunk(b"id: 1\nretry: 0\ndata:\n\n")
    await talk.end_events()


@guarded
async def test_resumption_does_not_go_on_for_ever() -> None:
    handler = mcp(by_tool(endless=ends_resumable), GET=ends_resumable)
    async with http_client(handler, "legacy", url=quick_transport) as (client, server):
        with pytest.raises(RequestFailedError) as caught:
            await client.call_tool("endless", timeout=None)
        assert caught.value.reason == "transport"
        resumptions = [each for each in server.of("GET") if each.headers.get("last-event-id") == "1"]
        # Those of the call, and those of the session's own stream, which is no better.
        assert len(resumptions) <= QUICK.resume_attempts + QUICK.listen_failures
        assert (await client.call_tool("echo")).content


@guarded
async def test_a_get_stream_that_ends_at_once_is_opened_again_and_affects_no_call() -> None:
    async with http_client(mcp(by_tool(), GET=ends_resumable), "legacy", url=quick_transport) as (
        client,
        server,
    ):
        # Granted each time, as by gateways that cut every stream: no failure, however often it ends.
        while len(server.of("GET")) <= QUICK.listen_failures + 1:
            await anyio.sleep(0.001)
        assert (await client.call_tool("echo")).content


def test_a_retry_of_zero_is_not_taken_at_its_word() -> None:
    policy = StreamableHttpTransport("http://127.0.0.1/mcp")._policy
    assert policy.retry_delay(0) >= 0.1
    assert policy.retry_delay(10**9) <= 30
    assert policy.retry_delay(None, failures=10**6) <= 30


# --- 8: stdio ---------------------------------------------------------------------------------------


@both_eras
@guarded
async def test_a_byte_that_is_not_utf_8_does_not_end_the_reader(era: Era, tmp_path: Path) -> None:
    async with stdio_client(tmp_path, "says_before", r"\xff\xfe{}", '{"half', era=era) as client:
        assert (await client.call_tool("fault")).content
        assert client.stats().violations == 2
        assert (await client.call_tool("echo")).content


@both_eras
@guarded
async def test_a_grandchild_that_holds_the_pipe_does_not_hide_the_exit(era: Era, tmp_path: Path) -> None:
    async with stdio_client(tmp_path, "leaves_a_grandchild", 7, era=era, heartbeat=None) as client:
        with pytest.raises(SessionLostError) as caught:
            await client.call_tool("fault", timeout=None)
        assert (caught.value.reason, caught.value.exit_code) == ("exited", 7)
        assert caught.value.stderr_tail == ("last words",)
        assert len(pids(tmp_path)) == 2
    await until_gone(tmp_path)


@guarded
async def test_a_long_line_does_not_take_time_in_the_square_of_its_length(tmp_path: Path) -> None:
    size = 50_000_000
    async with stdio_client(tmp_path, "answers_with", size, heartbeat=None) as client:
        # Linear, this takes about a second; quadratic it took fourteen on a machine with nothing else to do.
        with anyio.fail_after(12):
            result = await client.call_tool("fault", timeout=None)
        assert len(result.content[0].text) == size


Use: TypeAlias = Callable[[], Awaitable[None]]


async def _cancelled(task: asyncio.Task[Any], times: int) -> None:
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def _by_cancel(use: Use, there: Use) -> None:
    task = asyncio.ensure_future(use())
    await there()
    await _cancelled(task, 1)


async def _by_repeated_cancel(
    use: Callable[[], Awaitable[None]], there: Callable[[], Awaitable[None]]
) -> None:
    task = asyncio.ensure_future(use())
    await there()
    await _cancelled(task, 30)


async def _by_timeout(use: Use, there: Use) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            waiter = asyncio.ensure_future(there())
            waiter.add_done_callback(lambda _: timeout.reschedule(asyncio.get_running_loop().time()))
            await use()


async def _by_wait_for(use: Use, there: Use) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(use(), 0.5)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("way", [_by_cancel, _by_repeated_cancel, _by_timeout, _by_wait_for])
@pytest.mark.parametrize("where", ["connecting", "calling", "closing"])
@guarded
async def test_a_native_cancellation_does_not_leave_the_child_behind(
    anyio_backend: str, way: Any, where: str, tmp_path: Path
) -> None:
    fault = {"connecting": "never_reads", "calling": "is_silent", "closing": "never_ends"}[where]
    trigger = {"connecting": "begin", "calling": "call", "closing": "end"}[where]
    # A goodbye longer than the time `wait_for` gives.
    client = stdio_client(tmp_path, fault, trigger=trigger, timeouts=Timeouts(close=1.6))

    async def use() -> None:
        async with client:
            if where == "calling":
                await client.call_tool("fault", timeout=None)

    async def there() -> None:
        wanted = {"connecting": "connecting", "calling": "ready", "closing": "closing"}[where]
        while client.state.value != wanted or (where == "calling" and not client.stats().calls_in_flight):
            await asyncio.sleep(0.001)
        while not pids(tmp_path):
            await asyncio.sleep(0.001)

    before = child_processes()
    await way(use, there)
    assert pids(tmp_path)
    assert not any(map(is_alive, pids(tmp_path)))
    assert child_processes() == before
    check_at_rest(client)


# --- 9: a context that is never left ----------------------------------------------------------------


NEVER_LEFT = """
    import asyncio, sys
    sys.path.insert(0, {root!r})
    from pathlib import Path
    from anyio_mcp import Client
    from tests.faults.test_regressions import http_client, by_tool, mcp, never, stdio_client

    async def bare(client):
        await client.__aenter__()

    async def in_a_task(client):
        entered = asyncio.Event()
        async def hold():
            async with client:
                entered.set()
                await client.call_tool("fault", timeout=None)
        kept.append(asyncio.create_task(hold()))
        await entered.wait()

    async def main():
        client = stdio_client(Path({directory!r}), "is_silent", trigger="call", era={era!r})
        await {way}(client)
        kept.append(client)

    kept = []
    asyncio.run(main())
    print("returned")
"""


@both_eras
@pytest.mark.parametrize("way", ["bare", "in_a_task"])
def test_a_context_never_left_does_not_keep_asyncio_run_from_returning(
    era: Era, way: str, tmp_path: Path
) -> None:
    root = Path(__file__).parent.parent.parent
    script = textwrap.dedent(NEVER_LEFT).format(root=str(root), directory=str(tmp_path), way=way, era=era)

    async def run() -> None:
        with anyio.fail_after(PATIENCE):
            done = await anyio.run_process([sys.executable, "-c", script], cwd=root, check=False)
        assert done.stdout == b"returned\n", done.stderr.decode()
        assert done.returncode == 0

    anyio.run(run)
    assert pids(tmp_path)
    assert not any(map(is_alive, pids(tmp_path)))


# --- 10: the result of a tool that ran, lost to a hidden listing ------------------------------------


async def refused(talk: Talk) -> None:
    await talk.reply(500)


async def error(talk: Talk) -> None:
    await talk.reply(200, error_answer(talk.id), "application/json")


async def nonsense(talk: Talk) -> None:
    await talk.result({"tools": "none"})


@both_eras
@pytest.mark.parametrize(
    "listing", [refused, error, nonsense, close, reset, garbage, never], ids=lambda f: f.__name__
)
@guarded
async def test_a_hidden_listing_that_fails_does_not_lose_the_result_of_a_tool(
    era: Era, listing: Handler
) -> None:
    async def counts(talk: Talk) -> None:
        await talk.result({**text_result(), "structuredContent": {"n": 42}})

    handler = mcp(by_tool(count=counts), tools_list=listing)
    async with http_client(handler, era) as (client, server):
        result = await client.call_tool("count", timeout=1.0)
        assert result.structured_content == {"n": 42}
        assert "tools/list" in [each.rpc_method for each in server.requests], "there was a hidden listing"


# --- 11: a cap in one framing, and none in another --------------------------------------------------


async def _as_json(talk: Talk, body: bytes) -> None:
    await talk.reply(200, body, "application/json")


async def _as_event(talk: Talk, body: bytes) -> None:
    await talk.begin_events()
    await talk.event(body)
    await talk.end_events()


@both_eras
@pytest.mark.parametrize("framing", [_as_json, _as_event], ids=["json", "event"])
@guarded
async def test_a_large_result_does_not_meet_another_limit_in_another_framing(era: Era, framing: Any) -> None:
    size = 3 * MEGABYTE

    async def large(talk: Talk) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": talk.id, "result": text_result("x" * size)})
        await framing(talk, body.encode())

    async with http_client(mcp(by_tool(large=large)), era) as (client, _):
        assert len((await client.call_tool("large")).content[0].text) == size
    limits = Limits(max_message_bytes=MEGABYTE)
    async with http_client(mcp(by_tool(large=large)), era, limits=limits) as (client, _):
        with pytest.raises(RequestFailedError) as caught:
            await client.call_tool("large")
        assert caught.value.reason == "oversized"
        assert (await client.call_tool("echo")).content


@both_eras
@guarded
async def test_a_large_line_does_not_meet_another_limit_than_a_large_body(era: Era, tmp_path: Path) -> None:
    size = 3 * MEGABYTE
    directories = [tmp_path / name for name in ("fits", "too large")]
    for directory in directories:
        directory.mkdir()
    async with stdio_client(directories[0], "answers_with", size, era=era) as client:
        assert len((await client.call_tool("fault")).content[0].text) == size
    limits = Limits(max_message_bytes=MEGABYTE)
    async with stdio_client(directories[1], "answers_with", size, era=era, limits=limits) as client:
        with pytest.raises(RequestFailedError) as caught:
            await client.call_tool("fault")
        assert caught.value.reason == "oversized"
        assert (await client.call_tool("echo")).content


# --- 12: work on the event loop whose cost the server chooses ---------------------------------------


@guarded
async def test_a_megabyte_from_the_server_does_not_become_a_megabyte_of_log(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    long = "x" * MEGABYTE
    with caplog.at_level(logging.DEBUG, "anyio_mcp"):
        async with stdio_client(tmp_path, "says_a_long_line_of_each_kind", MEGABYTE) as client:
            assert (await client.call_tool("fault")).content
            assert client.stats().violations >= 2
    assert caplog.records
    assert max(len(record.getMessage()) for record in caplog.records) < 2000
    assert long[:2000] not in caplog.text


_COSTLY: dict[str, tuple[dict[str, Any], Any]] = {
    # Exponential in the length of the value for an engine that backtracks: days.
    "pattern": ({"type": "string", "pattern": "^(a+)+!$"}, "a" * 45 + "!"),
    # Quadratic in the number of items, whose comparison is slow, for one that compares each two: minutes.
    "uniqueItems": ({"type": "array", "uniqueItems": True}, [{"n": number} for number in range(10_000)]),
}


@both_eras
@pytest.mark.parametrize("keyword", list(_COSTLY))
@guarded
async def test_a_costly_schema_does_not_stop_the_event_loop(era: Era, keyword: str) -> None:
    schema, value = _COSTLY[keyword]

    async def lists(talk: Talk) -> None:
        output = {"type": "object", "properties": {"x": schema}}
        tools = [{"name": "evil", "inputSchema": {"type": "object"}, "outputSchema": output}]
        await talk.result({"tools": tools, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"})

    async def evil(talk: Talk) -> None:
        await talk.result({**text_result(), "structuredContent": {"x": value}})

    async with http_client(mcp(by_tool(evil=evil), tools_list=lists), era) as (client, _):
        result = await client.call_tool("evil", timeout=5)
        assert result.structured_content == {"x": value}
        assert result.unchecked is None


# --- 13: a refusal taken for an old server -----------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 407, 429])
@guarded
async def test_a_refused_probe_does_not_downgrade_the_session(status: int) -> None:
    async def refuse(talk: Talk) -> None:
        await talk.reply(status, headers={"retry-after": "7"})

    async with fault_server(mcp(by_tool(), server_discover=refuse)) as server:
        client = Client(server.url)
        with pytest.raises(httpx2.HTTPStatusError) as caught:
            async with client:
                raise AssertionError
        assert caught.value.response.status_code == status
        assert caught.value.response.headers["retry-after"] == "7"
        assert "initialize" not in [each.rpc_method for each in server.requests]
    check_at_rest(client)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """For tests that run event loops of their own."""
    return request.param
