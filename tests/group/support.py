"""What the tests of groups share."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
from mcp.server.mcpserver import MCPServer

from anyio_mcp.group import ClientGroup
from anyio_mcp.testing import (
    PeerRequest,
    ScriptedPeer,
    check_at_rest,
    check_never_hangs,
    never_hang,
    silence,
)

LONG = 4 * 3600.0
"""Virtual seconds a test may take: longer than any default timeout."""


def in_time(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """A test that ends, and leaves no task behind."""

    @functools.wraps(function)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        await never_hang(functools.partial(function, *args, **kwargs), seconds=LONG)

    return bounded


def peers(names: str) -> dict[str, ScriptedPeer]:
    """A scripted server for each of the names."""
    return {name: ScriptedPeer() for name in names.split()}


def group_of(servers: dict[str, ScriptedPeer], **options: Any) -> ClientGroup:
    return ClientGroup({name: peer.transport for name, peer in servers.items()}, **options)


def refuses_connections(peer: ScriptedPeer, text: str = "nobody home") -> None:
    async def refuse(attempt: int) -> None:
        raise OSError(text)

    peer.on_connect = refuse


def hangs_in_connect(peer: ScriptedPeer) -> None:
    async def hang(attempt: int) -> None:
        await anyio.sleep_forever()

    peer.on_connect = hang


def answers_again(peer: ScriptedPeer) -> None:
    peer.on_connect = None


def holds_calls(peer: ScriptedPeer) -> None:
    """Tool calls stay unanswered until the test answers them."""
    peer.on("tools/call", silence)


def answer(request: PeerRequest, text: str) -> None:
    request.answer({"content": [{"type": "text", "text": text}]})


async def disconnected(group: ClientGroup, name: str) -> None:
    """Wait until the group knows that this server's session is over."""
    while group[name].is_connected():
        await anyio.sleep(0.001)


def at_rest(group: ClientGroup, servers: dict[str, ScriptedPeer]) -> None:
    """Nobody holds or waits for anything, and no connection is open."""
    check_at_rest(*group.servers.values())
    assert {name: peer.open_connections for name, peer in servers.items() if peer.open_connections} == {}


async def cancelled_after(passes: int, function: Callable[[], Awaitable[object]]) -> bool:
    """Run `function` and cancel it when the event loop has gone round so often; whether it came to that."""

    async def cancel() -> None:
        for _ in range(passes):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as tg:
        with anyio.CancelScope() as scope:
            tg.start_soon(cancel)
            await function()
        tg.cancel_scope.cancel()
    return scope.cancelled_caught


def cancel_after_every_pass(scenario: Callable[[int], Awaitable[bool]], *, backend: str) -> int:
    """Run `scenario` for every number of passes until it says that nothing was left to cancel.

    What several tasks do at once has moments that are no checkpoint of the task that started them. The
    scenario must not sleep: while the event loop goes round, virtual time stands still.
    """
    for passes in range(500):
        if not check_never_hangs(functools.partial(scenario, passes), backend=backend):
            return passes
    raise AssertionError("it takes more passes than this can explore")


def library(name: str) -> MCPServer:
    """A server with a tool, a prompt, a resource and a template of its own.

    All async: trio's virtual clock does not wait for worker threads, which sync functions run in.
    """
    server = MCPServer(name, log_level="CRITICAL")

    @server.tool()
    async def where() -> str:
        return name

    @server.tool()
    async def add(a: int, b: int) -> int:
        return a + b

    @server.prompt()
    async def ask(topic: str) -> str:
        return f"{name}: what is {topic}?"

    @server.resource("text://greeting")
    async def greeting() -> str:
        return f"hello from {name}"

    @server.resource("text://greeting/{who}")
    async def greet(who: str) -> str:
        return f"hello {who} from {name}"

    return server
