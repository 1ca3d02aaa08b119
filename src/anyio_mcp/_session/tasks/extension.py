"""The tasks extension as the SDK's session wants to be told of it: advertised in the modern era only,
with the result it adds to `tools/call` and the notifications of both dialects.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, final

from mcp.client.extension import ClaimContext, ClientExtension, NotificationBinding, ResultClaim
from mcp.types import CallToolResult
from pydantic import BaseModel, ConfigDict

from anyio_mcp._session.errands import Errands
from anyio_mcp._session.tasks.dialects import EXTENSION, Dialect
from anyio_mcp._session.tasks.records import TaskRegistry
from anyio_mcp._session.tasks.starting import CreatedTask
from anyio_mcp._text import get_logger
from anyio_mcp.errors import RequestFailedError

logger = get_logger(__name__)

STATUS_METHODS: Final = ("notifications/tasks/status", "notifications/tasks")
"""Before 2026-07-28, and since."""


class _Pushed(BaseModel):
    """Anything: what it says is read by `wire`."""

    model_config = ConfigDict(extra="allow")


@final
class TasksExtension(ClientExtension):
    """The client's half of tasks in one session."""

    identifier = EXTENSION

    def __init__(
        self,
        registry: TaskRegistry,
        errands: Errands,
        dialect: Callable[[], Dialect],
        resolve: Callable[[CreatedTask], Awaitable[CallToolResult]],
    ) -> None:
        self._registry = registry
        self._errands = errands
        self._dialect = dialect
        self._resolve = resolve

    def claims(self) -> Sequence[ResultClaim[Any]]:
        """`resultType: "task"`; claims are what keeps the SDK from advertising it in the era before."""

        async def resolve(created: CreatedTask, context: ClaimContext) -> CallToolResult:
            return await self._resolve(created)

        return [ResultClaim(result_type="task", model=CreatedTask, resolve=resolve)]

    def notifications(self) -> Sequence[NotificationBinding[Any]]:
        """Both names, in both eras: drafts of the extension used the older one."""
        return [
            NotificationBinding(method=method, params_type=_Pushed, handler=self._take)
            for method in STATUS_METHODS
        ]

    async def _take(self, pushed: _Pushed) -> None:
        raw = pushed.model_extra or {}
        task_id = raw.get("taskId")
        record = self._registry.find(task_id) if isinstance(task_id, str) else None
        if record is None:
            return
        try:
            record.push(self._dialect().report(raw, record.task_id), self._errands)
        except RequestFailedError as error:
            # Less than the whole state, or nonsense: a reason to ask, nothing to believe.
            logger.debug("a task notification is only a hint: %s", error)
            record.nudge()
