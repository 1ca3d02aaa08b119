"""What the tests of the session actor share."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

from anyio_mcp.client import Client
from anyio_mcp.testing import ScriptedPeer, never_hang, silence

T = TypeVar("T")

LONG = 4 * 3600.0
"""Virtual seconds a test may take: longer than any default timeout."""


def in_time(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """A test that ends, and leaves no task behind."""

    @functools.wraps(function)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        await never_hang(functools.partial(function, *args, **kwargs), seconds=LONG)

    return bounded


def silent_peer(**options: Any) -> ScriptedPeer:
    """A peer that begins a session and never answers a tool call."""
    peer = ScriptedPeer(**options)
    peer.on("tools/call", silence)
    return peer


async def outcome(function: Callable[[], Awaitable[T]]) -> T | Exception:
    """What it returns or raises."""
    try:
        return await function()
    except Exception as error:
        return error


class Passes:
    """Counts how often the event loop has gone round."""

    def __init__(self) -> None:
        self.count = 0

    async def watch(self, number: int = 50) -> None:
        """Count so many passes. Not for ever: virtual time stands still while anything can run."""
        for _ in range(number):
            await anyio.lowlevel.checkpoint()
            self.count += 1


async def passes(number: int) -> None:
    """Let the event loop go round."""
    for _ in range(number):
        await anyio.lowlevel.checkpoint()


async def in_flight(client: Client, calls: int) -> None:
    """Wait until this many calls of the client are in flight."""
    while client.stats().calls_in_flight < calls:
        await anyio.lowlevel.checkpoint()


async def leases(client: Client, number: int) -> None:
    """Wait until the client has this many leases."""
    while client.stats().leases != number:
        await anyio.lowlevel.checkpoint()
