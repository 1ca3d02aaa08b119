"""The reference server of the TypeScript SDK, as a child process of the tests.

`ANYIO_MCP_NPM` names a directory into which `tests/node.py` has installed it; without it these tests
fail. `nox -s interop` does both.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from anyio_mcp import SSETransport, StdioTransport, Transport
from anyio_mcp.transports.http import StreamableHttpTransport
from tests.node import command

PACKAGE = "@modelcontextprotocol/server-everything"
LOOPBACK = Path(__file__).parent / "loopback.mjs"


@dataclass
class Everything:
    """The server, reached one way: over HTTP as one process for all sessions, over a pipe as one each."""

    way: str
    directory: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def source(self) -> Transport:
        if self.way == "stdio":
            program, *arguments = command(self.directory, PACKAGE)
            return StdioTransport(program, [*arguments, "stdio"])
        if self.way == "sse":
            return SSETransport(f"http://127.0.0.1:{self.port}/sse")
        return StreamableHttpTransport(f"http://127.0.0.1:{self.port}/mcp")

    def start(self) -> None:
        """Start the process that all sessions share, on the same port as before if there was one."""
        if self.way == "stdio":
            return
        self.port = self.port or _free_port()
        program, *arguments = command(self.directory, PACKAGE)
        self.process = subprocess.Popen(
            [program, "--import", str(LOOPBACK), *arguments, self.way],
            env={**os.environ, "PORT": str(self.port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError("the server did not start") from None
                time.sleep(0.02)  # another process: there is nothing to wait for but the port

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
