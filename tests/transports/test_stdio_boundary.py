"""Whatever is raised while a child is handled costs one message or the connection, never the caller."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import anyio
import pytest

from anyio_mcp import (
    Client,
    ConnectError,
    MCPClientError,
    RequestFailedError,
    SessionLostError,
    StdioTransport,
    Timeouts,
)
from anyio_mcp.transports import _child, _lines, _pipe, stdio
from anyio_mcp.transports._child import ChildProcess, StderrTail
from anyio_mcp.transports._inbox import Inbox
from anyio_mcp.transports._pipe import PipeConnection
from anyio_mcp.transports._process import PosixProcess
from tests.leaks import locals_behind
from tests.traps import Trap, named

pytestmark = pytest.mark.anyio

SERVER = """
import json, sys

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = {"content": [{"type": "text", "text": "hi"}]}
    if message["method"] == "initialize":
        info = {"name": "s", "version": "1"}
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
    elif message["params"].get("name") == "die":
        break
    else:
        print("a word", file=sys.stderr, flush=True)
        print("no message")
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


def client_of(task_group: anyio.abc.TaskGroup, env: dict[str, str] | None = None) -> Client:
    transport = StdioTransport(sys.executable, ["-c", SERVER], env=env)
    return Client(transport, task_group=task_group, mode="legacy", timeouts=Timeouts(call=5, close=1))


OF_A_LINE: list[tuple[Any, str]] = [(_pipe, "read_line"), (_lines, "read_messages")]


@pytest.mark.parametrize(("owner", "name"), OF_A_LINE, ids=named)
async def test_a_bug_in_the_reading_of_a_line_costs_that_line(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    trap = Trap()
    trap.set(monkeypatch, owner, name)
    real = PipeConnection._read_line

    def answers_alone(connection: PipeConnection, line: _lines.Line) -> Any:
        trap.armed = b'"id"' in line
        return real(connection, line)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as mine, client_of(mine) as client:
            session = client.session
            monkeypatch.setattr(PipeConnection, "_read_line", answers_alone)
            with pytest.raises(RequestFailedError, match="a bug"):
                await client.call_tool("t", {})
            monkeypatch.setattr(PipeConnection, "_read_line", real)
            assert (await client.call_tool("t", {})).content[0].text == "hi"
            assert client.session is session
        assert not mine.cancel_scope.cancel_called


CALLEES: list[tuple[Any, str]] = [
    (_pipe, "contained"),
    (_pipe, "encode_message"),
    (_pipe.LineFramer, "feed"),
    (_pipe, "_beginning"),
    (PipeConnection, "_hand_on"),
    (PipeConnection, "_receive"),
    (Inbox, "put"),
    (StderrTail, "feed"),
    (StderrTail, "_take"),
]


@pytest.mark.parametrize(("owner", "name"), CALLEES, ids=named)
async def test_a_bug_in_any_callee_of_the_connections_tasks_leaves_the_caller_alone(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    trap = Trap()
    trap.set(monkeypatch, owner, name)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as mine, client_of(mine) as client:
            if name == "contained":
                monkeypatch.setattr(_pipe, "read_line", _never_reads)
            trap.armed = True
            for _ in range(2):
                with suppress(MCPClientError):
                    await client.call_tool("t", {})
            assert trap.sprung == 1
            if name != "contained":
                assert (await client.call_tool("t", {})).content[0].text == "hi"
        assert not mine.cancel_scope.cancel_called


def _never_reads(*_: Any) -> Any:
    raise ZeroDivisionError("a bug")


ENDING: list[tuple[Any, str]] = [
    (ChildProcess, "watch"),
    (ChildProcess, "end"),
    (ChildProcess, "release"),
    (ChildProcess, "stop"),
    (ChildProcess, "_reaped"),
    (_child, "describe_exit"),
    (PosixProcess, "has_exited"),
    (PipeConnection, "_discard"),
]


@pytest.mark.parametrize(("owner", "name"), ENDING, ids=named)
async def test_a_bug_in_the_end_of_a_child_is_nobodys_fault(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    trap = Trap(late=name in ("end", "release"))
    trap.set(monkeypatch, owner, name)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as mine:
            async with client_of(mine) as client:
                assert (await client.call_tool("t", {})).content[0].text == "hi"
                trap.armed = True
            assert trap.sprung == 1
            async with client:
                assert (await client.call_tool("t", {})).content[0].text == "hi"
        assert not mine.cancel_scope.cancel_called


LOSING: list[tuple[Any, str]] = [
    (PipeConnection, "_lose"),
    (PipeConnection, "_loss"),
    (PipeConnection, "_suspect"),
    (Inbox, "put_last"),
    (Inbox, "end"),
]


@pytest.mark.parametrize(("owner", "name"), LOSING, ids=named)
async def test_a_bug_in_telling_of_a_lost_child_ends_the_session_all_the_same(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    trap = Trap()
    trap.set(monkeypatch, owner, name)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as mine, client_of(mine) as client:
            trap.armed = True
            with pytest.raises(SessionLostError):
                await client.call_tool("die", {})
            assert trap.sprung == 1
            assert (await client.call_tool("t", {})).content[0].text == "hi"
        assert not mine.cancel_scope.cancel_called


async def test_a_bug_in_starting_a_child_is_why_it_could_not_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trap = Trap(armed=True)
    trap.set(monkeypatch, _child, "start_process")
    with anyio.fail_after(20):
        async with anyio.create_task_group() as mine:
            client = client_of(mine, env={"TOKEN": "s3cret"})
            with pytest.raises(ConnectError, match="a bug") as caught:
                await client.__aenter__()
            assert "s3cret" not in locals_behind(caught.value)
            async with client:
                assert (await client.call_tool("t", {})).content[0].text == "hi"
    assert "a bug, please report it" in caplog.text
    assert stdio.contained is _pipe.contained
