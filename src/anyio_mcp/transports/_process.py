"""A child process as the operating system has it: its pipes, and an exit code that is told once.

`anyio.open_process` is for systems without POSIX alone. Behind it the event loop asks for the exit code, and
makes one up if somebody else was told it: a handler of SIGCHLD, another `os.waitpid(-1)`, the kernel where
SIGCHLD is ignored. asyncio says 255 then (https://github.com/python/cpython/blob/3.13/Lib/asyncio/unix_events.py,
"exit status already read"), and trio 0, by way of `subprocess` (https://bugs.python.org/issue15756).

Must not know what the process is for.
"""

from __future__ import annotations

import os
import signal
import subprocess
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import IO, Protocol, cast, final

import anyio
from anyio import lowlevel
from anyio.abc import ByteReceiveStream, ByteSendStream, Process


class ChildPipes(Protocol):
    """A process that has been started with three pipes."""

    pid: int
    stdin: ByteSendStream
    stdout: ByteReceiveStream
    stderr: ByteReceiveStream

    @property
    @abstractmethod
    def exit_code(self) -> int | None:
        """Negative: the signal that ended it. None: it has not exited, or nobody knows."""
        ...

    @abstractmethod
    def has_exited(self) -> bool:
        """Whether it has exited, asked now. If so, no zombie is left of it, and `exit_code` is what it is."""
        ...

    @abstractmethod
    def terminate(self) -> None: ...

    @abstractmethod
    def kill(self) -> None: ...


async def start_process(command: Sequence[str], *, env: Mapping[str, str], cwd: str | None) -> ChildPipes:
    """Start `command` in a session of its own. Raises `OSError` and `ValueError` as the system refuses it.

    Waits for fork and exec, not for the program. Not to be cancelled: what was started is lost then.
    """
    if os.name == "posix":
        return PosixProcess(command, env=env, cwd=cwd)
    return LoopProcess(await anyio.open_process(command, env=env, cwd=cwd))


@final
class PosixProcess(ChildPipes):
    """A process that nobody but this object asks for its exit code, as far as this library is concerned."""

    __slots__ = ("_exit_code", "_exited", "_process", "pid", "stderr", "stdin", "stdout")

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: str | None) -> None:
        # In this thread: an event loop that is shut down could lose a process that another thread starts.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=cwd,
            bufsize=0,
            start_new_session=True,
        )
        self._exited = False
        self._exit_code: int | None = None
        self.pid = self._process.pid
        self.stdin = _Writer(cast("IO[bytes]", self._process.stdin))
        self.stdout = _Reader(cast("IO[bytes]", self._process.stdout))
        self.stderr = _Reader(cast("IO[bytes]", self._process.stderr))

    @property
    def exit_code(self) -> int | None:
        return self._exit_code

    def has_exited(self) -> bool:
        if self._exited:
            return True
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # somebody else was told
        else:
            if not pid:
                return False
            self._exit_code = os.waitstatus_to_exitcode(status)
        self._exited = True
        # For Popen alone, which warns of a process of which it does not know that it has exited.
        self._process.returncode = self._exit_code or 0
        return True

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        # Not by Popen, which would ask for the exit code first.
        if not self.has_exited():
            os.kill(self.pid, number)


@final
class LoopProcess(ChildPipes):
    """A process of the event loop's, where only the event loop can read its pipes."""

    __slots__ = ("_process", "pid", "stderr", "stdin", "stdout")

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pid = process.pid
        self.stdin = cast("ByteSendStream", process.stdin)
        self.stdout = cast("ByteReceiveStream", process.stdout)
        self.stderr = cast("ByteReceiveStream", process.stderr)

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    def has_exited(self) -> bool:
        return self._process.returncode is not None

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


class _Pipe:
    """One end of a pipe, which never blocks the thread."""

    __slots__ = ("_file", "_number")

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._number = file.fileno()
        os.set_blocking(self._number, False)

    def _check_open(self) -> None:
        if self._file.closed:
            raise anyio.ClosedResourceError

    async def aclose(self) -> None:
        if not self._file.closed:
            anyio.notify_closing(self._number)
            self._file.close()
        await lowlevel.checkpoint()


@final
class _Reader(_Pipe, ByteReceiveStream):
    async def receive(self, max_bytes: int = 65536) -> bytes:
        await lowlevel.checkpoint_if_cancelled()
        while True:
            self._check_open()
            try:
                data = os.read(self._number, max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._number)
                continue
            except OSError as error:
                raise anyio.BrokenResourceError from error
            # Whoever has read something is not cancelled here, which would lose it.
            await lowlevel.cancel_shielded_checkpoint()
            if not data:
                raise anyio.EndOfStream
            return data


@final
class _Writer(_Pipe, ByteSendStream):
    async def send(self, item: bytes) -> None:
        await lowlevel.checkpoint_if_cancelled()
        rest = memoryview(item)
        while True:
            self._check_open()
            try:
                rest = rest[os.write(self._number, rest) :]
            except BlockingIOError:
                pass
            except OSError as error:
                raise anyio.BrokenResourceError from error
            if not rest:
                break
            await anyio.wait_writable(self._number)
        await lowlevel.cancel_shielded_checkpoint()
