"""The SDK's `ClientSession` on our dispatcher, with the user's callbacks plugged in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import cached_property, partial
from typing import Any, TypeVar, cast, final

import anyio
from mcp import ClientSession
from mcp.client import CacheMode
from mcp.client.session import ClientRequestContext, IncomingMessage
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.message import ClientMessageMetadata
from mcp.types import (
    METHOD_NOT_FOUND,
    CallToolResult,
    ClientNotification,
    ClientRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    DiscoverResult,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    Implementation,
    InitializeResult,
    ListRootsResult,
    ListToolsRequest,
    ListToolsResult,
    LoggingLevel,
    LoggingMessageNotificationParams,
    PaginatedRequestParams,
    Request,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, TypeAdapter, ValidationError

from anyio_mcp._sendable import check_sendable
from anyio_mcp._session.catalog import ListPage, ToolCatalog, list_all_tools
from anyio_mcp._session.checking import ResultChecker
from anyio_mcp._session.dispatcher import SessionDispatcher
from anyio_mcp._session.errands import Errands
from anyio_mcp._session.extensions import Extensions
from anyio_mcp._session.header_annotations import annotated
from anyio_mcp._session.negotiation import KnownServer, negotiate
from anyio_mcp._session.reading import Answer, LenientDispatcher, current_answer, read_result
from anyio_mcp._session.responses import ResponseCache
from anyio_mcp._session.tasks.dialects import dialect_of
from anyio_mcp._session.tasks.driver import follow_for_caller, forsake_unclaimed
from anyio_mcp._session.tasks.extension import TasksExtension
from anyio_mcp._session.tasks.records import TaskRegistry
from anyio_mcp._session.tasks.starting import CreatedTask
from anyio_mcp._session.telling import Telling
from anyio_mcp._session.watchdog import CallDeadline, SessionFailure, current_deadline, guard
from anyio_mcp.config import DEFAULT_CALL_SECONDS, DEFAULT_TOTAL_SECONDS
from anyio_mcp.settings import Callbacks

_Result = TypeVar("_Result")
_ReadT = TypeVar("_ReadT", bound=BaseModel)

_served: ContextVar[ListToolsResult | None] = ContextVar("anyio_mcp_served", default=None)
"""A list of tools that was kept, while the SDK's session takes it for the answer to its request."""

OpenResponses = Callable[[Callable[[], str | None], Errands], ResponseCache | None]
"""Makes the kept results of a session, from its protocol version and its errands; None keeps none."""


