"""A server that runs as a child process and speaks JSON-RPC lines on its stdin and stdout.

This file owns the configuration, and who keeps the process from start to end. Messages are none of its
business (`_pipe.py`, `_lines.py`), nor are signals (`_child.py`) or exit codes (`_process.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Final, Literal, cast, final

import anyio
import anyio.lowlevel
from mcp.client.stdio import get_default_environment

from anyio_mcp._text import printable
from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.errors import ConnectError
from anyio_mcp.transports._boundary import contained
from anyio_mcp.transports._child import ChildProcess
from anyio_mcp.transports._pipe import LAST_WORDS_SECONDS, PipeConnection
from anyio_mcp.transports.base import Connection, Transport

_INTERPRETER: Final = re.compile(r"(pythonw?|pypy)[0-9.]*(\.exe)?|(node|bun|deno)(\.exe)?", re.IGNORECASE)
"""Programs whose first argument is usually a script."""


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StdioTransport(Transport):
    """A server started as `command` with `args`, one process per connection.

    * `env` is added to the few variables that are passed on (`HOME`, `PATH` and the like); everything
      else in this process's environment stays here.
    * `cwd` is the directory it runs in.

    Raises `TypeError` and `ValueError` for arguments that could never work. The command itself is
    looked for when connecting.
    """

    command: str | os.PathLike[str]
    args: Sequence[str | os.PathLike[str]] = ()
    env: Mapping[str, str] | None = field(default=None, kw_only=True)
    cwd: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    _title: str = field(init=False)

    def __post_init__(self) -> None:
        command = _text("command", self.command)
        if not command:
            raise ValueError("command must name a program, not be empty")
        # A str is a sequence of str as well, and never what was meant.
        if isinstance(self.args, str | bytes) or not isinstance(self.args, Sequence):
            raise TypeError(f"args must be a sequence of str, not {type(self.args).__name__}")
        args = tuple(_text("every one of args", arg) for arg in self.args)
        cwd = None if self.cwd is None else _text("cwd", self.cwd)
        if cwd == "":
            raise ValueError("cwd must be a directory, or None for the current one")
        for name, value in (("command", command), ("args", args), ("cwd", cwd)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "env", MappingProxyType(_check_env(self.env)))
        object.__setattr__(self, "_title", _title(command, args, cwd))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe!r})"

    @property
    def kind(self) -> Literal["pipe"]:
        return "pipe"

    @property
    def describe(self) -> str:
        """The name of the program, and that of the script which an interpreter runs. No other argument:
        arguments are where people put keys and passwords."""
        return self._title

    def connect(self, *, timeouts: Timeouts, limits: Limits) -> AbstractAsyncContextManager[Connection]:
        """A process of its own. Entering waits until it is started, not until it answers.

        Raises `ConnectError` if it cannot be started, with the `OSError` or `ValueError` as its cause.

        Leaving ends its input, then sends SIGTERM, then SIGKILL to its process group. It takes about
        `timeouts.close` at most, half of it for each of the first two (2 seconds at most), and at once
        if that is 0. Cancelling it changes nothing about that. When it is left, the process is reaped,
        and nothing of its group is alive; a descendant that went into a session of its own is not ours.
        """
        return self._connect(timeouts, limits)

    @asynccontextmanager
    async def _connect(self, timeouts: Timeouts, limits: Limits) -> AsyncGenerator[Connection]:
        await anyio.lowlevel.checkpoint_if_cancelled()
        life = _Life(self, timeouts, limits)
        failure: Exception | None = None
        # The process is kept by a child task, not by code in a `finally` here: asyncio's native
        # cancellation, once or repeatedly, reaches only the task that is leaving, and its task groups
        # wait all the same. For the same reason it is not started by `tg.start`, which cancels
        # natively itself.
        async with anyio.create_task_group() as tg:
            tg.start_soon(life.run, name=f"anyio_mcp stdio {self.describe[:40]}")
            try:
                await life.started.wait()
                yield life.connected()
            except Exception as error:
                # Not through the task group, which would wrap it.
                failure = error
            finally:
                life.leaving.set()
        if failure is not None:
            raise failure


@final
class _Life:
    """One connection from the start of its process to its end, in a task of its own."""

    __slots__ = ("_limits", "_outcome", "_timeouts", "_transport", "leaving", "started")

    def __init__(self, transport: StdioTransport, timeouts: Timeouts, limits: Limits) -> None:
        self._transport = transport
        self._timeouts = timeouts
        self._limits = limits
        self._outcome: PipeConnection | ConnectError | None = None
        self.started = anyio.Event()
        self.leaving = anyio.Event()

    def connected(self) -> PipeConnection:
        """The connection, once `started`. Raises what stopped the process from starting."""
        if isinstance(self._outcome, PipeConnection):
            return self._outcome
        raise self._outcome or ConnectError(f"{self._transport.describe} was not started")

    async def run(self) -> None:
        # Shielded, so that a cancelled session still ends its process, with its pipes being read.
        # Bounded: `leaving` is set on every path out of the context, and all that follows has bounds.
        with anyio.CancelScope(shield=True):
            child = await self._start()
            if child is None:
                return
            # No await before `try`: pierced in between, nobody would end the process.
            connection = self._outcome = PipeConnection(child, self._limits)
            self.started.set()
            try:
                await self._keep(child, connection)
            finally:
                # Also when `_keep` was pierced: a loop that shuts down cancels every task of it.
                await connection.contain(child.release)

    async def _start(self) -> ChildProcess | None:
        transport = self._transport
        try:
            return await ChildProcess.start(
                cast("tuple[str, ...]", (transport.command, *transport.args)),
                env=get_default_environment() | dict(transport.env or {}),
                cwd=cast("str | None", transport.cwd),
                source=transport.describe,
            )
        except (OSError, ValueError) as error:
            cause = _without_secrets(error)
            text = f"could not start {transport.describe}: {cause}"
            self._outcome = ConnectError(text, cause=cause)
        except Exception as error:
            fault = contained(error, transport.describe)
            error.with_traceback(None)  # its frames hold the arguments and the environment as well
            self._outcome = ConnectError(f"could not start {transport.describe}: {fault}", cause=fault)
        self.started.set()
        return None

    async def _keep(self, child: ChildProcess, connection: PipeConnection) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                for work, name in (
                    (connection.watch_exit, "exit"),
                    (child.read_stderr, "stderr"),
                    (connection.read, "stdout"),
                ):
                    tasks.start_soon(connection.contain, work, name=f"anyio_mcp stdio {name}")
                await self.leaving.wait()
                connection.close()
                await connection.contain(partial(child.end, self._timeouts.close_seconds))
                # The pipes end with the group, unless a descendant that left it holds them.
                tasks.cancel_scope.deadline = anyio.current_time() + LAST_WORDS_SECONDS
        finally:
            connection.close()


def _without_secrets(error: OSError | ValueError) -> OSError | ValueError:
    """`error`, by which a command could not be started, without the arguments and the environment that it
    was to be started with: the frames behind it have them among their variables."""
    if isinstance(error, UnicodeError):  # quotes the whole text
        return ValueError(
            "the command, its arguments or its environment have a character that no system takes"
        )
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _title(command: str, args: Sequence[str], cwd: str | None) -> str:
    words = [printable(PurePath(command).name or command, 80)]
    # Only what is a file is sure to be a script, and no secret.
    if args and _INTERPRETER.fullmatch(words[0]) and _is_file(PurePath(cwd or ".") / args[0]):
        words.append(printable(PurePath(args[0]).name, 80))
    return " ".join([*words, "..."] if len(args) >= len(words) else words)


def _is_file(path: PurePath) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def _text(name: str, value: object) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(cast("os.PathLike[str]", value))
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str or a path, not {type(value).__name__}")
    return value


def _check_env(env: Mapping[str, str] | None) -> dict[str, str]:
    """A copy of `env`. Its values are never quoted: they are where the keys are."""
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise TypeError(f"env must be a mapping of str to str, not {type(env).__name__}")
    for name, value in env.items():
        if not isinstance(name, str):
            raise TypeError(f"env must be a mapping of str to str; it has a name of {type(name).__name__}")
        if not isinstance(value, str):
            raise TypeError(f"env[{name!r}] must be a str, not {type(value).__name__}")
        if not name or "=" in name:
            raise ValueError(f"env has a name that no variable can have: {name!r}")
    return dict(env)
