"""The command line: what is typed, what is printed, and the exit code, against real processes."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import MCPError
from mcp.server.mcpserver import MCPServer
from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    Implementation,
    Prompt,
    PromptArgument,
    Resource,
    ResourceLink,
    TextContent,
    TextResourceContents,
    Tool,
)
from typer.testing import CliRunner

from anyio_mcp import cli
from anyio_mcp.cli import app as app_module
from anyio_mcp.cli import demo, demo_server, outcome, render, servers
from anyio_mcp.cli.outcome import UnexpectedOutcomeError, UsageError
from anyio_mcp.client import Client
from anyio_mcp.errors import (
    ConnectError,
    DeadlineExceededError,
    NotConnectedError,
    RequestFailedError,
    SessionLostError,
)
from anyio_mcp.transports.stdio import StdioTransport

SERVER = '''
import os
from mcp.server.mcpserver import MCPServer

server = MCPServer("test server", version="7")

@server.tool()
def join(words: list[str], by: str = "-") -> str:
    """Join words.

    The second paragraph is not listed."""
    return by.join(words)

@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("no such luck")

@server.tool()
def die() -> str:
    """Exit."""
    os._exit(7)

@server.resource("memo://today")
def memo() -> str:
    """What is due."""
    return "nothing"

@server.resource("memo://{day}")
def memo_of(day: str) -> str:
    """What is due on a day."""
    return day

@server.prompt()
def greet(name: str) -> str:
    """Say hello."""
    return f"Say hello to {name}"

if __name__ == "__main__":
    server.run("stdio")
'''

MUTE_SERVER = """
import json, sys

for line in sys.stdin:
    message = json.loads(line)
    answer = {"jsonrpc": "2.0", "id": message.get("id")}
    if message["method"] == "initialize":
        info = {"name": "mute", "version": "1"}
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": info}
    elif message["method"] == "server/discover":
        answer["error"] = {"code": -32601, "message": "Method not found"}
    else:
        continue
    print(json.dumps(answer), flush=True)
"""

COMMAND_SECONDS = 60


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "a server.py"
    path.write_text(SERVER)
    return str(path)


@pytest.fixture(autouse=True)
def coverage_survives_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPython 3.11 a cancelled join desyncs coverage (python/cpython#106749): what the program does
    after its event loop would count as not run. One normal suspension at the end resyncs it.
    """
    run = anyio.run

    def run_and_suspend(work: Callable[[], Awaitable[Any]], **options: Any) -> Any:
        async def main() -> Any:
            try:
                return await work()
            finally:
                await anyio.lowlevel.checkpoint()

        return run(main, **options)

    monkeypatch.setattr(anyio, "run", run_and_suspend)


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app_module.app, list(words))


def one_error_line(result: Any) -> str:
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in lines[0]
    return lines[0]


# What is typed


def test_a_value_that_is_json_is_sent_as_json_and_everything_else_as_a_string() -> None:
    words = [
        "a=1",
        "b=two",
        "c=[1, 2]",
        "d=null",
        'e="3"',
        "f=",
        "g=x=y",
        "h=-0.5",
        "i={}",
        "j=NaN",
        "k=1e400",
    ]
    assert servers.arguments_of(servers.pairs_of(words)) == {
        "a": 1,
        "b": "two",
        "c": [1, 2],
        "d": None,
        "e": "3",
        "f": "",
        "g": "x=y",
        "h": -0.5,
        "i": {},
        "j": "NaN",
        "k": "1e400",
    }


def test_a_value_nested_too_deeply_for_the_parser_is_a_string() -> None:
    deep = "[" * 100_000
    assert servers.arguments_of({"a": deep}) == {"a": deep}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "12345", "12345"),
        ({"type": "string"}, "null", "null"),
        ({"type": "string"}, '{"a": 1}', '{"a": 1}'),
        ({"type": "string"}, '"quoted"', "quoted"),
        ({"type": ["string", "null"]}, "12345", "12345"),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": ["integer", "string"]}, "12345", 12345),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "true", "true"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", None),
        ({"oneOf": [{"type": "string"}, {"type": "array"}]}, "[1]", [1]),
        ({"type": "number"}, "1", 1),
        ({"type": "integer"}, "x", "x"),
        ({"type": 7, "anyOf": 7}, "1", 1),
        ({"anyOf": [7, {"type": [7]}]}, "1", 1),
        ({"$ref": "#/$defs/x"}, "1", 1),
        (True, "1", 1),
        (None, "1", 1),
    ],
)
def test_a_parameter_that_is_a_text_gets_a_text(schema: Any, text: str, value: Any) -> None:
    assert servers.arguments_of({"a": text}, {"properties": {"a": schema}}) == {"a": value}


