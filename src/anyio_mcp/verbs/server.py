"""Operations on the server as a whole: liveness, logging, completion, roots, notifications."""

from __future__ import annotations

from typing import Any

from mcp.types import (
    CancelledNotification,
    CancelledNotificationParams,
    ClientNotification,
    CompleteRequest,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    CompletionArgument,
    CompletionContext,
    DiscoverRequest,
    DiscoverResult,
    EmptyResult,
    LoggingLevel,
    PingRequest,
    ProgressNotification,
    ProgressNotificationParams,
    PromptReference,
    RequestId,
    RequestParams,
    ResourceTemplateReference,
    RootsListChangedNotification,
    SetLevelRequest,
    SetLevelRequestParams,
)

from anyio_mcp._session.typed import TypedSession
from anyio_mcp._session.watchdog import CallDeadline
from anyio_mcp.verbs.base import DEFAULT, Operations, Timeout, as_strings


class ServerVerbs(Operations):
    """Verbs that name no tool, resource or prompt."""

    async def ping(self, *, timeout: Timeout = DEFAULT) -> bool:
        """Ask the server for a sign of life: `ping`, or `server/discover` in the modern era, which
        has no ping.

        Returns True; raises `MCPError` if the server answers with an error, and like every call
        `DeadlineExceededError`, `RequestFailedError`, `HTTPStatusError` or `SessionLostError`.
        """

        async def act(session: TypedSession, deadline: CallDeadline) -> bool:
            if session.discover_result is not None:
                await session.send_request(DiscoverRequest(params=RequestParams()), DiscoverResult)
            else:
                await session.send_request(PingRequest(), EmptyResult)
            return True

        return await self._operate("ping", act, timeout=timeout, replay=True)

    async def set_logging_level(self, level: LoggingLevel, *, timeout: Timeout = DEFAULT) -> None:
        """Ask the server to send log messages from `level` up (2025-11-25 and before)."""
        request = SetLevelRequest(params=SetLevelRequestParams(level=level))
        await self._request(request, EmptyResult, timeout=timeout)

    async def complete(
        self,
        ref: ResourceTemplateReference | PromptReference,
        argument: dict[str, str],
        context_arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = DEFAULT,
    ) -> Completion:
        """Completions for one argument of a prompt or resource template: `{"name": ..., "value": ...}`."""
        result = await self.complete_mcp(ref, argument, context_arguments, timeout=timeout)
        return result.completion

    async def complete_mcp(
        self,
        ref: ResourceTemplateReference | PromptReference,
        argument: dict[str, str],
        context_arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = DEFAULT,
    ) -> CompleteResult:
        """`complete`, as the protocol's own result."""
        given = as_strings(context_arguments)
        context = None if given is None else CompletionContext(arguments=given)
        params = CompleteRequestParams(
            ref=ref, argument=CompletionArgument.model_validate(argument), context=context
        )
        return await self._request(
            CompleteRequest(params=params), CompleteResult, timeout=timeout, replay=True
        )

    async def cancel(
        self, request_id: RequestId, reason: str | None = None, *, timeout: Timeout = DEFAULT
    ) -> None:
        """Tell the server that the answer to a request is not wanted any more.

        The request itself goes on waiting: cancel its task or scope to stop that, which tells the
        server as well.
        """
        params = CancelledNotificationParams(request_id=request_id, reason=reason)
        await self._notify(CancelledNotification(params=params), timeout)

    async def progress(
        self,
        progress_token: str | int,
        progress: float,
        total: float | None = None,
        message: str | None = None,
        *,
        timeout: Timeout = DEFAULT,
    ) -> None:
        """Report progress on a request of the server (2025-11-25 and before)."""
        params = ProgressNotificationParams(
            progress_token=progress_token, progress=progress, total=total, message=message
        )
        await self._notify(ProgressNotification(params=params), timeout)

    async def send_roots_list_changed(self, *, timeout: Timeout = DEFAULT) -> None:
        """Tell the server that the roots have changed (2025-11-25 and before)."""
        await self._notify(RootsListChangedNotification(), timeout)

    async def _notify(self, notification: ClientNotification, timeout: Timeout) -> None:
        await self._operate(
            notification.method,
            lambda session, _: session.send_notification(notification),
            timeout=timeout,
        )
