"""The SDK's own server of 2025-11-25 with tasks, which it dropped in version 2. Needs `mcp>=1.26,<2`,
which FastMCP 3 brings with it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import mcp.types as types
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.routing import Mount

FORM = {"type": "object", "properties": {"value": {"type": "string"}}, "required": ["value"]}

server: Any = Server("sdk 1")
server.experimental.enable_tasks()


def said(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


@server.list_tools()
async def list_tools() -> list[types.Tool]:
    execution = types.ToolExecution(taskSupport="optional")
    names = ("nap", "broken", "endless", "greet", "at_once")
    return [types.Tool(name=name, inputSchema={"type": "object"}, execution=execution) for name in names]


@server.call_tool(validate_input=False)
async def call_tool(name: str, arguments: dict[str, Any]) -> Any:
    if name == "at_once":
        return [types.TextContent(type="text", text="at once")]

    async def work(task: Any) -> types.CallToolResult:
        if name == "greet":
            answer = await task.elicit(message="Your name?", requestedSchema=FORM)
            return said(f"hello {answer.content['value']}")
        if name == "broken":
            raise ValueError("out of coffee")
        await anyio.sleep(arguments.get("seconds", 3600))
        return said("slept")

    return await server.request_context.experimental.run_task(work)


async def over_stdio() -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def over_http(port: int) -> None:
    manager = StreamableHTTPSessionManager(app=server)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with manager.run():
            yield

    app = Starlette(routes=[Mount("/mcp", app=manager.handle_request)], lifespan=lifespan)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        anyio.run(over_stdio)
    else:
        over_http(int(sys.argv[1]))