@pytest.mark.parametrize("schema", [{}, {"properties": []}, {"properties": {}}, None])
def test_a_schema_that_says_nothing_changes_nothing(schema: Any) -> None:
    assert servers.arguments_of({"a": "1"}, schema) == {"a": 1}


def test_the_schema_is_asked_for_only_where_it_matters() -> None:
    assert not servers.need_schema({"a": "text", "b": "NaN", "c": '"quoted"'})
    assert servers.need_schema({"a": "text", "b": "5"})


@pytest.mark.parametrize("text", ["\udcff", '"\\ud800"', '["\\udfff"]', '{"\\ud800": 1}'], ids=ascii)
def test_what_no_message_can_say_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="argument 'a' is not text in UTF-8"):
        servers.arguments_of({"a": text})


@pytest.mark.parametrize("words", [["a"], ["=1"], ["a=1", "a=2"]])
def test_an_argument_that_is_not_one_key_and_value_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"key=value|twice"):
        servers.pairs_of(words)


def test_a_server_is_a_url_a_script_or_a_command_line(script: str) -> None:
    assert servers.source_of("http://127.0.0.1:1/mcp") == "http://127.0.0.1:1/mcp"
    assert servers.source_of("HTTPS://example.org") == "HTTPS://example.org"
    assert servers.source_of(script) == Path(script)
    command = servers.source_of("uvx 'a server' --flag")
    assert isinstance(command, StdioTransport)
    assert "uvx" in command.describe


def test_a_command_line_gets_this_environment_and_what_is_assigned_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "from the shell")
    plain = servers.source_of("serve --flag")
    assert isinstance(plain, StdioTransport)
    assert plain.env is not None
    assert plain.env["SERVICE_TOKEN"] == "from the shell"
    assigned = servers.source_of("SERVICE_TOKEN=hush B='two words' serve A=1")
    assert isinstance(assigned, StdioTransport)
    assert assigned.env is not None
    assert (assigned.command, assigned.args) == ("serve", ("A=1",))
    assert (assigned.env["SERVICE_TOKEN"], assigned.env["B"]) == ("hush", "two words")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["list", "KEY=hush no-such-command-anywhere --token=hush hush"], 3),
        (["list", "KEY=hush"], 2),
        (["list", "ftp://me:hush@example.org/?key=hush"], 2),
        (["list", "serve 'hush"], 2),
        (["call", "serve", "tool", "=hush"], 2),
        (["call", "serve", "tool", "hush"], 2),
        (["call", "serve", "tool", "a=hush", "a=hush"], 2),
    ],
    ids=str,
)
def test_no_complaint_repeats_what_may_be_a_secret(words: list[str], code: int) -> None:
    result = invoke(*words)
    assert result.exit_code == code
    assert "hush" not in one_error_line(result)


@pytest.mark.parametrize("text", ["", "   ", "missing.py", "it's", "ftp://example.org/x"])
def test_a_server_that_makes_no_sense_is_a_usage_error(text: str) -> None:
    result = invoke("list", text)
    assert result.exit_code == 2
    assert one_error_line(result).startswith("anyio-mcp: UsageError: ")


def test_a_malformed_argument_is_a_usage_error_before_any_server_is_started() -> None:
    result = invoke("call", "no-such-command-here", "tool", "word")
    assert result.exit_code == 2
    assert "key=value" in one_error_line(result)


def test_what_the_client_refuses_as_configuration_is_a_usage_error() -> None:
    result = invoke("list", "http://127.0.0.1:1/mcp", "--timeout", "nan")
    assert result.exit_code == 2


def test_help_names_the_exit_codes_and_version_the_version() -> None:
    assert "Exit codes" in invoke("--help").stdout
    assert re.fullmatch(r"anyio-mcp \d+\.\d+\S*\n", invoke("--version").stdout)


