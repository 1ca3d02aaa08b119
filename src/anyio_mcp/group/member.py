"""One server of a group: a client whose sessions run where the group's do.

It knows nothing of the other servers, nor of names and policies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self, final

import anyio
import anyio.abc

from anyio_mcp._session.doors import Doors
from anyio_mcp._session.keeper import SessionKeeper
from anyio_mcp._session.lifecycle import Lease
from anyio_mcp.client import Client
from anyio_mcp.errors import NotConnectedError, SessionLostError
from anyio_mcp.transports.infer import Source


@final
class ServerClient(Client):
    """A client in a group: entering it is a lease on a session that the group has opened."""

    def __init__(self, source: Source, *, name: str, settings: dict[str, Any]) -> None:
        super().__init__(source, name=name, **settings)
        self._bound: anyio.abc.TaskGroup | None = None
        self._is_bound = False

    @property
    def keeper(self) -> SessionKeeper:
        """The sessions of this server."""
        return self._keeper

    def run_in(self, tasks: anyio.abc.TaskGroup | None) -> None:
        """Where sessions run from now on; None when the group is closed or the server removed."""
        if tasks is None or tasks is self._bound:
            self._keeper.run_in(tasks)
        else:
            # Made anew for each task group, kept when the group closes: blocks still open can be left.
            self._doors = Doors(
                self.name, self._keeper, tasks=tasks, close_seconds=self._timeouts.close_seconds
            )
        self._bound = tasks or self._bound
        self._is_bound = tasks is not None

    async def __aenter__(self) -> Self:
        """Hold this server's session, beyond the group's own hold on it; any task may leave."""
        self._check_open()
        return await super().__aenter__()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Hold this server's session until it is closed: `await tg.start(group["name"].run)`."""
        self._check_open()
        await super().run(task_status=task_status)

    def new(self, *, task_group: anyio.abc.TaskGroup | None = None) -> Client:
        """An independent client of the same configuration, in no group."""
        client = Client.__new__(Client)
        client._open(self._settings, task_group, self._known_server)
        return client

    def _check_open(self) -> None:
        if not self._is_bound:
            raise NotConnectedError(f"{self.name} belongs to a ClientGroup that is not open: enter that")


@final
@dataclass(slots=True, eq=False)
class Member:
    """A server's place in a group."""

    name: str
    prefix: str
    client: ServerClient
    _lease: Lease | None = None
    _refusals: dict[str, tuple[Exception, int]] = field(default_factory=dict[str, tuple[Exception, int]])
    """By operation, why the group went on without this server, and in which session that was."""

    @property
    def is_held(self) -> bool:
        """Whether the group has a claim on the session that nobody has closed."""
        return self._lease is not None and self._lease in self.client.keeper.leases

    def hold(self, holder: str) -> None:
        """Claim the session for the group, unless that is done."""
        if not self.is_held:
            self._lease = self.client.keeper.take(holder)

    def let_go(self) -> None:
        """Give the group's claim back. The session ends, unless somebody else holds it."""
        if self._lease is not None:
            self.client.keeper.give_back(self._lease)

    def close(self, error: Exception | None = None) -> None:
        """End the session for everybody, now; it cannot be started again until the group says where."""
        self.client.keeper.close(error)
        self.client.run_in(None)

    async def wait_closed(self) -> None:
        """Wait for the goodbye, if the session is ending; it is bounded by the close deadline."""
        if not len(self.client.keeper.leases):
            await self.client.keeper.wait_closed()

    async def connect(self) -> None:
        """Wait until the session is ready, starting one if there is none. Raises what stopped it."""
        if self._lease is None:
            raise NotConnectedError(f"{self.name} is not held by its group")
        await self.client.keeper.connect(self._lease)

    def refused(self, operation: str, error: Exception) -> None:
        """The group goes on without this server's part in `operation`."""
        self._refusals[operation] = (error, self.client.keeper.sessions_started)

    def succeeded(self, operation: str) -> None:
        """What was refused has worked now."""
        self._refusals.pop(operation, None)

    @property
    def failure(self) -> Exception | None:
        """Why this server has no session, or why the group last went on without it; None if all is well."""
        actor = self.client.keeper.actor
        ended = None if actor is None else actor.failure.error
        if ended is not None and not (isinstance(ended, SessionLostError) and ended.reason == "closed"):
            return ended
        for error, session in self._refusals.values():
            # What an earlier session could not do says nothing about one that came after it.
            if not self.client.is_connected() or session == self.client.keeper.sessions_started:
                return error
        return None
