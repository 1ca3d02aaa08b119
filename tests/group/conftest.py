"""Every test here lives in virtual time, on both backends, unless its module says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from anyio_mcp.testing import VirtualTime


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    return request.param, VirtualTime(request.param).options


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """For tests that run event loops of their own."""
    return request.param
