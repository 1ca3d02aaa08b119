"""Groups of real child processes, in real time."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.types import TextResourceContents

from anyio_mcp.config import Timeouts
from anyio_mcp.errors import ConnectError, DeadlineExceededError, SessionLostError
from anyio_mcp.group import ClientGroup
from anyio_mcp.mcp_config import MCPConfig
from tests.group.support import library
from tests.leaks import child_processes

pytestmark = pytest.mark.anyio

PROGRAM = Path(__file__).parents[1] / "interop" / "programs" / "everything.py"
BOUND = 60
"""Real seconds a test may take; a machine that does other things as well is slow to start a Python."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time: a child process knows no other."""
    return request.param


def everything() -> dict[str, Any]:
    return {"command": sys.executable, "args": [str(PROGRAM), "stdio"]}


def exits() -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-c", "import sys; sys.exit('no licence')"]}


def hangs() -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-c", "import time; time.sleep(600)"]}


async def test_a_configuration_file_becomes_a_group_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERYTHING", str(PROGRAM))
    file = tmp_path / "mcp.json"
    one = {"command": sys.executable, "args": ["${EVERYTHING}", "stdio"]}
    two = {"type": "stdio", "command": sys.executable, "args": ["${env:EVERYTHING}", "${MODE:-stdio}"]}
    file.write_text("// this Python\n" + json.dumps({"mcpServers": {"one": one, "two": two}}))
    before = child_processes()
    with anyio.fail_after(BOUND):
        async with ClientGroup(MCPConfig.load(file)) as group:
            assert len(child_processes() - before) == 2
            pids = {(await group.call_tool(f"{name}_pid")).structured_content["result"] for name in group}
            assert pids == child_processes() - before
            assert len(await group.list_tools()) == 12
            assert await group.ping() == {"one": True, "two": True}
            await group.remove("one")
            assert child_processes() - before < pids
    assert child_processes() == before


async def test_a_template_is_read_under_the_name_of_its_server() -> None:
    # In real time: the SDK's server reads templates in a thread.
    with anyio.fail_after(BOUND):
        async with ClientGroup({"a": library("a"), "b_c": library("b_c")}) as group:
            for server in group:
                (greeting,) = await group.read_resource(f"{server}+text://greeting/me")
                assert isinstance(greeting, TextResourceContents)
                assert greeting.text == f"hello me from {server}"


async def test_a_process_killed_in_a_call_fails_that_call_and_is_started_again() -> None:
    errors: list[SessionLostError] = []
    results: list[object] = []

    async def slow(name: str) -> None:
        try:
            await group.call_tool(f"{name}_slow", {"seconds": 1 if name == "a" else 600})
            results.append(name)
        except SessionLostError as error:
            errors.append(error)

    with anyio.fail_after(BOUND):
        async with ClientGroup({"a": everything(), "b": everything(), "c": library("c")}) as group:
            async with anyio.create_task_group() as tg:
                tg.start_soon(slow, "a")
                tg.start_soon(slow, "b")
                while group["b"].stats().calls_in_flight < 1:
                    await anyio.sleep(0.01)
                # Answered, so the call before it has arrived as well.
                pid = (await group.call_tool("b_pid")).structured_content["result"]
                os.kill(pid, signal.SIGKILL)
                while not errors:
                    await anyio.sleep(0.01)
                assert (await group.call_tool("c_where")).content
            assert results == ["a"]
            assert [(error.reason, error.exit_code) for error in errors] == [("exited", -signal.SIGKILL)]
            assert isinstance(group.failures["b"], SessionLostError)
            assert (await group.call_tool("b_pid")).structured_content["result"] != pid
            assert group.failures == {}


async def test_one_process_of_three_that_exits_at_once_ends_the_entry_with_its_last_words() -> None:
    with anyio.fail_after(BOUND), pytest.raises(ConnectError) as caught:
        async with ClientGroup({"a": everything(), "b": exits(), "c": everything()}):
            pytest.fail("entered")
    assert caught.value.exit_code == 1
    assert caught.value.stderr_tail == ("no licence",)
    assert caught.value.__notes__ == ["server 'b'"]


async def test_a_process_that_never_answers_is_reported_within_the_connect_deadline() -> None:
    servers = {"a": everything(), "b": hangs(), "c": exits()}
    timeouts = Timeouts(connect=10, close=2)
    with anyio.fail_after(BOUND):
        async with ClientGroup(servers, on_failure="report", timeouts=timeouts) as group:
            assert isinstance(group.failures["b"], DeadlineExceededError)
            assert isinstance(group.failures["c"], ConnectError)
            result = await group.call_tool("a_add", {"a": 1, "b": 2})
            assert result.structured_content == {"result": 3}


async def test_cancelling_the_entry_leaves_no_process() -> None:
    before = child_processes()
    with anyio.fail_after(BOUND):
        with anyio.move_on_after(0.5) as scope:
            async with ClientGroup({"a": hangs(), "b": hangs()}, timeouts=Timeouts(close=2)):
                pytest.fail("entered")
        assert scope.cancelled_caught
    assert child_processes() == before
