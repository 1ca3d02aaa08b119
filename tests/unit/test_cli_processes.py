"""The command line as a process: what it writes where writing fails, and how it ends on a signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SERVER = """
import json, os, sys, time

LISTS = {"tools/list": "tools", "resources/list": "resources", "prompts/list": "prompts"}
kind, mark = sys.argv[1], sys.argv[2]
if kind == "connect":
    open(mark, "w").write(str(os.getpid()))
    time.sleep(60)
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    method = message["method"]
    if method == "initialize":
        capabilities = {"tools": {}, "resources": {}, "prompts": {}, "logging": {}}
        info = {"name": "s", "version": "1"}
        answer["result"] = {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info}
    elif method == "tools/call" and kind == "call":
        open(mark, "w").write(str(os.getpid()))
        time.sleep(60)
    elif method == "tools/call":
        if kind == "logs":
            note = {"level": "no such level", "data": "x"}
            sent = {"jsonrpc": "2.0", "method": "notifications/message", "params": note}
            print(json.dumps(sent), flush=True)
        answer["result"] = {"content": [{"type": "text", "text": "done \\u2713\\ta\\r\\nb \\x1b[2J"}]}
    elif method == "tools/list":
        schema = {"type": "object"}
        tools = [{"name": f"t{n}", "description": "x" * 200, "inputSchema": schema} for n in range(1000)]
        answer["result"] = {"tools": tools}
    elif method in LISTS and kind == "lacks":
        code = -32601 if method == "prompts/list" else -32603
        answer["error"] = {"code": code, "message": "no\\n\\x1b[2J"}
    elif method in LISTS:
        answer["result"] = {LISTS[method]: []}
    elif method == "resources/templates/list":
        answer["result"] = {"resourceTemplates": []}
    else:
        answer["error"] = {"code": -32601, "message": "Method not found"}
    print(json.dumps(answer), flush=True)
"""

BOUND = 60


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "pid"


@pytest.fixture
def server(tmp_path: Path, mark: Path, request: pytest.FixtureRequest) -> str:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    return f"{sys.executable} -S {script} {getattr(request, 'param', 'plain')} {mark}"


def run(*words: str, env: dict[str, str] | None = None, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run(
        [sys.executable, "-m", "anyio_mcp", *words],
        env={**os.environ, **(env or {})},
        timeout=BOUND,
        check=False,
        **streams,
    )


def test_the_answer_of_a_tool_is_written_as_it_was_said_but_for_what_acts_on_a_terminal(server: str) -> None:
    done = run("call", server, "t")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == "done \u2713\ta\r\nb \\x1b[2J\n".encode()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_character_that_the_encoding_lacks_does_not_cost_the_answer(server: str, encoding: str) -> None:
    done = run("call", server, "t", env={"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"done \\u2713\ta")


@pytest.mark.parametrize("words", [["call", "t"], ["call", "t", "--json"], ["list"]], ids=str)
def test_an_answer_that_cannot_be_written_is_one_line_and_exit_code_4(server: str, words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(words[0], server, *words[1:], stdout=full)
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert line.startswith(b"anyio-mcp: the answer came and could not be written: ")


@pytest.mark.parametrize("words", [["list"], ["list", "--json"]], ids=str)
def test_a_reader_that_has_gone_ends_the_command_as_sigpipe_would(server: str, words: list[str]) -> None:
    command = [sys.executable, "-m", "anyio_mcp", words[0], server, *words[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(BOUND) == 141


def test_without_stderr_the_command_still_ends(server: str) -> None:
    with Path("/dev/full").open("w") as full:
        assert run("call", server, "t", "word", stderr=full).returncode == 2


@pytest.mark.parametrize("server", ["lacks"], indirect=True)
def test_a_list_that_a_server_cannot_give_does_not_cost_the_others(server: str) -> None:
    done = run("list", server)
    assert b"  t999()" in done.stdout
    lines = done.stderr.decode().splitlines()
    assert lines == [
        "anyio-mcp: resources: MCPError(-32603): no \\x1b[2J",
        "anyio-mcp: prompts: MCPError(-32601): no \\x1b[2J",
    ]
    assert done.returncode == 1
    assert len(json.loads(run("list", server, "--json").stdout)["tools"]) == 1000


@pytest.mark.parametrize("server", ["logs"], indirect=True)
def test_a_record_of_any_library_is_a_line_and_no_traceback(server: str) -> None:
    done = run("call", server, "t")
    assert done.returncode == 0
    for line in done.stderr.splitlines():
        assert line.startswith(b"anyio-mcp: ")


@pytest.mark.parametrize("server", ["connect", "call"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_server_and_then_the_command(
    server: str, mark: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "anyio_mcp", "call", server, "t"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        give_up = time.monotonic() + BOUND
        while not (mark.exists() and mark.read_text()):
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=BOUND)
    assert (process.returncode, out, err) == (128 + number, b"", b"")
    assert not is_alive(int(mark.read_text()))


def test_a_signal_that_is_ignored_stays_ignored(server: str) -> None:
    # As nohup does it.
    program = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "from anyio_mcp.cli.running import run_command\n"
        "async def work(): os.kill(os.getpid(), signal.SIGHUP); return 'done'\n"
        "print(run_command(work, sys.argv[1]))"
    )
    for backend in ("asyncio", "trio"):
        done = subprocess.run(
            [sys.executable, "-c", program, backend], capture_output=True, timeout=BOUND, check=False
        )
        assert (done.returncode, done.stdout) == (0, b"done\n"), done.stderr


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
