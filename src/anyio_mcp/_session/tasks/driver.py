"""Following one task of the server to a state or to its result, in either dialect.

Polls, is woken by what the server pushes, and answers what the task asks. Every step counts against
the deadline of the public call it belongs to and ends with the session. It does not know what was made
a task, nor who wants the result.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
from mcp import MCPError
from mcp.types import InputRequest, InputResponses, Request

from anyio_mcp._session.questions import read_question
from anyio_mcp._session.rounds import answer_all
from anyio_mcp._session.tasks.dialects import RawResult, dialect_of
from anyio_mcp._session.tasks.pace import Pace
from anyio_mcp._session.tasks.records import TaskRecord
from anyio_mcp._session.tasks.wire import (
    TaskError,
    TaskSnapshot,
    TaskStatus,
    failure_of,
    read_created,
    read_snapshot,
)
from anyio_mcp._session.watchdog import CallDeadline, call_deadline, guard
from anyio_mcp._text import get_logger
from anyio_mcp.errors import RequestFailedError, fresh

if TYPE_CHECKING:
    from anyio_mcp._session.typed import TypedSession

logger = get_logger(__name__)

CANCEL_PATIENCE: Final = 10.0
"""Seconds that telling the server of an unwanted task may take. Nobody waits for it."""


async def ask_status(session: TypedSession, record: TaskRecord) -> TaskSnapshot:
    """Ask the server once. A task that has ended is not asked for again."""
    known = record.snapshot
    if known is not None and known.is_final:
        return known
    dialect = dialect_of(session.protocol_version)
    report = dialect.report(await _send(session, dialect.get(record.task_id)), record.task_id)
    record.apply(report, session.errands)
    # What was pushed meanwhile may be newer than the answer.
    return record.snapshot or report.snapshot


async def wait_for_state(
    session: TypedSession, record: TaskRecord, deadline: CallDeadline, state: TaskStatus | None
) -> TaskSnapshot:
    """Follow the task until it is in `state`, or has ended if that is None.

    Answers what it asks, unless `input_required` is waited for. Raises `TaskError` if it ends otherwise.
    """

    def reached(now: TaskSnapshot) -> bool:
        return now.is_final if state is None else now.status == state

    now = await ask_status(session, record)
    if not reached(now):
        now = await _follow(session, record, deadline, reached)
    if reached(now):
        return now
    raise TaskError(f"the task {record.task_id[:100]!r} is {now.status} and will not be {state}", task=now)


async def wait_for_result(
    session: TypedSession, record: TaskRecord, deadline: CallDeadline
) -> dict[str, Any]:
    """Follow the task to its end and return its raw result, of the shape of what was made a task.

    Raises the server's `MCPError` if it ended with one, `TaskError` if it was cancelled.
    """
    if record.result is None and record.error is None:
        await _follow(session, record, deadline, lambda now: now.is_final)
    if record.result is None and record.error is None:
        await _fetch_result(session, record)
    if record.result is None:
        raise fresh(record.error or RequestFailedError("the task has no result", reason="violation"))
    return record.result


async def follow_for_caller(
    session: TypedSession, record: TaskRecord, deadline: CallDeadline
) -> dict[str, Any]:
    """`wait_for_result` for a caller who asked for no task and holds no handle of it.

    When it cannot go on waiting, nobody can: the server is told, by the session, not by the caller.
    """
    try:
        return await wait_for_result(session, record, deadline)
    except BaseException:
        if not record.is_over:
            forsake(session, record.task_id)
        raise


async def cancel(session: TypedSession, record: TaskRecord) -> None:
    """Ask the server to cancel the task; nothing to do when it has ended.

    Raises `MCPError` if the server refuses, but not because it has ended meanwhile.
    """
    if record.is_over:
        return
    dialect = dialect_of(session.protocol_version)
    try:
        raw = await _send(session, dialect.cancel(record.task_id))
    except MCPError:
        if not (await ask_status(session, record)).is_final:
            raise
        return
    report = dialect.cancelled(raw, record.task_id)
    if report is not None:
        record.apply(report, session.errands)


def forsake(session: TypedSession, task_id: str) -> None:
    """Have the server told that nobody wants this task. Returns at once, also in a cancelled task."""
    session.errands.begin(partial(_tell_cancelled, session, task_id), name=f"cancel task {task_id[:40]}")


def forsake_unclaimed(session: TypedSession, result: dict[str, Any]) -> None:
    """Have the server told, if `result`, which came too late for its caller, is that of a new task."""
    try:
        created = read_snapshot(result) if result.get("resultType") == "task" else read_created(result)
    except RequestFailedError:
        return  # nothing there that could be named
    if created is not None and not created.is_final:
        forsake(session, created.task_id)


async def _tell_cancelled(session: TypedSession, task_id: str) -> None:
    # A deadline of its own: the one of the call has passed, or is none of its business.
    with call_deadline(CallDeadline(CANCEL_PATIENCE, CANCEL_PATIENCE)):
        await _send(session, dialect_of(session.protocol_version).cancel(task_id))


async def _follow(
    session: TypedSession,
    record: TaskRecord,
    deadline: CallDeadline,
    reached: Callable[[TaskSnapshot], bool],
) -> TaskSnapshot:
    """Return the first state that `reached` accepts, or the final one, beginning with what is known."""
    dialect = dialect_of(session.protocol_version)
    pace = Pace()
    changes, refused = record.changes, False
    while True:
        now = record.snapshot
        if now is None:
            now = await ask_status(session, record)
        if reached(now) or now.is_final:
            return now
        if record.changes != changes:
            changes = record.changes
            deadline.extend()
        pushes = record.pushes
        if now.status == "input_required":
            if dialect.update is not None:
                if await _answer(session, dialect.update, record, deadline):
                    pace.hurry()
            elif not refused:
                # The server puts its questions while it is asked for the result.
                refused = not await _ask_result(session, record)
        if record.is_over:
            continue
        with guard(session.failure, deadline, what=f"the task {record.task_id[:100]!r}"):
            with anyio.move_on_after(pace.pause(now.poll_interval)):
                await record.next_push()
        if record.pushes == pushes:
            await ask_status(session, record)


async def _answer(
    session: TypedSession,
    update: Callable[[str, InputResponses], Request[Any, Any]],
    record: TaskRecord,
    deadline: CallDeadline,
) -> bool:
    """Put what the task asks to the handlers, and the answers to the server. Whether there was any."""
    questions = record.input_requests or {}
    keys = record.claim(set(questions))
    if not keys:
        return False
    try:
        requests = {key: _question(questions[key]) for key in keys}
        with guard(session.failure, deadline, what=f"the input of task {record.task_id[:100]!r}"):
            answers = await answer_all(session, requests)
        await _send(session, update(record.task_id, answers))
    except BaseException:
        record.disclaim(keys)
        raise
    return True


def _question(raw: object) -> InputRequest:
    question = read_question(raw)
    if question is None:
        raise RequestFailedError("the task asks what cannot be read", reason="violation", result=raw)
    return question


async def _ask_result(session: TypedSession, record: TaskRecord) -> bool:
    """Wait for the result at the server, which lets it put its questions. False if that led nowhere."""
    try:
        await _fetch_result(session, record)
    except MCPError:
        # The task's own error, or a server that gives no result before the task has ended: only a
        # refusal after the end tells.
        return (await ask_status(session, record)).is_final
    except RequestFailedError as error:
        if error.reason not in ("transport", "sign_in"):
            raise
        return False  # the long wait broke; the task did not
    return True


async def _fetch_result(session: TypedSession, record: TaskRecord) -> None:
    ask = dialect_of(session.protocol_version).result
    if ask is None:
        return
    result = await _send(session, ask(record.task_id))
    if not result.keys() - {"_meta"}:
        # What SDK servers of that era give for a task that has failed: nothing.
        now = await ask_status(session, record)
        if now.status == "failed":
            record.error = failure_of(now)
            return
    record.settle(result, session.errands)


async def _send(session: TypedSession, request: Request[Any, Any]) -> dict[str, Any]:
    return (await session.send_request(request, RawResult)).root
