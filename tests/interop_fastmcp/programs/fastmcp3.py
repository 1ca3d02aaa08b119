"""A FastMCP 3 server with background tasks: those of 2025-11-25, of prompts and resources as well.

Needs `fastmcp[tasks]>=3.4,<4`.
"""

from __future__ import annotations

import asyncio
import sys

from fastmcp import Context, FastMCP

mcp = FastMCP("fastmcp 3")


@mcp.tool(task=True)
async def nap(seconds: float) -> dict[str, float]:
    await asyncio.sleep(seconds)
    return {"slept": seconds}


@mcp.tool(task=True)
async def broken() -> str:
    raise ValueError("out of coffee")


@mcp.tool(task=True)
async def endless() -> str:
    await asyncio.sleep(3600)
    return "never"


@mcp.tool(task=True)
async def greet(ctx: Context) -> str:
    answer = await ctx.elicit("Your name?", response_type=str)
    return f"hello {answer.data}"


@mcp.tool
def at_once() -> str:
    return "at once"


@mcp.prompt(task=True)
async def poem() -> str:
    return "a poem"


@mcp.resource("memo://x", task=True)
async def memo() -> str:
    return "a memo"


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        mcp.run(show_banner=False)
    else:
        mcp.run("http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
