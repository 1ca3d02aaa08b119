"""Multi round-trip requests of the modern era: a result that asks for input, answered and sent again.

The same handlers answer as for a server's own requests in the era before. Runs under the deadline of
the public call it belongs to; knows nothing of which operation that is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
from mcp.client.session import ClientRequestContext
from mcp.types import ErrorData, InputRequest, InputRequiredResult, InputResponse, InputResponses

from anyio_mcp._session.watchdog import CallDeadline, SessionFailure, guard
from anyio_mcp.errors import MCPError, RequestFailedError

if TYPE_CHECKING:
    from anyio_mcp._session.typed import TypedSession

_PAUSE: Final = (0.05, 0.1, 0.25)
"""Seconds before trying again when a round asks for nothing but patience; the last one repeats."""

_T = TypeVar("_T")

Retry = Callable[[InputResponses | None, str | None], Awaitable[_T | InputRequiredResult]]
"""Sends the request again, with a new id, the answers and the server's state, byte for byte."""


async def finish_rounds(
    first: _T | InputRequiredResult,
    retry: Retry[_T],
    *,
    session: TypedSession,
    failure: SessionFailure,
    deadline: CallDeadline,
    max_rounds: int,
) -> _T:
    """The final result, after as many rounds of input as the server wants, up to `max_rounds`: a server
    that never stops asking is no better than one that never answers.

    Raises `MCPError` when a handler refuses, `RequestFailedError` (`violation`) past the last round, and
    whatever the guard of a call raises.
    """
    current = first
    patience = 0
    for _ in range(max_rounds):
        if not isinstance(current, InputRequiredResult):
            return current
        answers: InputResponses | None = None
        with guard(failure, deadline, what="a round of input"):
            if current.input_requests:
                patience = 0
                answers = await answer_all(session, current.input_requests)
            else:
                await anyio.sleep(_PAUSE[min(patience, len(_PAUSE) - 1)])
                patience += 1
        current = await retry(answers, current.request_state)
    if isinstance(current, InputRequiredResult):
        raise RequestFailedError(
            f"the server still asks for input after {max_rounds} rounds", reason="violation"
        )
    return current


async def answer_all(session: TypedSession, requests: dict[str, InputRequest]) -> InputResponses:
    """Answer every request of one round, as many at the same time as the session has slots for questions
    of its server. The first refusal ends the round."""
    answers: InputResponses = {}
    refusals: list[Exception] = []
    slots = session.dispatcher.slots

    async def answer(key: str, request: InputRequest) -> None:
        meta = request.params.meta if request.params else None
        context = ClientRequestContext(session=session, request_id=key, meta=meta)
        try:
            response: InputResponse | ErrorData = await session.dispatch_input_request(context, request)
        except Exception as error:
            refusals.append(error)
        else:
            if not isinstance(response, ErrorData):
                answers[key] = response
                return
            refusals.append(MCPError.from_error_data(response))
        finally:
            slots.give_back()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for key, request in requests.items():
            await slots.wait()
            tasks.start_soon(answer, key, request, name=f"anyio_mcp input {key[:40]}")
    if refusals:
        raise refusals[0]
    return answers
