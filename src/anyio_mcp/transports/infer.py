"""The choice of a transport from what the user gave."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

from mcp import StdioServerParameters
from mcp.server import Server
from mcp.server.mcpserver import MCPServer
from pydantic import AnyUrl

from anyio_mcp.errors import fresh
from anyio_mcp.mcp_config import BrokenServer, MCPConfig, RemoteServer, ServerConfig, StdioServer, ends_in_sse
from anyio_mcp.transports._authentication import Auth
from anyio_mcp.transports.base import Transport
from anyio_mcp.transports.http import StreamableHttpTransport
from anyio_mcp.transports.memory import MemoryTransport
from anyio_mcp.transports.sse import SSETransport
from anyio_mcp.transports.stdio import StdioTransport
from anyio_mcp.transports.streams import StreamPair, StreamsTransport

Source = (
    str
    | AnyUrl
    | Path
    | Mapping[str, Any]
    | MCPConfig
    | ServerConfig
    | StdioServerParameters
    | MCPServer
    | Server[Any]
    | Transport
    | AbstractAsyncContextManager[StreamPair]
    | Callable[[], AbstractAsyncContextManager[StreamPair]]
)
"""What a client can be made of."""

_ACCEPTED = (
    "an http(s) URL, a path to a .py or .js file, a dict with the configuration of one server, "
    "an SDK MCPServer, Server or StdioServerParameters, a transport, or an async context manager that "
    "yields a stream pair"
)


def infer_transport(source: Source, *, auth: Auth | None = None) -> Transport:
    """The transport that `source` calls for.

    `TypeError` for what cannot be a server, `ValueError` for what could be but is none; both say what
    can. `auth` is for URLs only.
    """
    source = configured(source)
    if isinstance(source, StdioServer | RemoteServer | BrokenServer):
        return _from_config(source, auth)
    if isinstance(source, StdioServerParameters):
        source = _from_parameters(source)
    url = _as_url(source)
    if url is not None:
        return _at_url(url, None, auth)
    if auth is not None:
        raise ValueError(f"auth= is for http(s) URLs; give it to the transport itself for {source!r}")
    if isinstance(source, Path | str):
        return _from_path(source)
    if isinstance(source, MCPServer | Server):
        return MemoryTransport(cast("MCPServer | Server[Any]", source))
    if hasattr(source, "connect") and hasattr(source, "describe"):
        return cast("Transport", source)
    if isinstance(source, AbstractAsyncContextManager):
        title = f"a custom transport ({type(cast('object', source)).__name__})"
        return StreamsTransport(lambda: cast("AbstractAsyncContextManager[StreamPair]", source), title)
    # A class is callable as well, and forgetting to make an instance of it is the likelier story.
    if callable(source) and not isinstance(source, type):
        return StreamsTransport(source)
    raise TypeError(f"cannot tell how to reach {source!r}; a client takes {_ACCEPTED}")


def configured(source: Source) -> Source:
    """The one server of a configuration, read; any other source as it is. Raises what `MCPConfig` raises."""
    if isinstance(source, Mapping):
        source = MCPConfig.parse(cast("Mapping[str, Any]", source))
    return source.only() if isinstance(source, MCPConfig) else source


def configured_timeout(source: Source) -> float | None:
    """Seconds for each call, if `source` is a server whose configuration says so."""
    return source.timeout if isinstance(source, StdioServer | RemoteServer) else None


def _at_url(url: str, headers: Mapping[str, str] | None, auth: Any) -> Transport:
    """The transport to a URL of which nobody has said how it is reached."""
    if ends_in_sse(url):
        return SSETransport(url, headers=headers, auth=auth)
    return StreamableHttpTransport(url, headers=headers, auth=auth)


def older_transport(source: Source, transport: Transport) -> SSETransport | None:
    """HTTP+SSE at the URL of `transport`, which has been made for `source`, if nobody has said how that URL
    is reached. It is for a server that refuses Streamable HTTP
    (https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#backwards-compatibility)."""
    undeclared = not source.is_declared if isinstance(source, RemoteServer) else _as_url(source) is not None
    if not undeclared or not isinstance(transport, StreamableHttpTransport):
        return None
    return SSETransport(transport.url, headers=transport.headers, auth=transport.auth)


def _as_url(source: object) -> str | None:
    text = str(source) if isinstance(source, str | AnyUrl) else ""
    return text if text.lower().startswith(("http://", "https://")) else None


def _from_path(source: Path | str) -> StdioTransport:
    path = Path(source)
    if path.suffix not in (".py", ".js"):
        raise ValueError(f"cannot tell how to run {str(source)!r}; a client takes {_ACCEPTED}")
    if not path.is_file():
        raise ValueError(f"there is no file {str(source)!r}")
    command = sys.executable if path.suffix == ".py" else "node"
    return StdioTransport(command, [str(path)])


def _from_parameters(source: StdioServerParameters) -> StdioTransport:
    if (source.encoding.lower(), source.encoding_error_handler) != ("utf-8", "strict"):
        raise ValueError("StdioServerParameters: the messages of a server are UTF-8, no other encoding")
    return StdioTransport(source.command, source.args, env=source.env, cwd=source.cwd)


def _from_config(server: ServerConfig, auth: Auth | None) -> Transport:
    """The transport to a server of a configuration, which must be able to work."""
    if isinstance(server, BrokenServer):
        raise fresh(server.error)
    try:
        if isinstance(server, RemoteServer):
            return _remote(server, auth or server.auth)
        return _child(server, auth)
    except (TypeError, ValueError) as error:
        error.add_note(f"server {server.name!r}")
        raise


def _remote(server: RemoteServer, auth: Any) -> Transport:
    """The transport for each kind of remote server."""
    if not server.is_declared:
        return _at_url(server.url, server.headers, auth)
    if server.kind == "sse":
        return SSETransport(server.url, headers=server.headers, auth=auth)
    return StreamableHttpTransport(server.url, headers=server.headers, auth=auth)


def _child(server: StdioServer, auth: Auth | None) -> Transport:
    if auth is not None:
        raise ValueError("auth= is for http(s) URLs, and this configuration has a command")
    return StdioTransport(server.command, server.args, env=server.env, cwd=server.cwd)
