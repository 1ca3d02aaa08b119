"""What one small tools/call costs, beside the other clients, in one run of one process.

    python benchmarks/call_cost.py [--seconds 2] [--backend trio] [--only stdio]

All clients of a table are open at once and take turns: each round makes a few calls with every one of
them, starting with another one each time, so that whatever else the machine does hits all alike. A
cell is the median round, in microseconds, and its ratio to the floor: raw JSON over the same
transport. Ratios travel to other machines, microseconds do not.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

import anyio
from anyio.abc import TaskStatus
from contenders import (
    CONTENDERS,
    TRANSPORTS,
    Call,
    Contender,
    Endpoint,
    TransportName,
    UnavailableError,
    checked,
)

BACKENDS = ("asyncio", "trio")
FLOOR = next(iter(CONTENDERS))
WARM_UP_CALLS = 50
TURN_SECONDS = 0.02
OPEN_SECONDS = 20.0
IMPORT_ROUNDS = 5
IMPORTS = ("anyio_mcp", "mcp", "fastmcp.client")


@dataclass(slots=True, eq=False)
class Table:
    """The rounds of one transport on one backend: microseconds per call, or why there are none."""

    rounds: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def cell(self, name: str) -> str:
        if name in self.missing:
            return f"{self.missing[name]:>17}"
        if not self.rounds.get(name):
            return f"{'-':>17}"
        median = statistics.median(self.rounds[name])
        base = self.rounds.get(FLOOR)
        ratio = f"{median / statistics.median(base):6.2f}x" if base else ""
        return f"{median:8.0f}  {ratio:>7}"


async def measure(endpoint: Endpoint, seconds: float) -> Table:
    table = Table()
    calls: dict[str, Call] = {}
    done = anyio.Event()
    with anyio.move_on_after(len(CONTENDERS) * OPEN_SECONDS + seconds * 3):
        async with anyio.create_task_group() as tg:
            for name, contender in CONTENDERS.items():
                try:
                    with anyio.fail_after(OPEN_SECONDS):
                        calls[name] = await tg.start(_host, contender, endpoint, done)
                except Exception as error:
                    table.missing[name] = _reason(error)
                else:
                    table.rounds[name] = []
            await _take_turns(calls, table, seconds)
            done.set()
    return table


async def _host(
    contender: Contender, endpoint: Endpoint, done: anyio.Event, *, task_status: TaskStatus[Call]
) -> None:
    """Hold one contender open, in a task of its own: their scopes must not be nested in each other."""
    async with contender(endpoint) as call:
        for _ in range(WARM_UP_CALLS):
            await checked(call)
        task_status.started(call)
        await done.wait()


async def _take_turns(calls: dict[str, Call], table: Table, seconds: float) -> None:
    sizes = dict.fromkeys(calls, 10)
    names = list(calls)
    end = perf_counter() + seconds
    while perf_counter() < end:
        for name in names:
            call, size = calls[name], sizes[name]
            began = perf_counter()
            for _ in range(size):
                await call()
            spent = perf_counter() - began
            table.rounds[name].append(spent / size * 1e6)
            sizes[name] = max(1, round(TURN_SECONDS / (spent / size)))
        names.append(names.pop(0))
        # Nothing else runs between the turns on trio otherwise: let the clients tidy up.
        await anyio.lowlevel.checkpoint()


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ImportError):
        return "not installed"
    if isinstance(error, UnavailableError):
        return str(error)
    return type(error).__name__


@contextmanager
def http_server() -> Iterator[int]:
    """The canned HTTP server as a child process; yields its port."""
    command = [sys.executable, "-S", str(Path(__file__).parent / "canned.py"), "http"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def import_costs() -> dict[str, tuple[float, float] | str]:
    """Milliseconds and MiB that importing each library adds to a bare interpreter, the best of a few."""
    program = (
        "import sys, time\n"
        # Not ru_maxrss: across an exec it keeps what the parent had used.
        "pages = lambda: int(open('/proc/self/statm').read().split()[1])\n"
        "before = pages()\n"
        "began = time.perf_counter()\n"
        "__import__(sys.argv[1])\n"
        "spent = time.perf_counter() - began\n"
        "print(spent * 1e3, (pages() - before) * 4096 / 2**20)\n"
    )
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(IMPORT_ROUNDS):
        for name in IMPORTS:
            finished = subprocess.run(
                [sys.executable, "-c", program, name], capture_output=True, text=True, timeout=30, check=False
            )
            if finished.returncode == 0:
                milliseconds, mebibytes = map(float, finished.stdout.split())
                found.setdefault(name, []).append((milliseconds, mebibytes))
    return {name: min(found[name]) if name in found else "not installed" for name in IMPORTS}


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="measuring time per table and backend")
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="default: both")
    parser.add_argument("--only", choices=TRANSPORTS, action="append", help="default: all transports")
    options = parser.parse_args()
    backends: list[str] = options.backend or list(BACKENDS)
    transports: list[TransportName] = options.only or list(TRANSPORTS)

    versions = ", ".join(
        _version(name) for name in ("anyio-mcp", "mcp", "fastmcp", "httpx2", "anyio", "trio")
    )
    print(f"CPython {platform.python_version()}, {os.cpu_count()} cores; {versions}")
    print("\nOne small tools/call: microseconds, and the ratio to the floor")
    with http_server() as port:
        for transport in transports:
            # Not "/sse": FastMCP takes that for the address of the older SSE transport.
            path = "events" if transport == "HTTP, SSE answer" else "json"
            tables: dict[str, Table] = {}
            for backend in backends:
                url = f"http://127.0.0.1:{port}/{path}"
                endpoint = Endpoint(transport=transport, backend=backend, url=url)
                tables[backend] = anyio.run(partial(measure, endpoint, options.seconds), backend=backend)
            print(f"\n{transport:<20}" + "".join(f"{backend:>20}" for backend in backends))
            for name in CONTENDERS:
                print(f"  {name:<18}" + "".join(f"   {tables[backend].cell(name)}" for backend in backends))

    print("\nimport                        ms   MiB added")
    for name, cost in import_costs().items():
        print(f"  {name:<22}" + (f"{cost:>8}" if isinstance(cost, str) else f"{cost[0]:8.0f}{cost[1]:12.0f}"))


if __name__ == "__main__":
    main()
