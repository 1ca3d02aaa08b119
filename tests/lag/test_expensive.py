"""What expensive messages cost the event loop that a caller shares with the client.

`largest.py` does the same with messages as large as `Limits` allow.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import httpx2
import pytest
from mcp import MCPError

from anyio_mcp import Client, MCPClientError, SSETransport, StdioTransport, Timeouts
from anyio_mcp.transports.base import Transport
from tests.lag.messages import ANSWERS, FLOODS, MIB, NAMELESS
from tests.lag.plugin import ORDINARY, check

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unmeasured")]

SERVER = Path(__file__).with_name("server.py")
PATIENCE = 120.0
"""Seconds a call may take on a busy machine. Far less than what the worst of them once took."""


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """The addresses of a server of each protocol over HTTP."""
    running, urls = list[subprocess.Popen[bytes]](), dict[str, str]()
    for kind in ("http", "sse"):
        command = [sys.executable, str(SERVER), kind]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout is not None
        urls[kind] = f"http://127.0.0.1:{int(process.stdout.readline())}/mcp"
    yield urls
    for process in running:
        process.communicate()


def transport_of(framing: str, servers: dict[str, str]) -> Transport | str:
    match framing.split()[0]:
        case "stdio":
            return StdioTransport(sys.executable, [str(SERVER), "stdio"])
        case "sse":
            return SSETransport(servers["sse"])
        case _:
            return servers["http"]


async def ends(framing: str, servers: dict[str, str], kind: str, size: int) -> None:
    """The call is answered, or fails in a way that is documented, and the client works afterwards."""
    name = f"{framing.partition(' ')[2]}|{kind}|{size}"
    is_answered = kind not in NAMELESS or framing.startswith("http")
    with anyio.fail_after(PATIENCE):
        timeouts = Timeouts(connect=30, call=60, close=2)
        async with Client(transport_of(framing, servers), mode="legacy", timeouts=timeouts) as client:
            with suppress(MCPClientError, MCPError, httpx2.HTTPStatusError):
                await client.call_tool_mcp(name, timeout=60.0 if is_answered else 1.0)
            result = await client.call_tool_mcp("usual")
            assert result.content[0].text == "ok"


@pytest.mark.parametrize("framing", ["stdio", "http events"])
@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_of_one_mebibyte_is_taken_in_short_steps(
    framing: str, kind: str, servers: dict[str, str]
) -> None:
    await ends(framing, servers, kind, MIB)
    check(ORDINARY)


@pytest.mark.parametrize("framing", ["stdio", "http events"])
@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_before_an_answer_is_taken_in_short_steps(
    framing: str, kind: str, servers: dict[str, str]
) -> None:
    # An event costs a good deal more than a line; `largest.py` has more of them.
    await ends(framing, servers, kind, MIB // 8 if framing == "stdio" else MIB // 64)
    check(ORDINARY)
