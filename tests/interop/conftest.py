"""Real servers for the interop tests: child processes speaking over real pipes and real sockets."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "everything.py"


@dataclass
class HttpServer:
    """A server program on a port of its own, which can be killed and started again."""

    runner: str
    answers: str
    port: int
    process: subprocess.Popen[bytes] | None = None
    quiet: bool = False
    """Whether what it says on stderr is thrown away."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        command = [sys.executable, str(PROGRAM), "http", str(self.port), self.runner, self.answers]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL if self.quiet else None)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError("the HTTP server did not start") from None
                time.sleep(0.02)  # another process: there is nothing to wait for but the port

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
            self.process = None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session", params=["uvicorn-json", "uvicorn-sse", "hypercorn-trio-sse"])
def http_server(request: pytest.FixtureRequest) -> Iterator[HttpServer]:
    """One server for the whole run; tests leave it as they found it."""
    runner, _, answers = request.param.rpartition("-")
    server = HttpServer(runner, answers, free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["json", "sse"])
def mortal_http_server(request: pytest.FixtureRequest) -> Iterator[HttpServer]:
    """A server of the test's own, to be killed by it."""
    server = HttpServer("uvicorn", request.param, free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture
def stdio_command() -> list[str]:
    return [sys.executable, str(PROGRAM), "stdio"]
