"""A user's handlers as the callbacks the protocol's session calls.

Owns the shapes of sampling, elicitation, roots, logging, message and progress handlers, and what
becomes of a handler that raises: a request is answered with an error, a notification is logged.
Knows nothing of sessions, deadlines or the wire: whoever runs a callback bounds the time it takes.

A handler is an async function. A plain function works too: it runs in a worker thread, so that it may
block, and is abandoned there when the server or the session cancels the request.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, final

from mcp import types
from mcp.client import ClientRequestContext, IncomingMessage
from mcp.client.session import (
    ElicitationFnT,
    ListRootsFnT,
    LoggingFnT,
    MessageHandlerFnT,
    SamplingFnT,
)
from mcp.shared.dispatcher import ProgressFnT

from anyio_mcp._text import get_logger, printable
from anyio_mcp.handlers.elicitation import answer_form, answer_url, check_link, form_of
from anyio_mcp.handlers.handler import Handler
from anyio_mcp.handlers.roots import RootsList, to_roots

LogMessage: TypeAlias = types.LoggingMessageNotificationParams

SamplingAnswer: TypeAlias = (
    str
    | types.SamplingMessageContentBlock
    | list[types.SamplingMessageContentBlock]
    | types.CreateMessageResult
    | types.CreateMessageResultWithTools
    | types.ErrorData
)
"""What a sampling handler may return: text or content of the assistant, or the whole result."""

SamplingHandler: TypeAlias = Callable[
    [list[types.SamplingMessage], types.CreateMessageRequestParams, ClientRequestContext],
    SamplingAnswer | Awaitable[SamplingAnswer],
]

ElicitationHandler: TypeAlias = Callable[
    [str, type[Any] | None, types.ElicitRequestParams, ClientRequestContext],
    Any,
]
"""`handler(message, response_type, params, context)`.

`response_type` is a dataclass made of the requested schema; None in URL mode and for a form without
fields. Returned data (an instance of it, another dataclass, a pydantic model, a dict, None for no
data) is an acceptance; `ElicitResult(action="decline")` or `"cancel"` is not.
"""

RootsHandler: TypeAlias = Callable[[ClientRequestContext], RootsList | Awaitable[RootsList]]

LogHandler: TypeAlias = Callable[[LogMessage], Awaitable[None] | None]

MessageHandlerFunction: TypeAlias = Callable[[IncomingMessage], Awaitable[None] | None]

ProgressHandler: TypeAlias = Callable[[float, float | None, str | None], Awaitable[None] | None]

_server_logger = get_logger("anyio_mcp.server")

DEFAULT_MODEL: Final = "unknown"
"""`model` of a sampling answer that is only text: the protocol wants a name, the handler gave none."""

MAX_LOG_TEXT: Final = 10_000
"""Characters of one log message of the server that are formatted; the rest is cut off."""

_LEVELS: Final[dict[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "alert": logging.CRITICAL,
    "emergency": logging.CRITICAL,
}


class MessageHandler:
    """Override the methods for the messages you want, as async methods; each gets the whole message.

    `on_message` sees everything, `on_exception` the faults of the transport, `on_notification` every
    notification, and the other methods one kind each. They are called in that order, the next one when
    the one before has returned. `notifications/cancelled` is acted on by the session and shown to
    nobody.
    """

    async def __call__(self, message: IncomingMessage) -> None:
        await self.dispatch(message)

    async def dispatch(self, message: IncomingMessage) -> None:
        """Call the methods that are meant for `message`."""
        await self.on_message(message)
        if isinstance(message, Exception):
            await self.on_exception(message)
            return
        await self.on_notification(message)
        match message:
            case types.ToolListChangedNotification():
                await self.on_tool_list_changed(message)
            case types.ResourceListChangedNotification():
                await self.on_resource_list_changed(message)
            case types.PromptListChangedNotification():
                await self.on_prompt_list_changed(message)
            case types.ResourceUpdatedNotification():
                await self.on_resource_updated(message)
            case types.ProgressNotification():
                await self.on_progress(message)
            case types.LoggingMessageNotification():
                await self.on_logging_message(message)
            case types.ElicitCompleteNotification():
                await self.on_elicitation_complete(message)
            case _:
                pass

    async def on_message(self, message: IncomingMessage) -> None:
        """Everything: notifications and faults."""

    async def on_exception(self, message: Exception) -> None:
        """A fault of the transport that belongs to no request."""

    async def on_notification(self, message: types.ServerNotification) -> None:
        """Every notification."""

    async def on_tool_list_changed(self, message: types.ToolListChangedNotification) -> None:
        """The list of tools changed."""

    async def on_resource_list_changed(self, message: types.ResourceListChangedNotification) -> None:
        """The list of resources changed."""

    async def on_prompt_list_changed(self, message: types.PromptListChangedNotification) -> None:
        """The list of prompts changed."""

    async def on_resource_updated(self, message: types.ResourceUpdatedNotification) -> None:
        """A subscribed resource changed."""

    async def on_progress(self, message: types.ProgressNotification) -> None:
        """Progress of any call; a call's own `progress_handler` gets it as well."""

    async def on_logging_message(self, message: types.LoggingMessageNotification) -> None:
        """A log message; the `log_handler` gets it as well."""

    async def on_elicitation_complete(self, message: types.ElicitCompleteNotification) -> None:
        """What the user was sent to a URL for is done."""


