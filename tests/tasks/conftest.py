"""Every test here lives in virtual time, on both backends; those marked `each_dialect` in both dialects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from anyio_mcp.testing import VirtualTime
from tests.tasks.servers import CORE, EXTENSION, TaskServer


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    return request.param, VirtualTime(request.param).options


@pytest.fixture(params=[CORE, EXTENSION])
def server(request: pytest.FixtureRequest) -> TaskServer:
    """A server that makes a task of every call that may become one."""
    return TaskServer(request.param)


@pytest.fixture
def core() -> TaskServer:
    return TaskServer(CORE)


@pytest.fixture
def extension() -> TaskServer:
    return TaskServer(EXTENSION)
