"""The life of a child process: started, its exit watched, its last words kept, ended within bounds.

Knows nothing of messages: whoever reads stdout and writes to stdin does that elsewhere.
"""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self, cast, final

import anyio

from anyio_mcp._text import BoundedLog, get_logger
from anyio_mcp.transports._boundary import contained
from anyio_mcp.transports._process import ChildPipes, start_process

logger = get_logger(__name__)
stderr_logger = get_logger("anyio_mcp.stderr")

END_OF_PIPE: Final = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)
"""What reading a pipe that has come to its end raises, depending on the backend and on how it ended."""

GRACE_SECONDS: Final = 2.0
"""The longest to wait for the child after the end of its input, and again after SIGTERM."""

REAP_SECONDS: Final = 0.5
"""For the exit of a killed process to be noticed: only one the kernel cannot kill needs longer."""

_POLL_SECONDS: Final = 0.05
_TAIL_LINES: Final = 20
_LINE_CHARACTERS: Final = 500
_LINE_BYTES: Final = 4 * _LINE_CHARACTERS

_LINES_A_SIDE: Final = 5 * _TAIL_LINES
"""Lines at either side of what was read at once that are looked at: some may be blank."""

_LOGGED_AT_ONCE: Final = 1000
_LOGGED_EVERY_SECONDS: Final = 0.01
"""Lines of one server's stderr that are logged however fast they come, and the pause between two more. The
rest is counted in the line that follows."""