def sampling_callback(handler: SamplingHandler) -> SamplingFnT:
    """`handler(messages, params, context)` as the session's sampling callback."""
    run = Handler("sampling", handler)

    async def callback(
        context: ClientRequestContext, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData:
        try:
            return _sampling_result(await run(list(params.messages), params, context))
        except Exception as error:
            return run.failure(error)

    return callback


def elicitation_callback(handler: ElicitationHandler) -> ElicitationFnT:
    """`handler(message, response_type, params, context)` as the session's elicitation callback."""
    run = Handler("elicitation", handler)

    async def callback(
        context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        try:
            if isinstance(params, types.ElicitRequestURLParams):
                check_link(params.url)
                return answer_url(await run(params.message, None, params, context))
            form = await form_of(params.requested_schema)
            return answer_form(form, await run(params.message, form.response_type, params, context))
        except Exception as error:
            return run.failure(error)

    return callback


def roots_callback(roots: RootsList | RootsHandler) -> ListRootsFnT:
    """A list of roots, or `handler(context)` that returns one, as the session's roots callback.

    Raises `TypeError` and `ValueError` for a list with something else than absolute paths, `file://`
    URIs and roots. What a handler returns is checked when it does.
    """
    if not callable(roots):
        fixed = types.ListRootsResult(roots=to_roots(roots))

        async def static(context: ClientRequestContext) -> types.ListRootsResult | types.ErrorData:
            return fixed

        return static
    run = Handler("roots", roots)

    async def callback(context: ClientRequestContext) -> types.ListRootsResult | types.ErrorData:
        try:
            return types.ListRootsResult(roots=to_roots(await run(context)))
        except Exception as error:
            return run.failure(error)

    return callback


def logging_callback(handler: LogHandler | None = None) -> LoggingFnT:
    """`handler(message)` as the session's logging callback; None means `default_log_handler`."""
    run = Handler("log", handler or default_log_handler)

    async def callback(params: LogMessage) -> None:
        try:
            await run(params)
        except Exception as error:
            run.log(error)

    return callback


def message_callback(handler: MessageHandler | MessageHandlerFunction) -> MessageHandlerFnT:
    """A `MessageHandler`, or a function of one message, as the session's message handler."""
    run = Handler("message", handler)

    async def callback(message: IncomingMessage) -> None:
        try:
            await run(message)
        except Exception as error:
            run.log(error)

    return callback


def progress_callback(handler: ProgressHandler) -> ProgressFnT:
    """`handler(progress, total, message)` as the progress callback of a call."""
    run = Handler("progress", handler)

    async def callback(progress: float, total: float | None, message: str | None) -> None:
        try:
            await run(progress, total, message)
        except Exception as error:
            run.log(error)

    return callback


async def default_log_handler(message: LogMessage) -> None:
    """Pass a log message of the server to the logger `anyio_mcp.server`.

    `notice` is logged as INFO, `alert` and `emergency` as CRITICAL.
    """
    # Formatting costs what the server chooses: it waits until a record is written.
    _server_logger.log(
        _LEVELS[message.level], "%s: %s", _LogText(message.logger or "server"), _LogText(message.data)
    )


@final
class _LogText:
    """Text of the server on its way into a log record: formatted when one is written, and bounded."""

    __slots__ = ("_data",)

    def __init__(self, data: object) -> None:
        self._data = data

    def __str__(self) -> str:
        text = self._data if isinstance(self._data, str) else _json(self._data)
        return printable(text, MAX_LOG_TEXT)


def _json(data: object) -> str:
    """JSON text of `data`, ended early where the rest would be cut off anyway."""
    parts: list[str] = []
    length = 0
    for part in json.JSONEncoder(ensure_ascii=False, default=repr).iterencode(data):
        parts.append(part)
        length += len(part)
        if length > MAX_LOG_TEXT:
            break
    return "".join(parts)


def _sampling_result(
    answer: SamplingAnswer,
) -> types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData:
    match answer:
        case types.CreateMessageResult() | types.CreateMessageResultWithTools() | types.ErrorData():
            return answer
        case str():
            content = types.TextContent(type="text", text=answer)
            return types.CreateMessageResult(role="assistant", content=content, model=DEFAULT_MODEL)
        case types.TextContent() | types.ImageContent() | types.AudioContent():
            return types.CreateMessageResult(role="assistant", content=answer, model=DEFAULT_MODEL)
        case types.ToolUseContent() | types.ToolResultContent() | list():
            return types.CreateMessageResultWithTools(role="assistant", content=answer, model=DEFAULT_MODEL)
        case _:
            raise TypeError(
                "a sampling handler must return str, content or a CreateMessageResult, "
                f"not {type(answer).__name__}"
            )
