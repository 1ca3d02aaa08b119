"""The SDK's `ClientSession` on our dispatcher, with the user's callbacks plugged in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, final

import anyio
from mcp import ClientSession
from mcp.client.session import ClientRequestContext, IncomingMessage
from mcp.types import (
    METHOD_NOT_FOUND,
    CallToolResult,
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    Implementation,
    ListRootsResult,
    LoggingMessageNotificationParams,
)

from anyio_mcp._session.catalog import ToolCatalog
from anyio_mcp._session.dispatcher import SessionDispatcher
from anyio_mcp._session.negotiation import negotiate
from anyio_mcp._session.tasks.dialects import dialect_of
from anyio_mcp._session.tasks.driver import follow_for_caller, forsake_unclaimed
from anyio_mcp._session.tasks.extension import TasksExtension
from anyio_mcp._session.tasks.records import TaskRegistry
from anyio_mcp._session.tasks.starting import CreatedTask
from anyio_mcp._session.watchdog import CallDeadline, SessionFailure, current_deadline, guard
from anyio_mcp.config import DEFAULT_CALL_SECONDS, DEFAULT_TOTAL_SECONDS
from anyio_mcp.settings import Callbacks


@final
class TypedSession(ClientSession):
    """The SDK's session, with what this library knows of its tools."""

    def __init__(
        self,
        failure: SessionFailure,
        *,
        dispatcher: SessionDispatcher,
        tasks_extension: TasksExtension,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            dispatcher=dispatcher,
            extensions={tasks_extension.identifier: tasks_extension.settings()},
            result_claims={tasks_extension.identifier: tasks_extension.claims()},
            notification_bindings=tasks_extension.notifications(),
            **kwargs,
        )
        self.tasks_extension = tasks_extension
        self.failure = failure
        self.dispatcher = dispatcher
        self.errands = dispatcher.errands
        self.catalog = ToolCatalog(self, failure)
        # Not in a handler: those run behind what has arrived, and a result that came after the change
        # must not be held against the tools before it.
        dispatcher.observers["notifications/tools/list_changed"] = self.catalog.forget
        self._negotiating: anyio.Event | None = None

    async def negotiate(self, mode: str, deadline: CallDeadline) -> None:
        """Settle the era, once, however many tasks ask for it at the same time."""
        while self.protocol_version is None:
            if self._negotiating is not None:
                with guard(self.failure, deadline, what="waiting for the negotiation"):
                    await self._negotiating.wait()
                continue
            done = self._negotiating = anyio.Event()
            try:
                await negotiate(self, mode, seconds=deadline.remaining())
            finally:
                # On every path, so that the next in line takes over when this task was cancelled.
                self._negotiating = None
                done.set()


def typed_session(
    dispatcher: SessionDispatcher,
    failure: SessionFailure,
    *,
    callbacks: Callable[[], Callbacks],
    client_info: Implementation | None,
    tasks: TaskRegistry,
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
        return unsupported if handler is None else await handler(context, params)

    async def elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        handler = callbacks().elicitation
        return unsupported if handler is None else await handler(context, params)

    async def list_roots(context: ClientRequestContext) -> ListRootsResult | ErrorData:
        handler = callbacks().roots
        return unsupported if handler is None else await handler(context)

    async def log(params: LoggingMessageNotificationParams) -> None:
        await callbacks().logging(params)

    async def notice(message: IncomingMessage) -> None:
        handler = callbacks().message
        if handler is not None:
            await handler(message)

    async def finish_task(created: CreatedTask) -> CallToolResult:
        deadline = current_deadline.get() or CallDeadline(DEFAULT_CALL_SECONDS, DEFAULT_TOTAL_SECONDS)
        record = tasks.start(created.snapshot())
        return CallToolResult.model_validate(await follow_for_caller(session, record, deadline))

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
        logging_callback=log,
        message_handler=notice,
        client_info=client_info,
        tasks_extension=extension,
    )
    dispatcher.on_unclaimed = partial(forsake_unclaimed, session)
    return session
