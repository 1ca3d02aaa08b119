"""The connections of our own HTTP client: one exchange, one lane.

httpcore's pool looks at all of its connections whenever one of them changes, which is quadratic in the
number of calls in flight: a thousand of them took half a second to fail when their server was gone.
Here each exchange has a pool to itself, with the one connection it needs, and passes it on to later ones.
Must not know what the exchanges are about.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast, final

import anyio
import httpx2


@final
@dataclass(slots=True, eq=False)
class _Lane:
    transport: httpx2.AsyncHTTPTransport
    free_since: float = 0.0


@final
class LaneTransport(httpx2.AsyncBaseTransport):
    """Gives every request a transport nobody else is using: the one freed last, or a new one.

    At most `idle` of them are kept for later, and none that nobody has used for `idle_seconds`.
    """

    def __init__(
        self, make: Callable[[], httpx2.AsyncHTTPTransport], *, idle: int, idle_seconds: float
    ) -> None:
        self._make = make
        self._idle = idle
        self._idle_seconds = idle_seconds
        # As many as there are requests at once.
        self._busy: set[_Lane] = set()
        # Freed last at the right. When it is full the lane is closed instead of kept.
        self._free: deque[_Lane] = deque()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        lane = self._free.pop() if self._free else _Lane(self._make())
        self._busy.add(lane)
        try:
            response = await lane.transport.handle_async_request(request)
        except httpx2.TransportError:
            # Its connection is gone, and with it all that the lane was for.
            self._busy.discard(lane)
            raise
        except BaseException:
            # It may hold a connection: one that was just made when the request was cancelled.
            await self.release(lane)
            raise
        response.stream = _LaneStream(cast("httpx2.AsyncByteStream", response.stream), self, lane)
        return response

    async def release(self, lane: _Lane) -> None:
        """The exchange of a lane is over. Waits for no peer; httpcore shields the closing of its sockets."""
        if lane not in self._busy:
            return
        self._busy.discard(lane)
        now = anyio.current_time()
        lane.free_since = now
        self._free.append(lane)
        # One after the other, so that those not reached, should closing one fail, are still closed later.
        while self._free and (
            len(self._free) > self._idle or now - self._free[0].free_since > self._idle_seconds
        ):
            await self._free.popleft().transport.aclose()

    async def aclose(self) -> None:
        """Close every connection. Responses that are still open break off."""
        lanes = [*self._free, *self._busy]
        self._free.clear()
        self._busy.clear()
        for lane in lanes:
            await lane.transport.aclose()


@final
class _LaneStream(httpx2.AsyncByteStream):
    """A body that frees its lane when it is closed."""

    def __init__(self, inner: httpx2.AsyncByteStream, lanes: LaneTransport, lane: _Lane) -> None:
        self._inner = inner
        self._lanes = lanes
        self._lane = lane

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._inner.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            await self._lanes.release(self._lane)
