"""The steps of an event loop between two checkpoints, measured: which were the longest, and whose they were.

A step is measured in processor time of the thread that runs the loop, so that a machine with other work to
do does not make it longer. The one place that knows how each backend runs a step. It does not know which
tests there are, nor which steps are too long: `plugin.py` does.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import trio

WORTH_KEEPING: Final = 0.01
"""Seconds. What is shorter is not looked at."""

SERVERS: Final = ("http_server", "tests.fuzz.servers", "anyio_mcp.testing", "hypercorn", "uvicorn")
"""Parts of the names of tasks that are servers and share their loop with the client that is measured."""


@final
@dataclass(frozen=True, slots=True, order=True)
class Step:
    """One step of one task."""

    seconds: float
    collecting: float
    """Seconds of it that the garbage collector took."""
    test: str
    task: str
    where: str
    """Where the task waits after the step; the name of its function, if that was its last."""
    traced: bool
    """Whether something watched each line that ran, as the measurement of coverage does."""

    def __str__(self) -> str:
        notes = [f"{self.collecting * 1000:.0f} ms of it collecting"] if self.collecting > 0.01 else []
        notes += ["traced"] if self.traced else []
        note = f" ({', '.join(notes)})" if notes else ""
        return f"{self.seconds * 1000:6.0f} ms{note}  {self.task}, until {self.where}  [{self.test}]"

    @property
    def of_a_server(self) -> bool:
        return any(part in self.task for part in SERVERS)

    @property
    def kind(self) -> str:
        """What the steps of one place in one kind of task have in common: the report names the longest."""
        return re.sub(r"\d+", "0", f"{self.task} {self.where.partition(' ')[2]}")


@final
class _Running(threading.local):
    """The step that is under way in a thread: each may run an event loop, on a clock of its own."""

    began: float = 0.0
    collecting: float = 0.0
    collection_began: float = 0.0


@final
@dataclass(slots=True, eq=False)
class Meter(trio.abc.Instrument):
    """Measures every step of every event loop of this process while it is `installed()`."""

    test: str = ""
    """What is running now, as the steps shall be called."""
    longest: dict[str, Step] = field(default_factory=dict[str, Step])
    """The longest of each kind."""
    current: list[Step] = field(default_factory=list[Step])
    """Those since `begin()` that were not a server's."""
    _step: _Running = field(default_factory=_Running)

    def begin(self, test: str) -> None:
        self.test = test
        self.current = []

    @contextmanager
    def installed(self) -> Generator[None]:
        run_handle, run_trio, run_guest = asyncio.Handle._run, trio.run, trio.lowlevel.start_guest_run

        def measured(handle: asyncio.Handle) -> None:
            self._start()
            try:
                run_handle(handle)
            finally:
                seconds = time.thread_time() - self._step.began
                if seconds > WORTH_KEEPING:
                    self._keep(seconds, *_of_handle(handle))

        def with_instrument(run: Any) -> Any:
            def instrumented(*args: Any, instruments: Any = (), **options: Any) -> Any:
                return run(*args, instruments=[*instruments, self], **options)

            return instrumented

        asyncio.Handle._run = measured
        trio.run = with_instrument(run_trio)
        trio.lowlevel.start_guest_run = with_instrument(run_guest)
        gc.callbacks.append(self._on_collection)
        try:
            yield
        finally:
            asyncio.Handle._run = run_handle
            trio.run, trio.lowlevel.start_guest_run = run_trio, run_guest
            gc.callbacks.remove(self._on_collection)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._start()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        seconds = time.thread_time() - self._step.began
        if seconds > WORTH_KEEPING:
            self._keep(seconds, task.name, _innermost(task.coro) or task.name)

    def _start(self) -> None:
        self._step.collecting = 0.0
        self._step.began = time.thread_time()

    def _on_collection(self, phase: str, _: dict[str, int]) -> None:
        now = time.thread_time()
        if phase == "start":
            self._step.collection_began = now
        else:
            self._step.collecting += now - self._step.collection_began

    def _keep(self, seconds: float, task: str, where: str) -> None:
        step = Step(seconds, self._step.collecting, self.test, task, where, sys.gettrace() is not None)
        self.longest[step.kind] = max(step, self.longest.get(step.kind, step))
        if not step.of_a_server:
            self.current.append(step)


def _of_handle(handle: asyncio.Handle) -> tuple[str, str]:
    """Whose step a callback was, and where it ended."""
    # Both are private, and have been there since asyncio has: its own debug mode prints them.
    callback = getattr(handle, "_callback", None)
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        name = getattr(callback, "__qualname__", None) or type(callback).__name__
        return "(no task)", name
    return task.get_name(), _innermost(task.get_coro()) or task.get_name()


def _innermost(coroutine: Any) -> str | None:
    """The last frame of code that is neither anyio's nor a backend's in the chain of what is awaited."""
    *_, last = None, *_frames(coroutine)
    return last


def _frames(awaitable: Any) -> Iterator[str]:
    while awaitable is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaitable, f"{kind}_frame", None)
            if frame is not None:
                code = frame.f_code
                if "site-packages" not in code.co_filename and "/asyncio/" not in code.co_filename:
                    yield f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_qualname}"
                awaitable = getattr(awaitable, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
                break
        else:
            return
