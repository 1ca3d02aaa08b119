"""The fault matrix over the pipes of a child process. What the child does wrong is `stdio_server.py`'s."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, TypeAlias

import anyio

from anyio_mcp import (
    Client,
    ConnectError,
    DeadlineExceededError,
    Heartbeat,
    Limits,
    RequestFailedError,
    Restart,
    SessionLostError,
    StdioTransport,
    Timeouts,
)
from tests.faults.matrix import Cell, Era, Observed, Outcome, Phase
from tests.leaks import is_alive

SERVER: Final = Path(__file__).with_name("stdio_server.py")
MODES: Final[Mapping[Era, str]] = {"legacy": "legacy", "modern": "auto"}
ERAS: Final[tuple[Era, ...]] = ("legacy", "modern")

Trigger: TypeAlias = Literal["start", "begin", "call", "behind", "end"]
"""When a server makes its fault: see `stdio_server.py`."""

CLOSE: Final = 0.2
BEAT: Final = Heartbeat(interval=0.1, timeout=0.6)
"""For servers that say nothing at all: short, and yet enough for a server that lives, on a busy machine."""
SILENCE: Final = BEAT.interval + BEAT.timeout
IMPATIENT_BEAT: Final = Heartbeat(interval=0.05, timeout=0.05)
"""For servers that say nothing and are not given up for it: it passes often before a deadline does."""
MEGABYTE: Final = 1024 * 1024

HURRY: Final = 0.8
"""A connect deadline that is to pass, and yet enough for a server that is well."""

IMPATIENT: Final = 0.3
"""The timeout of a call that is to pass."""

AT_ONCE: Final = 1.0
"""What needs no waiting, but bytes to be moved and processes to be scheduled."""


def stdio_transport(
    directory: Path, fault: str, *arguments: object, trigger: Trigger = "call", era: Era = "modern"
) -> StdioTransport:
    """A server of which the first process in `directory` makes a fault."""
    plan = {
        "era": era,
        "trigger": trigger,
        "fault": fault,
        "arguments": arguments,
        "directory": str(directory),
    }
    return StdioTransport(sys.executable, ["-IS", str(SERVER), json.dumps(plan)])


def pids(directory: Path) -> list[int]:
    """Of every process that a server in this directory was, grandchildren included."""
    return [int(path.name.removeprefix("pid-")) for path in directory.glob("pid-*")]


async def until_gone(directory: Path) -> None:
    """A grandchild is killed without being waited for: its parent is dead, and it is not our child."""
    while any(map(is_alive, pids(directory))):
        await anyio.sleep(0.001)


async def wait_for(condition: Callable[[], object]) -> None:
    while not condition():
        await anyio.sleep(0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One fault of a server, and how a client is set up that meets it."""

    fault: str
    arguments: tuple[object, ...] = ()
    trigger: Trigger
    connect: float = 20.0
    heartbeat: Heartbeat | None = None
    limits: Limits = field(default_factory=Limits)
    timeout: float | None = 20.0
    """Of the call that meets the fault."""
    payload: int = 0
    """Bytes that this call sends."""
    until: Callable[[Client], object] | None = None
    """For a fault that is made while nobody calls: what it has brought about."""
    ends_session: bool = False
    """The session ends behind the call that met the fault; one made before that shares its fate."""
    counted: Mapping[str, int] = field(default_factory=dict[str, int])
    """What `client.stats()` says of the session that met the fault."""
    told: signal.Signals | None = None
    """A signal the server gets when the call that met its fault is over."""

    async def __call__(self, cell: Cell) -> Observed:
        with TemporaryDirectory(prefix="anyio-mcp-") as name:
            directory = Path(name)
            transport = stdio_transport(
                directory, self.fault, *self.arguments, trigger=self.trigger, era=cell.era
            )
            client = Client(
                transport,
                mode=MODES[cell.era],
                timeouts=Timeouts(connect=self.connect, close=CLOSE),
                heartbeat=self.heartbeat,
                limits=self.limits,
                restart=Restart(backoff=0),
            )
            meet = {
                "connecting": self._connecting,
                "in flight": self._calling,
                "idle": self._calling,
                "closing": self._closing,
            }[cell.phase]
            observed = await meet(cell, client, directory)
            assert pids(directory), "the server has run"
            await until_gone(directory)
            return observed

    async def _connecting(self, cell: Cell, client: Client, directory: Path) -> Observed:
        error: Exception | None = None
        began = anyio.current_time()
        seconds = 0.0
        survived = works = False
        try:
            async with client:
                seconds = anyio.current_time() - began
                await self._check(client)
                works = await _works(client)
                survived = client.stats().sessions_started == 1
        except Exception as caught:
            error = caught
            seconds = anyio.current_time() - began
            works = await self._works_at_last(client)
        return Observed(error=error, survived=survived, works=works, seconds=seconds)

    async def _works_at_last(self, client: Client) -> bool:
        # A connect deadline that is short enough to be waited for may be too short for a busy machine.
        for _ in range(5):
            try:
                async with client:
                    return await _works(client)
            except DeadlineExceededError as error:
                if error.phase != "connect":
                    raise
        return False

    async def _calling(self, cell: Cell, client: Client, directory: Path) -> Observed:
        async with client:
            if self.trigger == "behind":
                await client.call_tool("fault")
                if self.until is not None:
                    await wait_for(lambda: self.until is None or self.until(client))
            tool = "echo" if self.trigger == "behind" else "fault"
            arguments = {"text": "x" * self.payload}
            began = anyio.current_time()
            error = await _error_of(lambda: client.call_tool(tool, arguments, timeout=self.timeout))
            seconds = anyio.current_time() - began
            if client.stats().sessions_started == 1:
                await self._check(client)
            if self.told is not None:
                for pid in pids(directory):
                    os.kill(pid, self.told)
            if self.ends_session:
                await wait_for(lambda: not client.is_connected())
            works = await _works(client)
            survived = client.stats().sessions_started == 1
        return Observed(error=error, survived=survived, works=works, seconds=seconds)

    async def _closing(self, cell: Cell, client: Client, directory: Path) -> Observed:
        began = 0.0

        async def use() -> None:
            nonlocal began
            async with client:
                assert await _works(client)
                if self.trigger == "behind":
                    await client.call_tool("fault")
                began = anyio.current_time()

        error = await _error_of(use)
        seconds = anyio.current_time() - began
        async with client:
            works = await _works(client)
        return Observed(error=error, survived=False, works=works, seconds=seconds)

    async def _check(self, client: Client) -> None:
        """A call may be given up before what the server said instead has arrived."""
        with anyio.move_on_after(10):
            await wait_for(lambda: self._count(client) == dict(self.counted))
        assert self._count(client) == dict(self.counted)

    def _count(self, client: Client) -> dict[str, int]:
        return {name: getattr(client.stats(), name) for name in self.counted}


