"""Programs that end, or are ended, with a session alive: they do end, quietly, and nothing outlives them.

Each program is a process of its own, in development mode and with every warning an error.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio
import anyio.abc
import pytest

from anyio_mcp import Client
from anyio_mcp.testing import ScriptedPeer, check_at_rest
from tests.faults.http_server import fault_server, never
from tests.faults.stdio_cells import pids, stdio_transport, until_gone, wait_for
from tests.faults.test_regressions import by_tool, guarded, mcp

pytestmark = pytest.mark.anyio

Medium: TypeAlias = Literal["stdio", "http"]

both_media = pytest.mark.parametrize("medium", ["stdio", "http"])

NOISE = (
    "never awaited",
    "ResourceWarning",
    "Task was destroyed",
    "Task exception was never retrieved",
    "Exception ignored",
    "unhandled exception",
    "RuntimeError",
    "anyio_mcp.errors",
)
"""What a program that ends well does not say."""

PROGRAM = """
    import json, signal, sys, threading
    import anyio
    from anyio_mcp import Client, StdioTransport, Timeouts

    # Whoever starts the tests in the background of a shell has them, and this, ignore interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    backend, door, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    source = plan.get("url") or StdioTransport(plan["command"][0], plan["command"][1:])

    async def use(client):
        {use}

    async def main():
        options = {{"mode": {mode!r}, "timeouts": Timeouts(close={close})}}
        if door == "block":
            async with Client(source, **options) as client:
                await use(client)
        elif door == "task_group":
            async with anyio.create_task_group() as tg, Client(source, task_group=tg, **options) as client:
                await use(client)
        else:
            async with anyio.create_task_group() as tg:
                client = Client(source, **options)
                await tg.start(client.run)
                await use(client)

    {start}