def test_a_backend_that_is_not_installed_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app_module, "find_spec", lambda name: None if name == "trio" else find_spec(name))
    result = invoke("demo", "--backend", "trio")
    assert result.exit_code == 2
    assert "pip install 'anyio-mcp[trio]'" in one_error_line(result)


def test_without_the_extra_the_command_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "rich" else find_spec(name))
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    line = capsys.readouterr().err
    assert "rich not installed" in line
    assert "pip install 'anyio-mcp[cli]'" in line


# What an error becomes


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("say what"), 2, "UsageError: say what"),
        (UnexpectedOutcomeError("two servers"), 1, "UnexpectedOutcomeError: two servers"),
        (MCPError(-32602, "bad\nparams"), 1, "MCPError(-32602): bad params"),
        (ValueError("no JSON"), 2, "ValueError: no JSON"),
        (NotConnectedError("not in a context"), 3, "NotConnectedError: not in a context"),
        (TimeoutError(), 3, "TimeoutError"),
        (
            RequestFailedError("cut off", reason="transport"),
            3,
            "RequestFailedError(transport): cut off",
        ),
        (
            DeadlineExceededError("no answer", phase="call", seconds=1.0),
            3,
            "DeadlineExceededError(call): no answer",
        ),
        (SessionLostError("gone", reason="exited", exit_code=-9), 3, "SessionLostError(exited): gone"),
        (ConnectError("it said \x1b[Ano"), 3, r"ConnectError: it said \x1b[Ano"),
        (
            ExceptionGroup("one", [ExceptionGroup("two", [NotConnectedError("inside")])]),
            3,
            "NotConnectedError: inside",
        ),
    ],
)
def test_every_error_is_one_line_and_an_exit_code(error: Exception, code: int, line: str) -> None:
    assert outcome.exit_code(error) == code
    assert outcome.one_line(error) == line


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "SIGKILL"), (-40, "signal 40"), (0, "exit code 0"), (3, "exit code 3"), (None, None)],
)
def test_the_end_of_a_process_has_a_name(code: int | None, words: str | None) -> None:
    assert outcome.exit_of(SessionLostError("gone", reason="exited", exit_code=code)) == words
    assert outcome.exit_of(TimeoutError()) is None


def test_an_error_line_is_bounded_whatever_the_server_wrote() -> None:
    line = outcome.one_line(MCPError(-1, "x" * 100_000))
    assert len(line) < 1000
    assert line.endswith("...")


# What is printed


def test_a_tools_signature_survives_every_shape_of_schema() -> None:
    schema = {
        "properties": {
            "plain": {"type": "string"},
            "many": {"type": ["string", "null"]},
            "choice": {"enum": ["a", 1]},
            "either": {"anyOf": [{"type": "integer"}, {"$ref": "#/x"}]},
            "odd": {},
            "all": True,
        },
        "required": ["plain"],
    }
    offer = render.Offer(
        server=None,
        protocol_version="2025-11-25",
        tools=[
            Tool(name="odd", input_schema=schema),
            Tool(name="none", input_schema={}),
            Tool(name="wrong", input_schema={"properties": [], "required": "all"}, description=" \n"),
        ],
        prompts=[
            Prompt(
                name="p",
                arguments=[PromptArgument(name="a", required=True), PromptArgument(name="b")],
            ),
            Prompt(name="q"),
        ],
    )
    odd = 'odd(plain: string, many?: string|null, choice?: "a"|1, either?: integer|any, odd?: any, all?: any)'
    assert [line.plain for line in render.offer_as_text(offer)] == [
        "a server without a name  (MCP 2025-11-25)",
        "tools",
        f"  {odd}",
        "  none()",
        "  wrong()",
        "prompts",
        "  p(a, b?)",
        "  q()",
    ]
    assert json.loads(render.offer_as_json(offer))["serverInfo"] is None


def test_a_server_that_offers_nothing_is_said_to_offer_nothing() -> None:
    offer = render.Offer(server=None, protocol_version=None)
    assert [line.plain for line in render.offer_as_text(offer)][-1] == "offers no tools, resources or prompts"


