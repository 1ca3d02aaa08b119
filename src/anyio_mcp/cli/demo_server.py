"""The server of `anyio-mcp demo`: an ordinary SDK server, run as a process of its own over stdio.

Knows nothing of the client. It can be tried by hand:
`anyio-mcp list "python -m anyio_mcp.cli.demo_server"`.
"""

from __future__ import annotations

import os
from typing import Any

import anyio
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("anyio-mcp demo", version="1")

_STEP_SECONDS = 0.02


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def pid() -> int:
    """The process id of this server."""
    return os.getpid()


@server.tool()
async def slow(seconds: float, ctx: Context[Any, Any]) -> float:
    """Report progress once, to say that the call has arrived, then sleep."""
    await ctx.report_progress(0, seconds)
    await anyio.sleep(seconds)
    return seconds


@server.tool()
async def count(to: int, ctx: Context[Any, Any]) -> int:
    """Count slowly, reporting progress at every step."""
    for number in range(1, to + 1):
        await anyio.sleep(_STEP_SECONDS)
        await ctx.report_progress(number, to)
    return to


if __name__ == "__main__":
    server.run("stdio")
