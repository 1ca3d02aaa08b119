"""Entering and leaving: whose task group the sessions run in, who holds them, and who may leave when.

With a task group that the caller supplied, an entry is a lease: any task may return it, in any order.
Without one the outermost entry owns a task group of its own, which binds it to its task, as every
task group is bound to the task that opened it.

A task's groups must be left in the reverse order of their entering, or the event loop loses its place
(https://anyio.readthedocs.io/en/stable/cancellation.html#avoiding-cancel-scope-stack-corruption). A client
that is left before one that its task has entered later ends its session at once, and leaves its group when
that other one is left.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import final

import anyio
import anyio.abc

from anyio_mcp._session.keeper import SessionKeeper
from anyio_mcp._session.lifecycle import Lease
from anyio_mcp._text import get_logger
from anyio_mcp.errors import NotConnectedError, SessionLostError

logger = get_logger(__name__)


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """One entry that has not been left."""

    task: int
    lease: Lease


@final
@dataclass(slots=True, eq=False)
class _Owner:
    """The entry whose task group the sessions run in."""

    entry: _Entry
    tasks: anyio.abc.TaskGroup
    groups: _TaskGroups
    """Those of its task."""
    gave_up: bool = False
    """It was cancelled before the session was ready; somebody who waited with it may take over."""
    waits_its_turn: bool = False
    """It has been left, and nothing runs in its task group, which is not the innermost of its task."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class _TaskGroups:
    """The task groups that one task has entered by our doors and not left, the innermost last."""

    task: int
    owners: list[_Owner] = field(default_factory=list[_Owner])

    async def leave(self, owner: _Owner, error: BaseException | None = None) -> bool | None:
        """Leave the innermost group, then those that waited for it."""
        self.owners.remove(owner)
        kind, traceback = (None, None) if error is None else (type(error), error.__traceback__)
        try:
            return await owner.tasks.__aexit__(kind, error, traceback)
        finally:
            if self.owners and self.owners[-1].waits_its_turn:
                await self.leave(self.owners[-1])


_groups: ContextVar[_TaskGroups | None] = ContextVar("anyio_mcp_task_groups", default=None)
"""Of this task, or inherited from the task that started it."""


def _groups_of_this_task() -> _TaskGroups:
    task = anyio.get_current_task().id
    groups = _groups.get()
    if groups is None or groups.task != task:
        groups = _TaskGroups(task)
        _groups.set(groups)
    return groups