async def _works(client: Client) -> bool:
    result = await client.call_tool("echo", timeout=20.0)
    return result.content[0].text == "echo"


async def _error_of(function: Callable[[], Awaitable[object]]) -> Exception | None:
    try:
        await function()
    except Exception as error:
        return error
    return None


# --- what a call ends in ----------------------------------------------------------------------------


def nothing_happens() -> Outcome:
    return Outcome()


def replaced() -> Outcome:
    """The call works, in a session of its own."""
    return Outcome(survives=False)


def refused_to_start(exit_code: int | None, *stderr: str) -> Outcome:
    return Outcome(
        raises=ConnectError,
        attributes={"exit_code": exit_code, "stderr_tail": stderr, "__cause__.reason": "exited"},
        cause=SessionLostError,
        survives=False,
    )


def exited(exit_code: int, *stderr: str) -> Outcome:
    return Outcome(
        raises=SessionLostError,
        attributes={"reason": "exited", "exit_code": exit_code, "stderr_tail": stderr},
        survives=False,
    )


def lost(reason: str) -> Outcome:
    return Outcome(raises=SessionLostError, attributes={"reason": reason, "exit_code": None}, survives=False)


def not_connected(text: str) -> Outcome:
    """The server lives, and does not talk."""
    return Outcome(
        raises=ConnectError,
        attributes={"exit_code": None, "args": lambda args: text in args[0]},
        survives=False,
    )


