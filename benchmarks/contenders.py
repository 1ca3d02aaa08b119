"""The clients that are compared: how each is opened on each transport, and how it makes the one call.

Knows nothing of clocks. A contender that is not installed, or cannot run on a backend, says so with an
exception when it is opened.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx2
import mcp
from canned import ANSWER, ARGUMENTS, TOOL, memory_peer
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCRequest, JSONRPCResponse

import anyio_mcp
from anyio_mcp.transports.streams import StreamsTransport

TransportName = Literal["in memory", "stdio", "HTTP, JSON answer", "HTTP, SSE answer"]
TRANSPORTS: tuple[TransportName, ...] = ("in memory", "stdio", "HTTP, JSON answer", "HTTP, SSE answer")

Call = Callable[[], Awaitable[str]]
"""Makes one tools/call and returns the text of its answer."""

PARAMS = {"name": TOOL, "arguments": ARGUMENTS}
STDIO_SERVER = [sys.executable, "-S", str(Path(__file__).parent / "canned.py"), "stdio"]


class UnavailableError(Exception):
    """This contender cannot take part; the message is why, in two words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the canned server is, and the event loop it is called from."""

    transport: TransportName
    backend: str
    url: str


Contender = Callable[[Endpoint], AbstractAsyncContextManager[Call]]


@asynccontextmanager
async def floor(endpoint: Endpoint) -> AsyncIterator[Call]:
    """Raw JSON over the transport, with no MCP library."""
    number = 0

    def request() -> dict[str, Any]:
        nonlocal number
        number += 1
        return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": PARAMS}

    async with AsyncExitStack() as stack:
        if endpoint.transport == "in memory":
            read, write = await stack.enter_async_context(memory_peer())

            async def call() -> str:
                await write.send(SessionMessage(JSONRPCRequest(**request())))
                reply = (await read.receive()).message
                assert isinstance(reply, JSONRPCResponse)
                return reply.result["content"][0]["text"]

        elif endpoint.transport == "stdio":
            process = await stack.enter_async_context(await anyio.open_process(STDIO_SERVER, stderr=None))
            stack.callback(process.terminate)

            async def call() -> str:
                await process.stdin.send(json.dumps(request()).encode() + b"\n")
                line = b""
                while not line.endswith(b"\n"):
                    line += await process.stdout.receive()
                return json.loads(line)["result"]["content"][0]["text"]

        else:
            client = await stack.enter_async_context(httpx2.AsyncClient())
            headers = {
                "content-type": "application/json",
                "accept": "application/json, text/event-stream",
            }

            async def call() -> str:
                response = await client.post(endpoint.url, json=request(), headers=headers)
                text = response.text
                if endpoint.transport == "HTTP, SSE answer":
                    text = text.partition("data: ")[2].partition("\n")[0]
                return json.loads(text)["result"]["content"][0]["text"]

        yield call


@asynccontextmanager
async def ours(endpoint: Endpoint) -> AsyncIterator[Call]:
    source: Any = endpoint.url
    if endpoint.transport == "in memory":
        source = StreamsTransport(memory_peer)
    elif endpoint.transport == "stdio":
        source = anyio_mcp.StdioTransport(STDIO_SERVER[0], STDIO_SERVER[1:])
    async with anyio_mcp.Client(source) as client:

        async def call() -> str:
            return (await client.call_tool(TOOL, ARGUMENTS)).content[0].text

        yield call


def _sdk_transport(endpoint: Endpoint) -> Any:
    if endpoint.transport == "in memory":
        return memory_peer()
    if endpoint.transport == "stdio":
        return mcp.stdio_client(mcp.StdioServerParameters(command=STDIO_SERVER[0], args=STDIO_SERVER[1:]))
    return streamable_http_client(endpoint.url)


@asynccontextmanager
async def sdk_session(endpoint: Endpoint) -> AsyncIterator[Call]:
    async with _sdk_transport(endpoint) as (read, write), mcp.ClientSession(read, write) as session:
        await session.initialize()

        async def call() -> str:
            return (await session.call_tool(TOOL, ARGUMENTS)).content[0].text

        yield call


@asynccontextmanager
async def sdk_client(endpoint: Endpoint) -> AsyncIterator[Call]:
    async with mcp.Client(_sdk_transport(endpoint)) as client:

        async def call() -> str:
            return (await client.call_tool(TOOL, ARGUMENTS)).content[0].text

        yield call


@asynccontextmanager
async def fastmcp_client(endpoint: Endpoint) -> AsyncIterator[Call]:
    if endpoint.backend != "asyncio":
        raise UnavailableError("asyncio only")
    from fastmcp.client import Client
    from fastmcp.client.transports import ClientTransport, StdioTransport

    class Memory(ClientTransport):
        @asynccontextmanager
        async def connect_session(
            self, *, transport_options: Any = None, **kwargs: Any
        ) -> AsyncIterator[Any]:
            async with memory_peer() as (read, write), mcp.ClientSession(read, write, **kwargs) as session:
                yield session

    source: Any = endpoint.url
    if endpoint.transport == "in memory":
        source = Memory()
    elif endpoint.transport == "stdio":
        source = StdioTransport(STDIO_SERVER[0], STDIO_SERVER[1:], keep_alive=False)
    async with Client(source) as client:

        async def call() -> str:
            return (await client.call_tool(TOOL, ARGUMENTS)).content[0].text

        yield call


CONTENDERS: dict[str, Contender] = {
    "floor (no library)": floor,
    "anyio_mcp.Client": ours,
    "mcp.ClientSession": sdk_session,
    "mcp.Client": sdk_client,
    "fastmcp.Client": fastmcp_client,
}


async def checked(call: Call) -> None:
    """Fail unless the contender really calls the tool: a fast nothing must not win."""
    text = await call()
    if text != ANSWER:
        raise RuntimeError(f"answered {text!r} instead of {ANSWER!r}")
