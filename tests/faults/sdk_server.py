"""The SDK's own Streamable HTTP server under a real web server, as a program and as a context manager.

    python sdk_server.py {uvicorn|hypercorn}

prints the port it listens on. `/json/mcp` answers in JSON, `/events/mcp` in streams, `/resumable/mcp` in
streams that can be resumed. uvicorn runs on asyncio, hypercorn here on trio.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventMessage, EventStore
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount


@contextmanager
def sdk_server(runner: str) -> Iterator[str]:
    """The base URL of a server in a process of its own, which ends with the block."""
    with subprocess.Popen([sys.executable, str(Path(__file__)), runner], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


class Choice(BaseModel):
    """What `ask` asks for."""

    yes: bool


def build_server() -> MCPServer[Any]:
    server = MCPServer("everything", log_level="CRITICAL")

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool()
    def peer(context: Context[Any, Any]) -> int:
        """The port this request came from: one per connection."""
        return context.request_context.request.client.port

    @server.tool()
    async def progress(context: Context[Any, Any]) -> str:
        for step in range(3):
            await context.report_progress(step, 3)
        return "done"

    @server.tool()
    async def ask(context: Context[Any, Any]) -> str:
        """Asks the user, on the stream of this very call."""
        return (await context.elicit("Shall I?", Choice)).action

    @server.tool()
    async def announce(context: Context[Any, Any]) -> str:
        """Says something that belongs to no request."""
        await context.session.send_tool_list_changed()
        return "announced"

    @server.tool()
    async def interrupted(context: Context[Any, Any]) -> str:
        """Ends the stream of its own request before it answers."""
        await context.report_progress(1)
        await anyio.sleep(0.05)
        await context.close_sse_stream()
        await anyio.sleep(0.05)
        return "still here"

    @server.tool()
    async def slow() -> str:
        await anyio.sleep(60)
        return "too late"

    return server


class Memory(EventStore):
    """Every event ever sent; its id is its position."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self.events.append((stream_id, message))
        return str(len(self.events) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        stream_id = self.events[int(last_event_id)][0]
        for number, (stream, message) in enumerate(self.events):
            if stream == stream_id and number > int(last_event_id) and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream_id


def build_app() -> Starlette:
    apps = {
        "/json": build_server().streamable_http_app(json_response=True),
        "/events": build_server().streamable_http_app(),
        "/resumable": build_server().streamable_http_app(event_store=Memory(), retry_interval=1),
    }

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for app in apps.values():
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    return Starlette(routes=[Mount(path, app) for path, app in apps.items()], lifespan=lifespan)


def main(runner: str) -> None:
    # Listening before the server runs: whoever connects early waits in the backlog.
    # IPPROTO_TCP spelled out, or asyncio leaves Nagle's algorithm on and every answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    app = build_app()
    if runner == "uvicorn":
        import uvicorn

        uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[listener])
    else:
        import hypercorn.trio
        import trio
        from hypercorn.config import Config

        config = Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.loglevel = "CRITICAL"
        config.errorlog = None
        trio.run(hypercorn.trio.serve, app, config)


if __name__ == "__main__":
    main(sys.argv[1])
