"""The demo: one client shared by several tasks, and its server killed while calls are in flight.

Uses the public client only, as any program would, and measures what the user of such a program sees.
It checks what it shows: an outcome other than the promised one is an error, not a pretty line.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Final

import anyio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from anyio_mcp.cli.outcome import UnexpectedOutcomeError, exit_of, in_one_line, kind
from anyio_mcp.client import Client
from anyio_mcp.errors import MCPClientError, SessionLostError
from anyio_mcp.transports.stdio import StdioTransport

WHOLE_DEMO_SECONDS: Final = 60.0
"""Far more than it takes; past it something hangs, which is what this program says cannot be."""

CALLS_IN_FLIGHT: Final = 8
_COUNT_TO: Final = 20
_NEVER: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Casualty:
    """A call that was in flight when the server died."""

    seconds: float
    error: MCPClientError


async def run(console: Console, backend: str) -> None:
    """Show everything on `console`.

    Raises `UnexpectedOutcomeError` when something else happened than promised, `TimeoutError` after
    `WHOLE_DEMO_SECONDS`, and whatever kept the server from starting.
    """
    transport = StdioTransport(sys.executable, ["-m", "anyio_mcp.cli.demo_server"])
    with anyio.fail_after(WHOLE_DEMO_SECONDS):
        began = perf_counter()
        async with Client(transport, name="demo") as client:
            ready = perf_counter() - began
            version = client.protocol_version
            console.print(
                f"[bold]anyio-mcp on {backend}[/]: MCP {version} over stdio, ready in {ready * 1000:.0f} ms"
            )
            first = await _share(console, client)
            await _kill(console, client, first)
            await _go_on(console, client, first)


async def _share(console: Console, client: Client) -> int:
    """Four tasks call at once. Returns the server's process id."""
    console.print("\n[cyan]1. Four tasks share the client[/]")
    answers: dict[str, Any] = {}
    spent: list[float] = []
    bar = Progress(
        TextColumn("   count  "),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        console=console,
        # The default redraws from a thread; a redraw per progress notification is all this needs.
        auto_refresh=False,
    )
    counted = bar.add_task("count", total=_COUNT_TO)

    async def progress(done: float, total: float | None, message: str | None) -> None:
        bar.update(counted, completed=done, refresh=True)

    async def ask(name: str, call: Callable[[], Awaitable[Any]]) -> None:
        began = perf_counter()
        answers[name] = await call()
        spent.append(perf_counter() - began)

    began = perf_counter()
    with bar:
        async with anyio.create_task_group() as tg:
            tg.start_soon(ask, "count", partial(_ask, client, "count", progress, to=_COUNT_TO))
            tg.start_soon(ask, "slow", partial(_ask, client, "slow", None, seconds=0.4))
            tg.start_soon(ask, "add", partial(_ask, client, "add", None, a=20, b=22))
            tg.start_soon(ask, "pid", partial(_ask, client, "pid", None))
    took = perf_counter() - began
    console.print(f"   slow    slept {answers['slow']} s")
    console.print(f"   add     20 + 22 = {answers['add']}")
    console.print(f"   pid     the server is process {answers['pid']}")
    console.print(f"   {sum(spent):.2f} s of calls in {took:.2f} s: they ran side by side")
    return answers["pid"]


async def _kill(console: Console, client: Client, pid: int) -> None:
    """Kill the server under `CALLS_IN_FLIGHT` calls and show how each of them ends."""
    console.print(f"\n[cyan]2. The server is killed (SIGKILL), with {CALLS_IN_FLIGHT} calls in flight[/]")
    killed_at = 0.0
    arrived = 0
    all_arrived = anyio.Event()
    casualties: dict[int, Casualty] = {}

    async def call(number: int) -> None:
        nonlocal arrived
        began = False

        async def progress(done: float, total: float | None, message: str | None) -> None:
            # The server reports progress once when it begins: from then on the call is in its hands.
            nonlocal arrived, began
            arrived += not began
            began = True
            if arrived == CALLS_IN_FLIGHT:
                all_arrived.set()

        try:
            await _ask(client, "slow", progress, seconds=_NEVER)
        except MCPClientError as error:
            casualties[number] = Casualty(seconds=perf_counter() - killed_at, error=error)

    async with anyio.create_task_group() as tg:
        for number in range(1, CALLS_IN_FLIGHT + 1):
            tg.start_soon(call, number)
        await all_arrived.wait()
        os.kill(pid, signal.SIGKILL)
        killed_at = perf_counter()

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right")
    for number, casualty in sorted(casualties.items()):
        after = f"failed after {casualty.seconds * 1000:5.1f} ms"
        table.add_row(f"   call {number}", after, kind(casualty.error), exit_of(casualty.error) or "")
    console.print(table)
    _expect(len(casualties) == CALLS_IN_FLIGHT, "not every call failed")
    losses = [item.error for item in casualties.values() if isinstance(item.error, SessionLostError)]
    _expect(len(losses) == CALLS_IN_FLIGHT, "a call failed with something else than SessionLostError")
    _expect(len(set(map(id, losses))) == CALLS_IN_FLIGHT, "two calls raised the same exception object")
    console.print(f"   each says: {in_one_line(str(losses[0]))}", soft_wrap=True, markup=False)
    console.print("   and nothing else was cancelled: this task group has just ended normally")


async def _go_on(console: Console, client: Client, first: int) -> None:
    """The next call, on the same client, in a new session."""
    console.print("\n[cyan]3. The next call starts a new session[/]")
    began = perf_counter()
    second = await _ask(client, "pid", None)
    took = perf_counter() - began
    total = await _ask(client, "add", None, a=20, b=22)
    _expect(second != first, "the killed server answered")
    console.print(f"   pid     the server is process {second} now, after {took * 1000:.0f} ms")
    console.print(f"   add     20 + 22 = {total}")


ProgressHandler = Callable[[float, float | None, str | None], Awaitable[None]]


async def _ask(client: Client, tool: str, progress: ProgressHandler | None, **arguments: Any) -> Any:
    """Call a tool of the demo server and unwrap its single value."""
    answer = await client.call_tool(tool, arguments, progress_handler=progress)
    if answer.structured_content is None:
        raise UnexpectedOutcomeError(f"{tool} answered without a value")
    return answer.structured_content["result"]


def _expect(promise: bool, otherwise: str) -> None:
    if not promise:
        raise UnexpectedOutcomeError(otherwise)
