"""Configuration files as people have them, and as nobody should."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from anyio_mcp.client import Client
from anyio_mcp.config import Timeouts
from anyio_mcp.group import ClientGroup
from anyio_mcp.mcp_config import MCPConfig, RemoteServer, StdioServer
from anyio_mcp.transports import infer_transport
from anyio_mcp.transports.http import StreamableHttpTransport
from anyio_mcp.transports.sse import SSETransport
from anyio_mcp.transports.stdio import StdioTransport

URL = "https://example.com/mcp"
SIZE = 200_000
"""Enough for anything quadratic to take minutes."""
ENVIRON = {"TOKEN": "s3cret", "HOST": "example.com", "EMPTY": "", "HOSTILE": "${TOKEN}"}


def parse(config: Any, **options: Any) -> MCPConfig:
    return MCPConfig.parse(config, **{"environ": ENVIRON, **options})


def one(server: Any, **options: Any) -> Any:
    return parse({"mcpServers": {"a": server}}, **options).only()


def refusal(kind: type[Exception], server: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        one(server, **options)
    assert type(caught.value) is kind
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


# --- shapes ---------------------------------------------------------------------------------------


CLAUDE = {
    "mcpServers": {
        "files": {"command": "npx", "args": ["-y", "server-filesystem", "/tmp"], "env": {"A": "1"}},
        "search": {"url": URL, "headers": {"X-Key": "1"}},
    }
}
VS_CODE = {
    "servers": {
        "files": {
            "type": "stdio",
            "command": "npx",
            "args": ["-y", "server-filesystem", "/tmp"],
            "env": {"A": "1", "UNSET": None},
        },
        "search": {"type": "http", "url": URL, "headers": {"X-Key": "1"}},
    },
    "inputs": [{"type": "promptString", "id": "key", "password": True}],
}


@pytest.mark.parametrize("config", [CLAUDE, VS_CODE, CLAUDE["mcpServers"]], ids=["claude", "vscode", "names"])
def test_every_shape_reads_as_the_same_servers(config: dict[str, Any]) -> None:
    servers = parse(config).servers
    assert list(servers) == ["files", "search"]
    files, search = servers["files"], servers["search"]
    assert isinstance(files, StdioServer)
    assert (files.name, files.kind, files.command) == ("files", "stdio", "npx")
    assert files.args == ("-y", "server-filesystem", "/tmp")
    assert (dict(files.env), files.cwd) == ({"A": "1"}, None)
    assert isinstance(search, RemoteServer)
    assert (search.name, search.kind, search.url) == ("search", "http", URL)
    assert dict(search.headers) == {"X-Key": "1"}
    assert search.auth is None


def test_one_server_alone_is_called_server() -> None:
    server = parse({"command": "x", "cwd": "/srv"}).only()
    assert isinstance(server, StdioServer)
    assert (server.name, server.command, server.cwd) == ("server", "x", "/srv")


def test_a_server_may_be_called_like_a_field() -> None:
    assert list(parse({"url": {"url": URL}, "command": {"command": "x"}}).servers) == ["url", "command"]


@pytest.mark.parametrize("off", [{"disabled": True}, {"enabled": False}], ids=str)
def test_a_disabled_server_is_left_out_and_its_variables_are_not_missed(off: dict[str, bool]) -> None:
    config = {"mcpServers": {"a": {"command": "${NOWHERE}", **off}, "b": {"command": "x"}}}
    assert list(parse(config).servers) == ["b"]
    assert parse(config).only().name == "b"
    assert list(ClientGroup(config)) == ["b"]


@pytest.mark.parametrize("on", [{"disabled": False}, {"enabled": True}], ids=str)
def test_a_server_that_is_not_disabled_is_there(on: dict[str, bool]) -> None:
    assert one({"command": "x", **on}).command == "x"


def test_unknown_keys_are_ignored_and_named_at_debug_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="anyio_mcp.mcp_config"):
        one({"command": "x", "trust": True, "alwaysAllow": ["s3cret"], "gallery": True})
    assert [record.message for record in caplog.records] == [
        "server 'a': ignored keys: ['alwaysAllow', 'gallery', 'trust']"
    ]


@pytest.mark.parametrize(
    ("named", "kind"),
    [
        ({}, "http"),
        ({"type": "http"}, "http"),
        ({"type": "streamable-http"}, "http"),
        ({"transport": "streamable_http"}, "http"),
        ({"type": "streamableHttp"}, "http"),
        ({"type": "http", "transport": "streamable-http"}, "http"),
        ({"type": "sse"}, "sse"),
        ({"transport": "SSE"}, "sse"),
    ],
    ids=str,
)
def test_how_a_url_is_reached_is_named_in_many_ways(named: dict[str, str], kind: str) -> None:
    assert one({"url": URL, **named}).kind == kind


@pytest.mark.parametrize(
    ("server", "kind", "url"),
    [
        ({"serverUrl": URL}, "http", URL),
        ({"httpUrl": URL}, "http", URL),
        ({"httpUrl": URL, "url": URL + "/sse"}, "http", URL),
        ({"httpUrl": URL + "/sse"}, "http", URL + "/sse"),
        ({"url": URL + "/sse"}, "sse", URL + "/sse"),
        ({"url": URL + "/SSE/?a=b#c"}, "sse", URL + "/SSE/?a=b#c"),
        ({"url": URL + "/sse", "type": "http"}, "http", URL + "/sse"),
        ({"url": URL + "/assess"}, "http", URL + "/assess"),
        ({"url": URL + "?path=/sse"}, "http", URL + "?path=/sse"),
        ({"url": "https://${HOST}/sse"}, "sse", "https://example.com/sse"),
        ({"url": URL, "transportType": "sse"}, "sse", URL),
        ({"url": URL, "transportType": "streamableHttp"}, "http", URL),
        ({"url": URL, "type": "remote"}, "http", URL),
        ({"url": URL, "type": "streamable-http", "transportType": "streamable-http"}, "http", URL),
        ({"url": URL, "type": "", "command": "", "args": [], "env": {}}, "http", URL),
    ],
    ids=str,
)
def test_a_url_is_named_and_reached_as_the_programs_that_write_it_mean(
    server: dict[str, Any], kind: str, url: str
) -> None:
    read = one(server)
    assert (read.kind, read.url) == (kind, url)
    reached = {"http": StreamableHttpTransport, "sse": SSETransport}[kind]
    assert type(infer_transport(read)) is reached


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/sse", "http://127.0.0.1:1/a/sse/?x=1"])
def test_a_url_alone_that_ends_in_sse_is_reached_by_sse(url: str) -> None:
    assert type(infer_transport(url)) is SSETransport
    assert type(infer_transport(url.replace("sse", "mcp"))) is StreamableHttpTransport


def test_a_member_that_is_null_is_not_there() -> None:
    every = ("args", "env", "cwd", "envFile", "url", "serverUrl", "type", "transport", "disabled", "enabled")
    server = one({"command": "x", **dict.fromkeys((*every, "timeout", "headers", "auth"))})
    assert (server.command, server.args, dict(server.env), server.cwd) == ("x", (), {}, None)
    assert one({"url": URL, **dict.fromkeys(("command", "headers", "auth", "type", "args"))}).url == URL
    assert one({"command": "x", "args": ["a", None, "b"]}).args == ("a", "b")
    assert not parse({"mcpServers": None}).servers


@pytest.mark.parametrize(
    "config",
    [
        {"context_servers": {"a": {"source": "custom", "command": "x", "args": ["y"], "env": {"K": "v"}}}},
        {"context_servers": {"a": {"command": {"path": "x", "args": ["y"], "env": {"K": "v"}}}}},
        {
            "mcp": {"servers": {"a": {"command": "x", "args": ["y"], "env": {"K": "v"}}}},
            "editor.fontSize": 12,
        },
        {"mcp": {"inputs": [], "servers": {"a": {"command": "x", "args": ["y"], "env": {"K": "v"}}}}},
        {"a": {"type": "local", "command": "x", "args": ["y"], "env": {"K": "v"}}},
    ],
    ids=["zed", "older zed", "settings.json", "with inputs", "local"],
)
def test_the_shapes_of_editors_read_as_the_same_server(config: dict[str, Any]) -> None:
    server = parse(config).only()
    assert isinstance(server, StdioServer)
    assert (server.name, server.command, server.args, dict(server.env)) == ("a", "x", ("y",), {"K": "v"})


def test_a_server_may_be_called_mcp() -> None:
    assert parse({"mcp": {"command": "x"}}).only().name == "mcp"


@pytest.mark.parametrize(
    ("written", "seconds"), [(60, 60.0), (0.5, 0.5), (1000, 1.0), (30_000, 30.0), (999, 999.0)]
)
def test_a_timeout_bounds_each_call_unless_the_client_is_told_otherwise(
    written: float, seconds: float
) -> None:
    for server in ({"command": "x", "timeout": written}, {"url": URL, "timeout": written}):
        assert one(server).timeout == seconds
        assert Client(server)._timeouts.call == seconds
        assert Client(MCPConfig.parse(server))._timeouts == Timeouts(call=seconds)
        assert Client(server, timeouts=Timeouts(call=7))._timeouts.call == 7
        assert ClientGroup({"a": server})["a"]._timeouts.call == seconds


def test_an_env_file_is_read_and_env_wins(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(
        b"\xef\xbb\xbf# keys\r\nA=1\r\n\nexport B = two words # said\nC='a # b'\n"
        b'D="x=y" \nE=\nF=a#b\nG="open\n'
    )
    server = one({"command": "x", "envFile": str(file), "env": {"A": "mine"}})
    assert dict(server.env) == {
        "A": "mine",
        "B": "two words",
        "C": "a # b",
        "D": "x=y",
        "E": "",
        "F": "a#b",
        "G": '"open',
    }
    file.write_text("A=1\ns3cret\n")
    text = refusal(
        ValueError, {"command": "x", "envFile": "${FOLDER}/.env"}, environ={"FOLDER": str(tmp_path)}
    )
    assert text == "server 'a': envFile cannot be read: line 2 is not NAME=value"


def test_variables_of_editors_have_a_meaning() -> None:
    assert one({"command": "x", "cwd": "${workspaceFolder}"}).cwd == str(Path.cwd())
    assert one({"command": "${userHome}/x"}).command == f"{Path.home()}/x"
    assert one({"command": "${userHome}"}, environ={"userHome": "mine"}).command == "mine"


# --- one bad server -------------------------------------------------------------------------------

BAD: list[Any] = [
    {"command": "${NOWHERE_AT_ALL}"},
    {"url": "https://${NOWHERE_AT_ALL}/"},
    {"url": "ftp://example.com"},
    {"url": URL, "headers": {"a b": "c"}},
    {"command": ""},
    {},
    7,
    None,
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_a_bad_server_of_a_configuration_fails_alone_if_failures_are_reported(bad: Any) -> None:
    config = {"mcpServers": {"good": {"command": "x"}, "bad": bad}}
    read = MCPConfig.parse(config, on_failure="report")
    assert list(read.servers) == ["good", "bad"]
    with pytest.raises((TypeError, ValueError)) as caught:
        infer_transport(read.servers["bad"])
    assert "bad" in f"{caught.value} {getattr(caught.value, '__notes__', '')}"
    assert isinstance(infer_transport(read.servers["good"]), StdioTransport)


# --- variables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("${TOKEN}", "s3cret"),
        ("${env:TOKEN}", "s3cret"),
        ("Bearer ${TOKEN}!", "Bearer s3cret!"),
        ("${TOKEN}${HOST}", "s3cretexample.com"),
        ("${NOWHERE:-default}", "default"),
        ("${env:NOWHERE:-default}", "default"),
        ("${NOWHERE:-}", ""),
        ("${NOWHERE:-a:-b}", "a:-b"),
        ("${TOKEN:-default}", "s3cret"),
        ("${EMPTY}", ""),
        ("${EMPTY:-default}", "default"),
        ("${HOSTILE}", "${TOKEN}"),
        ("${input:the key}", "given"),
        ("$TOKEN $$ ${} ${ TOKEN } ${TOKEN", "$TOKEN $$ ${} ${ TOKEN } ${TOKEN"),
        ("${1} ${a%b} $(x) {TOKEN}", "${1} ${a%b} $(x) {TOKEN}"),
    ],
)
def test_variables_are_replaced_once_and_nothing_else_is(text: str, expanded: str) -> None:
    inputs = {"the key": "given"}
    assert one({"command": text}, inputs=inputs).command == expanded
    assert one({"command": "x", "args": ["-k", text]}, inputs=inputs).args == ("-k", expanded)
    assert dict(one({"command": "x", "env": {"K": text}}, inputs=inputs).env) == {"K": expanded}
    assert one({"command": "x", "cwd": text}, inputs=inputs).cwd == expanded
    assert one({"url": text}, inputs=inputs).url == expanded
    assert dict(one({"url": URL, "headers": {"K": text}}, inputs=inputs).headers) == {"K": expanded}
    assert one({"url": URL, "auth": text}, inputs=inputs).auth == expanded


def test_names_are_not_expanded() -> None:
    server = one({"command": "x", "env": {"${TOKEN}": "1"}})
    assert dict(server.env) == {"${TOKEN}": "1"}


@pytest.mark.parametrize(
    ("server", "where"),
    [
        ({"command": "${NOWHERE}"}, "command"),
        ({"command": "${TOKEN}", "args": ["${TOKEN}", "${NOWHERE}"]}, "args[1]"),
        ({"command": "x", "env": {"B": "${TOKEN}", "A": "${env:NOWHERE}"}}, "env['A']"),
        ({"url": "https://${TOKEN}/${NOWHERE}"}, "url"),
        ({"url": URL, "headers": {"K": "${TOKEN}${NOWHERE}"}}, "headers['K']"),
    ],
    ids=str,
)
def test_a_missing_variable_is_named_with_its_server_and_place(server: Any, where: str) -> None:
    text = refusal(ValueError, server)
    assert text == (f"server 'a': {where}: the environment variable 'NOWHERE' is not set and has no default")


def test_a_missing_input_is_named() -> None:
    assert "server 'a': command: the input 'key' is not given" in refusal(
        ValueError, {"command": "${input:key}"}
    )


@pytest.mark.parametrize("text", ["${A:-${TOKEN}}", "${A:-{}}", "${A:-x", "${TOKEN:-$x}", "${input:k:-{"])
def test_a_default_that_could_be_read_in_two_ways_is_refused(text: str) -> None:
    assert "the default of" in refusal(ValueError, {"command": text})


def test_variables_come_from_this_process_unless_others_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYIO_MCP_TEST", "here")
    config = {"command": "${ANYIO_MCP_TEST}"}
    for source in (config, MCPConfig.parse(config)):
        transport = infer_transport(source)
        assert isinstance(transport, StdioTransport)
        assert transport.command == "here"
    client = ClientGroup({"a": config})["a"]
    assert isinstance(client.transport, StdioTransport)
    assert client.transport.command == "here"


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "kind", "why"),
    [
        (None, TypeError, "must be a mapping"),
        ({}, ValueError, "either a 'url' or a 'command'"),
        ({"url": URL, "command": "x"}, ValueError, "either a 'url' or a 'command'"),
        ({"command": ["npx", "s3cret"]}, ValueError, "either a 'url' or a 'command'"),
        ({"command": "x", "args": "-y s3cret"}, TypeError, "args must be a sequence of str, not str"),
        ({"command": "x", "args": {"s3cret": 1}}, TypeError, "args must be a sequence of str, not dict"),
        ({"command": "x", "args": [8080]}, TypeError, "every one of args must be a str, not int"),
        ({"command": "x", "env": [["K", "s3cret"]]}, TypeError, "env must be a mapping of str to str"),
        ({"command": "x", "env": {"K": True}}, TypeError, "env['K'] must be a str, not bool"),
        ({"command": "x", "env": {1: "s3cret"}}, TypeError, "env has a name of int"),
        ({"command": "x", "cwd": 7}, TypeError, "cwd must be a str, not int"),
        ({"url": URL, "headers": "K: s3cret"}, TypeError, "headers must be a mapping of str to str"),
        ({"url": URL, "headers": {"K": 1}}, TypeError, "headers['K'] must be a str"),
        ({"url": URL, "type": "websocket"}, ValueError, "cannot reach a server over 'websocket'"),
        ({"url": URL, "type": "stdio"}, ValueError, "cannot reach a server over 'stdio'"),
        ({"url": URL, "type": 7}, ValueError, "cannot reach a server over 7"),
        ({"url": URL, "type": "sse", "transport": "http"}, ValueError, "contradict each other"),
        ({"command": "x", "type": "http"}, ValueError, "a command cannot be reached over 'http'"),
        ({"command": "x", "disabled": "false"}, TypeError, "disabled must be true or false, not str"),
        ({"command": "x", "enabled": 1}, TypeError, "enabled must be true or false, not int"),
        ({"url": URL, "type": {"s3cret": 1}}, ValueError, "cannot reach a server over a dict"),
        ({"url": URL, "transportType": "stdio"}, ValueError, "cannot reach a server over 'stdio'"),
        ({"url": URL, "timeout": "s3cret"}, TypeError, "timeout must be a number, not str"),
        ({"url": URL, "timeout": True}, TypeError, "timeout must be a number, not bool"),
        ({"url": URL, "timeout": -1}, ValueError, "timeout must be a number above 0"),
        ({"url": URL, "timeout": 0}, ValueError, "timeout must be a number above 0"),
        ({"command": "x", "timeout": math.inf}, ValueError, "timeout must be a number above 0"),
        ({"command": "x", "timeout": math.nan}, ValueError, "timeout must be a number above 0"),
        ({"command": "x", "envFile": 7}, TypeError, "envFile must be a str, not int"),
        ({"command": "x", "envFile": "/s3cret/none"}, ValueError, "envFile cannot be read: No such file"),
        ({"command": "x", "envFile": "/dev/zero"}, ValueError, "envFile cannot be read: it is not"),
    ],
    ids=str,
)
def test_a_server_of_the_wrong_shape_is_named_and_its_values_are_not(
    server: Any, kind: type[Exception], why: str
) -> None:
    text = refusal(kind, server)
    assert text.startswith("server 'a': ")
    assert why in text


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"mcpServers": []}, "'mcpServers' must be a mapping"),
        ({"servers": "x"}, "'servers' must be a mapping"),
        ({"mcpServers": {1: {"command": "x"}}}, "the name of a server must be a str, not int"),
        ([{"command": "x"}], "a configuration must be a mapping, not list"),
    ],
    ids=str,
)
def test_a_configuration_of_the_wrong_shape_is_a_type_error(config: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        parse(config)


@pytest.mark.parametrize(
    "name", ["", "a\nb", "a\x00b", "\x1b[31m", "x" * 129, "\ud800", "a\u2028b"], ids=ascii
)
def test_a_name_that_would_spoil_a_log_line_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        parse({"mcpServers": {name: {"command": "x"}}})


@pytest.mark.parametrize(
    ("server", "kind"),
    [
        ({"url": "ftp://s3cret@example.com"}, ValueError),
        ({"url": "${TOKEN}"}, ValueError),
        ({"url": URL, "headers": {"K": "s3cret\r\nX: y"}}, ValueError),
        ({"url": URL, "headers": {"a b": "s3cret"}}, ValueError),
        ({"url": URL, "auth": "s3cret s3cret"}, ValueError),
        ({"url": URL, "auth": {"CLIENT_ID": "s3cret"}}, TypeError),
        ({"command": "", "args": ["s3cret"]}, ValueError),
        ({"command": "x", "env": {"A=B": "s3cret"}}, ValueError),
        ({"url": URL, "type": "sse", "auth": "s3cret s3cret"}, ValueError),
    ],
    ids=str,
)
def test_what_no_transport_can_use_is_refused_before_anything_is_opened(
    server: Any, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    config = {"mcpServers": {"a": server}}
    for make in (Client, ClientGroup, infer_transport):
        with pytest.raises(kind) as caught:
            make(config)
        assert type(caught.value) is kind
        assert "s3cret" not in str(caught.value)
        assert "server 'a'" in "\n".join(caught.value.__notes__)


# --- one server, several servers ------------------------------------------------------------------


def test_a_client_for_several_servers_is_referred_to_client_group() -> None:
    for config in (CLAUDE, VS_CODE, parse(CLAUDE)):
        with pytest.raises(ValueError, match="use ClientGroup") as caught:
            Client(config)
        assert str(caught.value).endswith("has 2: files, search")


def test_a_client_takes_a_configuration_and_a_server_of_one() -> None:
    config = parse({"mcpServers": {"a": {"url": URL, "auth": "${TOKEN}"}}})
    for source in (config, config.only()):
        transport = Client(source).transport
        assert isinstance(transport, StreamableHttpTransport)
        assert (transport.url, transport.auth) == (URL, "s3cret")
    assert isinstance(Client(config, auth="other").transport, StreamableHttpTransport)


def test_an_auth_object_is_passed_on_as_it_is() -> None:
    auth = httpx2.BasicAuth("me", "s3cret")
    assert one({"url": URL, "auth": auth}).auth is auth
    transport = Client({"url": URL, "auth": auth}).transport
    assert isinstance(transport, StreamableHttpTransport)
    assert transport.auth is auth


def test_nothing_shows_what_a_configuration_keeps_secret() -> None:
    config = parse(
        {
            "mcpServers": {
                "child": {"command": "/bin/x", "args": ["--key=s3cret"], "env": {"K": "s3cret"}},
                "remote": {
                    "url": "https://me:s3cret@example.com/mcp?key=s3cret",
                    "headers": {"K": "s3cret"},
                    "auth": "s3cret",
                },
            }
        }
    )
    group = ClientGroup(config)
    shown = [config, *config.servers.values(), group, *group.servers.values(), config.servers]
    assert not [each for each in shown if "s3cret" in f"{each!r}{each}"]
    assert repr(config) == "MCPConfig(child: stdio, remote: http)"
    assert repr(config.servers["child"]) == "<StdioServer 'child': 'x'>"
    assert repr(config.servers["remote"]) == "<RemoteServer 'remote': https://example.com:443/mcp (http)>"


def test_a_configuration_cannot_be_changed() -> None:
    given: dict[str, Any] = {"a": {"command": "x", "env": {"K": "1"}}}
    config = parse(given)
    given["a"]["env"]["K"] = "2"
    loose: Any = config
    with pytest.raises(TypeError):
        loose.servers["b"] = config.only()
    with pytest.raises(TypeError):
        loose.servers["a"].env["K"] = "3"
    with pytest.raises(AttributeError):
        loose.servers = {}
    assert dict(loose.servers["a"].env) == {"K": "1"}


# --- files ----------------------------------------------------------------------------------------


def written(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "mcp.json"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_a_file_is_read(tmp_path: Path) -> None:
    config = MCPConfig.load(written(tmp_path, json.dumps(CLAUDE)), environ=ENVIRON)
    assert list(config.servers) == ["files", "search"]


def test_a_file_may_have_a_byte_order_mark_comments_and_trailing_commas(tmp_path: Path) -> None:
    text = """\ufeff// what VS Code writes
    {
      "servers": { /* two
        lines */
        "a": {"command": "x // y", "args": ["/* kept */", "a,]", "\\"//\\\\",],}, // one
      },
    } // the end"""
    server = MCPConfig.load(str(written(tmp_path, text))).only()
    assert isinstance(server, StdioServer)
    assert server.command == "x // y"
    assert server.args == ("/* kept */", "a,]", '"//\\')


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value (line 1)"),
        ('{"mcpServers":\n// one\n/* two\nthree */\n x}', "(line 5)"),
        ('{"a": {"env": {"K": "s3cret}}}', "Invalid|Unterminated"),
        ('{"a": {"command": "x"}, "a": {"command": "y"}}', "the key 'a' is given twice"),
        (b'{"a": "\xff"}', "not UTF-8"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "4300"),
    ],
    ids=["empty", "line", "unterminated", "twice", "bytes", "nested", "digits"],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str | bytes, why: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ValueError, match="is no configuration") as caught:
        MCPConfig.load(file)
    assert str(file) in str(caught.value)
    assert any(each in str(caught.value) for each in why.split("|"))
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_file_that_is_no_mapping_is_a_type_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must be a mapping, not list"):
        MCPConfig.load(written(tmp_path, "[]"))


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MCPConfig.load(tmp_path / "mcp.json")


def test_a_pipe_or_a_directory_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match="not a regular file"):
            MCPConfig.load(file)


def test_a_file_larger_than_any_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="larger than"):
        MCPConfig.load(written(tmp_path, " " * (1024 * 1024 + 1)))


@pytest.mark.parametrize(
    "unit", ['"', '\\"', '"\\', "/*", "//", ",", ", ", "${A:-", "${input:", "${" + "A" * 99], ids=ascii
)
def test_a_hostile_file_takes_no_time(tmp_path: Path, unit: str) -> None:
    for text in (unit * (SIZE // len(unit)), '{"a": {"command": "' + unit * (SIZE // len(unit) - 30)):
        file = written(tmp_path, text)
        started = time.perf_counter()
        with pytest.raises(ValueError):
            MCPConfig.load(file)
        assert time.perf_counter() - started < 3


@pytest.mark.parametrize("unit", ["${A:-", "${input:", "${" + "A" * 99, "${A:-}", "$", "{"])
def test_a_hostile_text_takes_no_time(unit: str) -> None:
    started = time.perf_counter()
    with contextlib.suppress(ValueError):
        one({"command": unit * (SIZE // len(unit))})
    assert time.perf_counter() - started < 3