def test_every_kind_of_content_has_a_line_and_none_can_steer_the_terminal() -> None:
    result = CallToolResult(
        content=[
            TextContent(text="two\nlines \x1b[2J\x9b"),
            ImageContent(data="AAAA", mime_type="image/png"),
            AudioContent(data="AA==", mime_type="audio/wav"),
            ResourceLink(name="r", uri="file:///r"),
            EmbeddedResource(resource=TextResourceContents(uri="file:///t", text="inside")),
            EmbeddedResource(resource=BlobResourceContents(uri="file:///b", blob="AAAA")),
        ]
    )
    assert list(render.result_as_text(result)) == [
        "two\nlines \\x1b[2J\\x9b",
        "[image image/png, 4 characters of base64]",
        "[audio audio/wav, 4 characters of base64]",
        "[resource file:///r]",
        "inside",
        "[resource file:///b, 4 characters of base64]",
    ]


def test_an_answer_without_content_shows_its_structure_and_an_empty_failure_says_so() -> None:
    structured = CallToolResult(content=[], structured_content={"a": 1})
    assert json.loads("".join(render.result_as_text(structured))) == {"a": 1}
    assert render.error_text(CallToolResult(content=[], is_error=True)) == "the tool failed without a word"


def test_no_name_of_a_server_forges_a_line_of_the_list() -> None:
    evil = "x()\n  delete_nothing()\x1b[2J\u202e" + "y" * 100_000
    offer = render.Offer(
        server=Implementation(name=evil, version=evil),
        protocol_version=evil,
        tools=[
            Tool(name=evil, input_schema={"properties": {evil: {"type": [evil, None, {}]}}}, description=evil)
        ],
        resources=[Resource(name=evil, uri=evil, description=evil)],
        prompts=[Prompt(name=evil, arguments=[PromptArgument(name=evil)])],
    )
    lines = [line.plain for line in render.offer_as_text(offer)]
    assert len(lines) == 7
    for line in lines:
        assert line.isprintable()
        assert len(line) < 2500


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"anyOf": [True, {"type": "string"}]}}},
        {
            "properties": {"a": {"enum": [{"x": 1}, None]}, "b": {"type": [1, None, {}]}, "c": 7},
            "required": {"a": 1},
        },
        {"properties": {"a": {"enum": [{"x": 10**1000}]}, "b": {"anyOf": [[], {"type": {}}]}}},
    ],
)
def test_a_signature_is_shown_whatever_the_schema_is(schema: Any) -> None:
    offer = render.Offer(server=None, protocol_version=None, tools=[Tool(name="t", input_schema=schema)])
    assert [line.plain for line in render.offer_as_text(offer)][2].startswith("  t(a?: ")


# Against a real server


def test_list_shows_everything_a_server_offers(script: str) -> None:
    result = invoke("list", script)
    assert result.exit_code == 0, result.stderr
    head, *lines = result.stdout.splitlines()
    assert re.fullmatch(r"test server 7  \(MCP \d{4}-\d\d-\d\d\)", head)
    assert lines == [
        "tools",
        "  join(words: array, by?: string)  Join words.",
        "  fail()  Fail.",
        "  die()  Exit.",
        "resources",
        "  memo://today  What is due.",
        "resource templates",
        "  memo://{day}  What is due on a day.",
        "prompts",
        "  greet(name)  Say hello.",
    ]


def test_a_server_that_declares_nothing_is_not_asked_for_anything() -> None:
    result = invoke("list", shlex.join([sys.executable, "-c", MUTE_SERVER]), "--timeout", "20")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "mute 1  (MCP 2025-11-25)\noffers no tools, resources or prompts\n"


def test_list_as_json_is_what_the_server_sent(script: str) -> None:
    result = invoke("list", script, "--json")
    assert result.exit_code == 0, result.stderr
    offer = json.loads(result.stdout)
    assert offer["serverInfo"]["name"] == "test server"
    assert [tool["name"] for tool in offer["tools"]] == ["join", "fail", "die"]
    assert offer["resourceTemplates"][0]["uriTemplate"] == "memo://{day}"


def test_call_prints_the_answer_of_a_server_given_as_a_command_line(script: str) -> None:
    command = shlex.join([sys.executable, script])
    result = invoke("call", command, "join", 'words=["a", "b"]', "by=+")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "a+b\n", "")


