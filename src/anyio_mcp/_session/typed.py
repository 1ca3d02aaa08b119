"""The SDK's `ClientSession` on our dispatcher, with the user's callbacks plugged in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from mcp import ClientSession
from mcp.client.session import ClientRequestContext, IncomingMessage
from mcp.types import (
    METHOD_NOT_FOUND,
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    Implementation,
    ListRootsResult,
    LoggingMessageNotificationParams,
    ToolListChangedNotification,
)

from anyio_mcp._session.catalog import ToolCatalog
from anyio_mcp._session.dispatcher import SessionDispatcher
from anyio_mcp._session.watchdog import SessionFailure
from anyio_mcp.settings import Callbacks


@final
class TypedSession(ClientSession):
    """The SDK's session, with what this library knows of its tools."""

    def __init__(self, failure: SessionFailure, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.failure = failure
        self.catalog = ToolCatalog(self, failure)


def typed_session(
    dispatcher: SessionDispatcher,
    failure: SessionFailure,
    *,
    callbacks: Callable[[], Callbacks],
    client_info: Implementation | None,
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
        if isinstance(message, ToolListChangedNotification):
            session.catalog.forget()
        handler = callbacks().message
        if handler is not None:
            await handler(message)

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
    )
    return session
