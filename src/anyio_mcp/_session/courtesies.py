"""What the server is told although nothing depends on it: that a request is not wanted any more, and that
one of its own was refused.

Both are as many as the peer or the caller likes, and over HTTP each is a POST that the server may never
acknowledge. So they are sent one after the other; what waits is bounded, the rest is dropped and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, final

import anyio
from mcp.types import INVALID_REQUEST, ErrorData, JSONRPCError, JSONRPCNotification, RequestId

from anyio_mcp._session.boundary import Bugs
from anyio_mcp._text import get_logger

logger = get_logger(__name__)

MAX_CANCELLATIONS: Final = 256
"""Cancellations that wait to be sent. When it is full the newest is dropped and counted: the server then
works for nobody, which costs it more than us."""

MAX_REFUSALS: Final = 16
"""Refusals that wait to be sent. When it is full the newest is dropped: a server that has so many of its
requests refused does not need to be told of each."""

COURTESY_SECONDS: Final = 10.0
"""How long one of them may hold up the others."""

_Courtesy = JSONRPCError | JSONRPCNotification


@final
class Courtesies:
    """The courtesies of one session. Asking for one never waits, so that a cancelled task can."""

    def __init__(self, deliver: Callable[[_Courtesy], Awaitable[None]], bugs: Bugs) -> None:
        self._deliver = deliver
        self._bugs = bugs
        self._waiting: deque[_Courtesy] = deque()
        self._refusals = 0
        self._wanted = anyio.Event()
        self.unsent_cancellations = 0

    def cancelled(self, request_id: RequestId) -> None:
        """Have the server told that nobody waits for the answer to this request."""
        if len(self._waiting) - self._refusals >= MAX_CANCELLATIONS:
            self.unsent_cancellations += 1
            return
        params = {"requestId": request_id}
        self._put(JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params=params))

    def refuse(self, request_id: RequestId, why: str) -> None:
        """Answer a request of the server with an error, unless too many others have to be told first."""
        if self._refusals < MAX_REFUSALS:
            self._refusals += 1
            error = ErrorData(code=INVALID_REQUEST, message=why)
            self._put(JSONRPCError(jsonrpc="2.0", id=request_id, error=error))

    async def run(self) -> None:
        """Send them, until cancelled."""
        while True:
            while self._waiting:
                message = self._waiting.popleft()
                try:
                    await self._send(message)
                except Exception as error:
                    self._bugs.report("a courtesy to the server", error)
                if isinstance(message, JSONRPCError):
                    self._refusals -= 1
            self._wanted = anyio.Event()
            await self._wanted.wait()

    async def _send(self, message: _Courtesy) -> None:
        try:
            with anyio.move_on_after(COURTESY_SECONDS):
                await self._deliver(message)
        except Exception as error:  # the transport's or the session's word: nothing depends on it
            logger.debug("the server was not told: %s", error)

    def _put(self, message: _Courtesy) -> None:
        self._waiting.append(message)
        self._wanted.set()
