"""The client against SDK servers over real pipes and real sockets, on both backends, in both eras."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from anyio_mcp import (
    Client,
    NotConnectedError,
    RequestFailedError,
    SessionLostError,
    SessionState,
    StdioTransport,
    ToolError,
)
from tests.interop.conftest import HttpServer
from tests.leaks import child_processes, open_sockets

pytestmark = pytest.mark.anyio

MODES = ["legacy", "auto"]
VERSIONS = {"legacy": "2025-11-25", "auto": "2026-07-28"}


async def exercise(client: Client, mode: str, *, streams: bool = True) -> None:
    """Every verb a server of either era has. Without `streams` an answer has no room for progress."""
    assert client.protocol_version == VERSIONS[mode]
    assert client.server_info is not None
    assert client.server_info.name == "everything"
    assert {tool.name for tool in await client.list_tools()} >= {"add", "slow", "fail"}
    result = await client.call_tool("add", {"a": 2, "b": 3})
    assert result.structured_content == {"result": 5}
    with pytest.raises(ToolError):
        await client.call_tool("fail")
    updates: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        updates.append((progress, total, message))

    await client.call_tool("count", {"to": 3}, progress_handler=on_progress)
    assert updates == ([(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")] if streams else [])
    assert [str(resource.uri) for resource in await client.list_resources()] == ["text://greeting"]
    (contents,) = await client.read_resource("text://greeting/anyio")
    assert getattr(contents, "text", None) == "hello anyio"
    prompt = await client.get_prompt("ask", {"topic": "life"})
    assert getattr(prompt.messages[0].content, "text", None) == "What is life?"
    assert await client.ping()
    assert client.stats().calls_in_flight == 0


@pytest.mark.parametrize("mode", MODES)
async def test_every_verb_works_over_real_http(http_server: HttpServer, mode: str) -> None:
    with anyio.fail_after(30):
        async with Client(http_server.url, mode=mode) as client:
            await exercise(client, mode, streams=http_server.answers == "sse")


@pytest.mark.parametrize("mode", MODES)
async def test_every_verb_works_over_a_real_pipe(stdio_command: list[str], mode: str) -> None:
    with anyio.fail_after(30):
        async with Client(StdioTransport(stdio_command[0], stdio_command[1:]), mode=mode) as client:
            await exercise(client, mode)


async def share(client: Client, *, tasks: int, rounds: int) -> None:
    """`tasks` tasks open and close contexts of one client, in random order, `rounds` times in all."""
    chance = random.Random(20261120)
    most = 0

    async def visit(count: int) -> None:
        nonlocal most
        for turn in range(count):
            async with client:
                most = max(most, client.stats().leases)
                if chance.random() < 0.5:
                    await anyio.lowlevel.checkpoint()
                result = await client.call_tool("add", {"a": turn, "b": 1})
                assert result.structured_content == {"result": turn + 1}
                if chance.random() < 0.3:
                    async with client:
                        await client.ping()

    async with anyio.create_task_group() as tg:
        for _ in range(tasks):
            tg.start_soon(visit, rounds // tasks)
    assert most > 1, "the contexts never overlapped, so nothing was shared"


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("mode", MODES)
async def test_fifty_tasks_share_one_client_for_a_thousand_rounds_over_http(
    http_server: HttpServer, mode: str
) -> None:
    before = open_sockets()
    with anyio.fail_after(120):
        async with anyio.create_task_group() as tg:
            client = Client(http_server.url, task_group=tg, mode=mode)
            await share(client, tasks=50, rounds=1000)
            assert client.state is SessionState.CLOSED
            assert client.stats().leases == client.stats().waiters == client.stats().calls_in_flight == 0
    assert open_sockets() <= before


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("mode", MODES)
async def test_fifty_tasks_share_one_client_for_a_thousand_rounds_over_stdio(
    stdio_command: list[str], mode: str
) -> None:
    before = child_processes()
    with anyio.fail_after(120):
        async with anyio.create_task_group() as tg:
            client = Client(StdioTransport(stdio_command[0], stdio_command[1:]), task_group=tg, mode=mode)
            await share(client, tasks=50, rounds=1000)
            assert client.state is SessionState.CLOSED
            assert client.stats().waiters == client.stats().calls_in_flight == 0
    assert child_processes() <= before


async def calls_until_killed(client: Client, kill: Callable[[], None], *, calls: int) -> list[Exception]:
    """What `calls` calls raise when the server is killed under them."""
    raised: list[Exception] = []

    async def call() -> None:
        try:
            await client.call_tool("slow", {"seconds": 60})
        except Exception as error:
            raised.append(error)

    async with anyio.create_task_group() as tg:
        for _ in range(calls):
            tg.start_soon(call)
        while client.stats().calls_in_flight < calls:
            await anyio.sleep(0)
        # Answered behind the calls: everything before it has been taken by the server.
        await client.ping()
        kill()
    return raised


@pytest.mark.usefixtures("unmeasured")
async def test_a_killed_stdio_server_fails_a_thousand_calls_at_once(stdio_command: list[str]) -> None:
    with anyio.fail_after(120):
        async with anyio.create_task_group() as tg:
            client = Client(StdioTransport(stdio_command[0], stdio_command[1:]), task_group=tg)
            async with client:
                pid = (await client.call_tool("pid")).structured_content["result"]
                raised = await calls_until_killed(client, lambda: os.kill(pid, signal.SIGKILL), calls=1000)
                assert len(raised) == 1000
                assert {type(error) for error in raised} == {SessionLostError}
                assert {getattr(error, "exit_code", None) for error in raised} == {-signal.SIGKILL}
                assert not tg.cancel_scope.cancel_called
                second = (await client.call_tool("pid")).structured_content["result"]
                assert second != pid


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("mode", MODES)
async def test_a_killed_http_server_fails_a_thousand_calls_and_serves_after_its_restart(
    mortal_http_server: HttpServer, mode: str
) -> None:
    with anyio.fail_after(120):
        async with anyio.create_task_group() as tg:
            client = Client(mortal_http_server.url, task_group=tg, mode=mode)
            async with client:
                raised = await calls_until_killed(client, mortal_http_server.kill, calls=1000)
                assert len(raised) == 1000
                assert {type(error) for error in raised} <= {RequestFailedError, SessionLostError}
                assert not tg.cancel_scope.cancel_called
                mortal_http_server.start()
                result = await client.call_tool("add", {"a": 1, "b": 1})
                assert result.structured_content == {"result": 2}


async def test_a_client_left_behind_says_that_it_is_not_connected(stdio_command: list[str]) -> None:
    client = Client(StdioTransport(stdio_command[0], stdio_command[1:]))
    with anyio.fail_after(30):
        async with client:
            await client.ping()
        with pytest.raises(NotConnectedError):
            await client.ping()