def too_slow_to_connect(seconds: float) -> Outcome:
    return Outcome(
        raises=DeadlineExceededError, attributes={"phase": "connect", "seconds": seconds}, survives=False
    )


def too_late(seconds: float) -> Outcome:
    return Outcome(raises=DeadlineExceededError, attributes={"phase": "call", "seconds": seconds})


# --- the cells --------------------------------------------------------------------------------------

CELLS: list[Cell] = []


def add(
    fault: str,
    phase: Phase,
    outcome: Outcome,
    script: Callable[[Cell], Awaitable[Observed]],
    *,
    within: float,
    eras: tuple[Era, ...] = ERAS,
    largest: bool = False,
) -> None:
    CELLS.extend(
        Cell(
            area="stdio",
            fault=fault,
            phase=phase,
            era=era,
            outcome=outcome,
            within=within,
            run=script,
            largest=largest,
        )
        for era in eras
    )


# No process at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Unstartable:
    """A command the operating system refuses, until `mend` has made it right."""

    broken: Callable[[Path], StdioTransport]
    mend: Callable[[Path], None]

    async def __call__(self, cell: Cell) -> Observed:
        with TemporaryDirectory(prefix="anyio-mcp-") as name:
            client = Client(self.broken(Path(name)), mode=MODES[cell.era], timeouts=Timeouts(close=CLOSE))
            began = anyio.current_time()
            error: Exception | None = None
            try:
                async with client:
                    raise AssertionError("it started")
            except ConnectError as caught:
                error = caught
            seconds = anyio.current_time() - began
            self.mend(Path(name))
            async with client:
                works = await _works(client)
        return Observed(error=error, survived=False, works=works, seconds=seconds)


def _healthy(directory: Path, **settings: Any) -> StdioTransport:
    """A server that makes no fault: `end` comes after all calls."""
    plan = {"era": "modern", "trigger": "end", "fault": "ends", "arguments": [], "directory": str(directory)}
    return StdioTransport(sys.executable, ["-IS", str(SERVER), json.dumps(plan)], **settings)


def _script(directory: Path) -> StdioTransport:
    usual = _healthy(directory)
    return StdioTransport(directory / "server", usual.args)


def _link(directory: Path) -> None:
    (directory / "server").unlink(missing_ok=True)
    (directory / "server").symlink_to(sys.executable)


def _broken_program(directory: Path, mode: int) -> StdioTransport:
    (directory / "server").write_text("what is this\n")
    (directory / "server").chmod(mode)
    return _script(directory)


def _unstartable(error: type[OSError]) -> Outcome:
    return Outcome(
        raises=ConnectError, attributes={"exit_code": None, "stderr_tail": ()}, cause=error, survives=False
    )


for _fault, _error, _broken, _mend in (
    ("the command is not found", FileNotFoundError, _script, _link),
    ("the command is not executable", PermissionError, lambda d: _broken_program(d, 0o600), _link),
    ("the command is no program", OSError, lambda d: _broken_program(d, 0o700), _link),
    (
        "the working directory does not exist",
        FileNotFoundError,
        lambda d: _healthy(d, cwd=d / "there"),
        lambda d: (d / "there").mkdir(),
    ),
    (
        "the working directory is a file",
        NotADirectoryError,
        lambda d: ((d / "there").touch(), _healthy(d, cwd=d / "there"))[1],
        lambda d: ((d / "there").unlink(), (d / "there").mkdir())[1],
    ),
):
    add(
        _fault,
        "connecting",
        _unstartable(_error),
        Unstartable(broken=_broken, mend=_mend),
        within=AT_ONCE,
        eras=("modern",),
    )

# The process ends

_ENDS: tuple[tuple[str, str, tuple[object, ...], int, tuple[str, ...]], ...] = (
    ("exits with 0", "exits", (0,), 0, ()),
    (
        "exits with 1",
        "exits",
        (1, "Traceback:", "ValueError: no luck"),
        1,
        ("Traceback:", "ValueError: no luck"),
    ),
    ("is killed", "is_killed", ("SIGKILL",), -signal.SIGKILL, ()),
    ("crashes", "is_killed", ("SIGSEGV",), -signal.SIGSEGV, ()),
    ("exits, a grandchild holds the pipe", "leaves_a_grandchild", (7,), 7, ("last words",)),
)