@final
class Doors:
    """The contexts of one client."""

    def __init__(
        self, name: str, keeper: SessionKeeper, *, tasks: anyio.abc.TaskGroup | None, close_seconds: float
    ) -> None:
        self._name = name
        self._keeper = keeper
        self._supplied = tasks
        self._close_seconds = close_seconds
        self._entries: list[_Entry] = []
        self._owner: _Owner | None = None
        self._deserted: list[_Owner] = []
        """Owners that another task has left for, and that their own tasks have not left yet."""
        self._serving = False
        self._leaving: anyio.Event | None = None
        """Set when the task group that is being left is gone, and somebody else may open one."""
        keeper.run_in(tasks)

    async def enter(self) -> None:
        """Take a lease and wait until the session is ready; the outermost opens the task group."""
        while self._supplied is not None or self._owner is not None or self._serving:
            if self._leaving is not None:
                # Bounded by the goodbye of the session in the group that is being left.
                await self._leaving.wait()
                continue
            owner = self._owner
            entry = self._claim()
            try:
                await self._keeper.connect(entry.lease)
            except BaseException as error:
                # Failed or cancelled: this claim is void, others who wait for the session keep theirs.
                self._entries.remove(entry)
                self._keeper.give_back(entry.lease)
                ended = isinstance(error, SessionLostError | NotConnectedError)
                if owner is None or not owner.gave_up or not ended:
                    raise
            else:
                return
        await self._enter_as_owner()

    async def leave(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Return the lease this task took, or else the newest that may be returned by any task.

        Raises `RuntimeError`, after the session has ended, when the only entry is that of another task
        which owns the task group.
        """
        entry = self._next_to_leave()
        if entry is None:
            await self._desert()
            raise RuntimeError(
                f"{self._name} must be left by the task that entered it, which owns its task group; its "
                "session has been ended. Pass task_group= to leave it anywhere"
            )
        deserted = next((each for each in self._deserted if each.entry is entry), None)
        if deserted is not None:
            self._forget(deserted)
            await self._leave_group(deserted)
            return None
        owner = self._owner
        if owner is not None and entry is owner.entry:
            return await self._leave_as_owner(owner, exc_type, exc, traceback)
        self._entries.remove(entry)
        self._keeper.give_back(entry.lease)
        if not len(self._keeper.leases):
            await self._keeper.wait_closed()
        return None

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Hold a lease until the client is closed or this task is cancelled (`client.run`)."""
        if self._supplied is not None:
            await self._hold(task_status)
            return
        if self._owner is not None or self._serving:
            raise RuntimeError(f"{self._name} is open already; it cannot be run a second time")
        self._serving = True
        failure: Exception | None = None
        gone = anyio.Event()
        try:
            async with anyio.create_task_group() as tasks:
                self._keeper.run_in(tasks)
                try:
                    await self._hold(task_status)
                except Exception as error:
                    # Kept out of the task group, which would wrap it in a group of its own.
                    failure = error
                finally:
                    self._leaving = gone
                    self._keeper.close(SessionLostError(f"{self._name} is run no longer", reason="closed"))
        finally:
            self._serving = False
            self._leaving = None
            self._keeper.run_in(None)
            gone.set()
        if failure is not None:
            raise failure

    async def _hold(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        lease = self._keeper.take(f"{self._name}.run")
        try:
            await self._keeper.connect(lease)
            task_status.started()
            await self._keeper.wait_until_void(lease)
        finally:
            self._keeper.give_back(lease)
        await self._keeper.wait_closed()

    def _claim(self) -> _Entry:
        task = anyio.get_current_task()
        entry = _Entry(task.id, self._keeper.take(task.name or f"task {task.id}"))
        self._entries.append(entry)
        return entry

    def _next_to_leave(self) -> _Entry | None:
        """None if there is only one that this task may not leave."""
        if not self._entries:
            raise RuntimeError(f"{self._name} was left more often than it was entered")
        here = anyio.get_current_task().id
        newest_first = reversed(self._entries)
        own = next((entry for entry in newest_first if entry.task == here), None)
        if own is not None:
            return own
        bound = [owner.entry for owner in (self._owner, *self._deserted) if owner is not None]
        return next((entry for entry in reversed(self._entries) if entry not in bound), None)

    async def _desert(self) -> None:
        """End the session of an owner whose task does not leave it: it may be over, or never come to it."""
        owner = self._owner
        if owner is None:
            return
        self._owner = None
        self._deserted.append(owner)
        text = f"{self._name} was left by a task that had not entered it"
        self._keeper.close(SessionLostError(f"{text}; with task_group= any task may", reason="closed"))
        self._keeper.run_in(None)
        # Bounded by the goodbye, which goes on without this task if it is cancelled.
        await self._keeper.wait_closed()

    async def _enter_as_owner(self) -> None:
        tasks = anyio.create_task_group()
        # Decided before anything is awaited: a second task entering meanwhile joins this owner.
        entry = self._claim()
        owner = self._owner = _Owner(entry, tasks, _groups_of_this_task())
        try:
            await tasks.__aenter__()
        except BaseException:
            self._forget(owner)
            self._keeper.close()
            raise
        owner.groups.owners.append(owner)
        self._keeper.run_in(tasks)
        try:
            await self._keeper.connect(entry.lease)
        except BaseException as error:
            owner.gave_up = isinstance(error, anyio.get_cancelled_exc_class())
            await self._close_group(owner, error)
            raise

    async def _leave_as_owner(
        self,
        owner: _Owner,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if isinstance(exc, anyio.get_cancelled_exc_class()) and owner.tasks.cancel_scope.cancel_called:
            # A bug in a session cancelled the group and with it the body; the group raises the bug.
            self._forget(owner)
            self._keeper.close()
            return await self._leave_group(owner, exc)
        try:
            self._keeper.give_back(owner.entry.lease)
            if exc is None:
                await self._wait_for_others()
        except BaseException as error:
            await self._close_group(owner, error)
            raise
        await self._close_group(owner, exc)
        return None

    async def _wait_for_others(self) -> None:
        with anyio.move_on_after(self._close_seconds):
            await self._keeper.wait_until_unleased()
            return
        logger.warning(
            "%s waits to be left by: %s. With task_group= the first to leave need not wait for the others",
            self._name,
            ", ".join(self._keeper.leases.holders()),
        )
        await self._keeper.wait_until_unleased()

    async def _close_group(self, owner: _Owner, error: BaseException | None) -> None:
        """End the sessions, then the group they ran in.

        The group is handed nothing of the body's exception: it would wrap it.
        """
        gone = self._leaving = anyio.Event()
        reason: Exception | None = None
        if error is not None:
            text = f"the task that owns {self._name} has left it ({type(error).__name__})"
            reason = SessionLostError(f"{text}; with task_group= no task owns it", reason="closed")
        self._keeper.close(reason)
        try:
            await self._leave_group(owner)
        finally:
            self._forget(owner)
            gone.set()

    async def _leave_group(self, owner: _Owner, error: BaseException | None = None) -> bool | None:
        """Leave the group in which nothing goes on any more; later, if its task has entered others since."""
        if owner.groups.owners[-1] is owner:
            return await owner.groups.leave(owner, error)
        owner.waits_its_turn = True
        # Bounded by the goodbye, which goes on without this task if it is cancelled.
        await self._keeper.wait_closed()
        return None

    def _forget(self, owner: _Owner) -> None:
        if owner.entry in self._entries:
            self._entries.remove(owner.entry)
        if owner in self._deserted:
            # Somebody else may own the client by now.
            self._deserted.remove(owner)
            return
        self._owner = None
        self._leaving = None
        self._keeper.run_in(None)
