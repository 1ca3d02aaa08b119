"""`Client`: configuration, the doors through which its session is entered and left, and what is known
of the server. The operations are in `verbs`, keeping a session is `_session.keeper`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc
from anyio.abc import ObjectReceiveStream
from mcp.client import CacheConfig, ClientExtension
from mcp.types import (
    DiscoverResult,
    Implementation,
    InitializeResult,
    LoggingLevel,
    SamplingCapability,
    ServerCapabilities,
)
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from anyio_mcp import handlers
from anyio_mcp._session.actor import SessionActor, SessionSettings
from anyio_mcp._session.doors import Doors
from anyio_mcp._session.extensions import Extensions
from anyio_mcp._session.keeper import SessionKeeper
from anyio_mcp._session.lifecycle import SessionState
from anyio_mcp._session.negotiation import KnownServer
from anyio_mcp._session.tasks.records import TaskRegistry
from anyio_mcp._session.typed import TypedSession, typed_session
from anyio_mcp._session.watchdog import CallDeadline
from anyio_mcp.config import (
    DEFAULT_CACHE,
    DEFAULT_HEARTBEAT,
    DEFAULT_RESTART,
    Heartbeat,
    Limits,
    Restart,
    Timeouts,
)
from anyio_mcp.errors import NotConnectedError
from anyio_mcp.handlers import (
    ElicitationHandler,
    LogHandler,
    MessageHandler,
    MessageHandlerFunction,
    ProgressHandler,
    RootsHandler,
    RootsList,
    SamplingHandler,
)
from anyio_mcp.settings import Callbacks, ClientSettings, own_client_info
from anyio_mcp.telemetry import SessionStats, server_attributes
from anyio_mcp.transports.base import Transport
from anyio_mcp.transports.infer import (
    Auth,
    Source,
    configured,
    configured_timeout,
    infer_transport,
    older_transport,
)
from anyio_mcp.verbs.base import DEFAULT, Timeout
from anyio_mcp.verbs.prompts import PromptVerbs
from anyio_mcp.verbs.resources import ResourceVerbs
from anyio_mcp.verbs.server import ServerVerbs
from anyio_mcp.verbs.subscriptions import SubscriptionVerbs
from anyio_mcp.verbs.tasks import TaskVerbs
from anyio_mcp.verbs.tools import ToolVerbs


class Client(ToolVerbs, ResourceVerbs, PromptVerbs, TaskVerbs, SubscriptionVerbs, ServerVerbs):
    """A client of one MCP server: one session, shared by everybody who uses this object.

    Three doors:

    * `Client(source, task_group=tg)`: sessions run in your task group. `async with client` is a lease:
      nested, concurrent, left in any order and by any task. The last one out ends the session.
    * `await tg.start(client.run)`: a service. Returns when requests succeed, runs until `close()`.
    * `async with Client(source) as client`: the outermost block owns the session and must be left by
      the task that entered it; leaving waits for the blocks of other tasks.

    A dead session is replaced by the next call (`restart`). It never cancels your code: it fails the
    calls in flight, each with the reason.

    * `source`: an http(s) URL, a path to a `.py` or `.js` server, a dict with one server's
      configuration, an SDK `MCPServer` or `Server`, a transport of this library, or an SDK-style
      transport (an async context manager that yields a stream pair, or a function that makes one).
    * `mode`: `"auto"` asks which protocol era the server speaks, `"legacy"` uses the handshake of
      2025-11-25 and before, a modern version (`"2026-07-28"`) is used unasked.
    * `prior_discover`, for such a version: a `discover_result` kept from before, so that the server is
      known without being asked.
    * `auto_initialize=False` connects without negotiating; call `initialize()` before anything else.
    * `extensions`: `mcp.client.ClientExtension` objects; what they claim is finished by them.
    * `cache`: lists and resources are kept as long as the server says (`ttlMs`, 2026-07-28) or until it
      announces a change, in memory and for one session unless a `CacheConfig` names a store; None asks
      every time.
    * `log_level`: which log messages a modern server shall send; without it all of them if there is a
      `log_handler`, else none. In the era before, `set_logging_level()` asks for them.
    * `strict_schemas`: a result that cannot be checked against its tool's output schema, or lacks the
      structured content that the schema promises, is a `ResultSchemaError`. Without it such a result is
      delivered, and its `unchecked` says why.
    * `auth`, for URLs: a bearer token; `"oauth"` or `OAuth(...)` for a user who signs in with a browser;
      or an `httpx2.Auth`, such as the SDK's OAuth providers.

    Raises `TypeError` and `ValueError` for arguments that make no client; nothing is opened until it is
    entered.
    """

    def __init__(
        self,
        source: Source,
        *,
        task_group: anyio.abc.TaskGroup | None = None,
        name: str | None = None,
        mode: str = "auto",
        prior_discover: DiscoverResult | None = None,
        timeouts: Timeouts | None = None,
        heartbeat: Heartbeat | None = DEFAULT_HEARTBEAT,
        restart: Restart | None = DEFAULT_RESTART,
        limits: Limits | None = None,
        auth: Auth | None = None,
        client_info: Implementation | None = None,
        auto_initialize: bool = True,
        roots: RootsList | RootsHandler | None = None,
        sampling_handler: SamplingHandler | None = None,
        sampling_capabilities: SamplingCapability | None = None,
        elicitation_handler: ElicitationHandler | None = None,
        log_handler: LogHandler | None = None,
        message_handler: MessageHandler | MessageHandlerFunction | None = None,
        progress_handler: ProgressHandler | None = None,
        extensions: Sequence[ClientExtension] | None = None,
        cache: CacheConfig | None = DEFAULT_CACHE,
        log_level: LoggingLevel | None = None,
        strict_schemas: bool = False,
    ) -> None:
        source = configured(source)
        transport = infer_transport(source, auth=auth)
        seconds = configured_timeout(source)
        self._open(
            ClientSettings(
                transport=transport,
                older_transport=older_transport(source, transport),
                name=name or f"client of {transport.describe}",
                mode=_checked_mode(mode),
                prior_discover=prior_discover,
                timeouts=timeouts or (Timeouts() if seconds is None else Timeouts(call=seconds)),
                heartbeat=heartbeat,
                restart=restart,
                limits=limits or Limits(),
                client_info=client_info,
                auto_initialize=auto_initialize,
                callbacks=Callbacks.of(
                    roots=roots,
                    sampling_handler=sampling_handler,
                    sampling_capabilities=sampling_capabilities,
                    elicitation_handler=elicitation_handler,
                    log_handler=log_handler,
                    message_handler=message_handler,
                ),
                progress_handler=progress_handler,
                extensions=Extensions.of(extensions),
                cache=cache,
                # Modern servers send nothing that is not asked for, and who gives a handler wants to hear.
                log_level=log_level or ("debug" if log_handler is not None else None),
                strict_schemas=strict_schemas,
            ),
            task_group,
            KnownServer(),
        )

    def _open(
        self, settings: ClientSettings, task_group: anyio.abc.TaskGroup | None, known_server: KnownServer
    ) -> None:
        self._settings = settings
        self._known_server = known_server
        self._task_group = task_group
        self._server = server_attributes(settings.transport)
        self._timeouts = settings.timeouts
        self._restart = settings.restart
        self._progress_handler = settings.progress_handler
        self._initialized = False
        self._tasks = TaskRegistry()
        self._keeper = SessionKeeper(
            settings.name,
            lambda on_state, after: SessionActor(self._session_settings(), on_state=on_state, after=after),
            restart=settings.restart,
        )
        self._doors = Doors(
            settings.name,
            self._keeper,
            tasks=task_group,
            close_seconds=settings.timeouts.close_seconds,
        )

    def __repr__(self) -> str:
        return f"<Client {self.name!r} {self.state.value}>"

    # The doors

    async def __aenter__(self) -> Self:
        """Hold the session, started if there is none; returns when requests succeed.

        Raises `MCPError` or `HTTPStatusError` if the server refused, `DeadlineExceededError` (phase
        `connect`), else `ConnectError` from what stopped it; `NotConnectedError` if the task group is
        closed or cancelled. A failed or cancelled entry leaves nothing behind.
        """
        await self._doors.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Let go of the session. The last one out waits for its end, bounded by `Timeouts.close`."""
        return await self._doors.leave(exc_type, exc, traceback)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the session open until `close()` or cancellation: `await tg.start(client.run)`.

        `started()` when requests succeed; raises what `async with client` raises when they cannot.
        """
        await self._doors.serve(task_status=task_status)

    async def close(self) -> None:
        """End the session now, for everybody: calls in flight raise `SessionLostError` (`closed`).

        Returns when nothing of it is left, bounded by `Timeouts.close`; a cancelled close goes on
        without its caller. Closing again is harmless, and the client can be entered anew.
        """
        self._keeper.close()
        await self._keeper.wait_closed()

    def new(self, *, task_group: anyio.abc.TaskGroup | None = None) -> Client:
        """An independent client of the same configuration, with a session of its own.

        In the same task group, if one was supplied, or in the one given. It knows what this one has found
        out about the server's era.
        """
        client = Client.__new__(type(self))
        client._open(self._settings, task_group or self._task_group, self._known_server)
        return client

    # What is known

    @property
    def name(self) -> str:
        """What this client is called in logs, task names and errors."""
        return self._settings.name

    @property
    def transport(self) -> Transport:
        """How the server is reached."""
        older = self._settings.older_transport if self._known_server.is_on_older_transport else None
        return older or self._settings.transport

    @property
    def state(self) -> SessionState:
        """Where the current session is; `NEW` when there has been none."""
        actor = self._keeper.actor
        return SessionState.NEW if actor is None else actor.state

    def state_changes(self) -> AbstractContextManager[ObjectReceiveStream[SessionState]]:
        """Watch sessions come and go: `with client.state_changes() as states: async for state in ...`.

        Yields every state entered from now on, restarts included, until the block is left. A watcher
        that falls behind misses the oldest.
        """
        return self._keeper.watch()

    def is_connected(self) -> bool:
        """Whether requests succeed right now, as far as is known."""
        actor = self._keeper.actor
        return actor is not None and actor.is_ready

    @property
    def session(self) -> TypedSession:
        """The SDK's `ClientSession`, guarded like every call: its requests fail when the session does.

        Raises `NotConnectedError` outside a context, or why the session has ended.
        """
        self._keeper.check_loop()
        actor = self._keeper.actor
        if actor is None or not len(self._keeper.leases):
            raise NotConnectedError(f"{self.name} is not connected")
        return actor.session

    async def initialize(self, *, timeout: Timeout = DEFAULT) -> InitializeResult:
        """Negotiate with the server, if that has not been done: for `auto_initialize=False`.

        Returns what is known of the server. Raises what entering a client raises.
        """

        async def act(session: TypedSession, deadline: CallDeadline) -> InitializeResult:
            try:
                await negotiate(session, deadline)
            except Exception as error:
                if not self._keeper.goes_another_way_after(error):
                    raise
                session = await self._keeper.session(deadline)
                await negotiate(session, deadline)
            return _known(session)

        async def negotiate(session: TypedSession, deadline: CallDeadline) -> None:
            await session.negotiate(
                self._settings.mode,
                deadline,
                seconds=deadline.remaining(),
                prior=self._settings.prior_discover,
            )

        known = await self._operate("initialize", act, timeout=timeout)
        # A session that replaces this one must speak the same language without being asked.
        self._initialized = True
        return known

    @property
    def initialize_result(self) -> InitializeResult:
        """What the server said of itself, in either era. Raises `NotConnectedError` before it did."""
        return _known(self.session)

    @property
    def discover_result(self) -> DiscoverResult | None:
        """The server's own `server/discover` result; None in the era before."""
        return self.session.discover_result

    @property
    def protocol_version(self) -> str | None:
        """The negotiated protocol version; None before negotiation."""
        return self.session.protocol_version

    @property
    def server_info(self) -> Implementation | None:
        """The server's name and version; optional in the modern era."""
        return self.session.server_info

    @property
    def server_capabilities(self) -> ServerCapabilities | None:
        """What the server says it can do; None before negotiation."""
        return self.session.server_capabilities

    @property
    def instructions(self) -> str | None:
        """The server's hints for its use, if it gave any."""
        return self.session.instructions

    def stats(self) -> SessionStats:
        """A snapshot of what the current session has going and has dropped."""
        return self._keeper.stats()

    # Handlers

    def set_roots(self, roots: RootsList | RootsHandler) -> None:
        """Answer the server's next question for roots with these. Does not notify the server: see
        `send_roots_list_changed`. A session that was opened without roots does not offer them."""
        self._replace(roots=handlers.roots_callback(roots))

    def set_sampling_callback(
        self,
        sampling_callback: SamplingHandler,
        sampling_capabilities: SamplingCapability | None = None,
    ) -> None:
        """Use this handler from now on. Capabilities are declared when a session is opened."""
        self._replace(
            sampling=handlers.sampling_callback(sampling_callback),
            sampling_capabilities=sampling_capabilities,
        )

    def set_elicitation_callback(self, elicitation_callback: ElicitationHandler) -> None:
        """Use this handler from now on. Capabilities are declared when a session is opened."""
        self._replace(elicitation=handlers.elicitation_callback(elicitation_callback))

    def _replace(self, **callbacks: Any) -> None:
        self._settings = replace(self._settings, callbacks=replace(self._settings.callbacks, **callbacks))

    def _session_settings(self) -> SessionSettings:
        settings = self._settings
        return SessionSettings(
            name=settings.name,
            transport=settings.transport,
            older_transport=settings.older_transport,
            known=self._known_server,
            mode=settings.mode,
            prior_discover=settings.prior_discover,
            timeouts=settings.timeouts,
            limits=settings.limits,
            heartbeat=settings.heartbeat,
            auto_initialize=settings.auto_initialize or self._initialized,
            typed_layer=lambda dispatcher, failure: typed_session(
                dispatcher,
                failure,
                callbacks=lambda: self._settings.callbacks,
                client_info=settings.client_info or own_client_info(),
                tasks=self._tasks,
                extensions=settings.extensions,
                responses=settings.open_responses,
                max_rounds=settings.limits.max_input_rounds,
                log_level=settings.log_level,
                known_server=self._known_server,
                default_ttl_ms=0 if settings.cache is None else settings.cache.default_ttl_ms,
                strict_schemas=settings.strict_schemas,
            ),
        )


def _known(session: TypedSession) -> InitializeResult:
    if session.initialize_result is not None:
        return session.initialize_result
    if session.server_capabilities is None or session.protocol_version is None:
        raise NotConnectedError("nothing has been negotiated yet; call initialize()")
    return InitializeResult(
        protocol_version=session.protocol_version,
        capabilities=session.server_capabilities,
        server_info=session.server_info or Implementation(name="", version=""),
        instructions=session.instructions,
    )


def _checked_mode(mode: str) -> str:
    if mode in ("auto", "legacy", *MODERN_PROTOCOL_VERSIONS):
        return mode
    known = ", ".join(repr(each) for each in ("auto", "legacy", *MODERN_PROTOCOL_VERSIONS))
    hint = "; versions up to it are negotiated by 'legacy'" if mode in HANDSHAKE_PROTOCOL_VERSIONS else ""
    raise ValueError(f"mode must be one of {known}, not {mode!r}{hint}")
