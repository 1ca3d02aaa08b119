"""Many callers, real servers, random faults: does every call end, and is nothing left behind?

    python -m tests.soak.run [--seconds 600] [--callers 200] [--backend trio] [--seed 1]

Servers run over HTTP (JSON and streams, both eras, behind a proxy that breaks connections) and over
stdio (behind a pipe that breaks lines). They are killed, stopped and started again while the callers
call, cancel, and open and leave contexts. Each call has to be answered, to fail with a reason that this
library documents, or to have been cancelled by its caller. The exit status is 0 only if that was so of
all calls, none took longer than its bound, and no task, socket, child process or memory was left.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx2
from mcp import MCPError

from anyio_mcp import (
    Client,
    DeadlineExceededError,
    Heartbeat,
    Limits,
    MCPClientError,
    RequestFailedError,
    Restart,
    SessionLostError,
    StdioTransport,
    Timeouts,
)
from anyio_mcp.testing import task_dump
from tests.interop.conftest import PROGRAM, HttpServer
from tests.leaks import child_processes, open_sockets

HERE = Path(__file__).parent
MARK = "ANYIO_MCP_SOAK"
"""In the environment of what the clients start, so that grandchildren are found as well."""

TIMEOUTS = Timeouts(connect=5, call=5, total=10, close=2)
OPTIONS: dict[str, Any] = {
    "timeouts": TIMEOUTS,
    "heartbeat": Heartbeat(interval=1, timeout=1),
    "restart": Restart(max_attempts=3, backoff=0.05),
    "limits": Limits(max_message_bytes=1 << 20),
}
LONGEST = TIMEOUTS.total_seconds + TIMEOUTS.connect_seconds + TIMEOUTS.close_seconds
"""Seconds that the longest operation may take: a context that is entered, a call, and its end."""

MARGIN = 15.0
"""Seconds more before it counts as hung: two hundred callers and their servers share two cores."""

GROWTH = 32 * 1024 * 1024
"""Bytes by which the process may have grown between the second and the last fifth of the run."""


class WrongAnswerError(Exception):
    """A call got an answer, and it was not its own."""


@dataclass(slots=True, eq=False)
class Accounts:
    """What became of every operation."""

    begun: int = 0
    answered: int = 0
    cancelled: int = 0
    failed: Counter[str] = field(default_factory=Counter[str])
    inexplicable: list[str] = field(default_factory=list[str])
    slowest: float = 0.0
    active: dict[object, tuple[str, float]] = field(default_factory=dict[object, tuple[str, float]])

    @contextmanager
    def operation(self, what: str) -> Generator[None]:
        token = object()
        self.begun += 1
        began = time.monotonic()
        self.active[token] = (what, began)
        ended = False
        try:
            yield
            self.answered += 1
            ended = True
        except (MCPClientError, MCPError, httpx2.HTTPStatusError) as error:
            self.failed[reason_of(error)] += 1
            ended = True
        except Exception as error:
            self.inexplicable.append(f"{what}: {error!r}")
            ended = True
        finally:
            self.cancelled += not ended
            del self.active[token]
            self.slowest = max(self.slowest, time.monotonic() - began)

    def hung(self) -> list[str]:
        bound = time.monotonic() - LONGEST - MARGIN
        return [what for what, began in self.active.values() if began < bound]


def reason_of(error: Exception) -> str:
    match error:
        case httpx2.HTTPStatusError():
            return f"HTTP {error.response.status_code}"
        case MCPError():
            return f"MCPError {error.code}"
        case SessionLostError() | RequestFailedError():
            return f"{type(error).__name__} ({error.reason})"
        case DeadlineExceededError():
            return f"DeadlineExceededError ({error.phase})"
        case _:
            return type(error).__name__


class World:
    """The servers, the clients, and what goes wrong."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.http = [HttpServer("uvicorn", answers, quiet=True) for answers in ("json", "sse")]
        self.proxies: list[subprocess.Popen[bytes]] = []
        self.clients: list[Client] = []
        self.faults: Counter[str] = Counter()
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"

    def open(self, tasks: anyio.abc.TaskGroup) -> None:
        for server in self.http:
            server.start()
            seed = str(self.chance.randrange(10**6))
            command = [sys.executable, str(HERE / "proxy.py"), str(server.port), seed]
            proxy = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.proxies.append(proxy)
            assert proxy.stdout is not None
            url = f"http://127.0.0.1:{int(proxy.stdout.readline())}/mcp"
            for mode in ("legacy", "2026-07-28"):
                name = f"{server.answers} {mode}"
                self.clients.append(Client(url, task_group=tasks, name=name, mode=mode, **OPTIONS))
        for mode in ("legacy", "2026-07-28"):
            seed = str(self.chance.randrange(10**6))
            arguments = [str(HERE / "pipe.py"), seed, sys.executable, str(PROGRAM), "stdio"]
            transport = StdioTransport(sys.executable, arguments, env={MARK: self.mark})
            self.clients.append(
                Client(transport, task_group=tasks, name=f"stdio {mode}", mode=mode, **OPTIONS)
            )

    def close(self) -> None:
        for server in self.http:
            server.kill()
        for proxy in self.proxies:
            proxy.communicate()

    async def break_things(self) -> None:
        faults: tuple[Callable[[], Awaitable[None]], ...] = (
            self.kill_a_child,
            self.stop_a_child,
            self.restart_a_server,
            self.stop_a_server,
        )
        while True:
            await anyio.sleep(self.chance.uniform(0.5, 4))
            fault = self.chance.choice(faults)
            self.faults[fault.__name__] += 1
            await fault()

    def descendants(self) -> list[int]:
        """Every process the clients have started, or that such a process has."""
        found: list[int] = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (process / "environ").read_bytes():
                    found.append(int(process.name))
        return found

    def _children(self) -> list[int]:
        """The processes of the stdio clients."""
        own = {proxy.pid for proxy in self.proxies}
        own |= {server.process.pid for server in self.http if server.process is not None}
        return sorted(child_processes() - own)

    async def kill_a_child(self) -> None:
        for pid in self.chance.sample(self._children(), k=min(1, len(self._children()))):
            with suppress(ProcessLookupError):
                os.kill(pid, self.chance.choice((signal.SIGKILL, signal.SIGTERM)))

    async def stop_a_child(self) -> None:
        for pid in self.chance.sample(self._children(), k=min(1, len(self._children()))):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
            await anyio.sleep(self.chance.uniform(0.2, 4))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def restart_a_server(self) -> None:
        server = self.chance.choice(self.http)
        server.kill()
        await anyio.sleep(self.chance.uniform(0, 2))
        await anyio.to_thread.run_sync(server.start)

    async def stop_a_server(self) -> None:
        process = self.chance.choice(self.http).process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        await anyio.sleep(self.chance.uniform(0.2, 4))
        process.send_signal(signal.SIGCONT)


