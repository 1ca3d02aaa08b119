"""What a client can be made of, and what is said to everything else."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.server import Server
from mcp.server.mcpserver import MCPServer
from pydantic import AnyUrl

from anyio_mcp import MemoryTokenStore, OAuth, SSETransport
from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.transports import infer_transport
from anyio_mcp.transports.base import Transport
from anyio_mcp.transports.http import StreamableHttpTransport
from anyio_mcp.transports.memory import MemoryTransport
from anyio_mcp.transports.stdio import StdioTransport
from anyio_mcp.transports.streams import StreamsTransport

pytestmark = pytest.mark.anyio

URL = "http://127.0.0.1:8000/mcp"
WHAT_IS_ACCEPTED = "an http(s) URL, a path to a .py or .js file, a dict"


def http(source: Any, **options: Any) -> StreamableHttpTransport:
    transport = infer_transport(source, **options)
    assert isinstance(transport, StreamableHttpTransport)
    return transport


def stdio(source: Any, **options: Any) -> StdioTransport:
    transport = infer_transport(source, **options)
    assert isinstance(transport, StdioTransport)
    return transport


def refusal(kind: type[Exception], source: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        infer_transport(source, **options)
    assert type(caught.value) is kind
    return str(caught.value)


# --- what is accepted -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        URL,
        AnyUrl(URL),
        {"url": URL},
        {"mcpServers": {"one": {"url": URL}}},
        {"servers": {"one": {"url": URL}}},
    ],
    ids=["str", "AnyUrl", "dict", "mcpServers", "servers"],
)
def test_a_url_is_reached_over_http(source: Any) -> None:
    assert http(source).url == URL
    assert http(source).kind == "tcp"


@pytest.mark.parametrize("url", ["https://example.com/mcp", "HTTP://127.0.0.1/mcp", "http://[::1]:80/"])
def test_any_spelling_of_an_http_url_is_one(url: str) -> None:
    assert http(url).url == url


@pytest.mark.parametrize("key", ["type", "transport"])
def test_a_configuration_may_name_its_transport(key: str) -> None:
    for name in ("http", "streamable-http", "streamable_http"):
        assert http({"url": URL, key: name}).url == URL


def test_a_configuration_may_name_the_older_transport() -> None:
    transport = infer_transport({"url": URL, "type": "sse", "headers": {"x-key": "1"}, "auth": "token"})
    assert isinstance(transport, SSETransport)
    assert (transport.url, dict(transport.headers or {}), transport.auth) == (URL, {"x-key": "1"}, "token")


@pytest.mark.parametrize("auth", ["oauth", OAuth(token_store=MemoryTokenStore())])
def test_signing_in_is_for_every_way_to_name_a_url(auth: Any) -> None:
    assert http(URL, auth=auth).auth is auth
    assert http({"url": URL, "auth": auth}).auth is auth
    transport = infer_transport({"url": URL, "type": "sse"}, auth=auth)
    assert isinstance(transport, SSETransport)
    assert transport.auth is auth


def test_a_configuration_passes_on_headers_and_authentication() -> None:
    transport = http({"url": URL, "headers": {"x-key": "1"}, "auth": "token"})
    assert dict(transport.headers or {}) == {"x-key": "1"}
    assert transport.auth == "token"


def test_auth_given_to_the_client_goes_before_that_of_the_configuration() -> None:
    auth = httpx2.BasicAuth("me", "secret")
    assert http(URL, auth=auth).auth is auth
    assert http({"url": URL, "auth": "other"}, auth="token").auth == "token"
    assert http({"mcpServers": {"a": {"url": URL}}}, auth="token").auth == "token"


@pytest.mark.parametrize("of_type", [str, Path])
def test_a_python_file_is_run_by_this_python(tmp_path: Path, of_type: Any) -> None:
    server = tmp_path / "server.py"
    server.touch()
    transport = stdio(of_type(server))
    assert (transport.command, tuple(transport.args)) == (sys.executable, (str(server),))
    assert transport.kind == "pipe"


def test_a_javascript_file_is_run_by_node(tmp_path: Path) -> None:
    server = tmp_path / "server.js"
    server.touch()
    transport = stdio(server)
    assert (transport.command, tuple(transport.args)) == ("node", (str(server),))


def test_a_command_of_a_configuration_is_run_with_what_it_names(tmp_path: Path) -> None:
    one = {"command": "uvx", "args": ["server", "--fast"], "env": {"KEY": "1"}, "cwd": str(tmp_path)}
    for source in (one, {"mcpServers": {"a": one}}):
        transport = stdio(source)
        assert (transport.command, tuple(transport.args)) == ("uvx", ("server", "--fast"))
        assert dict(transport.env or {}) == {"KEY": "1"}
        assert transport.cwd == str(tmp_path)
    assert tuple(stdio({"command": "server"}).args) == ()


@pytest.mark.parametrize("server", [MCPServer("mine"), Server("mine")], ids=["MCPServer", "Server"])
def test_a_server_object_is_run_in_this_process(server: Any) -> None:
    transport = infer_transport(server)
    assert isinstance(transport, MemoryTransport)
    assert transport.server is server
    assert transport.kind == "memory"
    assert "'mine'" in transport.describe


def test_a_transport_of_this_library_is_used_as_it_is() -> None:
    for transport in (StreamableHttpTransport(URL), StdioTransport("x"), MemoryTransport(Server("s"))):
        assert infer_transport(transport) is transport


def test_a_transport_need_not_be_derived_from_ours() -> None:
    class Mine:
        kind = "tcp"
        describe = "mine"

        def connect(self, *, timeouts: Timeouts, limits: Limits) -> Any:
            raise NotImplementedError

    mine: Any = Mine()
    assert infer_transport(mine) is mine


@asynccontextmanager
async def sdk_style() -> AsyncGenerator[tuple[str, str]]:
    yield "read", "write"


async def test_a_context_manager_that_yields_streams_is_entered_when_connecting() -> None:
    manager = sdk_style()
    transport = infer_transport(manager)
    assert isinstance(transport, StreamsTransport)
    assert "_AsyncGeneratorContextManager" in transport.describe
    async with transport.open() as streams:
        assert streams == ("read", "write")


async def test_a_function_that_makes_one_is_called_for_every_connection() -> None:
    transport = infer_transport(sdk_style)
    assert isinstance(transport, StreamsTransport)
    for _ in range(2):
        async with transport.open() as streams:
            assert streams == ("read", "write")


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [None, 7, b"http://x", [URL], object, AnyUrl("ftp://x/y")], ids=repr)
def test_what_is_no_server_at_all_is_a_type_error_that_says_what_is(source: Any) -> None:
    text = refusal(TypeError, source)
    assert "cannot tell how to reach" in text
    assert WHAT_IS_ACCEPTED in text


@pytest.mark.parametrize(
    "source", ["", "server", "python server.py -x", "ftp://x/y", Path("server.sh")], ids=repr
)
def test_a_text_that_is_no_server_is_a_value_error_that_says_what_is(source: Any) -> None:
    text = refusal(ValueError, source)
    assert f"cannot tell how to run {str(source)!r}" in text
    assert WHAT_IS_ACCEPTED in text


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "server.py"
    assert refusal(ValueError, missing) == f"there is no file {str(missing)!r}"
    missing.mkdir()
    assert refusal(ValueError, missing) == f"there is no file {str(missing)!r}"


@pytest.mark.parametrize(
    ("url", "why"),
    [("http://", "name a host"), ("https:///path", "name a host"), ("http://x:99999/", "not valid")],
)
def test_a_broken_url_is_refused_before_anything_is_opened(url: str, why: str) -> None:
    assert why in refusal(ValueError, url)
    assert why in refusal(ValueError, {"url": url})


def test_a_configuration_of_no_or_several_servers_is_refused_by_their_names() -> None:
    one = {"command": "x"}
    assert refusal(ValueError, {"mcpServers": {"b": one, "a": one}}).endswith("has 2: a, b")
    assert refusal(ValueError, {"mcpServers": {}}).endswith("has 0: none")


@pytest.mark.parametrize("servers", ["x", 1, [{"command": "x"}]], ids=repr)
def test_servers_that_are_no_mapping_are_a_type_error(servers: Any) -> None:
    assert "'mcpServers' must be a mapping" in refusal(TypeError, {"mcpServers": servers})


@pytest.mark.parametrize("inner", ["x", None, ["x"]], ids=repr)
def test_a_server_that_is_no_mapping_is_a_type_error(inner: Any) -> None:
    text = refusal(TypeError, {"mcpServers": {"a": inner}})
    assert text.endswith("a server configuration must be a mapping")


@pytest.mark.parametrize(
    "config", [{}, {"url": URL, "command": "x"}, {"cmd": "x"}, {"url": 7}, {"command": ["x"]}], ids=repr
)
def test_a_configuration_without_one_of_url_and_command_is_refused_by_its_keys(
    config: dict[str, Any],
) -> None:
    text = refusal(ValueError, config)
    assert "either a 'url' or a 'command'" in text
    assert all(f'"{key}"' in text for key in config)


def test_a_refusal_shows_the_keys_of_a_configuration_and_none_of_its_values() -> None:
    assert "secret" not in refusal(ValueError, {"urll": "http://secret/", "env": {"KEY": "secret"}})


@pytest.mark.parametrize("kind", ["websocket", "stdio", 7])
def test_a_transport_we_do_not_speak_is_refused_by_name(kind: Any) -> None:
    assert refusal(ValueError, {"url": URL, "type": kind}) == (
        f"cannot reach a server over {kind!r}; use 'http' or 'sse'"
    )


def test_auth_is_refused_where_there_is_nobody_to_give_it_to(tmp_path: Path) -> None:
    server = tmp_path / "server.py"
    server.touch()
    for source in (server, MCPServer("mine"), StreamableHttpTransport(URL), sdk_style):
        assert "auth= is for http(s) URLs" in refusal(ValueError, source, auth="token")
    assert "has a command" in refusal(ValueError, {"command": "x"}, auth="token")


@pytest.mark.parametrize("auth", ["", "two words", "\n"])
def test_a_token_that_cannot_be_sent_is_refused(auth: str) -> None:
    assert "bearer token" in refusal(ValueError, URL, auth=auth)


def test_auth_of_another_kind_is_a_type_error() -> None:
    assert "auth must be" in refusal(TypeError, URL, auth=7)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"command": ""}, "must name a program"),
        ({"command": "x", "cwd": ""}, "cwd must be"),
        ({"command": "x", "env": {"A=B": "1"}}, "no variable can have"),
        ({"url": URL, "headers": {"a b": "1"}}, "not the name of a header"),
        ({"url": URL, "headers": {"a": "1\r\nb: 2"}}, "control characters"),
    ],
    ids=str,
)
def test_a_configuration_is_checked_when_the_client_is_made(config: Any, why: str) -> None:
    assert why in refusal(ValueError, config)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"command": "x", "args": "one two"}, "args must be a sequence of str"),
        ({"command": "x", "args": [1]}, "every one of args must be"),
        ({"command": "x", "env": ["A=B"]}, "env must be a mapping"),
        ({"command": "x", "env": {"A": 1}}, "env['A'] must be a str"),
        ({"url": URL, "headers": [("a", "b")]}, "headers must be a mapping"),
        ({"url": URL, "auth": 7}, "auth must be"),
    ],
    ids=str,
)
def test_a_configuration_of_wrong_types_is_a_type_error(config: Any, why: str) -> None:
    assert why in refusal(TypeError, config)


def test_every_accepted_kind_is_a_transport_with_a_kind_and_a_description(tmp_path: Path) -> None:
    server = tmp_path / "server.py"
    server.touch()
    sources: list[Any] = [URL, server, {"command": "x"}, Server("s"), sdk_style(), sdk_style]
    for source in sources:
        transport: Transport = infer_transport(source)
        assert transport.kind in ("tcp", "pipe", "memory")
        assert transport.describe
