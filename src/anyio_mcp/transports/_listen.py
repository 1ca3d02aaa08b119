"""The GET stream of a legacy session: what the server says unasked, for as long as it lets us listen.

Nothing that happens here fails a call. Must not know about POSTs.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import final

import anyio
import httpx2
from mcp.types import JSONRPCError, JSONRPCResponse

from anyio_mcp._text import get_logger
from anyio_mcp.errors import RequestFailedError, SessionLostError
from anyio_mcp.transports._body import Body
from anyio_mcp.transports._boundary import contained
from anyio_mcp.transports._messages import read_event, size_of
from anyio_mcp.transports._sse import SseEvent, SseOverflow, SseParser, carries_data
from anyio_mcp.transports._url import redact
from anyio_mcp.transports._wire import Wire, refusal
from anyio_mcp.transports.base import RequestFault, Violation

logger = get_logger(__name__)


@final
class Listener:
    """Keeps one GET stream open, across reconnections, until the server does not want it."""

    __slots__ = ("_last_event_id", "_open", "_progress", "_retry", "_served", "_wire", "answered", "scope")

    def __init__(self, wire: Wire) -> None:
        self.scope = anyio.CancelScope()
        self.answered = anyio.Event()
        """The server has answered the first GET, or will not."""
        self._open = anyio.CancelScope()
        """Around the stream that is open, and the wait for it."""
        self._wire = wire
        self._last_event_id = ""
        self._retry: int | None = None
        self._progress = False
        self._served = False
        """Of the stream that is open, or was the last one: that the server granted it."""

    async def run(self) -> None:
        """Ends when listening is pointless, or when `scope` is cancelled."""
        with self.scope:
            try:
                end = await self._listen()
            except Exception as error:
                end = contained(error, self._wire.http.describe)
            finally:
                self.answered.set()
            if isinstance(end, SessionLostError):
                self._wire.lose(end)
            elif end is not None:
                logger.warning(
                    "not listening to %s any more, calls are not affected: %s: %s",
                    self._wire.http.describe,
                    type(end).__name__,
                    redact(str(end)),
                )

    def pause(self) -> None:
        """Give the connection up for a while: a call waits for one."""
        self._open.cancel()

    async def _listen(self) -> Exception | None:
        """Why it ended; None if the server has no such stream, which is its right."""
        while True:
            with anyio.CancelScope() as self._open:
                return await self._listen_until_paused()
            self.answered.set()
            await anyio.sleep(self._wire.http.policy.listen_pause)

    async def _listen_until_paused(self) -> Exception | None:
        policy = self._wire.http.policy
        failures = futile = 0
        while True:
            opened = anyio.current_time()
            self._progress = self._served = False
            broken: Exception | None = None
            try:
                stamp = self._wire.session.stamp_get(self._last_event_id)
                async with self._wire.http.open("GET", stamp.headers, lasting=True) as response:
                    self.answered.set()
                    if response.status_code == 405:
                        return None
                    if not response.is_success:
                        broken = await refusal(self._wire, response, stamp)
                        if response.status_code < 500:
                            return broken
                    elif not await self._follow(response):
                        return RequestFailedError("the GET stream is no stream of events", reason="violation")
            except Exception as error:
                broken = contained(error, self._wire.http.describe)
                if isinstance(broken, RequestFailedError) and broken.reason == "redirect":
                    return broken
            # Gateways cut every stream after a while. It is opened again for as long as it is granted, each
            # time after a longer pause if it was of no use.
            failures = 0 if self._served else failures + 1
            if failures >= policy.listen_failures:
                return broken
            proven = self._progress or (
                self._served and anyio.current_time() - opened >= policy.listen_proven
            )
            # A server that says `retry: 0`, or nothing and hangs up, must not be asked in a tight loop.
            await anyio.sleep(policy.retry_delay(self._retry, futile))
            futile = 0 if proven else futile + 1

    async def _follow(self, response: httpx2.Response) -> bool:
        """Read the stream to its end. False if it is none."""
        parser = SseParser(
            self._wire.limits.max_message_bytes, last_event_id=self._last_event_id, retry=self._retry
        )
        try:
            async with Body(self._wire.http, response, self._wire.limits.max_message_bytes) as body:
                if await body.kind() != "events":
                    return False
                self._served = True
                async with aclosing(body.events(parser)) as events:
                    async for event in events:
                        if parser.last_event_id != self._last_event_id or carries_data(event):
                            self._progress = True
                        await self._on_event(event)
        finally:
            self._last_event_id, self._retry = parser.last_event_id, parser.retry
        return True

    async def _on_event(self, event: SseEvent | SseOverflow) -> None:
        for item in read_event(event, self._wire.limits):
            if isinstance(item, JSONRPCResponse | JSONRPCError | RequestFault):
                # Each answer belongs on the stream of its request; here it is a forgery or a mistake.
                item = Violation("an answer on the GET stream")
            await self._wire.inbox.put(item, size_of(event))
