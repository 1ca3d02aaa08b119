"""Real SDK servers in this process: one with something of everything, and parts to build others of."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any, Final, Literal

import anyio
import anyio.lowlevel
from mcp import MCPError
from mcp.server import Server
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    Completion,
    CompletionArgument,
    CompletionContext,
    ListToolsResult,
    PaginatedRequestParams,
    PromptReference,
    ResourceTemplateReference,
    TextContent,
    Tool,
)
from pydantic import BaseModel

from anyio_mcp.client import Client

LEGACY: Final = "legacy"
MODERN: Final = "auto"
Era = Literal["legacy", "auto"]

BOUND: Final = 20.0
"""Real seconds a test may take. None comes near; a hang fails."""


class Log:
    """Middleware that keeps the requests and notifications a server received, as they came."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self._news = anyio.Event()

    async def __call__(self, context: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
        self.seen.append((context.method, dict(context.params or {})))
        self._news.set()
        self._news = anyio.Event()
        return await call_next(context)

    def params(self, method: str) -> list[dict[str, Any]]:
        """The parameters of every message of one method, without what each message carries anyway."""
        return [
            {key: value for key, value in params.items() if key != "_meta"}
            for seen, params in self.seen
            if seen == method
        ]

    def metas(self, method: str) -> list[dict[str, Any]]:
        return [params.get("_meta") or {} for seen, params in self.seen if seen == method]

    def count(self, method: str) -> int:
        return sum(seen == method for seen, _ in self.seen)

    async def arrival(self, method: str) -> dict[str, Any]:
        """Wait for a message of this method; its parameters."""
        while not self.count(method):
            await self._news.wait()
        return self.params(method)[0]


class Forecast(BaseModel):
    """A result with structure."""

    day: date
    degrees: float
    words: list[str] = []


class World:
    """An `MCPServer` with tools, resources, templates, prompts and completion."""

    def __init__(self) -> None:
        self.log = Log()
        self.server = MCPServer(
            "world", version="7", instructions="Be kind.", middleware=[self.log], log_level="CRITICAL"
        )
        _add_tools(self.server)
        _add_contents(self.server)


def _add_tools(server: MCPServer) -> None:
    @server.tool()
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    async def forecast(day: date, degrees: float) -> Forecast:
        return Forecast(day=day, degrees=degrees, words=["sunny"])

    @server.tool(structured_output=False)
    async def plain(text: str = "plain") -> str:
        return text

    @server.tool()
    async def fail(why: str) -> CallToolResult:
        return text_result(why, is_error=True)

    @server.tool()
    async def refuse() -> str:
        raise MCPError(-32050, "refused", {"why": "so"})

    @server.tool()
    async def count(to: int, context: Context) -> str:
        for number in range(to):
            await context.report_progress(number + 1, to, f"step {number + 1}")
        return "counted"

    @server.tool()
    async def hang() -> str:
        await anyio.sleep_forever()
        raise AssertionError


def _add_contents(server: MCPServer) -> None:
    @server.resource("memo://text")
    async def text() -> str:
        return "written"

    @server.resource("memo://bytes", mime_type="image/png")
    async def data() -> bytes:
        return b"\x00\xff"

    @server.resource("memo://people/{name}")
    async def person(name: str) -> str:
        return f"about {name}"

    @server.prompt()
    async def greet(name: str, options: str = "") -> str:
        return f"Greet {name}. {options}".strip()

    @server.completion()
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion:
        of = ref.name if isinstance(ref, PromptReference) else ref.uri
        given = dict(sorted((context.arguments or {}).items())) if context else {}
        return Completion(values=[of, argument.name, argument.value, str(given)], total=4, has_more=False)


@asynccontextmanager
async def connected(server: Any, mode: str, **options: Any) -> AsyncGenerator[Client]:
    """A client of `server`, at rest again when it is left."""
    with anyio.fail_after(BOUND):
        async with Client(server, mode=mode, **options) as client:
            yield client
            # At rest within a few passes: what was cancelled last may still be on its way out.
            while (stats := client.stats()).calls_in_flight or stats.waiters:
                await anyio.lowlevel.checkpoint()


def tool(name: str, output_schema: dict[str, Any] | None = None, **more: Any) -> Tool:
    return Tool(name=name, input_schema={"type": "object", **more}, output_schema=output_schema)


def text_result(text: str, structured: Any = None, **more: Any) -> CallToolResult:
    content = [TextContent(type="text", text=text)]
    if structured is None:
        return CallToolResult(content=content, **more)
    return CallToolResult(content=content, structured_content=structured, **more)


class Scripted:
    """A lowlevel `Server` whose tools are what a test says, and which may lie about them.

    `listing` and `calling` are replaced by the test; both may raise.
    """

    def __init__(self) -> None:
        self.log = Log()
        self.tools: list[Tool] = []
        self.server: Server[Any] = Server(
            "scripted", on_list_tools=self.list_tools, on_call_tool=self.call_tool
        )
        self.server.middleware.append(self.log)

    async def list_tools(
        self, context: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return await self.listing(None if params is None else params.cursor)

    async def call_tool(self, context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        return await self.calling(context, params)

    async def listing(self, cursor: str | None) -> ListToolsResult:
        return ListToolsResult(tools=self.tools)

    async def calling(self, context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        return text_result("done")
