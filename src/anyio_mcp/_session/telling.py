"""A notification on its way to the user's handlers: read, then told to whom it concerns.

In place of the SDK's own, which writes a traceback into the log for each that does not validate, as fast as
the server likes. Those are counted, and logged at a bounded rate. Notifications of extensions go to their
handlers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from mcp.client import NotificationBinding
from mcp.client.session import IncomingMessage
from mcp.shared.dispatcher import DispatchContext
from mcp.shared.transport_context import TransportContext
from mcp.types import (
    CancelledNotification,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
)
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic import ValidationError

from anyio_mcp._session.questions import read_notification
from anyio_mcp._session.receiver import Violations
from anyio_mcp._text import BoundedLog, get_logger

logger = get_logger(__name__)

_BEFORE_THE_HANDSHAKE: Final = HANDSHAKE_PROTOCOL_VERSIONS[-1]

_NAMED_ERRORS: Final = 20
"""Of a notification with more errors than that none is named: the list of them is made for all."""


@final
@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Telling:
    """Who hears of the notifications of one session."""

    log: Callable[[LoggingMessageNotificationParams], Awaitable[None]]
    message: Callable[[IncomingMessage], Awaitable[None]]
    bindings: Mapping[str, NotificationBinding[Any]]
    violations: Violations
    version: Callable[[], str | None]
    _refusals: BoundedLog = field(default_factory=BoundedLog)

    async def __call__(
        self, _: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None
    ) -> None:
        """Tell of one notification. The callbacks contain what the user's handlers raise."""
        version = self.version() or _BEFORE_THE_HANDSHAKE
        try:
            notification = read_notification(method, version, params)
        except KeyError:
            # Not of this version of the protocol: an extension may know it.
            binding = self.bindings.get(method)
            if binding is not None:
                await self._tell_extension(binding, params)
            return
        except ValidationError as error:
            self._refuse(method, error)
            return
        if isinstance(notification, CancelledNotification):
            return  # acted on already, where it was received
        if isinstance(notification, LoggingMessageNotification):
            await self.log(notification.params)
        await self.message(notification)

    async def _tell_extension(
        self, binding: NotificationBinding[Any], params: Mapping[str, Any] | None
    ) -> None:
        try:
            parsed = binding.params_type.model_validate(params or {})
        except ValidationError as error:
            self._refuse(binding.method, error)
            return
        try:
            await binding.handler(parsed)
        except Exception:  # an extension's handler: it costs this notification
            logger.exception("the handler of %r raised", binding.method)

    def _refuse(self, method: str, error: ValidationError) -> None:
        text = f"{method!r} does not validate"
        if error.error_count() <= _NAMED_ERRORS:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:80]
            text = f"{text}: {where}: {first['msg'][:200]}"
        self.violations.add(text)
        if (more := self._refusals.line()) is not None:
            logger.warning("dropped a notification: %s%s", text, more)
