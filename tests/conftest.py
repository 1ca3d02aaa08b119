"""What every test runs under: both backends, and nothing left behind at its end."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.leaks import child_processes


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No child process survives a test, and collecting its garbage warns of nothing.

    `filterwarnings = error` turns an unclosed stream, socket or never-awaited coroutine found by
    the collection into a failure.
    """
    children = child_processes()
    yield
    gc.collect()
    assert child_processes() <= children, "a child process outlived the test"
