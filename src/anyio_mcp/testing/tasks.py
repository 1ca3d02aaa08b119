"""What the tasks of the running event loop are waiting for, as text. Knows nothing of either backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import anyio

MAX_TASKS: Final = 40
"""Tasks a dump describes in full; how many more there are is said in one line."""


def task_dump() -> str:
    """Every task of this event loop with the frames it waits in, the outermost first."""
    tasks = anyio.get_running_tasks()
    lines: list[str] = []
    for task in tasks[:MAX_TASKS]:
        lines.append(f"task {task.name or task.id}")
        lines.extend(f"    {frame}" for frame in _frames(task.coro))
    if len(tasks) > MAX_TASKS:
        lines.append(f"... and {len(tasks) - MAX_TASKS} more tasks")
    return "\n".join(lines)


def _frames(awaitable: Any) -> Iterator[str]:
    seen = 0
    # A chain of awaits is as deep as the code that waits; the bound only guards against a cycle.
    while awaitable is not None and seen < 1000:
        seen += 1
        # A coroutine, a generator that is awaited, an async generator: each names its parts differently.
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaitable, f"{kind}_frame", None)
            if frame is None:
                continue
            code = frame.f_code
            yield f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
            # What a generator drives by hand is no part of the chain; a driver names it so.
            driven = frame.f_locals.get("driven_by_hand")
            awaitable = driven or getattr(awaitable, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
            break
        else:
            return
