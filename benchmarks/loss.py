"""How long a thousand calls take to raise once their server is gone.

    python benchmarks/loss.py [--calls 1000] [--rounds 5]

A real server is killed (SIGKILL) with the calls in flight. The clock starts when the kernel says that
the process has ended, which a thread of its own waits for: its pipe and its sockets are closed then.
Printed, in milliseconds over all rounds: the call that raised in the median, and the last of all.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import statistics
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from socket import socket
from time import perf_counter
from typing import Any

import anyio

from anyio_mcp import Client, MCPClientError, StdioTransport

PROGRAM = Path(__file__).resolve().parents[1] / "tests" / "interop" / "programs" / "everything.py"
OPEN_SECONDS = 30.0


class Ending(threading.Thread):
    """Notes when a process has ended."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pidfd = os.pidfd_open(pid)
        self.at = 0.0

    def run(self) -> None:
        select.select([self._pidfd], [], [])
        self.at = perf_counter()
        os.close(self._pidfd)


async def listening(port: int) -> None:
    """Another process: there is nothing to wait for but the port."""
    while True:
        try:
            stream = await anyio.connect_tcp("127.0.0.1", port)
        except OSError:
            await anyio.sleep(0.02)
        else:
            await stream.aclose()
            return


@asynccontextmanager
async def over_stdio(mode: str) -> AsyncGenerator[tuple[Client, Callable[[], None], int]]:
    async with Client(StdioTransport(sys.executable, [str(PROGRAM), "stdio"]), mode=mode) as client:
        answer = await client.call_tool("pid")
        pid: int = (answer.structured_content or {})["result"]
        yield client, partial(os.kill, pid, signal.SIGKILL), pid


@asynccontextmanager
async def over_http(answers: str, mode: str) -> AsyncGenerator[tuple[Client, Callable[[], None], int]]:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, str(PROGRAM), "http", str(port), "uvicorn", answers]
    async with await anyio.open_process(command, stdout=None, stderr=None) as process:
        try:
            with anyio.fail_after(OPEN_SECONDS):
                await listening(port)
            async with Client(f"http://127.0.0.1:{port}/mcp", mode=mode) as client:
                yield client, process.kill, process.pid
        finally:
            with suppress(ProcessLookupError):
                process.kill()


async def one_round(open_client: Callable[[], Any], calls: int) -> list[float]:
    """When each call raised, in seconds from the end of the server."""
    raised: list[float] = []
    async with open_client() as (client, kill, pid):

        async def call() -> None:
            try:
                await client.call_tool("slow", {"seconds": 60})
            except MCPClientError:
                raised.append(perf_counter())

        async with anyio.create_task_group() as tg:
            for _ in range(calls):
                tg.start_soon(call)
            while client.stats().calls_in_flight < calls:
                await anyio.sleep(0.01)
            # Answered behind the calls: the server has taken them all.
            await client.ping()
            ending = Ending(pid)
            ending.start()
            kill()
    ending.join()
    if len(raised) != calls:
        raise RuntimeError(f"{len(raised)} of {calls} calls raised")
    return [at - ending.at for at in raised]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.calls} calls in flight, {options.rounds} rounds; ms after the end of the server\n")
    print(f"{'':36}{'median':>10}{'last':>10}")
    transports: dict[str, Callable[[str], Any]] = {
        "stdio": over_stdio,
        "HTTP, JSON answer": partial(over_http, "json"),
        "HTTP, SSE answer": partial(over_http, "sse"),
    }
    for title, transport in transports.items():
        for mode in ("legacy", "2026-07-28"):
            for backend in ("asyncio", "trio"):
                seconds: list[float] = []
                last: list[float] = []
                for _ in range(options.rounds):
                    times = anyio.run(one_round, partial(transport, mode), options.calls, backend=backend)
                    seconds += times
                    last.append(max(times))
                row = f"{title}, {mode}, {backend}"
                print(f"{row:36}{statistics.median(seconds) * 1e3:10.1f}{max(last) * 1e3:10.1f}")


if __name__ == "__main__":
    main()
