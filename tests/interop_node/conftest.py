"""The reference server of the TypeScript SDK, as a child process of the tests.

`ANYIO_MCP_NPM` names a directory into which `tests/node.py` has installed it; without it these tests
fail. `nox -s interop` does both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from anyio_mcp import SSETransport, StdioTransport, Transport
from anyio_mcp.transports.http import StreamableHttpTransport
from tests.node import command
from tests.servers import ServerProcess, free_port

PACKAGE = "@modelcontextprotocol/server-everything"
LOOPBACK = Path(__file__).parent / "loopback.mjs"


@dataclass
class Everything:
    """The server, reached one way: over HTTP as one process for all sessions, over a pipe as one each."""

    way: str
    directory: Path
    process: ServerProcess | None = None

    @property
    def source(self) -> Transport:
        if self.process is None:
            program, *arguments = command(self.directory, PACKAGE)
            return StdioTransport(program, [*arguments, "stdio"])
        if self.way == "sse":
            return SSETransport(f"http://127.0.0.1:{self.process.port}/sse")
        return StreamableHttpTransport(f"http://127.0.0.1:{self.process.port}/mcp")

    def start(self) -> None:
        """Start the process that all sessions share, on the same port as before if there was one."""
        if self.way == "stdio":
            return
        if self.process is None:
            port = free_port()
            program, *arguments = command(self.directory, PACKAGE)
            line = [program, "--import", str(LOOPBACK), *arguments, self.way]
            self.process = ServerProcess(line, port, {"PORT": str(port)})
        self.process.start()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()


def _server(way: str) -> Iterator[Everything]:
    directory = os.environ.get("ANYIO_MCP_NPM")
    if not directory:
        pytest.fail("ANYIO_MCP_NPM names no directory with the server in it: use `nox -s interop`")
    server = Everything(way, Path(directory))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session", params=["stdio", "sse", "streamableHttp"])
def everything(request: pytest.FixtureRequest) -> Iterator[Everything]:
    """One server for the whole run; each test has a session of its own."""
    yield from _server(request.param)


@pytest.fixture(params=["sse", "streamableHttp"])
def mortal_everything(request: pytest.FixtureRequest) -> Iterator[Everything]:
    """A server of the test's own, to be killed by it."""
    yield from _server(request.param)


@pytest.fixture
def piped_everything() -> Iterator[Everything]:
    """A server that is a child of each session, to be killed by the test."""
    yield from _server("stdio")
