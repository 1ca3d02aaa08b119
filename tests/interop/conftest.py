"""Real servers for the interop tests: child processes speaking over real pipes and real sockets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ServerProcess, free_port

PROGRAM = Path(__file__).parent / "programs" / "everything.py"


class HttpServer(ServerProcess):
    """The server program, over HTTP."""

    def __init__(self, runner: str, answers: str, *, quiet: bool = False) -> None:
        self.answers = answers
        port = free_port()
        command = [sys.executable, str(PROGRAM), "http", str(port), runner, answers]
        super().__init__(command, port, quiet=quiet)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"


@pytest.fixture(scope="session", params=["uvicorn-json", "uvicorn-sse", "hypercorn-trio-sse"])
def http_server(request: pytest.FixtureRequest) -> Iterator[HttpServer]:
    """One server for the whole run; tests leave it as they found it."""
    runner, _, answers = request.param.rpartition("-")
    server = HttpServer(runner, answers)
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["json", "sse"])
def mortal_http_server(request: pytest.FixtureRequest) -> Iterator[HttpServer]:
    """A server of the test's own, to be killed by it."""
    server = HttpServer("uvicorn", request.param)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def stdio_command() -> list[str]:
    return [sys.executable, str(PROGRAM), "stdio"]
