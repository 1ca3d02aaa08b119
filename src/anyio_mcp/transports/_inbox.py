"""The sending side of a connection's `incoming`: bounded, ordered, and with a last item.

Knows nothing of where items come from.
"""

from __future__ import annotations

from contextlib import suppress
from typing import final

import anyio
from anyio.abc import ObjectReceiveStream

from anyio_mcp.transports.base import INBOX_SIZE, ConnectionLost, Incoming


@final
class Inbox:
    """What arrives, on its way to the session."""

    __slots__ = ("_ended", "_receive", "_send")

    def __init__(self) -> None:
        # Full: `put` waits, so its reader stops reading and TCP slows the server down.
        self._send, self._receive = anyio.create_memory_object_stream[Incoming](INBOX_SIZE)
        self._ended = False

    @property
    def stream(self) -> ObjectReceiveStream[Incoming]:
        return self._receive

    @property
    def is_full(self) -> bool:
        return self._receive.statistics().current_buffer_used >= INBOX_SIZE

    async def put(self, item: Incoming) -> None:
        """Hand `item` over, waiting for room. Dropped once the connection ended or nobody reads."""
        if not self._ended:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self._send.send(item)

    async def settle(self, item: Incoming) -> None:
        """The same for what ends a request: at once, and only if there is no room as a checkpoint.

        Each of a thousand tasks whose requests fail together would wait for all the others otherwise.
        """
        if not self._ended:
            try:
                self._send.send_nowait(item)
            except anyio.WouldBlock:
                await self.put(item)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass

    def end(self) -> None:
        """Take nothing more but the last item: whatever follows a loss would break the contract."""
        self._ended = True

    async def put_last(self, item: ConnectionLost) -> None:
        """The last item, behind all that is still waiting for room."""
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._send.send(item)
        self._send.close()

    def finish(self) -> None:
        """Nothing follows what is there."""
        self._ended = True
        self._send.close()

    def close(self) -> None:
        self._ended = True
        self._send.close()
        self._receive.close()
