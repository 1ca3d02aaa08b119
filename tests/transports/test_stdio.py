"""The stdio transport against real processes, driven directly: no session, no client."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from mcp.types import (
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)

from anyio_mcp.client import Client
from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.errors import ConnectError, DeadlineExceededError, RequestFailedError, SessionLostError
from anyio_mcp.transports import _child, _process
from anyio_mcp.transports._pipe import LAST_WORDS_BYTES
from anyio_mcp.transports.base import (
    INBOX_SIZE,
    Connection,
    ConnectionLost,
    Incoming,
    Outgoing,
    RequestFault,
    Violation,
)
from anyio_mcp.transports.stdio import StdioTransport
from tests.leaks import is_alive, locals_behind

pytestmark = pytest.mark.anyio

CHILDREN = Path(__file__).parent / "children"

PATIENCE = 60
"""Seconds after which a test has hung. Generous: the machine may be busy."""

SOON = 1.0
"""Seconds within which something that needs no waiting has happened, on a busy machine."""


def faulty(behaviour: str, *arguments: object, **settings: Any) -> StdioTransport:
    words = [str(argument) for argument in arguments]
    return StdioTransport(sys.executable, ["-IS", str(CHILDREN / "faulty.py"), behaviour, *words], **settings)


@asynccontextmanager
async def connected(
    transport: StdioTransport, *, close: float = 1.0, limit: int = 64 * 1024 * 1024
) -> AsyncGenerator[Connection]:
    """A connection in a test that must not hang, leaving included."""
    with anyio.fail_after(PATIENCE):
        async with transport.connect(
            timeouts=Timeouts(close=close), limits=Limits(max_message_bytes=limit)
        ) as connection:
            yield connection


def request(request_id: int | str = 1, **params: Any) -> Outgoing:
    return Outgoing(JSONRPCRequest(jsonrpc="2.0", id=request_id, method="ask", params=params))


class Receipts(list["Exception | None"]):
    """What the receipts of notifications say."""

    def notification(self, **params: Any) -> Outgoing:
        message = JSONRPCNotification(jsonrpc="2.0", method="tell", params=params)
        return Outgoing(message, receipt=self.append)


async def until_lost(connection: Connection) -> tuple[list[Incoming], SessionLostError]:
    """What arrives before the loss, and the loss. It must be the last item, and there must be one."""
    items = [item async for item in connection.incoming]
    assert items, "the stream ended without a word"
    last = items.pop()
    assert isinstance(last, ConnectionLost)
    assert not [item for item in items if isinstance(item, ConnectionLost)]
    return items, last.error


async def pids(connection: Connection) -> dict[str, int]:
    message = await connection.incoming.receive()
    assert isinstance(message, JSONRPCNotification)
    return message.params or {}


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.002)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def within(seconds: float) -> AsyncGenerator[None]:
    started = anyio.current_time()
    yield
    assert anyio.current_time() - started < seconds


class TestConfiguration:
    def test_it_is_frozen_and_copies_what_it_was_given(self):
        args, env = ["a"], {"KEY": "value"}
        transport = StdioTransport(Path("/bin/cat"), args, env=env, cwd=Path("/tmp"))
        args.append("b")
        env["KEY"] = "other"
        assert (transport.command, transport.args, transport.cwd) == ("/bin/cat", ("a",), "/tmp")
        assert transport.env == {"KEY": "value"}
        assert transport.kind == "pipe"
        frozen: Any = transport
        with pytest.raises(AttributeError):
            frozen.command = "other"

    @pytest.mark.parametrize(
        ("arguments", "settings", "error", "accepted"),
        [
            ((None,), {}, TypeError, "command must be a str or a path"),
            ((["cat", "-u"],), {}, TypeError, "command must be a str or a path"),
            ((b"cat",), {}, TypeError, "command must be a str or a path"),
            (("",), {}, ValueError, "command must name a program"),
            (("cat", "-u"), {}, TypeError, "args must be a sequence of str, not str"),
            (("cat", {"-u"}), {}, TypeError, "args must be a sequence of str, not set"),
            (("cat", ["-n", 5]), {}, TypeError, "every one of args must be a str or a path, not int"),
            (("cat",), {"env": ["A=1"]}, TypeError, "env must be a mapping of str to str, not list"),
            (("cat",), {"env": {"PORT": 8000}}, TypeError, r"env\['PORT'\] must be a str, not int"),
            (("cat",), {"env": {1: "a"}}, TypeError, "env must be a mapping of str to str"),
            (("cat",), {"env": {"": "a"}}, ValueError, "no variable can have"),
            (("cat",), {"env": {"A=B": "a"}}, ValueError, "no variable can have"),
            (("cat",), {"cwd": 1}, TypeError, "cwd must be a str or a path"),
            (("cat",), {"cwd": ""}, ValueError, "cwd must be a directory"),
        ],
    )
    def test_what_could_never_work_is_refused_at_once(
        self, arguments: Any, settings: Any, error: type[Exception], accepted: str
    ):
        with pytest.raises(error, match=accepted):
            StdioTransport(*arguments, **settings)

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("/usr/bin/node",), "node"),
            (("/usr/bin/python3.11", [__file__]), "python3.11 test_stdio.py"),
            (("node", [__file__, "hush"]), "node test_stdio.py ..."),
            (("python", ["hush"]), "python ..."),
            (("python", ["-m", "hush"]), "python ..."),
            (("python", ["\0hush"]), "python ..."),
            (("serve", [__file__]), "serve ..."),
            (("uv", ["run", "server.py", "--token", "hush"]), "uv ..."),
            (("npx", ["-y", "package", "hush"]), "npx ..."),
            (("serve", ["postgres://me:hush@host/db"]), "serve ..."),
            (("serve", ["KEY=hush"]), "serve ..."),
            (("/",), "/"),
        ],
    )
    def test_it_describes_itself_without_secrets(self, arguments: Any, text: str):
        transport = StdioTransport(*arguments, env={"NAME": "hush"})
        assert transport.describe == text
        assert "hush" not in repr(transport)
        assert text in repr(transport)


class TestStarting:
    async def test_messages_go_there_and_back(self):
        async with connected(faulty("echo")) as connection:
            before = connection.last_traffic
            await connection.send(request(1, greeting="hällo"))
            answer = await connection.incoming.receive()
            assert isinstance(answer, JSONRPCResponse)
            assert json.loads(answer.result["line"])["params"] == {"greeting": "hällo"}
            assert connection.last_traffic > before
            assert connection.abandon(1) is False

    async def test_two_connections_are_two_processes(self):
        transport = faulty("ignores")
        async with connected(transport) as one, connected(transport) as other:
            assert (await pids(one))["child"] != (await pids(other))["child"]

    async def test_the_child_gets_few_variables_a_directory_and_a_process_group(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("OURS_ALONE", "hush")
        transport = faulty("environment", env={"NAME": "value", "HOME": "/elsewhere"}, cwd=tmp_path)
        async with connected(transport) as connection:
            answer = await connection.incoming.receive()
        assert isinstance(answer, JSONRPCResponse)
        env = answer.result["env"]
        assert env["NAME"] == "value"
        assert env["HOME"] == "/elsewhere"
        assert env["PATH"] == os.environ["PATH"]
        assert "OURS_ALONE" not in env
        assert answer.result["cwd"] == str(tmp_path)
        assert answer.result["group"] is True

    @pytest.mark.parametrize(
        ("transport", "cause"),
        [
            (StdioTransport("no-such-command-anywhere"), FileNotFoundError),
            (StdioTransport("/etc/passwd"), PermissionError),
            (StdioTransport("/tmp"), PermissionError),
            (StdioTransport("/etc/passwd/x"), NotADirectoryError),
            (StdioTransport("cat", cwd="/no/such/directory"), FileNotFoundError),
            (StdioTransport("cat", ["a\0b"]), ValueError),
            (StdioTransport("cat\0"), ValueError),
            (StdioTransport("cat", env={"A": "\0"}), ValueError),
        ],
    )
    async def test_a_command_that_cannot_be_started_is_a_connect_error(
        self, transport: StdioTransport, cause: type[Exception]
    ):
        with pytest.raises(ConnectError, match="could not start") as caught:
            async with within(SOON), connected(transport):
                pytest.fail("connected to nothing")
        assert isinstance(caught.value.cause, cause)
        assert transport.describe in str(caught.value)

    @pytest.mark.parametrize(
        "fault",
        [
            {"command": "no-such-command-anywhere"},
            {"command": "/etc/passwd"},
            {"command": "/tmp"},
            {"cwd": "/no/such/directory"},
            {"args": ["s3cret\0"]},
            {"args": ["s3cret\ud800"]},
            {"env": {"KEY": "s3cret\0"}},
            {"env": {"KEY": "s3cret\ud800"}},
            {"env": {"s3cret\ud800": "x"}},
        ],
    )
    async def test_the_error_of_a_command_that_cannot_be_started_holds_no_argument_and_no_environment(
        self, fault: dict[str, Any]
    ):
        settings: dict[str, Any] = {"command": "cat", "args": ["--key=s3cret"], "env": {"KEY": "s3cret"}}
        transport = StdioTransport(**{**settings, **fault})
        for enter in (connected(transport), Client(transport)):
            with pytest.raises(ConnectError, match="could not start") as caught:
                async with within(SOON), enter:
                    pytest.fail("connected to nothing")
            error = caught.value
            assert isinstance(error.cause, OSError | ValueError)
            told = [str(error), repr(error), repr(vars(error.cause)), repr(error.cause.args)]
            assert "s3cret" not in " ".join(told) + locals_behind(error)
            assert b"s3cret" not in pickle.dumps(error)

    async def test_cancelled_while_starting_it_leaves_no_child(self, monkeypatch: pytest.MonkeyPatch):
        started: list[int] = []
        starting, go_on = anyio.Event(), anyio.Event()
        start_process = _child.start_process

        async def slowly(*args: Any, **kwargs: Any) -> _process.ChildPipes:
            starting.set()
            await go_on.wait()
            process = await start_process(*args, **kwargs)
            started.append(process.pid)
            return process

        monkeypatch.setattr(_child, "start_process", slowly)

        async def host() -> None:
            async with connected(faulty("echo")):
                pytest.fail("connected although cancelled")

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tg:
                tg.start_soon(host)
                await starting.wait()
                tg.cancel_scope.cancel()
                go_on.set()
        assert len(started) == 1
        assert not is_alive(started[0])

    async def test_cancelled_before_it_starts_nothing_is_started(self, monkeypatch: pytest.MonkeyPatch):
        async def never(*args: Any, **kwargs: Any) -> _process.ChildPipes:
            raise AssertionError("started although cancelled")

        monkeypatch.setattr(_child, "start_process", never)
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with connected(faulty("echo")):
                pytest.fail("connected although cancelled")
        assert scope.cancelled_caught


class TestExit:
    @pytest.mark.parametrize("code", [0, 1])
    async def test_a_server_that_exits_at_once_says_its_code_and_last_words(self, code: int):
        async with connected(faulty("exits", code, "one", "two ö \x1b")) as connection:
            items, lost = await until_lost(connection)
        assert items == []
        assert lost.reason == "exited"
        assert lost.exit_code == code
        assert lost.stderr_tail == ("one", "two ö \x1b")
        assert str(lost).startswith(f"the server process exited with code {code}: two")

    async def test_a_server_that_exits_in_the_middle_of_a_call_says_why(self):
        async with connected(faulty("exits_when_asked", 9)) as connection:
            await connection.send(request())
            items, lost = await until_lost(connection)
        assert items == []
        assert (lost.reason, lost.exit_code) == ("exited", 9)
        assert lost.stderr_tail == ("Traceback (most recent call last):", "ValueError: no such luck")

    @pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
    async def test_a_killed_server_names_the_signal(self, name: str):
        async with connected(faulty("dies_of", name)) as connection:
            await connection.send(request())
            _, lost = await until_lost(connection)
        assert lost.exit_code == -signal.Signals[name]
        assert str(lost) == f"the server process was killed by {name}"

    async def test_a_signal_without_a_name_is_told_by_its_number(self):
        async with connected(faulty("dies_of_a_nameless_signal")) as connection:
            await connection.send(request())
            _, lost = await until_lost(connection)
        assert lost.exit_code == -(signal.SIGRTMIN + 5)
        assert str(lost) == f"the server process was killed by signal {signal.SIGRTMIN + 5}"

    @pytest.mark.parametrize("code", [0, 3, 255])
    async def test_a_code_that_event_loops_make_up_is_told_when_it_is_the_true_one(self, code: int):
        async with connected(faulty("exits_when_asked", code)) as connection:
            await connection.send(request())
            _, lost = await until_lost(connection)
        assert (lost.reason, lost.exit_code) == ("exited", code)

    @pytest.mark.parametrize("code", [0, 3, 255])
    async def test_no_code_is_invented_where_the_program_ignores_its_children(self, code: int):
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            async with connected(faulty("exits_when_asked", code), close=0.2) as connection:
                await connection.send(request())
                _, lost = await until_lost(connection)
        finally:
            signal.signal(signal.SIGCHLD, before)
        assert (lost.reason, lost.exit_code) == ("exited", None)
        assert str(lost).startswith("the server process exited, with a code that nobody knows")
        assert lost.stderr_tail[-1] == "ValueError: no such luck"

    @pytest.mark.parametrize("end", [["exits_when_asked", "3"], ["dies_of", "SIGKILL"]])
    async def test_no_code_is_invented_where_another_part_of_the_program_was_told_it(
        self, end: list[str], monkeypatch: pytest.MonkeyPatch
    ):
        has_exited = _process.PosixProcess.has_exited

        def told_too_late(process: _process.PosixProcess) -> bool:
            with suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            return has_exited(process)

        monkeypatch.setattr(_process.PosixProcess, "has_exited", told_too_late)
        async with connected(faulty(*end)) as connection, within(SOON):
            await connection.send(request())
            _, lost = await until_lost(connection)
        assert (lost.reason, lost.exit_code) == ("exited", None)
        assert "a code that nobody knows" in str(lost)

    async def test_a_session_of_a_program_that_ignores_its_children_is_replaced_as_any_other(self):
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            with anyio.fail_after(PATIENCE):
                async with Client(StdioTransport(sys.executable, [CHILDREN / "sdk_server.py"])) as client:
                    first = client.session
                    await client.ping()
                assert client.stats().sessions_started == 1
                async with client:
                    await client.ping()
                    assert client.session is not first
        finally:
            signal.signal(signal.SIGCHLD, before)

    async def test_half_a_line_before_an_exit_is_a_violation_and_the_whole_one_is_delivered(self):
        async with connected(faulty("says_half_a_line_and_exits")) as connection:
            await connection.send(request())
            items, lost = await until_lost(connection)
        whole, half = items
        assert isinstance(whole, JSONRPCNotification)
        assert isinstance(half, Violation)
        assert "resu" in half.detail
        assert (lost.reason, lost.exit_code) == ("exited", 3)

    async def test_a_whole_answer_without_a_newline_is_delivered_at_the_end(self):
        async with connected(faulty("answers_without_newline_and_exits")) as connection:
            await connection.send(request(5))
            items, lost = await until_lost(connection)
        [answer] = items
        assert isinstance(answer, JSONRPCResponse)
        assert answer.id == 5
        assert lost.exit_code == 0

    async def test_a_grandchild_that_holds_the_pipes_does_not_hide_the_exit(self):
        async with connected(faulty("leaves_a_grandchild")) as connection:
            them = await pids(connection)
            async with within(SOON):
                items, lost = await until_lost(connection)
            assert is_alive(them["grandchild"])
        assert items == []
        assert (lost.reason, lost.exit_code) == ("exited", 7)
        assert lost.stderr_tail == ("last words",)
        await until(lambda: not is_alive(them["grandchild"]))

    async def test_the_news_of_a_kill_is_there_well_within_100_ms(self):
        took: list[float] = []
        for behaviour in ["has_a_grandchild", "never_reads"] * 3:
            async with connected(faulty(behaviour), close=0) as connection:
                them = await pids(connection)
                os.kill(them["child"], signal.SIGKILL)
                killed = anyio.current_time()
                _, lost = await until_lost(connection)
                took.append(anyio.current_time() - killed)
                assert lost.exit_code == -signal.SIGKILL
        # Not all of them: the machine may be busy with something else for a moment.
        assert min(took[0::2]) < 0.1
        assert min(took[1::2]) < 0.05

    @pytest.mark.parametrize(("pause", "size"), [(0, 2000), (0.01, 1)])
    async def test_a_grandchild_that_goes_on_writing_does_not_delay_the_news(self, pause: float, size: int):
        transport = faulty("leaves_a_chatty_grandchild", pause, size)
        async with connected(transport, close=0) as connection, within(3 * SOON):
            items, lost = await until_lost(connection)
        assert (lost.reason, lost.exit_code) == ("exited", 7)
        # What is read after the exit was noticed, and before that.
        assert len(items) * size < LAST_WORDS_BYTES + 2_000_000

    async def test_without_pidfd_the_exit_is_watched_all_the_same(self, monkeypatch: pytest.MonkeyPatch):
        # Not os.pidfd_open: newer asyncio watches its children by that as well.
        monkeypatch.setattr(_child, "open_pidfd", lambda pid: None)
        async with connected(faulty("leaves_a_grandchild")) as connection:
            _, lost = await until_lost(connection)
        assert (lost.reason, lost.exit_code) == ("exited", 7)

    def test_a_system_without_pidfd_or_one_that_forbids_it_has_none(self, monkeypatch: pytest.MonkeyPatch):
        def forbidden(pid: int) -> int:
            raise PermissionError("by the sandbox")

        monkeypatch.setattr(os, "pidfd_open", forbidden)
        assert _child.open_pidfd(os.getpid()) is None
        monkeypatch.delattr(os, "pidfd_open")
        assert _child.open_pidfd(os.getpid()) is None

    async def test_after_the_loss_a_request_is_dropped_and_a_receipt_says_why(self):
        receipts = Receipts()
        async with connected(faulty("exits", 1)) as connection:
            _, lost = await until_lost(connection)
            await connection.send(request())
            await connection.send(receipts.notification())
            with pytest.raises(anyio.EndOfStream):
                await connection.incoming.receive()
        [told] = receipts
        assert isinstance(told, SessionLostError)
        assert (told.reason, told.exit_code) == ("exited", 1)
        assert told is not lost

    async def test_a_write_that_waits_ends_with_the_process_although_its_pipe_is_held(self):
        receipts = Receipts()
        async with connected(faulty("never_reads_and_leaves_a_grandchild")) as connection:
            them = await pids(connection)
            async with anyio.create_task_group() as tg:
                tg.start_soon(connection.send, receipts.notification(text="x" * 3_000_000))
                await anyio.wait_all_tasks_blocked()
                os.kill(them["child"], signal.SIGKILL)
                _, lost = await until_lost(connection)
        assert lost.reason == "exited"
        [told] = receipts
        assert isinstance(told, SessionLostError)
        assert told.exit_code == -signal.SIGKILL


class TestPipes:
    async def test_a_server_that_closes_its_output_is_lost_though_it_lives(self):
        async with connected(faulty("closes_stdout"), close=0.2) as connection, within(SOON):
            items, lost = await until_lost(connection)
        assert items == []
        assert lost.reason == "eof"
        assert lost.exit_code is None
        assert str(lost) == "the server closed its output: still here"

    async def test_writing_to_a_server_that_closed_its_input_fails_the_message_then_the_connection(self):
        async with connected(faulty("closes_stdin"), close=0.2) as connection:
            await connection.incoming.receive()
            await connection.send(request(8))
            items, lost = await until_lost(connection)
        [fault] = items
        assert isinstance(fault, RequestFault)
        assert fault.request_id == 8
        assert isinstance(fault.error, RequestFailedError)
        assert fault.error.reason == "transport"
        assert isinstance(fault.error.cause, anyio.BrokenResourceError | OSError)
        assert lost.reason == "eof"
        assert "stopped reading" in str(lost)

    async def test_a_notification_to_a_closed_input_gets_its_receipt(self):
        receipts = Receipts()
        async with connected(faulty("closes_stdin"), close=0.2) as connection:
            await connection.incoming.receive()
            await connection.send(receipts.notification())
            items, lost = await until_lost(connection)
        assert items == []
        [told] = receipts
        assert isinstance(told, RequestFailedError)
        assert lost.reason == "eof"

    async def test_a_broken_pipe_of_a_server_that_exits_is_told_as_its_exit(self):
        async with connected(faulty("closes_stdin_and_exits")) as connection:
            await connection.incoming.receive()
            await connection.send(request())
            _, lost = await until_lost(connection)
        assert (lost.reason, lost.exit_code) == ("exited", 4)

    @pytest.mark.parametrize("size", [3_000_000, 10_000_000])
    async def test_a_server_that_stops_reading_makes_the_write_wait_and_not_the_leaving(self, size: int):
        receipts = Receipts()
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tg:
                async with connected(faulty("never_reads"), close=0.3) as connection:
                    await pids(connection)
                    tg.start_soon(connection.send, receipts.notification(text="x" * size))
                    await anyio.wait_all_tasks_blocked()
                    assert receipts == []
                    left = anyio.current_time()
                assert anyio.current_time() - left < 0.3 + SOON
        [told] = receipts
        assert isinstance(told, SessionLostError)
        assert told.reason == "closed"

    async def test_a_message_cut_off_by_cancelling_its_sender_loses_the_connection(self, tmp_path: Path):
        receipts = Receipts()
        proof = tmp_path / "proof"
        async with connected(faulty("reads_when_told", proof), close=PATIENCE) as connection:
            child = (await pids(connection))["child"]
            with anyio.move_on_after(0.05) as scope:
                await connection.send(receipts.notification(text="x" * 3_000_000))
            assert scope.cancelled_caught
            os.kill(child, signal.SIGUSR1)
            await connection.send(receipts.notification(text="after"))
            items, lost = await until_lost(connection)
        assert items == []
        assert lost.reason == "closed"
        assert "cut off" in str(lost)
        cut_off, after = receipts
        assert isinstance(cut_off, RequestFailedError)
        assert isinstance(after, SessionLostError)
        assert b"after" not in proof.read_bytes()

    async def test_a_lost_server_is_still_read_so_that_it_can_exit(self, tmp_path: Path):
        proof = tmp_path / "proof"
        transport = faulty("closes_stdin_and_writes_a_lot", proof, 5_000_000)
        async with connected(transport, close=PATIENCE) as connection:
            await connection.incoming.receive()
            await connection.send(request())
            _, lost = await until_lost(connection)
        assert lost.reason == "eof"
        assert proof.read_text() == "all of it was read"

    async def test_a_sender_cancelled_before_it_wrote_anything_leaves_the_connection_alone(self):
        receipts = Receipts()
        async with connected(faulty("echo")) as connection:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await connection.send(receipts.notification())
            assert scope.cancelled_caught
            await connection.send(request(2))
            answer = await connection.incoming.receive()
        assert receipts == []
        assert isinstance(answer, JSONRPCResponse)
        assert answer.id == 2


class TestLines:
    @pytest.mark.parametrize(
        ("before", "violations"),
        [
            (["Starting on port 80\\n"], 1),
            (["\\n\\r\\n  \\n"], 0),
            (["\\xff\\xfe not UTF-8\\n", '{"a": "\\xff"}\\n'], 2),
            (["[{}]\\n", "{}\\n", "null\\n"], 3),
            (['{"jsonrpc":"1.0","id":1,"result":{}}\\n'], 0),
            (['{"jsonrpc":"2.0","id":1,"result":null}\\n'], 0),
            (["[" * 5000 + "\\n"], 1),
        ],
    )
    async def test_what_is_no_message_is_counted_and_the_session_lives(
        self, before: list[str], violations: int
    ):
        async with connected(faulty("writes", *before)) as connection:
            await connection.send(request(1))
            items: list[Incoming] = []
            while not items or isinstance(items[-1], Violation):
                items.append(await connection.incoming.receive())
        assert isinstance(items.pop(), JSONRPCResponse)
        assert len(items) == violations

    async def test_garbage_between_messages_keeps_its_place(self):
        note = '{"jsonrpc":"2.0","method":"m"}\\r\\n'
        async with connected(faulty("writes", "\\xef\\xbb\\xbf" + note, "garbage\\n", note)) as connection:
            kinds = [type(await connection.incoming.receive()) for _ in range(3)]
        assert kinds == [JSONRPCNotification, Violation, JSONRPCNotification]

    async def test_the_answers_of_a_batch_are_taken_one_by_one(self):
        batch = '[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","id":2,"result":{}}]\\n'
        async with connected(faulty("writes", batch)) as connection:
            for number in (1, 2):
                item = await connection.incoming.receive()
                assert isinstance(item, JSONRPCResponse)
                assert item.id == number

    async def test_half_a_line_then_silence_delivers_nothing_and_can_be_left(self):
        async with connected(faulty("writes", '{"jsonrpc": "2.0", ')) as connection:
            before = connection.last_traffic
            await until(lambda: connection.last_traffic > before)
            with anyio.move_on_after(0.05) as silence:
                await connection.incoming.receive()
            assert silence.cancelled_caught

    async def test_an_answer_of_50_mb_arrives(self):
        async with connected(faulty("answers_with", 50_000_000, "usual")) as connection:
            await connection.send(request(1))
            answer = await connection.incoming.receive()
        assert isinstance(answer, JSONRPCResponse)
        assert len(answer.result["text"]) == 50_000_000

    @pytest.mark.parametrize("order", ["usual", "id_last"])
    async def test_an_answer_over_the_limit_fails_its_request_and_the_session_lives(self, order: str):
        async with connected(faulty("answers_with", 3_000_000, order), limit=1_000_000) as connection:
            for request_id in (1, 2):
                await connection.send(request(request_id))
                fault = await connection.incoming.receive()
                assert isinstance(fault, RequestFault)
                assert fault.request_id == request_id
                assert isinstance(fault.error, RequestFailedError)
                assert fault.error.reason == "oversized"
                assert "1000000" in str(fault.error)

    async def test_a_line_over_the_limit_without_a_readable_id_is_a_violation(self):
        async with connected(faulty("answers_with", 3_000_000, "hidden"), limit=1_000_000) as connection:
            await connection.send(request(1))
            item = await connection.incoming.receive()
        assert isinstance(item, Violation)
        assert "max_message_bytes" in item.detail

    async def test_a_request_of_the_server_over_the_limit_does_not_fail_our_request_of_that_id(self):
        async with connected(faulty("asks_with", 3_000_000), limit=1_000_000) as connection:
            await connection.send(request(1))
            items = [await connection.incoming.receive() for _ in range(2)]
        assert isinstance(items[0], Violation)
        assert isinstance(items[1], JSONRPCResponse)

    async def test_100_000_notifications_arrive_before_the_answer(self):
        async with connected(faulty("notifies", 100_000)) as connection:
            await connection.send(request(1))
            count = 0
            while isinstance(item := await connection.incoming.receive(), JSONRPCNotification):
                count += 1
        assert isinstance(item, JSONRPCResponse)
        assert count == 100_000


class TestStderr:
    async def test_a_flood_on_stderr_stops_nothing_and_its_end_is_kept(self):
        async with connected(faulty("floods_stderr", 10_000_000)) as connection:
            await connection.send(request(1))
            items, lost = await until_lost(connection)
        assert isinstance(items[0], JSONRPCResponse)
        assert lost.stderr_tail == ("x" * 99,) * 19 + ("the end",)

    async def test_the_last_words_on_stderr_are_waited_for(self, monkeypatch: pytest.MonkeyPatch):
        read_stderr = _child.ChildProcess.read_stderr

        async def late(self: _child.ChildProcess) -> None:
            await self.exited.wait()
            await anyio.wait_all_tasks_blocked()
            await read_stderr(self)

        monkeypatch.setattr(_child.ChildProcess, "read_stderr", late)
        async with connected(faulty("exits", 1, "the end")) as connection:
            _, lost = await until_lost(connection)
        assert lost.stderr_tail == ("the end",)

    async def test_each_line_is_logged(self, caplog: pytest.LogCaptureFixture):
        caplog.set_level(logging.DEBUG, logger="anyio_mcp.stderr")
        async with connected(faulty("exits", 1, "one", "two")) as connection:
            await until_lost(connection)
        assert [record.args and record.args[1] for record in caplog.records] == ["one", "two"]

    def test_the_tail_is_bounded_in_lines_and_in_characters(self):
        tail = _child.StderrTail("a server")
        for number in range(30):
            tail.feed(b"\n%d " % number + b"\xff" + b"x" * 2000)
            tail.feed(b"y" * 1000)
        assert len(tail.lines) == 20
        assert tail.lines[0].startswith("10 \ufffdx")
        assert tail.lines[-1].startswith("29 \ufffdx")
        assert {len(line) for line in tail.lines} == {500}

    def test_the_tail_is_the_same_however_the_bytes_are_cut(self):
        data = "eins\r\n\n  zwölf 𝄞\nunfinished".encode()
        whole, cut = _child.StderrTail("a server"), _child.StderrTail("a server")
        whole.feed(data)
        for byte in data:
            cut.feed(bytes([byte]))
        assert whole.lines == cut.lines == ("eins", "  zwölf 𝄞", "unfinished")


class TestWriting:
    @pytest.mark.parametrize(
        ("message", "line"),
        [
            (
                JSONRPCRequest(jsonrpc="2.0", id=1, method="m", params=None),
                '{"jsonrpc":"2.0","id":1,"method":"m"}',
            ),
            (
                JSONRPCRequest(jsonrpc="2.0", id="a", method="m", params={"x": None, "y": [None]}),
                '{"jsonrpc":"2.0","id":"a","method":"m","params":{"x":null,"y":[null]}}',
            ),
            (
                JSONRPCResponse(jsonrpc="2.0", id=1, result={"x": None, "t": "a\nb\r"}),
                '{"jsonrpc":"2.0","id":1,"result":{"x":null,"t":"a\\nb\\r"}}',
            ),
            (
                JSONRPCError(jsonrpc="2.0", id=1, error=ErrorData(code=-1, message="no")),
                '{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}',
            ),
        ],
    )
    async def test_a_message_is_one_line_without_nulls_of_its_own(self, message: JSONRPCMessage, line: str):
        async with connected(faulty("echo")) as connection:
            await connection.send(Outgoing(message))
            answer = await connection.incoming.receive()
        assert isinstance(answer, JSONRPCResponse)
        assert answer.result["line"] == line + "\n"

    async def test_receipts_say_when_it_was_written(self):
        receipts = Receipts()
        async with connected(faulty("echo")) as connection:
            for _ in range(3):
                await connection.send(receipts.notification())
        assert receipts == [None] * 3

    async def test_what_cannot_be_written_as_json_fails_that_message_only(self):
        receipts = Receipts()
        async with connected(faulty("echo")) as connection:
            await connection.send(request(1, bad=object()))
            await connection.send(receipts.notification(bad="\ud800"))
            await connection.send(Outgoing(JSONRPCNotification(jsonrpc="2.0", method="\ud800")))
            await connection.send(request(2))
            fault = await connection.incoming.receive()
            answer = await connection.incoming.receive()
        assert isinstance(fault, RequestFault)
        assert fault.request_id == 1
        assert isinstance(fault.error, RequestFailedError)
        assert "cannot be written as JSON" in str(fault.error)
        [told] = receipts
        assert isinstance(told, RequestFailedError)
        assert isinstance(answer, JSONRPCResponse)
        assert answer.id == 2


class TestLeaving:
    async def test_a_server_that_ends_with_its_input_is_left_at_once(self):
        async with connected(faulty("echo"), close=10) as connection:
            await connection.send(request())
            await connection.incoming.receive()
            left = anyio.current_time()
        assert anyio.current_time() - left < SOON

    @pytest.mark.parametrize("what", [["EOF"], ["SIGTERM"], ["EOF", "SIGTERM"]])
    async def test_a_server_that_ignores_the_hints_is_gone_in_time(self, what: list[str]):
        async with connected(faulty("ignores", *what), close=0.3) as connection:
            child = (await pids(connection))["child"]
            left = anyio.current_time()
        assert anyio.current_time() - left < 0.3 + SOON
        assert not is_alive(child)

    async def test_with_no_time_to_close_it_is_killed_at_once(self):
        async with connected(faulty("ignores", "EOF", "SIGTERM"), close=0) as connection:
            child = (await pids(connection))["child"]
            left = anyio.current_time()
        assert anyio.current_time() - left < SOON
        assert not is_alive(child)

    async def test_a_server_that_ignores_eof_may_tidy_up_on_sigterm(self, tmp_path: Path):
        proof = tmp_path / "proof"
        async with connected(faulty("tidies_up_on_sigterm", proof), close=1) as connection:
            await connection.incoming.receive()
        assert proof.read_text() == "tidied up"

    async def test_a_stopped_server_is_gone_in_time(self):
        async with connected(faulty("is_stopped"), close=0.2) as connection:
            child = (await pids(connection))["child"]
        assert not is_alive(child)

    async def test_output_is_read_to_the_end_so_that_the_server_can_exit(self):
        async with connected(faulty("writes_a_lot_after_eof", 5_000_000), close=PATIENCE) as connection:
            await anyio.wait_all_tasks_blocked()
            del connection
            left = anyio.current_time()
        assert anyio.current_time() - left < 3 * SOON

    @pytest.mark.parametrize("behaviour", ["has_a_grandchild", "has_a_grandchild_and_exits_at_eof"])
    async def test_the_whole_process_group_is_gone(self, behaviour: str):
        async with connected(faulty(behaviour), close=0.3) as connection:
            them = await pids(connection)
        assert not is_alive(them["child"])
        await until(lambda: not is_alive(them["grandchild"]))

    async def test_a_descendant_that_went_elsewhere_with_the_pipes_does_not_keep_us(self):
        before = descriptors()
        async with connected(faulty("has_a_grandchild_elsewhere"), close=10) as connection:
            them = await pids(connection)
            left = anyio.current_time()
        took = anyio.current_time() - left
        try:
            assert is_alive(them["grandchild"])
            assert took < SOON
        finally:
            os.kill(them["grandchild"], signal.SIGKILL)
        # At once with newer anyio; older ones leave it to the end of the pipes.
        await until(lambda: descriptors() == before)

    async def test_an_inbox_that_nobody_empties_stops_the_reading_and_not_the_leaving(self):
        async with connected(faulty("floods_stdout"), close=0.3) as connection:
            inbox: Any = connection.incoming
            await until(lambda: inbox.statistics().current_buffer_used == INBOX_SIZE)
            await until(lambda: inbox.statistics().tasks_waiting_send == 1)
            left = anyio.current_time()
        assert anyio.current_time() - left < 0.3 + SOON

    async def test_a_loss_that_nobody_hears_of_does_not_stop_the_leaving(self):
        async with connected(faulty("notifies_and_exits", INBOX_SIZE), close=PATIENCE) as connection:
            inbox: Any = connection.incoming
            await until(lambda: inbox.statistics().tasks_waiting_send == 1)
            left = anyio.current_time()
        assert anyio.current_time() - left < SOON

    async def test_a_full_inbox_delays_the_loss_but_drops_nothing(self):
        said = INBOX_SIZE + 700
        async with connected(faulty("notifies_and_exits", said)) as connection:
            inbox: Any = connection.incoming
            await until(lambda: inbox.statistics().tasks_waiting_send == 1)
            await anyio.sleep(0.1)  # longer than the patience with a server that has exited
            items, lost = await until_lost(connection)
        assert len(items) == said
        assert lost.exit_code == 0

    async def test_an_error_of_the_body_leaves_as_it_was_raised(self):
        with pytest.raises(ZeroDivisionError) as caught:
            async with connected(faulty("echo")):
                raise ZeroDivisionError
        assert caught.value.__cause__ is None

    async def test_cancelled_it_still_ends_the_process(self):
        children: list[int] = []
        with anyio.CancelScope() as scope:
            async with connected(faulty("ignores", "EOF", "SIGTERM"), close=0.2) as connection:
                children.append((await pids(connection))["child"])
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert not is_alive(children[0])

    async def test_cancelled_while_leaving_it_still_ends_the_process(self):
        children: list[int] = []
        with anyio.CancelScope() as scope:
            async with connected(faulty("ignores", "EOF", "SIGTERM"), close=0.4) as connection:
                children.append((await pids(connection))["child"])
                scope.deadline = anyio.current_time() + 0.05
        assert not is_alive(children[0])

    async def test_no_descriptor_stays_open(self):
        counts: list[int] = []
        for behaviour in ["echo", "exits", "leaves_a_grandchild", "never_reads"] * 2:
            async with connected(faulty(behaviour, *["0"] * (behaviour == "exits")), close=0.1):
                await anyio.wait_all_tasks_blocked()
            counts.append(descriptors())
        assert counts[4:] == counts[:4]

    async def test_without_process_groups_the_child_itself_is_ended(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.delattr(os, "killpg")
        for what in (["EOF"], ["EOF", "SIGTERM"], []):
            async with connected(faulty("ignores", *what), close=0.2) as connection:
                child = (await pids(connection))["child"]
            assert not is_alive(child)


async def test_where_only_the_event_loop_reads_pipes_its_own_processes_are_used(
    monkeypatch: pytest.MonkeyPatch,
):
    started: list[_process.LoopProcess] = []

    async def start_process(command: Any, *, env: Any, cwd: Any) -> _process.ChildPipes:
        process = await anyio.open_process(command, env=env, cwd=cwd, start_new_session=True)
        started.append(_process.LoopProcess(process))
        return started[-1]

    monkeypatch.setattr(_child, "start_process", start_process)
    async with connected(faulty("exits_when_asked", 3)) as connection:
        await connection.send(request())
        _, lost = await until_lost(connection)
    assert (lost.reason, lost.exit_code) == ("exited", 3)
    monkeypatch.delattr(os, "killpg")
    async with connected(faulty("ignores", "EOF", "SIGTERM"), close=0.2) as connection:
        child = (await pids(connection))["child"]
    assert not is_alive(child)
    assert [process.exit_code for process in started] == [3, -signal.SIGKILL]


class _Unkillable(_process.ChildPipes):
    """A process in a state that not even SIGKILL ends, such as waiting for a broken disk."""

    def __init__(self) -> None:
        self.pipes = [anyio.create_memory_object_stream[bytes](1) for _ in range(3)]
        ends: Any = (self.pipes[0][0], self.pipes[1][1], self.pipes[2][1])
        self.stdin, self.stdout, self.stderr = ends
        self.pid = -1

    @property
    def exit_code(self) -> None:
        return None

    def has_exited(self) -> bool:
        return False

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


async def test_a_process_that_cannot_be_killed_is_given_up_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.delattr(os, "killpg")
    process = _Unkillable()
    child = _child.ChildProcess(process, "a server")
    with anyio.fail_after(PATIENCE):
        await child.release()
    assert "not even by SIGKILL" in caplog.text
    with pytest.raises(anyio.ClosedResourceError):
        await child.stdin.send(b"")
    for pair in process.pipes:
        for end in pair:
            end.close()


class TestNativeCancellation:
    """asyncio's own cancellation does not respect anyio's shields."""

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.parametrize("times", [1, 30])
    async def test_however_often_it_is_cancelled_leaving_ends_the_process(
        self, anyio_backend: str, times: int
    ):
        children: list[int] = []
        connecting = asyncio.Event()

        async def use() -> None:
            async with connected(faulty("ignores", "EOF", "SIGTERM"), close=0.4) as connection:
                children.append((await pids(connection))["child"])
                connecting.set()
                await asyncio.sleep(PATIENCE)

        task = asyncio.create_task(use())
        await connecting.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.005)
            assert is_alive(children[0])
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_alive(children[0])

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_cancelled_while_already_leaving_it_ends_the_process(self, anyio_backend: str):
        children: list[int] = []
        leaving = asyncio.Event()

        async def use() -> None:
            async with connected(faulty("ignores", "EOF", "SIGTERM"), close=0.4) as connection:
                children.append((await pids(connection))["child"])
                leaving.set()

        task = asyncio.create_task(use())
        await leaving.wait()
        for _ in range(10):
            await asyncio.sleep(0.01)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_alive(children[0])

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_cancelled_while_starting_it_leaves_no_child(self, anyio_backend: str):
        for steps in range(12):
            task = asyncio.create_task(self.use_and_count())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    @staticmethod
    async def use_and_count() -> None:
        async with connected(faulty("echo"), close=0.5):
            await asyncio.sleep(PATIENCE)

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_asyncio_timeout_around_it_ends_the_process(self, anyio_backend: str):
        children: list[int] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                async with connected(faulty("ignores", "EOF", "SIGTERM"), close=0.2) as connection:
                    children.append((await pids(connection))["child"])
                    await asyncio.sleep(PATIENCE)
        assert not is_alive(children[0])


def test_a_loop_that_shuts_down_with_a_connection_in_it_kills_the_process_and_returns():
    children: list[int] = []
    tasks: list[asyncio.Task[None]] = []

    async def use(connecting: asyncio.Event) -> None:
        async with connected(faulty("ignores", "EOF", "SIGTERM"), close=10) as connection:
            children.append((await pids(connection))["child"])
            connecting.set()
            await asyncio.sleep(PATIENCE)

    async def main() -> None:
        connecting = asyncio.Event()
        tasks.append(asyncio.create_task(use(connecting)))
        await connecting.wait()

    asyncio.run(main())
    assert not is_alive(children[0])
    assert tasks[0].cancelled()


async def test_a_server_made_with_the_sdk_answers_initialize():
    transport = StdioTransport(sys.executable, [CHILDREN / "sdk_server.py"])
    initialize = JSONRPCRequest(
        jsonrpc="2.0",
        id=0,
        method="initialize",
        params={
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    )
    with anyio.fail_after(2 * PATIENCE):
        async with transport.connect(timeouts=Timeouts(), limits=Limits()) as connection:
            await connection.send(Outgoing(initialize))
            answer = await connection.incoming.receive()
    assert isinstance(answer, JSONRPCResponse)
    assert answer.id == 0
    assert answer.result["serverInfo"]["name"] == "real"


class TestRemarks:
    """What a server that does not get ready has said, on stderr and on stdout."""

    SILENT = "import sys, time; print('listening on port 3333', flush=True); {} time.sleep(60)"
    ON_STDERR = "print('sign in \\x1b[2J first', file=sys.stderr, flush=True);"

    @pytest.mark.parametrize(
        ("more", "said"), [("", "listening on port 3333"), (ON_STDERR, "sign in \\x1b[2J first")]
    )
    async def test_a_connect_deadline_says_what_the_server_said(self, more: str, said: str):
        transport = StdioTransport(sys.executable, ["-S", "-c", self.SILENT.format(more)])
        with pytest.raises(DeadlineExceededError) as caught:
            with anyio.fail_after(PATIENCE):
                async with Client(transport, timeouts=Timeouts(connect=1.5, close=1)):
                    pytest.fail("connected to a server that does not answer")
        error = caught.value
        assert error.phase == "connect"
        assert said in str(error)
        assert error.stray_lines == ("listening on port 3333",)
        assert error.stderr_tail == (("sign in \x1b[2J first",) if more else ())

    async def test_a_server_that_exits_says_the_same(self):
        program = "print('usage: serve --stdio'); print('x' * 10_000); [print(n) for n in range(10)]"
        with pytest.raises(ConnectError, match="usage: serve --stdio") as caught:
            with anyio.fail_after(PATIENCE):
                async with Client(StdioTransport(sys.executable, ["-S", "-c", program])):
                    pytest.fail("connected to a server that has exited")
        assert caught.value.stray_lines == ("usage: serve --stdio", "x" * 500, "0", "1", "2")