for _fault, _name, _arguments, _code, _stderr in _ENDS:
    for _when, _trigger in (("", "start"), (" on the first message", "begin")):
        _ending = Script(fault=_name, arguments=_arguments, trigger=_trigger)
        _outcome = refused_to_start(_code, *_stderr)
        add(_fault + _when, "connecting", _outcome, _ending, within=AT_ONCE + CLOSE, eras=("legacy",))
        # It may have ended over a probe that it does not know: a new process is asked without one.
        add(_fault + _when, "connecting", replaced(), _ending, within=AT_ONCE + CLOSE, eras=("modern",))
    add(
        _fault,
        "in flight",
        exited(_code, *_stderr),
        Script(fault=_name, arguments=_arguments, trigger="call", timeout=None),
        within=AT_ONCE,
    )
    add(
        _fault,
        "idle",
        replaced(),
        Script(
            fault=_name,
            arguments=_arguments,
            trigger="behind",
            until=lambda client: not client.is_connected(),
        ),
        within=AT_ONCE + CLOSE,
    )
    add(
        _fault,
        "closing",
        replaced(),
        Script(fault=_name, arguments=_arguments, trigger="end"),
        within=AT_ONCE + CLOSE,
    )

add(
    "exits within an answer",
    "connecting",
    refused_to_start(3),
    Script(fault="exits_within_an_answer", arguments=(3,), trigger="begin"),
    within=AT_ONCE + CLOSE,
    eras=("legacy",),
)
add(
    "exits within an answer",
    "connecting",
    replaced(),
    Script(fault="exits_within_an_answer", arguments=(3,), trigger="begin"),
    within=AT_ONCE + CLOSE,
    eras=("modern",),
)
add(
    "exits within an answer",
    "in flight",
    exited(3),
    Script(fault="exits_within_an_answer", arguments=(3,), trigger="call", timeout=None),
    within=AT_ONCE,
)
add(
    "answers without a newline and exits",
    "in flight",
    replaced(),
    Script(fault="exits_behind_an_answer_without_newline", trigger="call", timeout=None, ends_session=True),
    within=AT_ONCE,
)

# The process lives and says nothing

for _fault, _name, _phases in (
    ("reads and never answers", "is_silent", ("connecting", "in flight", "idle")),
    ("never reads", "never_reads", ("connecting", "in flight", "idle", "closing")),
    ("is stopped (SIGSTOP)", "is_stopped", ("connecting", "in flight", "idle", "closing")),
    ("half an answer, then silence", "says_half_an_answer", ("connecting", "in flight")),
):
    for _phase in _phases:
        match _phase:
            case "connecting":
                add(
                    _fault,
                    _phase,
                    too_slow_to_connect(HURRY),
                    Script(fault=_name, trigger="begin", connect=HURRY),
                    within=HURRY + CLOSE + AT_ONCE,
                )
            case "in flight" | "idle" if _name == "is_stopped":
                add(
                    _fault,
                    _phase,
                    lost("silent"),
                    Script(
                        fault=_name,
                        trigger="call" if _phase == "in flight" else "behind",
                        heartbeat=BEAT,
                        timeout=None,
                    ),
                    within=SILENCE + AT_ONCE,
                )
            case "in flight" | "idle":
                # Alive, with pipes that stand: it may be at work on something else.
                add(
                    _fault,
                    _phase,
                    replace(too_late(IMPATIENT), survives=False),
                    Script(
                        fault=_name,
                        trigger="call" if _phase == "in flight" else "behind",
                        heartbeat=IMPATIENT_BEAT,
                        timeout=IMPATIENT,
                        told=signal.SIGKILL,
                        ends_session=True,
                    ),
                    within=IMPATIENT + AT_ONCE,
                )
            case _:
                add(
                    _fault,
                    "closing",
                    replaced(),
                    Script(fault=_name, trigger="behind"),
                    within=CLOSE + AT_ONCE,
                )

