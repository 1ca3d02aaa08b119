"""A FastMCP 4 server with background tasks: the extension of 2026-07-28. Needs `fastmcp[tasks]>=4.1,<5`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from fastmcp import Context, FastMCP
from fastmcp_tasks import TasksExtension
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult

mcp = FastMCP("fastmcp 4")
mcp.add_extension(TasksExtension(url="memory://"))

FORM = {"type": "object", "properties": {"value": {"type": "string"}}, "required": ["value"]}


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
async def greet(ctx: Context) -> Any:
    if not ctx.input_responses:
        question = ElicitRequest(params=ElicitRequestFormParams(message="Your name?", requested_schema=FORM))
        return InputRequiredResult(input_requests={"name": question})
    return f"hello {ctx.input_responses['name'].content['value']}"


@mcp.tool
def at_once() -> str:
    return "at once"


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        mcp.run(show_banner=False)
    else:
        mcp.run("http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
