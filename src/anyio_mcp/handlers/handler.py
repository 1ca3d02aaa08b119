"""Running one function of the user's, and what becomes of what it raises.

Knows nothing of what the function is for. Cancellation passes through; whoever runs a handler bounds
the time it takes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast, final

import anyio
import anyio.to_thread
from mcp import MCPError, types

from anyio_mcp._text import get_logger

P = ParamSpec("P")
R = TypeVar("R")

logger = get_logger(__name__)

MAX_ERROR_TEXT: Final = 500
"""Characters of a handler's exception that the server is told."""

MAX_THREADS: Final = 40
"""Threads one handler may occupy, abandoned ones included. One call more is refused, so that a server
that asks and cancels for ever cannot pile up threads behind a handler that blocks."""


@final
class Handler(Generic[P, R]):
    """A user's function: an async one is awaited, another one runs in a worker thread.

    `kind` says in errors and logs what it is for. Raises `TypeError` for what cannot be called.
    """

    __slots__ = ("_busy", "_function", "_in_thread", "_kind")

    def __init__(self, kind: str, function: Callable[P, R | Awaitable[R]]) -> None:
        if not callable(function):
            raise TypeError(f"a {kind} handler must be a function, not {type(function).__name__}")
        self._kind = kind
        self._function = function
        self._in_thread = not _is_async(function)
        self._busy: set[object] = set()

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._in_thread:
            result = await self._run_in_thread(*args, **kwargs)
        else:
            result = self._function(*args, **kwargs)
        # Also after a thread: a lambda around an async function is no async function.
        return cast("R", await result) if inspect.isawaitable(result) else cast("R", result)

    async def _run_in_thread(self, *args: P.args, **kwargs: P.kwargs) -> R | Awaitable[R]:
        if len(self._busy) >= MAX_THREADS:
            raise RuntimeError(f"{MAX_THREADS} {self._kind} handlers are running already")
        token = object()
        started = False

        def work() -> tuple[R | Awaitable[R]]:
            nonlocal started
            started = True
            try:
                # In a tuple: trio takes a coroutine that a thread returns for a mistake.
                return (self._function(*args, **kwargs),)
            finally:
                self._busy.discard(token)

        self._busy.add(token)
        try:
            # Abandoned when cancelled: a thread cannot be stopped, and nobody is to wait for it. With a
            # limiter of its own: a handler that blocks must not use up the application's threads.
            (result,) = await anyio.to_thread.run_sync(
                work, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )
            return result
        finally:
            if not started:
                self._busy.discard(token)

    def failure(self, error: Exception) -> types.ErrorData:
        """What the server is told of `error`, which is logged; an `MCPError` says itself what."""
        if isinstance(error, MCPError):
            return error.error
        self.log(error)
        try:
            text = f"{type(error).__name__}: {error}"
        except Exception:  # an exception that cannot even say what it is
            text = type(error).__name__
        return types.ErrorData(code=types.INTERNAL_ERROR, message=text[:MAX_ERROR_TEXT])

    def log(self, error: Exception) -> None:
        """Log what the handler raised."""
        logger.error("the %s handler raised", self._kind, exc_info=error)


def _is_async(function: Callable[..., object]) -> bool:
    target: Any = function
    while isinstance(target, functools.partial):
        target = cast("functools.partial[Any]", target).func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__)
