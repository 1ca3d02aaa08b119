"""The event loop of a command, and the signals that end it.

Knows nothing of what the command does: a signal cancels it, so that it leaves its contexts and with them its
servers, within their own bounds.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import anyio

ResultT = TypeVar("ResultT")


class Interrupted(Exception):  # noqa: N818
    """A signal ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def run_command(work: Callable[[], Awaitable[ResultT]], backend: str) -> ResultT:
    """Run `work` to its end. Raises `Interrupted` once it has cleaned up after SIGINT, SIGTERM or SIGHUP.

    A server gets a session of its own, so neither the terminal nor a process group would end it.
    """
    signals = _signals()

    async def until_signalled() -> ResultT:
        with anyio.open_signal_receiver(*signals) as arriving:
            return await _run_until(arriving, work)

    return anyio.run(until_signalled if signals else work, backend=backend)


async def _run_until(
    arriving: AsyncIterator[signal.Signals], work: Callable[[], Awaitable[ResultT]]
) -> ResultT:
    results: list[ResultT] = []
    failures: list[Exception] = []
    received: list[int] = []

    async def watch() -> None:
        async for number in arriving:
            received.append(number)
            tg.cancel_scope.cancel()

    async with anyio.create_task_group() as tg:
        tg.start_soon(watch, name="anyio_mcp signals")
        try:
            results.append(await work())
        except Exception as error:
            # Not through the task group, which would wrap it.
            failures.append(error)
        tg.cancel_scope.cancel()
    if received:
        raise Interrupted(received[0])
    if failures:
        raise failures[0]
    return results[0]


def _signals() -> list[signal.Signals]:
    """The signals that end a command. One that is ignored stays ignored: that is what nohup is for."""
    if sys.platform == "win32":
        # Event loops on Windows take no handlers of signals; Ctrl-C is a KeyboardInterrupt there.
        return []
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [each for each in ending if signal.getsignal(each) is not signal.SIG_IGN]
