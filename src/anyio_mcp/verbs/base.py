"""What every operation is made of: a deadline, a live session, one or more requests, typed errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import Any, Final, Literal, TypeVar

import anyio
from mcp.client import CacheMode
from mcp.types import (
    ClientRequest,
    InputRequiredResult,
    InputResponses,
    PaginatedRequestParams,
    PaginatedResult,
)
from opentelemetry.util.types import AttributeValue
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json

from anyio_mcp._session.catalog import all_pages
from anyio_mcp._session.keeper import SessionKeeper
from anyio_mcp._session.rounds import finish_rounds
from anyio_mcp._session.typed import TypedSession
from anyio_mcp._session.watchdog import CallDeadline, call_deadline
from anyio_mcp.config import Restart, Timeouts, duration
from anyio_mcp.errors import RequestFailedError, SessionLostError
from anyio_mcp.telemetry import Measurement, operation


class Default(Enum):
    """The type of `DEFAULT`: the client's own setting applies."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT

Timeout = float | timedelta | Literal[Default.DEFAULT] | None
"""For the whole call: seconds or a `timedelta`; None or `math.inf` for no limit; `DEFAULT` for the client's
`Timeouts`."""

_T = TypeVar("_T")
_Model = TypeVar("_Model", bound=BaseModel)
_Page = TypeVar("_Page", bound=PaginatedResult)

FetchPage = Callable[[TypedSession, PaginatedRequestParams | None], Awaitable[_Page]]


class Operations:
    """The base of the verbs."""

    _keeper: SessionKeeper
    _timeouts: Timeouts
    _restart: Restart | None
    _server: Mapping[str, AttributeValue]
    """What measurements say of the server."""

    def _deadline(self, timeout: Timeout) -> CallDeadline:
        if timeout is DEFAULT:
            return CallDeadline(self._timeouts.call_seconds, self._timeouts.total_seconds)
        seconds = duration("timeout", timeout)
        return CallDeadline(seconds, seconds)

    async def _operate(
        self,
        method: str,
        act: Callable[[TypedSession, CallDeadline], Awaitable[_T]],
        *,
        timeout: Timeout,
        target: str | None = None,
        replay: bool = False,
        failed: Callable[[_T], bool] | None = None,
    ) -> _T:
        """Run one operation on a live session, under one deadline for all of it.

        `failed` tells of a result that it is a tool's failure, for the measurement.

        When the server has forgotten the session, the operation is sent once more in a new one: if
        the server refused it unseen, or if it changes nothing anyway (`replay`).
        """
        deadline = self._deadline(timeout)
        with (
            operation(method, target, self._server) as measurement,
            call_deadline(deadline),
        ):
            try:
                result = await self._attempt(act, deadline, measurement, replay=replay)
            except ValidationError as error:
                # Requests are validated where they are built, so this is the server's result.
                text = f"the server's answer to {method!r} does not conform to the protocol"
                # Not from it: pydantic's text quotes each wrong value, and a traceback would print it all.
                raise RequestFailedError(f"{text}: {_brief(error)}", reason="violation") from None
            if failed is not None and failed(result):
                measurement.tool_failed()
            return result

    async def _attempt(
        self,
        act: Callable[[TypedSession, CallDeadline], Awaitable[_T]],
        deadline: CallDeadline,
        measurement: Measurement,
        *,
        replay: bool,
    ) -> _T:
        session = await self._keeper.session(deadline)
        measurement.speaks(session.protocol_version)
        try:
            return await self._act_to_the_end(act, session, deadline)
        except SessionLostError as error:
            again = error.reason == "expired" and (error.refused or replay)
            if not again or self._restart is None:
                raise
        return await self._act_to_the_end(act, await self._keeper.session(deadline), deadline)

    async def _act_to_the_end(
        self,
        act: Callable[[TypedSession, CallDeadline], Awaitable[_T]],
        session: TypedSession,
        deadline: CallDeadline,
    ) -> _T:
        try:
            return await act(session, deadline)
        except SessionLostError as error:
            if error.reason == "expired" and self._restart is not None:
                # A moment, in which requests under way get the answers they can still get. Told earlier,
                # the caller's next call would be made in the session that is ending, and fail with it.
                with anyio.move_on_after(deadline.remaining()):
                    await session.failure.wait()
            raise

    async def _request(
        self,
        request: ClientRequest,
        result: type[_Model] | TypeAdapter[_Model],
        *,
        timeout: Timeout,
        target: str | None = None,
        replay: bool = False,
    ) -> _Model:
        """One request, one answer."""
        return await self._operate(
            request.method,
            lambda session, _: session.send_request(request, result),
            timeout=timeout,
            target=target,
            replay=replay,
        )

    async def _interact(
        self,
        build: Callable[[InputResponses | None, str | None], ClientRequest],
        result: TypeAdapter[_Model | InputRequiredResult],
        *,
        timeout: Timeout,
        target: str,
        cache_mode: CacheMode = "bypass",
    ) -> _Model:
        """A request that the server may answer by asking for input first (modern era).

        `cache_mode` is for methods whose result `target` alone determines. A result that took input
        is not kept: it depends on that as well.
        """
        request = build(None, None)

        async def act(session: TypedSession, deadline: CallDeadline) -> _Model:
            first = await session.cached(
                request.method, partial(session.send_request, request, result), params=target, mode=cache_mode
            )
            return await finish_rounds(
                first,
                lambda answers, state: session.send_request(build(answers, state), result),
                session=session,
                failure=session.failure,
                deadline=deadline,
                max_rounds=session.max_rounds,
            )

        return await self._operate(request.method, act, timeout=timeout, target=target, replay=True)

    async def _pages(
        self,
        method: str,
        fetch: FetchPage[_Page],
        *,
        max_pages: int,
        cache_mode: CacheMode,
        timeout: Timeout,
    ) -> list[_Page]:
        """All pages of a listing."""

        async def act(session: TypedSession, _: CallDeadline) -> list[_Page]:
            return await all_pages(_cached_page(session, method, fetch, cache_mode), max_pages=max_pages)

        return await self._operate(method, act, timeout=timeout, replay=True)

    async def _page(
        self,
        method: str,
        fetch: FetchPage[_Page],
        *,
        cursor: str | None,
        cache_mode: CacheMode,
        timeout: Timeout,
    ) -> _Page:
        """One page of a listing."""

        async def act(session: TypedSession, _: CallDeadline) -> _Page:
            return await _cached_page(session, method, fetch, cache_mode)(page(cursor))

        return await self._operate(method, act, timeout=timeout, replay=True)


def _cached_page(
    session: TypedSession, method: str, fetch: FetchPage[_Page], mode: CacheMode
) -> Callable[[PaginatedRequestParams | None], Awaitable[_Page]]:
    def cached(params: PaginatedRequestParams | None) -> Awaitable[_Page]:
        cursor = None if params is None else params.cursor
        return session.cached(method, partial(fetch, session, params), cursor=cursor, mode=mode)

    return cached


def page(cursor: str | None) -> PaginatedRequestParams | None:
    """The parameters of one page of a listing."""
    return None if cursor is None else PaginatedRequestParams(cursor=cursor)


def as_strings(arguments: dict[str, Any] | None) -> dict[str, str] | None:
    """The protocol knows string arguments only: others are sent as JSON text."""
    if arguments is None:
        return None
    return {
        key: value if isinstance(value, str) else to_json(value).decode() for key, value in arguments.items()
    }


def _brief(error: ValidationError) -> str:
    """The first thing wrong, without the input: a server's answer can be megabytes."""
    first: Any = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}"[:300]
