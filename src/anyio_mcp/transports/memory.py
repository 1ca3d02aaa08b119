"""An SDK server object in this process: no bytes, no socket, the same protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, final

import anyio
from mcp.server import Server
from mcp.server.mcpserver import MCPServer
from mcp.shared.memory import create_client_server_memory_streams

from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.transports.base import Connection, Transport
from anyio_mcp.transports.streams import StreamPair, StreamsTransport


@final
@dataclass(frozen=True, slots=True)
class MemoryTransport(Transport):
    """Runs `server` in this event loop for each connection: its lifespan starts and ends with it.

    Leaving waits for what cannot be cancelled in it, past `Timeouts.close`: a tool that blocks its thread,
    or a lifespan that shields itself.
    """

    server: MCPServer | Server[Any]

    def __post_init__(self) -> None:
        if not isinstance(self.server, MCPServer | Server):
            raise TypeError(f"MemoryTransport takes an SDK MCPServer or Server, not {self.server!r}")

    @property
    def kind(self) -> Literal["memory"]:
        return "memory"

    @property
    def describe(self) -> str:
        return f"the server {self.server.name!r} in this process"

    def connect(self, *, timeouts: Timeouts, limits: Limits) -> AbstractAsyncContextManager[Connection]:
        inner = StreamsTransport(lambda: _serve(_lowlevel(self.server)), self.describe, "memory")
        return inner.connect(timeouts=timeouts, limits=limits)


def _lowlevel(server: MCPServer | Server[Any]) -> Server[Any]:
    """The `Server` inside an `MCPServer`, by public names only."""
    if isinstance(server, Server):
        return server
    try:
        manager = server.session_manager
    except RuntimeError:
        # There is none until an HTTP app is built. The app is discarded: building it changes nothing
        # else, and a later one replaces the manager.
        server.streamable_http_app()
        manager = server.session_manager
    return manager.app


@asynccontextmanager
async def _serve(server: Server[Any]) -> AsyncGenerator[StreamPair]:
    async with create_client_server_memory_streams() as (client, served), anyio.create_task_group() as tg:
        tg.start_soon(_run, server, served, name=f"anyio_mcp in-process server {server.name}")
        try:
            yield client
        finally:
            tg.cancel_scope.cancel()


async def _run(server: Server[Any], streams: StreamPair) -> None:
    read, write = streams
    try:
        await server.run(read, write, server.create_initialization_options())
    finally:
        # However it ended, the client's stream ends with it. Closing memory streams never waits.
        read.close()
        write.close()