@final
class TypedSession(ClientSession):
    """The SDK's session, with what this library knows of its tools."""

    def __init__(
        self,
        failure: SessionFailure,
        *,
        dispatcher: SessionDispatcher,
        tasks_extension: TasksExtension,
        extensions: Extensions,
        responses: OpenResponses,
        max_rounds: int,
        known_server: KnownServer,
        default_ttl_ms: int,
        strict_schemas: bool,
        **kwargs: Any,
    ) -> None:
        self._reader = LenientDispatcher(
            dispatcher, version=lambda: self.protocol_version, default_ttl_ms=default_ttl_ms
        )
        super().__init__(
            dispatcher=self._reader,
            extensions={**extensions.advertised, tasks_extension.identifier: tasks_extension.settings()},
            result_claims={**extensions.claims, tasks_extension.identifier: tasks_extension.claims()},
            **kwargs,
        )
        self.tasks_extension = tasks_extension
        self.extensions = extensions
        self.failure = failure
        self.max_rounds = max_rounds
        self.dispatcher = dispatcher
        self.errands = dispatcher.errands
        claimed = [*extensions.claims.values(), tasks_extension.claims()]
        dispatcher.result_types |= {claim.result_type for claims in claimed for claim in claims}
        self.catalog = ToolCatalog(self.tools_page(), failure)
        self.results = ResultChecker(
            self.catalog, lambda: list_all_tools(self.tools_page("refresh")), strict=strict_schemas
        )
        self._responses = responses(lambda: self.protocol_version, dispatcher.errands)
        # Not in handlers: those run behind what has arrived, and a result that came after the change
        # must not be held against what was there before it.
        dispatcher.observers.update(
            {
                "notifications/tools/list_changed": lambda _: self._on_tools_changed(),
                "notifications/prompts/list_changed": lambda _: self._forget("prompts/list"),
                "notifications/resources/list_changed": lambda _: self._on_resources_changed(),
                "notifications/resources/updated": self._on_resource_updated,
            }
        )
        self._annotated: set[str] = set()
        """Names of the tools whose annotations the SDK's session knows, or has known."""
        self._negotiating: anyio.Event | None = None
        self._known_server = known_server
        self.is_probing = False
        """`server/discover` has been sent, and nothing has come of it yet."""

    async def send_request(
        self,
        request: ClientRequest | Request[Any, Any],
        result_type: type[_ReadT] | TypeAdapter[_ReadT],
        request_read_timeout_seconds: float | None = None,
        metadata: ClientMessageMetadata | None = None,
        progress_callback: ProgressFnT | None = None,
    ) -> _ReadT:
        """As the SDK's, of a request that is sent as it is, with an answer that is read as far as it can be.

        Raises `ValueError` and `TypeError` for what JSON cannot say, before anything is sent, and
        `RequestFailedError` (`violation`), which carries the answer, for one that cannot be read.
        """
        served = _served.get()
        if served is not None:
            return cast("_ReadT", served)
        # Before the SDK makes it JSON, and null of NaN.
        check_sendable(request.params, request.method)
        answer = Answer()
        token = current_answer.set(answer)
        try:
            result = await super().send_request(
                request, result_type, request_read_timeout_seconds, metadata, progress_callback
            )
        except ValidationError as error:
            answer.unreadable(error)
        finally:
            current_answer.reset(token)
        return answer.complete(result)

    async def send_notification(self, notification: ClientNotification) -> None:
        """As the SDK's, of a notification that is sent as it is. Raises as `send_request` does."""
        check_sendable(notification.params, notification.method)
        await super().send_notification(notification)

    def blames_the_probe(self) -> bool:
        """The server has ended the session. Whether it did so over `server/discover`; if so, the next
        session does without."""
        if self.is_probing:
            self._known_server.is_older = True
        return self.is_probing

    async def handshake(self, version: str) -> InitializeResult:
        """Initialize, with an offer of `version`."""
        self._reader.offer = version
        return await self.initialize()

    @cached_property
    def tool_answers(self) -> TypeAdapter[BaseModel]:
        """What may come back from `tools/call`, once the version is negotiated."""
        return self.extensions.answers(self.protocol_version)

    async def validate_tool_result(self, name: str, result: CallToolResult) -> None:
        """What the SDK's session does with each result, by our checker: the SDK's may take for ever.

        Raises `ResultSchemaError`, which is a `RuntimeError` as the SDK's.
        """
        await self.results.present(name, result, _deadline_of_call())

    async def list_tools(self, *, params: PaginatedRequestParams | None = None) -> ListToolsResult:
        """One page of tools. A listing of one page is what results are checked against from now on."""
        changes = self.catalog.changes
        if self.protocol_version in MODERN_PROTOCOL_VERSIONS:
            result = await self._list_annotated_tools(params)
        else:
            result = await super().list_tools(params=params)
        is_all = (params is None or params.cursor is None) and result.next_cursor is None
        if is_all and changes == self.catalog.changes:
            self.catalog.learn(result.tools)
        return result

    async def _list_annotated_tools(self, params: PaginatedRequestParams | None) -> ListToolsResult:
        """The SDK's session searches the input schemas of what it lists; it is given only what it must."""
        page = _served.get()
        if page is None:
            page = await self.send_request(ListToolsRequest(params=params), ListToolsResult)
        tools, parts = await annotated(page.tools, self._annotated)
        refused: set[int] = set()
        for place, part in enumerate(parts):
            # Of a tool that it is not shown, the SDK's session knows no annotations, which is right. The
            # first part is all there is to it, and has it forget the others; what follows is added.
            more = page.next_cursor if place == 0 else "more"
            token = _served.set(page.model_copy(update={"tools": part, "next_cursor": more}))
            try:
                searched = await super().list_tools(params=params)
            finally:
                _served.reset(token)
            kept = {id(tool) for tool in searched.tools}
            refused |= {id(tool) for tool in part if id(tool) not in kept}
            self._annotated |= {tool.name for tool in part}
            await anyio.lowlevel.checkpoint()
        if page.next_cursor is None and (params is None or params.cursor is None):
            # All there is: what the server does not list any more is known by nobody.
            self._annotated = {tool.name for part in parts for tool in part}
        page.tools = [tool for tool in tools if id(tool) not in refused]
        return page

    @property
    def cache_hits(self) -> int:
        """Results that were served without asking the server."""
        return 0 if self._responses is None else self._responses.hits

    async def cached(
        self,
        method: str,
        send: Callable[[], Awaitable[_Result]],
        *,
        params: str = "",
        cursor: str | None = None,
        mode: CacheMode = "use",
    ) -> _Result:
        """What `send` brings, or what it brought before, if the server said that this is as good."""
        if self._responses is None:
            return await send()
        if cursor is not None:
            return await self._responses.continued(method, send)
        return await self._responses.fetch(method, params, mode, send)

    def tools_page(self, mode: CacheMode = "use") -> ListPage:
        """One page of tools. From the SDK's session, which learns schemas and headers from what it lists."""

        async def list_page(params: PaginatedRequestParams | None) -> ListToolsResult:
            asked = False

            async def ask() -> ListToolsResult:
                nonlocal asked
                asked = True
                return await self.list_tools(params=params)

            cursor = None if params is None else params.cursor
            page = await self.cached("tools/list", ask, cursor=cursor, mode=mode)
            if asked or self._responses is None or not self._responses.is_shared:
                return page
            # Another session has listed it: the SDK's session learns from it as from an answer.
            token = _served.set(page)
            try:
                return await self.list_tools(params=params)
            finally:
                _served.reset(token)

        return list_page

    def _forget(self, method: str, params: str = "") -> None:
        if self._responses is not None:
            self._responses.forget(method, params)

    def _on_tools_changed(self) -> None:
        self.catalog.forget()
        self._forget("tools/list")

    def _on_resources_changed(self) -> None:
        self._forget("resources/list")
        self._forget("resources/templates/list")

    def _on_resource_updated(self, params: Mapping[str, Any]) -> None:
        uri = params.get("uri")
        if isinstance(uri, str):
            self._forget("resources/read", uri)

    async def negotiate(
        self, mode: str, deadline: CallDeadline, *, seconds: float, prior: DiscoverResult | None = None
    ) -> None:
        """Settle the era, once, however many tasks ask for it at the same time.

        `seconds` is what connecting may take, of which the probe uses a part.
        """
        while self.protocol_version is None:
            if self._negotiating is not None:
                with guard(self.failure, deadline, what="waiting for the negotiation"):
                    await self._negotiating.wait()
                continue
            done = self._negotiating = anyio.Event()
            try:
                await negotiate(self, mode, seconds=seconds, known=self._known_server, prior=prior)
            finally:
                # On every path, so that the next in line takes over when this task was cancelled.
                self._negotiating = None
                done.set()