async def call_something(client: Client, chance: random.Random, accounts: Accounts) -> None:
    timeout = chance.choice((0.1, 0.5, 2.0, 5.0))
    what = chance.choice(("add", "echo", "count", "slow", "tools", "resource", "prompt", "ping"))
    with accounts.operation(f"{what} on {client.name}"):
        match what:
            case "add":
                a, b = chance.randrange(10**9), chance.randrange(10**9)
                result = await client.call_tool("add", {"a": a, "b": b}, timeout=timeout)
                check(result.structured_content == {"result": a + b}, result)
            case "echo":
                text = chance.randbytes(chance.choice((10, 1000, 50_000))).hex()
                result = await client.call_tool("echo", {"text": text})
                check(result.structured_content == {"result": text}, len(text))
            case "count":
                seen: list[float] = []

                async def on_progress(progress: float, total: float | None, message: str | None) -> None:
                    seen.append(progress)

                await client.call_tool("count", {"to": 5}, progress_handler=on_progress)
                check(seen == sorted(seen), seen)
            case "slow":
                await client.call_tool("slow", {"seconds": chance.uniform(0, 1)}, timeout=timeout)
            case "tools":
                check(len(await client.list_tools(timeout=timeout)) == 6, "tools")
            case "resource":
                (contents,) = await client.read_resource("text://greeting", timeout=timeout)
                check(getattr(contents, "text", None) == "hello", contents)
            case "prompt":
                await client.get_prompt("ask", {"topic": "soaking"}, timeout=timeout)
            case _:
                await client.ping(timeout=timeout)


def check(holds: bool, what: object) -> None:
    if not holds:
        raise WrongAnswerError(str(what)[:300])


async def caller(world: World, seed: int, accounts: Accounts, stop: anyio.Event) -> None:
    chance = random.Random(seed)
    while not stop.is_set():
        client = chance.choice(world.clients)
        impatient = chance.uniform(0, 0.3) if chance.random() < 0.2 else float("inf")
        with anyio.move_on_after(impatient):
            if chance.random() < 0.1:
                with accounts.operation(f"a context of {client.name}"):
                    async with client:
                        await call_something(client, chance, accounts)
            else:
                await call_something(client, chance, accounts)
        await anyio.sleep(chance.uniform(0, 0.5))