@final
class StderrTail:
    """The last lines of a stream of text, each cut to what is worth reading."""

    __slots__ = ("_line", "_lines", "_log", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        # Full: the oldest line is dropped.
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        # Full: the rest of the line is dropped.
        self._line = bytearray()
        self._log = BoundedLog(_LOGGED_AT_ONCE, _LOGGED_EVERY_SECONDS)

    def feed(self, data: bytes) -> None:
        """Take what was read. The work is bounded whatever is in it: of many lines only the first and the
        last are looked at."""
        skipped = data.count(b"\n") - 2 * _LINES_A_SIDE + 1
        if skipped <= 0:
            self._take(data.split(b"\n"))
            return
        *first, rest = data.split(b"\n", _LINES_A_SIDE)
        self._take([*first, b""])
        self._log.skip(skipped)
        self._take(rest.rsplit(b"\n", _LINES_A_SIDE)[1:])

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines, with the one that has not ended yet."""
        last = self._text()
        return (*self._lines, last)[-_TAIL_LINES:] if last else tuple(self._lines)

    def _take(self, pieces: list[bytes]) -> None:
        """The rest of the line that has begun, then whole lines, then the beginning of one."""
        first, *others = pieces
        self._add(first)
        for piece in others:
            self._end_line()
            self._add(piece)

    def _add(self, piece: bytes) -> None:
        self._line += piece[: _LINE_BYTES - len(self._line)]

    def _end_line(self) -> None:
        if line := self._text():
            self._lines.append(line)
            if stderr_logger.isEnabledFor(logging.DEBUG) and (more := self._log.line()) is not None:
                stderr_logger.debug("%s: %s%s", self.source, line, more)
        self._line.clear()

    def _text(self) -> str:
        return self._line.decode("utf-8", "replace")[:_LINE_CHARACTERS].rstrip()


@final
class ChildProcess:
    """A running child, in a process group of its own where there are process groups."""

    __slots__ = ("_process", "_tail", "exited", "stderr_ended", "stdin", "stdout")

    def __init__(self, process: ChildPipes, source: str) -> None:
        self._process = process
        self._tail = StderrTail(source)
        self.stdin = process.stdin
        self.stdout = process.stdout
        self.exited = anyio.Event()
        self.stderr_ended = anyio.Event()

    @classmethod
    async def start(
        cls, command: Sequence[str], *, env: Mapping[str, str], cwd: str | None, source: str
    ) -> Self:
        """Start `command`. Raises `OSError` and `ValueError` as the operating system refuses it.

        Not to be cancelled. Waits for fork and exec, not for the program.
        """
        return cls(await start_process(command, env=env, cwd=cwd), source)

    @property
    def exit_code(self) -> int | None:
        """Negative: the signal that ended it. None while it runs, and if nobody knows."""
        return self._process.exit_code

    @property
    def is_stopped(self) -> bool:
        """Whether the process is stopped (SIGSTOP), as far as the system tells. Nothing is reaped."""
        wait = cast("Callable[[int, int, int], Any] | None", getattr(os, "waitid", None))
        if wait is None or self._process.has_exited():
            return False
        try:
            return wait(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
        except OSError:
            return False  # it has exited

    @property
    def stderr_tail(self) -> tuple[str, ...]:
        return self._tail.lines

    @property
    def farewell(self) -> str:
        """How it ended, in words."""
        return describe_exit(self.exit_code)

    async def watch(self) -> None:
        """Wait for the exit itself, and set `exited`.

        Not by the pipes: they stay open for as long as any descendant holds them.
        """
        pidfd = open_pidfd(self._process.pid)
        if pidfd is not None:
            try:
                await anyio.wait_readable(pidfd)
            finally:
                os.close(pidfd)
        # It is gone and about to be reaped; or the system has no pidfd, and this is how to watch it.
        await self._reaped()
        self.exited.set()

    async def read_stderr(self) -> None:
        """Read stderr to its end: a child whose stderr nobody reads stops when the pipe is full."""
        feed = self._tail.feed
        with suppress(*END_OF_PIPE):
            while True:
                data = await self._process.stderr.receive()
                try:
                    feed(data)
                except Exception as error:
                    # Read on, for the child's sake, and keep no more of it.
                    contained(error, f"the stderr of {self._tail.source}")
                    feed = _discard
        self.stderr_ended.set()

    async def end(self, seconds: float) -> None:
        """Have it exit: by the end of its input, then SIGTERM, then SIGKILL, in about `seconds`.

        Its output has to be read meanwhile, or it may wait for that instead of exiting. What is left of
        its process group is killed in any case.
        """
        grace = min(GRACE_SECONDS, seconds / 2)
        try:
            await self.stdin.aclose()
            if not await self._exits_within(grace):
                self.stop(force=False)
                await self._exits_within(grace)
        finally:
            self.stop(force=True)
        await self._exits_within(REAP_SECONDS)

    async def release(self) -> None:
        """Leave neither zombie nor pipe behind, whatever became of `end`. Not to be cancelled."""
        try:
            if not self._process.has_exited():
                self.stop(force=True)
            # Bounded, for a process that not even SIGKILL ends.
            with anyio.move_on_after(REAP_SECONDS):
                await self._reaped()
            if not self._process.has_exited():
                logger.warning("process %d does not end, not even by SIGKILL", self._process.pid)
        finally:
            # Bounded to be safe: closing pipes waits for nobody.
            with anyio.move_on_after(REAP_SECONDS):
                for pipe in (self.stdin, self.stdout, self._process.stderr):
                    await pipe.aclose()

    def stop(self, *, force: bool) -> None:
        """Signal the whole group, its leader alive or not; without groups the child, if alive.

        The number of a group stays taken for as long as it has members. When it has none the number may
        be used anew some day, which is why this is called when ending a connection and never later.
        """
        # Nobody there any more, or (macOS) only zombies.
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL if force else signal.SIGTERM)
            elif not self._process.has_exited():
                end = self._process.kill if force else self._process.terminate
                end()

    async def _reaped(self) -> None:
        pause = 0.001
        while not self._process.has_exited():
            await anyio.sleep(pause)
            pause = min(2 * pause, _POLL_SECONDS)

    async def _exits_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self.exited.wait()
        return self.exited.is_set()


def _discard(_: bytes) -> None: ...


def describe_exit(code: int | None) -> str:
    if code is None:
        return (
            "the server process exited, with a code that nobody knows: this program ignores SIGCHLD, or "
            "another part of it waits for all child processes"
        )
    if code >= 0:
        return f"the server process exited with code {code}"
    try:
        return f"the server process was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"the server process was killed by signal {-code}"


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process exits, where the system has such."""
    opener = cast("Callable[[int], Any] | None", getattr(os, "pidfd_open", None))
    if opener is None:
        return None
    try:
        return opener(pid)
    except OSError:
        # Exited and reaped already, no descriptors left, or forbidden by a sandbox.
        return None