def _deadline_of_call() -> CallDeadline:
    """Of the public call this code runs for, or one like it."""
    return current_deadline.get() or CallDeadline(DEFAULT_CALL_SECONDS, DEFAULT_TOTAL_SECONDS)


def typed_session(
    dispatcher: SessionDispatcher,
    failure: SessionFailure,
    *,
    callbacks: Callable[[], Callbacks],
    client_info: Implementation | None,
    tasks: TaskRegistry,
    extensions: Extensions,
    responses: OpenResponses,
    max_rounds: int,
    log_level: LoggingLevel | None,
    known_server: KnownServer,
    default_ttl_ms: int,
    strict_schemas: bool,
) -> TypedSession:
    """A session whose callbacks are looked up when they are needed.

    So a handler set on the client takes effect at once; which capabilities are declared is settled
    here, by the handlers there are.
    """
    unsupported = ErrorData(code=METHOD_NOT_FOUND, message="The client has no handler for this")

    async def sample(
        context: ClientRequestContext, params: CreateMessageRequestParams
    ) -> CreateMessageResult | CreateMessageResultWithTools | ErrorData:
        handler = callbacks().sampling
        if handler is None:
            return unsupported
        return check_sendable(await handler(context, params), "the result of sampling")

    async def elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        handler = callbacks().elicitation
        if handler is None:
            return unsupported
        return check_sendable(await handler(context, params), "the answer to an elicitation")

    async def list_roots(context: ClientRequestContext) -> ListRootsResult | ErrorData:
        handler = callbacks().roots
        return unsupported if handler is None else check_sendable(await handler(context), "the roots")

    async def log(params: LoggingMessageNotificationParams) -> None:
        await callbacks().logging(params)

    async def notice(message: IncomingMessage) -> None:
        handler = callbacks().message
        if handler is not None:
            await handler(message)

    async def finish_task(created: CreatedTask) -> CallToolResult:
        record = tasks.start(created.snapshot())
        raw = await follow_for_caller(session, record, _deadline_of_call())
        return await read_result("tools/call", raw, CallToolResult)

    extension = TasksExtension(
        tasks, dispatcher.errands, lambda: dialect_of(session.protocol_version), finish_task
    )
    given = callbacks()
    session = TypedSession(
        failure,
        dispatcher=dispatcher,
        sampling_callback=None if given.sampling is None else sample,
        sampling_capabilities=given.sampling_capabilities,
        elicitation_callback=None if given.elicitation is None else elicit,
        list_roots_callback=None if given.roots is None else list_roots,
        client_info=client_info,
        log_level=log_level,
        tasks_extension=extension,
        extensions=extensions,
        responses=responses,
        max_rounds=max_rounds,
        known_server=known_server,
        default_ttl_ms=default_ttl_ms,
        strict_schemas=strict_schemas,
    )
    bindings = [*extensions.bindings, *extension.notifications()]
    dispatcher.tell = Telling(
        log=log,
        message=notice,
        bindings={binding.method: binding for binding in bindings},
        violations=dispatcher.violations,
        version=lambda: session.protocol_version,
    )
    dispatcher.on_unclaimed = partial(forsake_unclaimed, session)
    return session
