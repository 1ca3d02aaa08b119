"""What messages as large as `Limits` allow cost the event loop: `nox -s lag`, which takes minutes."""

from __future__ import annotations

import pytest

from anyio_mcp import Limits
from tests.lag.messages import ANSWERS, FLOODS, MIB
from tests.lag.plugin import LARGEST, check
from tests.lag.test_expensive import ends, servers

__all__ = ("servers",)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unmeasured")]

FRAMINGS = ["stdio", "sse", "http json", "http events", "http json gzip", "http events gzip"]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("kind", ANSWERS)
async def test_the_largest_answer_is_taken_in_steps_of_a_known_length(
    framing: str, kind: str, servers: dict[str, str]
) -> None:
    await ends(framing, servers, kind, Limits().max_message_bytes)
    check(LARGEST)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("kind", FLOODS)
async def test_a_long_flood_is_taken_in_short_steps(framing: str, kind: str, servers: dict[str, str]) -> None:
    await ends(framing, servers, kind, 4 * MIB)
    check(LARGEST)
