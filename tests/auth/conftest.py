"""A guarded server per module, reset for each test, and a browser that does what it is told."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import anyio.to_thread
import pytest

from tests.auth.server import Authority, GuardedServer, guarded_server


@pytest.fixture(scope="module")
def running() -> Iterator[GuardedServer]:
    with guarded_server() as server:
        yield server


@pytest.fixture
def server(running: GuardedServer) -> GuardedServer:
    """The server, knowing nobody."""
    fresh = Authority()
    running.authority.__dict__.clear()
    running.authority.__dict__.update(fresh.__dict__)
    return running


def fetch(url: str) -> str:
    """The page behind `url`, by a client that logs nothing: a browser's log would not be this process's."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=10) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


class Browser:
    """Follows the authorization server's redirects, to the callback and its page."""

    def __init__(self) -> None:
        self.visits = 0
        self.pages: list[str] = []
        self.urls: list[str] = []

    async def __call__(self, url: str) -> None:
        self.visits += 1
        self.urls.append(url)
        self.pages.append(await anyio.to_thread.run_sync(fetch, url))


@pytest.fixture
def browser() -> Browser:
    return Browser()