def test_call_as_json_is_the_whole_result(script: str) -> None:
    result = invoke("call", script, "join", 'words=["a", "b"]', "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["content"] == [{"type": "text", "text": "a-b"}]


def test_a_tool_that_fails_is_one_line_and_exit_code_1(script: str) -> None:
    result = invoke("call", script, "fail")
    assert result.exit_code == 1
    line = one_error_line(result)
    assert line.startswith("anyio-mcp: ToolError: ")
    assert "Error executing tool fail" in line


def test_a_server_that_dies_during_the_call_is_one_line_and_exit_code_3(script: str) -> None:
    result = invoke("call", script, "die")
    assert result.exit_code == 3
    line = one_error_line(result)
    assert line.startswith("anyio-mcp: SessionLostError(exited): ")
    assert "7" in line


def test_a_tool_that_does_not_answer_in_time_is_one_line_and_exit_code_3() -> None:
    result = invoke("call", shlex.join([sys.executable, "-c", MUTE_SERVER]), "any", "--timeout", "2")
    assert result.exit_code == 3
    assert one_error_line(result).startswith("anyio-mcp: DeadlineExceededError(call): ")


@pytest.mark.parametrize(
    "server",
    [
        "no-such-command-here",
        shlex.join([sys.executable, "-c", "import sys; sys.exit('I give up')"]),
        "http://127.0.0.1:1/mcp",
    ],
    ids=["no command", "exits at once", "refused"],
)
def test_a_server_that_cannot_be_reached_is_one_line_and_exit_code_3(server: str) -> None:
    result = invoke("list", server, "--timeout", "20")
    assert result.exit_code == 3
    line = one_error_line(result)
    assert line.startswith("anyio-mcp: ConnectError: ")
    assert ("I give up" in line) == ("give up" in server)


# The demo


def run_as_process(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "anyio_mcp", *words],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_demo_shows_each_call_failing_and_then_a_new_session(backend: str) -> None:
    finished = run_as_process("demo", "--backend", backend)
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stderr
    shown = finished.stdout
    assert f"anyio-mcp on {backend}" in shown
    assert "20/20" in shown
    failures = re.findall(r"call (\d) +failed after +([\d.]+) ms +SessionLostError\(exited\) +SIGKILL", shown)
    assert [int(number) for number, _ in failures] == list(range(1, demo.CALLS_IN_FLIGHT + 1))
    # Far above what it takes, and far below every deadline that could have ended the calls instead.
    assert max(float(milliseconds) for _, milliseconds in failures) < 1000
    pids = re.findall(r"the server is process (\d+)", shown)
    assert len(set(pids)) == len(pids) == 2
    assert len(shown.splitlines()) < 40
    assert "\x1b" not in shown


def test_a_demo_that_takes_too_long_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "WHOLE_DEMO_SECONDS", 0.0)
    result = invoke("demo")
    assert result.exit_code == 3
    assert one_error_line(result) == "anyio-mcp: TimeoutError"


def test_the_demo_fails_when_the_server_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    class Survivor:
        SIGKILL = 0  # a signal that is only checked for, never delivered

    monkeypatch.setattr(demo, "signal", Survivor)
    monkeypatch.setattr(demo, "_NEVER", 0.2)
    result = invoke("demo")
    assert result.exit_code == 1
    assert result.stderr == "anyio-mcp: UnexpectedOutcomeError: not every call failed\n"


@pytest.mark.anyio
async def test_the_demo_server_does_what_the_demo_relies_on() -> None:
    steps: list[tuple[float, float | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        steps.append((done, total))

    with anyio.fail_after(30):
        async with Client(demo_server.server) as client:
            for tool, arguments, value in [
                ("add", {"a": 20, "b": 22}, 42),
                ("slow", {"seconds": 0.01}, 0.01),
                ("count", {"to": 2}, 2),
            ]:
                answer = await client.call_tool(tool, arguments, progress_handler=progress)
                assert answer.structured_content == {"result": value}
            pid = await client.call_tool("pid")
    assert pid.structured_content
    assert steps == [(0, 0.01), (1, 2), (2, 2)]


@pytest.mark.anyio
async def test_the_demo_refuses_an_answer_without_a_value() -> None:
    server = MCPServer("wordy")

    @server.tool(structured_output=False)
    def pid() -> str:
        return "no number"

    with anyio.fail_after(30):
        async with Client(server) as client:
            with pytest.raises(UnexpectedOutcomeError, match="without a value"):
                await demo._ask(client, "pid", None)
