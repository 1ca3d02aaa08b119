"""Servers that need packages this project does not depend on, each run by a Python that has them.

Two environment variables name these; without one its tests fail:

* `ANYIO_MCP_FASTMCP4`: a Python with `fastmcp[tasks]>=4.1,<5`
* `ANYIO_MCP_FASTMCP3`: a Python with `fastmcp[tasks]>=3.4,<4` (and with it `mcp>=1.26,<2`)

`nox -s interop` makes both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anyio_mcp import StdioTransport
from tests.servers import ServerProcess, free_port

PROGRAMS = Path(__file__).parent / "programs"
PYTHONS = {
    "fastmcp4": "ANYIO_MCP_FASTMCP4",
    "fastmcp4_plain": "ANYIO_MCP_FASTMCP4",
    "fastmcp3": "ANYIO_MCP_FASTMCP3",
    "sdk1": "ANYIO_MCP_FASTMCP3",
}
WITH_TASKS = ("fastmcp4", "fastmcp3", "sdk1")
WAYS = ("stdio", "http")


@dataclass(frozen=True)
class TaskServer:
    """One server program, reached one way."""

    program: str
    source: Any


@pytest.fixture(scope="session", params=[f"{name}-{way}" for name in WITH_TASKS for way in WAYS])
def task_server(request: pytest.FixtureRequest) -> Iterator[TaskServer]:
    """A server that makes tasks of calls, in its own dialect."""
    yield from _server(*request.param.split("-"))


@pytest.fixture(scope="session", params=WAYS)
def plain_server(request: pytest.FixtureRequest) -> Iterator[TaskServer]:
    """FastMCP 4 without its tasks."""
    yield from _server("fastmcp4_plain", request.param)


def _server(program: str, way: str) -> Iterator[TaskServer]:
    python = os.environ.get(PYTHONS[program])
    if not python:
        pytest.fail(f"{PYTHONS[program]} names no Python to run {program} with: use `nox -s interop`")
    script = str(PROGRAMS / f"{program}.py")
    if way == "stdio":
        yield TaskServer(program, StdioTransport(python, [script, "stdio"]))
        return
    port = free_port()
    server = ServerProcess([python, script, str(port)], port)
    server.start()
    try:
        yield TaskServer(
            program, f"http://127.0.0.1:{port}/mcp/" if program == "sdk1" else f"http://127.0.0.1:{port}/mcp"
        )
    finally:
        server.kill()
