"""These tests live in virtual time, on both backends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from anyio_mcp.testing import VirtualTime


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    return request.param, VirtualTime(request.param).options