for _size in (3, 10):
    add(
        f"stops reading while {_size} MB are written",
        "in flight",
        replace(too_late(IMPATIENT), survives=False),
        Script(
            fault="never_reads",
            trigger="behind",
            payload=_size * MEGABYTE,
            heartbeat=IMPATIENT_BEAT,
            timeout=IMPATIENT,
            told=signal.SIGKILL,
            ends_session=True,
        ),
        within=IMPATIENT + AT_ONCE,
    )
    add(
        f"stops reading while {_size} MB are written, and reads on later",
        "in flight",
        too_late(IMPATIENT),
        Script(
            fault="reads_when_told",
            trigger="behind",
            payload=_size * MEGABYTE,
            timeout=IMPATIENT,
            told=signal.SIGUSR1,
        ),
        within=IMPATIENT + AT_ONCE,
    )

# One of the pipes ends

add(
    "closes its output and exits later",
    "connecting",
    refused_to_start(5),
    Script(fault="closes_stdout_and_exits", arguments=(0.2, 5), trigger="begin"),
    within=AT_ONCE + CLOSE,
    eras=("legacy",),
)
add(
    "closes its output and exits later",
    "connecting",
    replaced(),
    Script(fault="closes_stdout_and_exits", arguments=(0.2, 5), trigger="begin"),
    within=AT_ONCE + CLOSE,
    eras=("modern",),
)
add(
    "closes its output and exits later",
    "in flight",
    exited(5),
    Script(fault="closes_stdout_and_exits", arguments=(0.2, 5), trigger="call", timeout=None),
    within=AT_ONCE,
)
add(
    "closes its output and lives",
    "connecting",
    not_connected("closed its output"),
    Script(fault="closes_stdout", trigger="start"),
    within=AT_ONCE + CLOSE,
    eras=("legacy",),
)
add(
    "closes its output and lives",
    "connecting",
    replaced(),
    Script(fault="closes_stdout", trigger="start"),
    within=AT_ONCE + CLOSE,
    eras=("modern",),
)
add(
    "closes its output and lives",
    "in flight",
    lost("eof"),
    Script(fault="closes_stdout", trigger="call", timeout=None),
    within=AT_ONCE,
)
add(
    "closes its output and lives",
    "idle",
    replaced(),
    Script(fault="closes_stdout", trigger="behind", until=lambda client: not client.is_connected()),
    within=AT_ONCE + CLOSE,
)
add(
    "closes its input and lives",
    "connecting",
    too_slow_to_connect(HURRY),
    Script(fault="closes_stdin", trigger="begin", connect=HURRY),
    within=HURRY + CLOSE + AT_ONCE,
    eras=("legacy",),
)
add(
    "closes its input and lives",
    "connecting",
    not_connected("stopped reading"),
    Script(fault="closes_stdin", trigger="begin", connect=2.1),
    within=2.1 + CLOSE + AT_ONCE,
    eras=("modern",),
)
add(
    "closes its input and lives",
    "in flight",
    replace(too_late(IMPATIENT), survives=False),
    Script(
        fault="closes_stdin",
        trigger="call",
        heartbeat=IMPATIENT_BEAT,
        timeout=IMPATIENT,
        told=signal.SIGKILL,
        ends_session=True,
    ),
    within=IMPATIENT + AT_ONCE,
)
add(
    "closes its input and lives",
    "idle",
    Outcome(
        raises=RequestFailedError,
        attributes={"reason": "transport"},
        cause=anyio.BrokenResourceError,
        survives=False,
    ),
    Script(
        fault="closes_stdin",
        trigger="behind",
        timeout=None,
        until=lambda client: client.stats().violations,
        ends_session=True,
    ),
    within=AT_ONCE,
)

# What is no message

_NONSENSE = {
    "lines that are no JSON": (3, ("what is this", "", "{not json}", "[1, 2")),
    "JSON that is no message": (4, ("null", "17", '{"jsonrpc": "2.0"}', '{"level": "info", "id": 1}')),
    "bytes that are not UTF-8": (2, (r"\xff\xfe\x00", r'{"jsonrpc": "2.0", "method": "\xc3\x28"}')),
    "a batch": (1, ('[{"jsonrpc": "2.0", "method": "notifications/x"}, "what is this"]',)),
}