async def holder(client: Client, accounts: Accounts, stop: anyio.Event, chance: random.Random) -> None:
    """Keeps a context open most of the time, so that the others may call without one."""
    while not stop.is_set():
        with suppress(MCPClientError, MCPError, httpx2.HTTPStatusError):
            async with client:
                with anyio.move_on_after(chance.uniform(5, 30)):
                    await stop.wait()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def soak(options: argparse.Namespace) -> list[str]:
    """What was wrong, a line each."""
    chance = random.Random(options.seed)
    accounts, memory, wrong = Accounts(), list[int](), list[str]()
    sockets, children = open_sockets(), child_processes()
    tasks = {task.id for task in anyio.get_running_tasks()}
    stop = anyio.Event()
    world = World(chance)
    began = time.monotonic()
    try:
        async with anyio.create_task_group() as sessions:
            world.open(sessions)
            async with anyio.create_task_group() as faults, anyio.create_task_group() as callers:
                faults.start_soon(world.break_things)
                for client in world.clients:
                    callers.start_soon(holder, client, accounts, stop, chance)
                for number in range(options.callers):
                    callers.start_soon(caller, world, options.seed * 1000 + number, accounts, stop)
                while (elapsed := time.monotonic() - began) < options.seconds:
                    await anyio.sleep(1)
                    memory.append(resident())
                    if hung := accounts.hung():
                        print(task_dump(), file=sys.stderr)
                        return [f"hung: {what}" for what in hung]
                    if len(memory) % 30 == 0:
                        print(f"{elapsed:5.0f} s  {summary(accounts)}  {memory[-1] >> 20} MiB", flush=True)
                stop.set()
                with anyio.move_on_after(LONGEST + MARGIN) as patience:
                    while accounts.active:
                        await anyio.sleep(0.1)
                if patience.cancelled_caught:
                    print(task_dump(), file=sys.stderr)
                    return [f"hung at the end: {what}" for what, _ in accounts.active.values()]
                faults.cancel_scope.cancel()
            for client in world.clients:
                await client.close()
            wrong += [
                f"{client.name} is not at rest: {client.stats()}"
                for client in world.clients
                if client.stats().leases or client.stats().calls_in_flight or client.stats().waiters
            ]
        # Trio starts a task of its own for the threads that wait for children.
        left = [task.name for task in anyio.get_running_tasks() if task.id not in tasks]
        if left := [name for name in left if "TrioToken" not in (name or "")]:
            wrong.append(f"tasks are left: {left}")
    finally:
        world.close()
    gc.collect()
    ends = accounts.answered + accounts.cancelled + accounts.failed.total() + len(accounts.inexplicable)
    if ends != accounts.begun:
        wrong.append(f"{accounts.begun} operations begun, {ends} accounted for")
    wrong += [f"inexplicable: {each}" for each in accounts.inexplicable[:20]]
    if left := open_sockets() - sockets:
        wrong.append(f"sockets are left: {len(left)}")
    if left := world.descendants():
        wrong.append(f"processes are left: {left}")
    if left := child_processes() - children:
        wrong.append(f"child processes are left: {left}")
    fifth = max(len(memory) // 5, 1)
    early, late = statistics.median(memory[fifth : 2 * fifth]), statistics.median(memory[-fifth:])
    if late - early > GROWTH:
        wrong.append(f"memory grew from {early / 2**20:.0f} to {late / 2**20:.0f} MiB")
    print(f"\n{options.backend}, seed {options.seed}, {options.callers} callers, {options.seconds} s")
    print(f"{summary(accounts)}; the slowest took {accounts.slowest:.1f} s")
    print(f"sessions: {sum(client.stats().sessions_started for client in world.clients)}")
    print(f"faults beside those of the proxies: {dict(world.faults)}")
    print(f"memory: {early / 2**20:.0f} MiB in the second fifth, {late / 2**20:.0f} MiB in the last")
    for reason, count in accounts.failed.most_common():
        print(f"{count:8}  {reason}")
    return wrong


def summary(accounts: Accounts) -> str:
    return (
        f"{accounts.begun} operations: {accounts.answered} answered, {accounts.failed.total()} failed, "
        f"{accounts.cancelled} cancelled, {len(accounts.inexplicable)} inexplicable"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--callers", type=int, default=200)
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    wrong = anyio.run(soak, options, backend=options.backend)
    for each in wrong:
        print(f"WRONG: {each}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