"""

RUN = "anyio.run(main, backend=backend)"


@dataclass(slots=True, eq=False)
class Program:
    """A running program, and what its server knows of it."""

    process: anyio.abc.Process
    is_called: Callable[[], bool]
    """Whether the call that never returns has reached the server."""
    directory: Path

    async def calling(self) -> None:
        """Wait until the call that never returns has reached the server."""
        await wait_for(lambda: self.is_called() or self.process.returncode is not None)
        assert self.is_called(), await self.ended()

    async def at_rest(self) -> None:
        """Wait until the call has reached the server and the program waits for nothing but the answer.

        Interrupted at work, trio raises in whichever task it is, and that may be one of the library's.
        """
        await self.calling()
        stat = Path(f"/proc/{self.process.pid}/stat")
        unchanged, before = 0, ""
        while unchanged < 5:
            await anyio.sleep(0.01)
            state, *numbers = stat.read_text().rpartition(")")[2].split()
            now = " ".join(numbers[10:12])  # user and system time
            unchanged = unchanged + 1 if state == "S" and now == before else 0
            before = now

    async def ended(self) -> tuple[int, str]:
        """Its exit status and its stderr, once it has ended and with it every server it started."""
        assert self.process.stderr is not None
        said = b"".join([chunk async for chunk in self.process.stderr]).decode()
        await self.process.wait()
        await until_gone(self.directory)
        assert self.process.returncode is not None
        # What asyncio's debug mode says of a busy machine.
        lines = [line for line in said.splitlines() if not re.match(r"Executing .* took \S+ seconds", line)]
        return self.process.returncode, "\n".join(lines)


@asynccontextmanager
async def program(
    directory: Path,
    backend: str,
    medium: Medium,
    *,
    door: str = "block",
    use: str = 'await client.call_tool("fault", timeout=None)',
    start: str = RUN,
    close: float = 1.0,
    fault: tuple[Any, ...] = ("is_silent",),
    trigger: Any = "call",
) -> AsyncGenerator[Program]:
    async with fault_server(mcp(by_tool(fault=never))) as server:

        def is_called() -> bool:
            if medium == "http":
                return "tools/call" in [each.rpc_method for each in server.requests]
            return (directory / "faulty-now").exists()

        transport = stdio_transport(directory, *fault, trigger=trigger)
        plan = {"url": server.url} if medium == "http" else {"command": [transport.command, *transport.args]}
        mode = "2026-07-28" if medium == "http" else "auto"
        text = textwrap.dedent(PROGRAM).format(use=use, start=start, mode=mode, close=close)
        options = ["-X", "dev", "-W", "error", "-c", text, backend, door, json.dumps(plan, default=str)]
        async with await anyio.open_process(
            [sys.executable, *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as process:
            try:
                yield Program(process, is_called, directory)
            finally:
                if process.returncode is None:
                    process.kill()


def check_quiet(said: str) -> None:
    for noise in NOISE:
        assert noise not in said, said


# --- interrupted ------------------------------------------------------------------------------------


@both_media
@pytest.mark.parametrize("door", ["block", "task_group", "run"])
@guarded
async def test_an_interrupt_in_a_call_ends_the_program_and_its_server(
    anyio_backend: str, medium: Medium, door: str, tmp_path: Path
) -> None:
    async with program(tmp_path, anyio_backend, medium, door=door) as running:
        await running.at_rest()
        running.process.send_signal(signal.SIGINT)
        status, said = await running.ended()
    assert status in (-signal.SIGINT, 130, 1)
    check_quiet(said)
    assert said.splitlines()[-1].lstrip(" |+-") in ("KeyboardInterrupt", ""), said
    assert "KeyboardInterrupt" in said
    if door == "block":
        # The owner's group is the library's: nobody meets it.
        assert "ExceptionGroup" not in said
        assert status == -signal.SIGINT


@guarded
async def test_an_interrupt_while_connecting_ends_the_program_and_its_server(
    anyio_backend: str, tmp_path: Path
) -> None:
    async with program(tmp_path, anyio_backend, "stdio", trigger="begin") as running:
        await running.at_rest()
        running.process.send_signal(signal.SIGINT)
        status, said = await running.ended()
    assert status == -signal.SIGINT
    check_quiet(said)
    assert said.splitlines()[-1] == "KeyboardInterrupt"


@guarded
async def test_a_second_interrupt_during_a_long_goodbye_leaves_no_child(
    anyio_backend: str, tmp_path: Path
) -> None:
    async with program(tmp_path, anyio_backend, "stdio", fault=("hangs_on",)) as running:
        await running.at_rest()
        running.process.send_signal(signal.SIGINT)
        await wait_for((tmp_path / "at-end").exists)
        running.process.send_signal(signal.SIGINT)
        status, said = await running.ended()
    assert status in (-signal.SIGINT, 130, 1)
    assert "KeyboardInterrupt" in said
    assert "never awaited" not in said
    # Who interrupts the event loop while it cleans up may be told of what it had not closed yet.


# --- ended by itself --------------------------------------------------------------------------------


@both_media
@guarded
async def test_an_exit_in_the_block_ends_the_program_and_its_server(
    anyio_backend: str, medium: Medium, tmp_path: Path
) -> None:
    use = 'await client.call_tool("echo"); sys.exit(3)'
    async with program(tmp_path, anyio_backend, medium, use=use) as running:
        assert await running.ended() == (3, "")


@both_media
@guarded
async def test_an_interpreter_that_shuts_down_does_not_wait_for_a_session_in_a_thread(
    anyio_backend: str, medium: Medium, tmp_path: Path
) -> None:
    """The event loop is frozen in the middle of a call, and never runs again."""
    start = (
        "threading.Thread(target=anyio.run, args=(main,), kwargs={'backend': backend}, daemon=True).start(); "
        "there.wait()"
    )
    use = (
        "async with anyio.create_task_group() as tg:\n"
        "        tg.start_soon(lambda: client.call_tool('fault', timeout=None))\n"
        "        while not client.stats().calls_in_flight: await anyio.sleep(0.01)\n"
        "        there.set()"
    )
    async with program(
        tmp_path, anyio_backend, medium, use=use, start="there = threading.Event(); " + start
    ) as running:
        status, said = await running.ended()
    assert status == 0
    check_quiet(said)
    assert "Traceback" not in said


@pytest.mark.parametrize("deadly", [signal.SIGTERM, signal.SIGHUP])
@both_media
@guarded
async def test_a_program_that_is_terminated_takes_its_server_along(
    anyio_backend: str, medium: Medium, deadly: signal.Signals, tmp_path: Path
) -> None:
    """Nothing of the program runs any more; its server's input ends with it."""
    async with program(tmp_path, anyio_backend, medium) as running:
        await running.calling()
        running.process.send_signal(deadly)
        assert await running.ended() == (-deadly, "")
    assert medium == "http" or pids(tmp_path)


# --- fixtures ---------------------------------------------------------------------------------------


@pytest.fixture
async def held(anyio_backend: str) -> AsyncGenerator[Client]:
    """A client whose block is entered before a test and left after it."""
    peer = ScriptedPeer()
    async with Client(peer.transport) as client:
        yield client
    assert peer.open_connections == 0
    check_at_rest(client)


@pytest.fixture
async def leased(anyio_backend: str) -> AsyncGenerator[Client]:
    """A second one, with a lease on the session of a task group of the fixture's."""
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg, Client(peer.transport, task_group=tg) as client:
        yield client
    assert peer.open_connections == 0
    check_at_rest(client)


@guarded
async def test_a_client_of_a_fixture_works_in_a_test(held: Client, leased: Client) -> None:
    async with held, leased:
        assert (await held.call_tool("echo")).content
        assert (await leased.call_tool("echo")).content
    assert (await held.call_tool("echo")).content
    assert held.stats().sessions_started == leased.stats().sessions_started == 1