for _fault, (_count, _lines) in _NONSENSE.items():
    _counted = {"violations": _count}
    add(
        f"{_fault}, before the answer",
        "connecting",
        nothing_happens(),
        Script(fault="says_before", arguments=_lines, trigger="begin", counted=_counted),
        within=AT_ONCE,
    )
    add(
        f"{_fault}, before the answer",
        "in flight",
        nothing_happens(),
        Script(fault="says_before", arguments=_lines, trigger="call", counted=_counted),
        within=AT_ONCE,
    )
    add(
        f"{_fault}, between answers",
        "idle",
        nothing_happens(),
        Script(
            fault="says_instead",
            arguments=_lines,
            trigger="behind",
            until=lambda client, number=_count: client.stats().violations >= number,
            counted=_counted,
        ),
        within=AT_ONCE,
    )
    add(
        f"{_fault}, instead of the answer",
        "in flight",
        too_late(IMPATIENT),
        Script(fault="says_instead", arguments=_lines, trigger="call", timeout=IMPATIENT, counted=_counted),
        within=IMPATIENT + AT_ONCE,
    )
    add(
        f"{_fault}, instead of the answer",
        "connecting",
        too_slow_to_connect(HURRY),
        Script(fault="says_instead", arguments=_lines, trigger="begin", connect=HURRY),
        within=HURRY + CLOSE + AT_ONCE,
    )

add(
    "a byte order mark",
    "connecting",
    nothing_happens(),
    Script(fault="begins_with_a_byte_order_mark", trigger="begin", counted={"violations": 0}),
    within=AT_ONCE,
)

# Answers to somebody else

_ASTRAY: dict[str, tuple[str, dict[str, int]]] = {
    "an answer with the wrong id": (
        '{"jsonrpc": "2.0", "id": 4711, "result": {}}',
        {"unknown_replies": 1, "violations": 0},
    ),
    "an answer with id null": ('{"jsonrpc": "2.0", "id": null, "result": {}}', {"violations": 1}),
    "an error with id null": (
        '{"jsonrpc": "2.0", "id": null, "error": {"code": -32603, "message": "no"}}',
        {"violations": 1},
    ),
}

for _fault, (_line, _counted) in _ASTRAY.items():
    add(
        _fault,
        "in flight",
        too_late(IMPATIENT),
        Script(fault="says_instead", arguments=(_line,), trigger="call", timeout=IMPATIENT, counted=_counted),
        within=IMPATIENT + AT_ONCE,
    )
    add(
        _fault,
        "connecting",
        too_slow_to_connect(HURRY),
        Script(fault="says_instead", arguments=(_line,), trigger="begin", connect=HURRY),
        within=HURRY + CLOSE + AT_ONCE,
    )
# Answers that name their request, and are odd: their meaning if it is plain, else at once a violation

_ODD: dict[str, str] = {
    "neither result nor error": '{"jsonrpc": "2.0", "id": @id}',
    "a result that is a list": '{"jsonrpc": "2.0", "id": @id, "result": ["done"]}',
    "half an answer": '{"jsonrpc": "2.0", "id": @id, "result": {"content": [',
    "an answer that is not UTF-8": r'{"jsonrpc": "2.0", "id": @id, "result": {"content": "\xff"}}',
}
for _fault, _line in _ODD.items():
    add(
        _fault,
        "in flight",
        Outcome(raises=RequestFailedError, attributes={"reason": "violation"}),
        Script(fault="says_instead", arguments=(_line,), trigger="call"),
        within=AT_ONCE,
    )
_ODD_BUT_PLAIN: dict[str, str] = {
    "an answer whose error is null": '"id": @id, "result": @result, "error": null',
    "an answer with all members written out": (
        '"id": @id, "method": null, "params": null, "result": @result, "error": null'
    ),
    "an answer whose id is a text": '"id": "@id", "result": @result',
    "an answer whose id is a float": '"id": @id.0, "result": @result',
}
_RESULT = '{"content": [], "isError": false, "resultType": "complete"}'
for _fault, _members in _ODD_BUT_PLAIN.items():
    add(
        _fault,
        "in flight",
        nothing_happens(),
        Script(
            fault="says_instead",
            arguments=('{"jsonrpc": "2.0", ' + _members.replace("@result", _RESULT) + "}",),
            trigger="call",
            counted={"violations": 0},
        ),
        within=AT_ONCE,
    )
