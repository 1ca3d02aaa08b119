"""What the server tells us, on its way to the handlers: one notification after the other, never in the
receive loop.

Their order holds, but a handler that hangs holds the next one up for a moment only. What has been taken is
handed over also when the session is ending, for as long as its close deadline lets it. The queue is bounded
in number and in bytes; what exceeds it is dropped and counted. It does not know what the handlers do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, final

import anyio
import anyio.lowlevel
from mcp.shared.dispatcher import DispatchContext, OnNotify
from mcp.shared.transport_context import TransportContext

from anyio_mcp._session.boundary import Bugs
from anyio_mcp._session.weight import weigh

MAX_SLOW_HANDLERS: Final = 100
"""Notification handlers still running after their turn. At that number notifications wait in the
queue."""

NOTIFICATION_QUEUE: Final = 1024
"""Notifications waiting for a handler. When it is full the newest is dropped and counted: the receive
loop must not wait for a handler."""

NOTIFICATION_BYTES: Final = 16 * 1024 * 1024
"""Memory that notifications hold while they wait or are handled. One that does not fit is dropped and
counted, unless it is the only one: what `Limits` let in can be handed over."""

TURN: Final = 1.0
"""Seconds a notification handler may hold up the next notification."""

_STEPS: Final = 3
"""How often the event loop goes round before a handler counts as one that waits."""

AT_ONCE: Final = 16
BYTES_AT_ONCE: Final = 64 * 1024
"""Notifications, and memory that they hold, which are taken or handed over without a checkpoint."""

_Notification = tuple[str, Mapping[str, Any] | None, int]


_handling: ContextVar[object] = ContextVar("anyio_mcp_handling", default=None)


@final
@dataclass(slots=True, eq=False)
class _Worker:
    """The task that hands notifications over, until one of them takes it longer than a turn."""

    moved: anyio.Event | None = None
    """Set when a handler has returned, for who waits for that."""

    def move(self) -> None:
        if self.moved is not None:
            self.moved.set()


@final
class Notifications:
    """The notifications of one session."""

    def __init__(self, context: DispatchContext[TransportContext], bugs: Bugs) -> None:
        self._context = context
        self._bugs = bugs
        self._handler: OnNotify | None = None
        self._queue: deque[_Notification] = deque()
        self._bytes = 0
        self._arrived = anyio.Event()
        self._closed = False
        self._worker: _Worker | None = None
        """Whose turn it is."""
        self._turns = 0
        """Notifications whose turn is over."""
        self._holds_up = False
        """The handler whose turn it is waits for something."""
        # Callers behind the notifications that came before their answers; as many as there are calls.
        self._behind: deque[tuple[int, anyio.Event]] = deque()
        self.weighed = 0
        """Bytes that were looked at, those of what was dropped as well: what taking has cost."""
        self.taken = 0
        self.dropped = 0

    @property
    def is_here(self) -> bool:
        """Whether this code runs in a handler of these notifications, or for one."""
        return _handling.get() is self

    def take(self, method: str, params: Mapping[str, Any] | None) -> None:
        """Queue a notification for its handler, or drop it if the handlers are that far behind."""
        left = NOTIFICATION_BYTES - self._bytes
        if self._closed or len(self._queue) >= NOTIFICATION_QUEUE or (left <= 0 and self._bytes):
            self.dropped += 1
            return
        weight = weigh(params, left)
        self.weighed += weight
        if weight > left and self._bytes:
            self.dropped += 1
            return
        self._bytes += weight
        self.taken += 1
        self._queue.append((method, params, weight))
        self._arrived.set()

    def handle_with(self, handler: OnNotify) -> None:
        """Who is told. To be said before anything is taken."""
        self._handler = handler

    def close(self) -> None:
        """Take nothing more. `run` ends when what was taken has been handled."""
        self._closed = True
        self._arrived.set()

    async def wait_handled(self) -> None:
        """Wait for the handlers of what has been taken so far, unless one of them waits for something:
        it may be waiting for whoever waits here."""
        last = self.taken
        while self._turns < last and not self._holds_up:
            passed = anyio.Event()
            self._behind.append((last, passed))
            await passed.wait()

    async def run(self) -> None:
        """Hand over what is taken until it is closed. Cancelled, it counts what nobody has been told."""
        try:
            async with anyio.create_task_group() as tasks:
                slow = anyio.Semaphore(MAX_SLOW_HANDLERS)
                while True:
                    while self._queue:
                        await self._wait_for_room(slow)
                        worker = self._worker = _Worker()
                        tasks.start_soon(self._work, worker, slow, name="anyio_mcp notifications")
                        try:
                            await self._watch(worker)
                        except Exception as error:
                            self._bugs.report("the watching of a handler", error)
                            await anyio.lowlevel.checkpoint()  # for the worker, before there is another
                    if self._closed:
                        break
                    self._arrived = anyio.Event()
                    await self._arrived.wait()
        finally:
            self._closed = True
            self.dropped += len(self._queue)
            self._queue.clear()
            self._hold_up()

    async def _wait_for_room(self, slow: anyio.Semaphore) -> None:
        try:
            slow.acquire_nowait()
        except anyio.WouldBlock:
            self._hold_up()
            await slow.acquire()
            self._holds_up = False

    async def _watch(self, worker: _Worker) -> None:
        """Wait until `worker` has come to its end, or is with one handler for longer than a turn."""
        while self._worker is worker:
            turn = self._turns
            for _ in range(_STEPS):
                await anyio.lowlevel.checkpoint()
                if self._turns != turn or self._worker is not worker:
                    break
            else:
                self._hold_up()
                worker.moved = anyio.Event()
                with anyio.move_on_after(TURN):
                    await worker.moved.wait()
                worker.moved = None
                if self._turns == turn and self._worker is worker:
                    self._worker = None  # it goes on with this handler, and another one with the next
                    self._pass_on()
                self._holds_up = False

    async def _work(self, worker: _Worker, slow: anyio.Semaphore) -> None:
        """Hand over one after the other. A task for each would cost more than most handlers do."""
        _handling.set(self)
        count = weight = 0
        try:
            while self._worker is worker and self._queue:
                notification = self._queue.popleft()
                count += 1
                weight += notification[2]
                try:
                    await self._notify(*notification)
                except Exception as error:  # the user's handlers are contained where they are called
                    self._bugs.report(f"the handling of {notification[0][:80]!r}", error)
                finally:
                    self._bytes -= notification[2]
                    del notification
                    if self._worker is worker:
                        self._holds_up = False
                        self._pass_on()
                        worker.move()
                if count >= AT_ONCE or weight > BYTES_AT_ONCE:
                    count = weight = 0
                    await anyio.lowlevel.checkpoint()
        finally:
            if self._worker is worker:
                self._worker = None
                worker.move()
            slow.release()

    async def _notify(self, method: str, params: Mapping[str, Any] | None, weight: int) -> None:
        if self._handler is not None:
            await self._handler(self._context, method, params)

    def _pass_on(self) -> None:
        """The turn of one more is over: its callers go on."""
        self._turns += 1
        while self._behind and self._behind[0][0] <= self._turns:
            self._behind.popleft()[1].set()

    def _hold_up(self) -> None:
        """From now on no caller waits for the handlers."""
        self._holds_up = True
        while self._behind:
            self._behind.popleft()[1].set()
