"""The servers of a group and who holds them: leases on the group are leases on each of its servers.

It has the face of a `SessionKeeper`, so that a group has the doors a client has. It decides what the
failure of one server means for all; it does not know names, verbs or configurations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar, final

import anyio
import anyio.abc
import anyio.lowlevel

from anyio_mcp._session.lifecycle import Lease, Leases
from anyio_mcp._text import get_logger
from anyio_mcp.errors import NotConnectedError
from anyio_mcp.group.member import Member

logger = get_logger(__name__)

_T = TypeVar("_T")

_MOMENT: Final = 0.05
"""Seconds: failures no further apart are raised as one, so that who configured two servers wrongly
hears of both."""

_SHOWN: Final = 300
"""Characters of a further failure that the note about it repeats."""


@final
class GroupKeeper:
    """The members of one group. `tolerant`: go on without those that fail."""

    def __init__(self, name: str, *, tolerant: bool) -> None:
        self._name = name
        self._tolerant = tolerant
        self._members: dict[str, Member] = {}
        self._leases = Leases()
        self._leases_gone = anyio.Event()
        self._voided = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None

    @property
    def leases(self) -> Leases:
        return self._leases

    @property
    def members(self) -> Mapping[str, Member]:
        """By server, in the order of the configuration and of later additions."""
        return self._members

    def prefixes(self) -> dict[str, str]:
        """What stands in front of names, by server."""
        return {name: member.prefix for name, member in self._members.items()}

    def run_in(self, tasks: anyio.abc.TaskGroup | None) -> None:
        """Where sessions run from now on; None when the group they ran in is going away."""
        self._tasks = tasks
        if tasks is None:
            for member in self._members.values():
                member.client.run_in(None)
        elif len(self._leases):
            self._bind(self._members.values())

    def _bind(self, members: Iterable[Member]) -> None:
        if self._tasks is not None:
            for member in members:
                member.client.run_in(self._tasks)

    # Members

    def admit(self, member: Member) -> None:
        """One more; held at once if the group is, connected by who waits for that."""
        self._members[member.name] = member
        if len(self._leases):
            self._bind([member])
            member.hold(self._name)

    def dismiss(self, member: Member, error: Exception) -> None:
        """One less, if it is one: its calls in flight fail with `error`, nobody else's do."""
        if self._members.get(member.name) is member:
            del self._members[member.name]
        member.close(error)

    # Leases

    def take(self, holder: str) -> Lease:
        """Claim every session. `connect()` makes the claim good."""
        self._check_loop()
        if not len(self._leases):
            # Made anew here, in the event loop they will be waited in.
            self._leases_gone = anyio.Event()
            self._voided = anyio.Event()
            self._bind(self._members.values())
        for member in self._members.values():
            member.hold(self._name)
        return self._leases.take(holder)

    def give_back(self, lease: Lease) -> None:
        """Drop a claim; the last one ends every session that nobody else holds."""
        if self._leases.give_back(lease):
            self._leases_gone.set()
            for member in self._members.values():
                member.let_go()

    def close(self, error: Exception | None = None) -> None:
        """End every session for everybody, at once; every lease is void."""
        self._check_loop()
        self._leases.revoke_all()
        self._leases_gone.set()
        self._voided.set()
        for member in self._members.values():
            member.close(error)

    async def wait_closed(self) -> None:
        """Wait for the goodbyes. They go on at the same time, each bounded by the close deadline."""
        for member in tuple(self._members.values()):
            await member.wait_closed()

    async def wait_until_unleased(self) -> None:
        """Wait until nobody holds a lease on the group."""
        # Again, because somebody may have entered since: each first lease makes a new event.
        while len(self._leases):
            await self._leases_gone.wait()

    async def wait_until_void(self, lease: Lease) -> None:
        """Wait until `close()` has voided `lease`."""
        if lease in self._leases:
            await self._voided.wait()

    # All at once

    async def connect(self, lease: Lease) -> None:
        """Wait until every session is ready for a new `lease`, or has failed where that is tolerated.

        Raises the first failure otherwise. Bounded by the connect deadline of each, preceded by the
        goodbye of the session before.
        """
        await self.ask("connect", Member.connect)
        if lease not in self._leases:
            # A group without servers has none that could say so.
            raise NotConnectedError(f"{self._name} was closed")

    async def connect_one(self, member: Member) -> None:
        """The same, for one that was admitted just now."""
        await self.ask("connect", Member.connect, [member])

    async def ask(
        self,
        operation: str,
        act: Callable[[Member], Awaitable[_T]],
        members: Iterable[Member] | None = None,
    ) -> dict[str, _T]:
        """What `act` gives for each server, all at the same time, in the order of the members.

        A failure cancels the others, after `_MOMENT`, and is raised; or it is kept and its server left
        out, where failures are tolerated. A server that is removed meanwhile is left out either way.
        """
        asked = tuple(self._members.values() if members is None else members)
        over = self._leases_gone
        results: dict[str, _T] = {}
        failures: dict[str, Exception] = {}

        async def one(member: Member) -> None:
            try:
                results[member.name] = await act(member)
            except Exception as error:
                if self._members.get(member.name) is not member:
                    return
                if self._is_tolerable(member, error) and not over.is_set():
                    logger.warning(
                        "%s goes on without %r (%s): %s", self._name, member.name, operation, error
                    )
                    member.refused(operation, error)
                    return
                if not failures:
                    tasks.cancel_scope.deadline = anyio.current_time() + _MOMENT
                failures[member.name] = error
            else:
                member.succeeded(operation)

        async with anyio.create_task_group() as tasks:
            for member in asked:
                tasks.start_soon(one, member, name=f"anyio_mcp {operation} {member.name}")
        # Trio drops a cancellation that arrives while the last tasks of a group end by themselves, as
        # they do when it has also ended the sessions they ask. The caller would take it for an answer.
        await anyio.lowlevel.checkpoint_if_cancelled()
        if failures:
            raise _first({each.name: failures[each.name] for each in asked if each.name in failures})
        return {
            each.name: results[each.name]
            for each in asked
            if each.name in results and self._members.get(each.name) is each
        }

    def _check_loop(self) -> None:
        # Before anything is changed, so that a call from the wrong event loop changes nothing.
        for member in self._members.values():
            member.client.keeper.check_loop()

    def check_open(self) -> None:
        """Raise `NotConnectedError` unless somebody holds the group."""
        if not len(self._leases):
            raise NotConnectedError(
                f"{self._name} is not open: use it inside `async with group`, or start group.run"
            )

    def _is_tolerable(self, member: Member, error: Exception) -> bool:
        # With a claim in force, NotConnectedError speaks of the task group, not of the server.
        return self._tolerant and not (isinstance(error, NotConnectedError) and member.is_held)


def _first(failures: dict[str, Exception]) -> Exception:
    """The first failure, with notes that say which server's it is and which others there are."""
    (server, error), *others = failures.items()
    notes = [f"server {server!r}"]
    notes += [f"server {name!r} failed as well: {type(e).__name__}: {e}"[:_SHOWN] for name, e in others]
    # A list of its own: the errors of several waiters are copies that share their notes.
    error.__notes__ = [*getattr(error, "__notes__", ()), *notes]
    return error