add(
    "an answer in a batch",
    "in flight",
    nothing_happens(),
    Script(
        fault="says_instead",
        arguments=('[{"jsonrpc": "2.0", "id": @id, "result": ' + _RESULT + "}]",),
        trigger="call",
        counted={"violations": 0},
    ),
    within=AT_ONCE,
)
add(
    "two answers",
    "in flight",
    nothing_happens(),
    Script(fault="answers_twice", trigger="call"),
    within=AT_ONCE,
)

# Too much

add(
    "a line of 50 MB",
    "in flight",
    nothing_happens(),
    Script(fault="answers_with", arguments=(50_000_000,), trigger="call"),
    within=10.0,
    eras=("modern",),
    largest=True,
)
add(
    "an answer over the limit",
    "in flight",
    Outcome(raises=RequestFailedError, attributes={"reason": "oversized"}),
    Script(
        fault="answers_with",
        arguments=(2 * MEGABYTE,),
        trigger="call",
        limits=Limits(max_message_bytes=MEGABYTE),
    ),
    within=AT_ONCE,
)
add(
    "a line over the limit",
    "idle",
    nothing_happens(),
    Script(
        fault="says_a_long_line",
        arguments=(2 * MEGABYTE,),
        trigger="behind",
        limits=Limits(max_message_bytes=MEGABYTE),
        until=lambda client: client.stats().violations,
        counted={"violations": 1},
    ),
    within=AT_ONCE,
)
add(
    "100,000 notifications",
    "in flight",
    nothing_happens(),
    Script(fault="notifies", arguments=(100_000,), trigger="call", timeout=120.0),
    within=30.0,
    eras=("modern",),
)
add(
    "10,000 notifications",
    "connecting",
    nothing_happens(),
    Script(fault="notifies", arguments=(10_000,), trigger="begin"),
    within=5.0,
)
for _trigger, _phase in (("begin", "connecting"), ("call", "in flight"), ("end", "closing")):
    add(
        "floods its stderr",
        _phase,
        replaced() if _phase == "closing" else nothing_happens(),
        Script(fault="floods_stderr", arguments=(3_000_000,), trigger=_trigger),
        within=AT_ONCE + CLOSE,
    )

for _fault, _text, _times in (
    ("floods its stderr without a line feed", "word ", 600_000),
    ("floods its stderr with what is no UTF-8", "\xff\xfe\x80\n", 500_000),
    ("floods its stderr with blank lines", "\n", 1_000_000),
    ("floods its stderr with what acts on a terminal", "\x1b[2J\x9b\x00\r\n", 200_000),
):
    for _trigger, _phase in (("begin", "connecting"), ("call", "in flight")):
        add(
            _fault,
            _phase,
            nothing_happens(),
            Script(fault="says_on_stderr", arguments=(_text, _times), trigger=_trigger),
            within=AT_ONCE,
        )
add(
    "says why it is not ready",
    "connecting",
    Outcome(
        raises=DeadlineExceededError,
        attributes={
            "phase": "connect",
            "stderr_tail": ("sign in first",),
            "stray_lines": ("listening on port 3333",),
            "args": lambda args: "sign in first" in args[0],
        },
        survives=False,
    ),
    Script(fault="says_why_and_is_silent", trigger="begin", connect=1.5),
    within=1.5 + AT_ONCE + CLOSE,
)

# What does not want to end

for _fault, _name, _arguments, _trigger in (
    ("ignores the end of its input", "never_ends", (), "end"),
    ("ignores SIGTERM", "ignores_sigterm", (), "behind"),
    ("ignores both", "never_ends", ("SIGTERM",), "end"),
    ("floods its output", "floods_stdout", (), "end"),
    ("floods its output before it is left", "floods_stdout", (), "behind"),
    ("closed its input and lives", "closes_stdin", (), "behind"),
    ("closed its output and lives", "closes_stdout", (), "behind"),
):
    add(
        _fault,
        "closing",
        replaced(),
        Script(fault=_name, arguments=_arguments, trigger=_trigger),
        within=CLOSE + AT_ONCE,
    )
