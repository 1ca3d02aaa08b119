"""The sending side of a connection's `incoming`: bounded in items and bytes, ordered, with a last item.

Knows nothing of where items come from.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, final

import anyio
import anyio.lowlevel
from anyio.abc import ObjectReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectStreamStatistics

from anyio_mcp.transports.base import INBOX_SIZE, ConnectionLost, Incoming

INBOX_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the messages in an inbox, counted as they came: in memory they can be twenty times as much. When
it is full the transport stops reading. A message that is larger by itself passes when it is alone."""

TURN_BYTES: Final = 64 * 1024
TURN_ITEMS: Final = 64
"""After so much, handed over without waiting, a reader lets the other tasks run: a chunk of bytes may hold
tens of thousands of messages, and each of them may cost more than it looks."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """An item that there is no room for yet."""

    item: Incoming
    size: int
    handed_over: anyio.Event = field(default_factory=anyio.Event)


@final
class IncomingStream(ObjectReceiveStream[Incoming]):
    """What the session reads. Room is given back as items are taken."""

    __slots__ = ("_inbox", "_items")

    def __init__(self, inbox: Inbox, items: MemoryObjectReceiveStream[tuple[Incoming, int]]) -> None:
        self._inbox = inbox
        self._items = items

    async def receive(self) -> Incoming:
        item, size = await self._items.receive()
        self._inbox.release(size)
        return item

    def receive_nowait(self) -> Incoming:
        """What can be had without waiting. Raises `anyio.WouldBlock` if there is nothing."""
        item, size = self._items.receive_nowait()
        self._inbox.release(size)
        return item

    def statistics(self) -> MemoryObjectStreamStatistics:
        """Those of the stream, with the tasks that wait for room in the inbox."""
        return self._items.statistics()._replace(tasks_waiting_send=self._inbox.tasks_waiting)

    def close(self) -> None:
        self._items.close()

    async def aclose(self) -> None:
        self.close()
        await anyio.lowlevel.checkpoint()


@final
class Inbox:
    """What arrives, on its way to the session."""

    __slots__ = ("_bytes", "_count", "_ended", "_send", "_stream", "_turn_bytes", "_turn_items", "_waiting")

    def __init__(self) -> None:
        # Bounded here, in bytes as well: full, `put` waits, so its reader stops reading and TCP slows the
        # server down.
        self._send, receive = anyio.create_memory_object_stream[tuple[Incoming, int]](math.inf)
        self._stream = IncomingStream(self, receive)
        self._count = self._bytes = 0
        # In the order they came. As many as there are tasks that read, each with one item.
        self._waiting: deque[_Waiting] = deque()
        self._turn_bytes = self._turn_items = 0
        self._ended = False

    @property
    def stream(self) -> IncomingStream:
        return self._stream

    @property
    def tasks_waiting(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        return self._count >= INBOX_SIZE or self._bytes >= INBOX_BYTES

    async def put(self, item: Incoming, size: int = 0) -> None:
        """Hand `item` over, waiting for room. Dropped once the connection ended or nobody reads.

        `size` is that of its message in bytes. Other tasks get a turn at times, whether there is room or not.
        """
        self._turn_bytes += size
        self._turn_items += 1
        if self._turn_bytes >= TURN_BYTES or self._turn_items >= TURN_ITEMS:
            self._turn_bytes = self._turn_items = 0
            await anyio.lowlevel.checkpoint()
        else:
            await anyio.lowlevel.checkpoint_if_cancelled()
        if not self._ended:
            await self._hand_over(item, size)

    async def settle(self, item: Incoming, size: int = 0) -> None:
        """The same for what ends a request: at once, and only if there is no room as a checkpoint.

        Each of a thousand tasks whose requests fail together would wait for all the others otherwise.
        """
        if not self._ended:
            await self._hand_over(item, size)

    def end(self) -> None:
        """Take nothing more but the last item: whatever follows a loss would break the contract."""
        self._ended = True

    async def put_last(self, item: ConnectionLost) -> None:
        """The last item, behind all that is still waiting for room."""
        await self._hand_over(item, 0)
        self._send.close()

    def finish(self) -> None:
        """Nothing follows what is there."""
        self._ended = True
        self._send.close()

    def release(self, size: int) -> None:
        """An item was taken. Whoever has waited longest for the room that it leaves has it."""
        self._count -= 1
        self._bytes -= size
        while self._waiting and self._has_room(self._waiting[0].size):
            # Here and not in the task that waits: the order in which tasks wake is no promise.
            waiting = self._waiting.popleft()
            self._push(waiting.item, waiting.size)
            waiting.handed_over.set()

    def close(self) -> None:
        self._ended = True
        self._send.close()
        self._stream.close()
        while self._waiting:
            self._waiting.popleft().handed_over.set()

    def _has_room(self, size: int) -> bool:
        return self._count < INBOX_SIZE and (self._bytes == 0 or self._bytes + size <= INBOX_BYTES)

    async def _hand_over(self, item: Incoming, size: int) -> None:
        if not self._waiting and self._has_room(size):
            self._push(item, size)
            return
        waiting = _Waiting(item, size)
        self._waiting.append(waiting)
        try:
            await waiting.handed_over.wait()
        finally:
            # Cancelled, it may have been handed over already.
            with suppress(ValueError):
                self._waiting.remove(waiting)

    def _push(self, item: Incoming, size: int) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._send.send_nowait((item, size))
            self._count += 1
            self._bytes += size
