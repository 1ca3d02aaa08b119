"""`ClientGroup`: many servers behind one set of verbs, each with a session of its own.

This file owns the configuration, the doors, and which servers there are. The operations are in
`verbs`; holding sessions, and what one server's failure means for the others, is
`keeper`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, Self, Unpack, cast

import anyio
import anyio.abc
import anyio.lowlevel
from mcp.client import CacheConfig

from anyio_mcp._session.doors import Doors
from anyio_mcp._session.keeper import SessionKeeper
from anyio_mcp._text import get_logger
from anyio_mcp.client import Client
from anyio_mcp.config import Timeouts
from anyio_mcp.errors import SessionLostError
from anyio_mcp.group.keeper import GroupKeeper
from anyio_mcp.group.member import Member, ServerClient
from anyio_mcp.group.names import Naming
from anyio_mcp.group.sources import ServerSettings, source_of, sources_of
from anyio_mcp.group.verbs import GroupVerbs
from anyio_mcp.mcp_config import MCPConfig, check_name
from anyio_mcp.transports.infer import Source

logger = get_logger(__name__)

_ANY_URL: Final = "http://127.0.0.1/"
"""For a client that is made to see whether it can be."""


class ClientGroup(GroupVerbs):
    """Clients of many servers, each with a session of its own, opened and closed together.

    The doors are those of `Client`: `ClientGroup(config, task_group=tg)` and `async with group` as a
    lease that any task may return; `await tg.start(group.run)`; and `async with ClientGroup(config)`,
    which owns its task group and must be left by the task that entered it.

    * `config`: an `MCPConfig`, or a dict in one of the shapes it reads. In a dict a server may also be
      anything else a `Client` can be made of, such as a URL or an `MCPServer`.
    * `on_failure="raise"`: a server that cannot be reached, or that fails when all are asked, ends that
      operation for all; its error is raised as it is, with the server's name in a note. When several
      have failed by then, the first in the order of the configuration is raised, with notes on the
      others. `"report"`: the group goes on without it, `failures` says why, and the next call that
      needs it tries again, as `restart` allows. A server whose configuration cannot be used, such as one
      with a variable that is not set, is in `failures` from the beginning, and not in the group.
    * Names: a tool or prompt is called `{prefix}{separator}{its name}`, a resource `{prefix}+{its URI}`;
      `prefix(server)` is what stands for a server, by default its name. Servers whose names would make
      that ambiguous are refused. Results are passed on as they are, with the server's own names.
    * `settings` are those of `Client`, the same for every server.

    The death of one server touches nobody else's calls, and a session that died is replaced by the next
    call to its server. `group["name"]` is that server's `Client`, for everything else.

    Raises `TypeError` and `ValueError` for what makes no group; nothing is opened until it is entered.
    """

    def __init__(
        self,
        config: MCPConfig | Mapping[str, Any],
        *,
        task_group: anyio.abc.TaskGroup | None = None,
        name: str = "the client group",
        on_failure: Literal["raise", "report"] = "raise",
        separator: str = "_",
        prefix: Callable[[str], str] | None = None,
        **settings: Unpack[ServerSettings],
    ) -> None:
        if on_failure not in ("raise", "report"):
            raise ValueError(f"on_failure must be 'raise' or 'report', not {on_failure!r}")
        unknown = settings.keys() - ServerSettings.__annotations__.keys()
        if unknown:
            hint = "; it belongs into the configuration of a server" if "auth" in unknown else ""
            raise TypeError(f"ClientGroup takes no {', '.join(sorted(unknown))}{hint}")
        cache = settings.get("cache")
        if isinstance(cache, CacheConfig) and cache.target_id is not None:
            raise ValueError("a CacheConfig with a target_id is of one server; a ClientGroup has several")
        self._name = name
        self._naming = Naming(separator=separator, prefix=prefix)
        self._settings = settings
        self._keeper = GroupKeeper(name, tolerant=on_failure == "report")
        self._unusable: dict[str, Exception] = {}
        if on_failure == "raise":
            for server, source in sources_of(config).items():
                self._admit(server, source)
        else:
            # A mistake in the settings is one for all servers: raised, not found to be each one's failure.
            Client(_ANY_URL, **settings)
            for server, source in sources_of(config, self._leave_out).items():
                try:
                    self._admit(server, source)
                except (TypeError, ValueError) as error:
                    self._leave_out(server, error)
        close = (settings.get("timeouts") or Timeouts()).close_seconds
        self._doors = Doors(
            # Doors needs no more of a keeper than a GroupKeeper has.
            name,
            cast("SessionKeeper", self._keeper),
            tasks=task_group,
            close_seconds=close,
        )

    def __repr__(self) -> str:
        states = ", ".join(f"{name!r}: {client.state.value}" for name, client in self.servers.items())
        return f"<ClientGroup {self._name!r} {{{states}}}>"

    # The doors

    async def __aenter__(self) -> Self:
        """Hold every session, started if there is none; returns when each is ready or has failed.

        Raises the failure of a server, unless they are reported: what entering a `Client` raises. A
        failed or cancelled entry leaves nothing behind; sessions that were started meanwhile are ended.
        """
        await self._doors.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Let go of the sessions. The last one out waits for their end, bounded by `Timeouts.close`."""
        return await self._doors.leave(exc_type, exc, traceback)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the group open until `close()` or cancellation: `await tg.start(group.run)`.

        `started()` when every server is ready or has failed; raises what `async with group` raises.
        """
        await self._doors.serve(task_status=task_status)

    async def close(self) -> None:
        """End every session now, for everybody: calls in flight raise `SessionLostError` (`closed`).

        Returns when nothing of them is left, bounded by `Timeouts.close`; a cancelled close goes on
        without its caller. Closing again is harmless, and the group can be entered anew.
        """
        self._keeper.close()
        await self._keeper.wait_closed()

    # The servers

    def __getitem__(self, name: str) -> Client:
        """The client of one server; `KeyError` if there is none of this name."""
        return self._keeper.members[name].client

    def __iter__(self) -> Iterator[str]:
        """The names of the servers, as they are now."""
        return iter(tuple(self._keeper.members))

    def __contains__(self, name: object) -> bool:
        return name in self._keeper.members

    @property
    def servers(self) -> Mapping[str, Client]:
        """The clients by server, in the order of the configuration and of later additions; a snapshot."""
        return MappingProxyType({name: member.client for name, member in self._keeper.members.items()})

    @property
    def failures(self) -> Mapping[str, Exception]:
        """By server, why it has no session, or why the group last went on without it; a snapshot.

        A server is in it until it has been reached again. One that was closed on this side has not
        failed.
        """
        found = {name: member.failure for name, member in self._keeper.members.items()}
        failed = {name: error for name, error in found.items() if error is not None}
        return MappingProxyType({**self._unusable, **failed})

    async def add(self, name: str, server: Source) -> Client:
        """Add a server: its configuration, or anything else a `Client` can be made of.

        If the group is open, waits until the server is ready or, where failures are reported, has
        failed. Raises `ValueError` for a name that is taken or ambiguous, and what entering a `Client`
        raises. If it raises or is cancelled, the server is not added.
        """
        source = source_of(check_name(name), server)
        if source is None:
            raise ValueError(f"server {name!r} is disabled in its configuration")
        member = self._admit(name, source)
        self._unusable.pop(name, None)
        if not len(self._keeper.leases):
            await anyio.lowlevel.checkpoint_if_cancelled()
            return member.client
        try:
            await self._keeper.connect_one(member)
        except BaseException:
            self._keeper.dismiss(member, SessionLostError(f"server {name!r} was not added", reason="closed"))
            raise
        return member.client

    async def remove(self, name: str) -> None:
        """Remove a server, at once: its calls in flight raise `SessionLostError` (`closed`).

        Returns when nothing of its session is left, bounded by `Timeouts.close`; if that is cancelled,
        it goes on without its caller. Raises `KeyError` if there is no server of this name.
        """
        member = self._keeper.members[name]
        error = SessionLostError(f"server {name!r} was removed from {self._name}", reason="closed")
        self._keeper.dismiss(member, error)
        await member.wait_closed()

    def _leave_out(self, server: str, error: Exception) -> None:
        """Go on without a server that there cannot be."""
        self._unusable[server] = error
        logger.warning(
            "%s goes on without %r, whose configuration is of no use: %s", self._name, server, error
        )

    def _admit(self, name: str, source: Source) -> Member:
        if name in self._keeper.members:
            raise ValueError(f"there is a server {name!r} already")
        prefix = self._naming.prefix_of(name, self._keeper.prefixes())
        try:
            client = ServerClient(source, name=name, settings=dict(self._settings))
        except (TypeError, ValueError) as error:
            error.add_note(f"server {name!r}")
            raise
        member = Member(name, prefix, client)
        self._keeper.admit(member)
        return member
