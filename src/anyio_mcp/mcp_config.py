"""Configuration files for MCP servers, as other programs write them, read into frozen settings.

Reads shapes, expands variables, names the server in every complaint and never quotes a value: that is
where the keys are. It opens nothing but the file given to `MCPConfig.load`, and does not know how a
server is reached (`transports/infer.py` does).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, Self, TypeAlias, cast, final

from anyio_mcp._config_text import Variables, read_json_file
from anyio_mcp._text import get_logger
from anyio_mcp.transports._authentication import Auth
from anyio_mcp.transports._url import visible

logger = get_logger(__name__)

MAX_NAME: Final = 128
"""Characters in the name of a server: it becomes part of tool names, task names and log lines."""

BARE_NAME: Final = "server"
"""What the server of a configuration without names is called."""

RemoteKind: TypeAlias = Literal["http", "sse"]

_KINDS: Final[Mapping[str, RemoteKind]] = {
    "http": "http",
    "streamable-http": "http",
    "streamablehttp": "http",
    "sse": "sse",
}
_COMMON_KEYS: Final = frozenset({"type", "transport", "disabled", "enabled"})
_STDIO_KEYS: Final = _COMMON_KEYS | {"command", "args", "env", "cwd"}
_REMOTE_KEYS: Final = _COMMON_KEYS | {"url", "headers", "auth"}


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class StdioServer:
    """A server that is a child process."""

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    cwd: str | None = None

    @property
    def kind(self) -> Literal["stdio"]:
        return "stdio"

    def __repr__(self) -> str:
        return f"<StdioServer {self.name!r}: {Path(self.command).name!r}>"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RemoteServer:
    """A server at a URL."""

    name: str
    url: str
    kind: RemoteKind = "http"
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    auth: Auth | None = None

    def __repr__(self) -> str:
        return f"<RemoteServer {self.name!r}: {visible(self.url)} ({self.kind})>"


ServerConfig: TypeAlias = StdioServer | RemoteServer


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MCPConfig:
    """The servers of one configuration, by name, in its order; disabled ones are left out."""

    servers: Mapping[str, ServerConfig]

    def __post_init__(self) -> None:
        object.__setattr__(self, "servers", MappingProxyType(dict(self.servers)))

    def __repr__(self) -> str:
        return f"MCPConfig({', '.join(f'{name}: {each.kind}' for name, each in self.servers.items())})"

    @classmethod
    def parse(
        cls,
        config: Mapping[str, Any],
        *,
        environ: Mapping[str, str] | None = None,
        inputs: Mapping[str, str] | None = None,
    ) -> Self:
        """Read a configuration that is in memory already.

        * Shapes: `{"mcpServers": {name: server}}` (Claude, Cursor), `{"servers": {name: server}}` (VS
          Code), `{name: server}`, or one server alone, which is then called `server`.
        * A server has a `command` (with `args`, `env`, `cwd`) or a `url` (with `headers`, `auth`, and
          `type` or `transport`: `http`, the default, or `sse`). `"disabled": true` or `"enabled": false`
          leaves it out. `auth` is a bearer token, or `"oauth"` to sign in with a browser. Other keys are
          ignored, with a debug log.
        * `${VAR}`, `${env:VAR}` and `${VAR:-default}` (for unset or empty) are replaced in command, args,
          env, cwd, url, headers and auth, from `environ`, else from this process's environment;
          `${input:id}` from `inputs`. What they are replaced by is not expanded again, any other use of
          `$` is left as it is.

        Raises `TypeError` for a wrong type and `ValueError` for anything else, such as a variable that
        is not set and has no default; both name the server, neither quotes a value.
        """
        variables = Variables(environ, inputs)
        named, is_bare = named_servers(config)
        found = {
            name: parse_server(name, each, variables=variables, is_bare=is_bare)
            for name, each in named.items()
        }
        return cls({name: each for name, each in found.items() if each is not None})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        environ: Mapping[str, str] | None = None,
        inputs: Mapping[str, str] | None = None,
    ) -> Self:
        """Read a configuration file: JSON in UTF-8; comments and trailing commas are allowed.

        Reads the file at once, so not for the middle of an event loop. Raises `OSError` if it cannot be
        read, `ValueError` if it is no regular file, too large or no JSON, and what `parse` raises.
        """
        return cls.parse(read_json_file(Path(path)), environ=environ, inputs=inputs)

    def only(self) -> ServerConfig:
        """The one server there is. Raises `ValueError` if there are none or several."""
        if len(self.servers) != 1:
            names = ", ".join(sorted(self.servers)) or "none"
            raise ValueError(
                "a client is for one server (for several, use ClientGroup), "
                f"this configuration has {len(self.servers)}: {names}"
            )
        (server,) = self.servers.values()
        return server


def named_servers(config: Mapping[str, Any]) -> tuple[dict[str, object], bool]:
    """The servers of a configuration by name, unread, and whether it is one server without a name."""
    if not isinstance(config, Mapping):
        raise TypeError(f"a configuration must be a mapping, not {type(config).__name__}")
    key = next((key for key in ("mcpServers", "servers") if key in config), None)
    if key is None and not (config and all(isinstance(each, Mapping) for each in config.values())):
        return {BARE_NAME: config}, True
    named: object = config if key is None else config[key]
    if not isinstance(named, Mapping):
        raise TypeError(f"{key!r} must be a mapping of names to server configurations")
    servers = cast("Mapping[object, object]", named)
    return {check_name(name): each for name, each in servers.items()}, False


def check_name(name: object) -> str:
    """`name`, if it can be that of a server; it ends up in log lines and in the names of tools."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a server must be a str, not {type(name).__name__}")
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(
            f"the name of a server must have 1 to {MAX_NAME} printable characters, not {name[:MAX_NAME]!r}"
        )
    return name


def parse_server(
    name: str, server: object, *, variables: Variables, is_bare: bool = False
) -> ServerConfig | None:
    """One server of a configuration; None if it is disabled. Raises what `MCPConfig.parse` raises."""
    label = "" if is_bare else f"server {name!r}: "
    if not isinstance(server, Mapping):
        raise TypeError(f"{label}a server configuration must be a mapping")
    given = cast("Mapping[str, object]", server)
    fields = _Fields(given, label, variables)
    if fields.flag("disabled", default=False) or not fields.flag("enabled", default=True):
        logger.debug("%sdisabled, left out", label)
        return None
    url, command, cwd = given.get("url"), given.get("command"), given.get("cwd")
    if isinstance(command, str) and url is None:
        fields.log_ignored(_STDIO_KEYS)
        kind = fields.kind()
        if kind not in (None, "stdio"):
            raise ValueError(f"{label}a command cannot be reached over {kind!r}; use 'stdio'")
        return StdioServer(
            name=name,
            command=fields.text("command", command),
            args=tuple(fields.texts("args")),
            env=fields.mapping("env"),
            cwd=None if cwd is None else fields.text("cwd", cwd),
        )
    if isinstance(url, str) and command is None:
        fields.log_ignored(_REMOTE_KEYS)
        kind = fields.kind()
        if kind not in (None, "http", "sse"):
            raise ValueError(f"{label}cannot reach a server over {kind!r}; use 'http' or 'sse'")
        auth: Any = given.get("auth")
        return RemoteServer(
            name=name,
            url=fields.text("url", url),
            kind=kind or "http",
            headers=fields.mapping("headers"),
            auth=fields.text("auth", auth) if isinstance(auth, str) else auth,
        )
    keys = json.dumps(sorted(str(key) for key in given))
    raise ValueError(f"{label}a server configuration has either a 'url' or a 'command', this one has {keys}")


@final
@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of one server, each read with the types people write."""

    server: Mapping[str, object]
    label: str
    variables: Variables

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.server.get(key, default)
        if not isinstance(value, bool):
            raise TypeError(f"{self.label}{key} must be true or false, not {type(value).__name__}")
        return value

    def kind(self) -> str | None:
        """How the server is reached, in this library's words where they exist; None if it is not said."""
        kinds = [self._kind(self.server[key]) for key in ("type", "transport") if key in self.server]
        if len(kinds) == 2 and kinds[0] != kinds[1]:
            raise ValueError(f"{self.label}'type' and 'transport' contradict each other")
        return kinds[0] if kinds else None

    def _kind(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{self.label}cannot reach a server over {value!r}; use 'http' or 'sse'")
        return _KINDS.get(value.lower().replace("_", "-"), value)

    def text(self, key: str, value: object, where: str = "") -> str:
        if not isinstance(value, str):
            raise TypeError(f"{self.label}{key} must be a str, not {type(value).__name__}")
        return self.variables.expand(value, f"{self.label}{where or key}")

    def texts(self, key: str) -> Iterator[str]:
        values = self.server.get(key, ())
        # A str is a sequence of str as well, and never what was meant.
        if isinstance(values, str | bytes) or not isinstance(values, Sequence):
            raise TypeError(f"{self.label}{key} must be a sequence of str, not {type(values).__name__}")
        for index, value in enumerate(cast("Sequence[object]", values)):
            yield self.text(f"every one of {key}", value, f"{key}[{index}]")

    def mapping(self, key: str) -> Mapping[str, str]:
        values = self.server.get(key)
        if values is None:
            return MappingProxyType({})
        if not isinstance(values, Mapping):
            raise TypeError(f"{self.label}{key} must be a mapping of str to str, not {type(values).__name__}")
        found: dict[str, str] = {}
        for name, value in cast("Mapping[object, object]", values).items():
            if not isinstance(name, str):
                raise TypeError(f"{self.label}{key} has a name of {type(name).__name__}")
            if value is not None:  # VS Code writes null for a variable that is not set
                found[name] = self.text(f"{key}[{name!r}]", value)
        return MappingProxyType(found)

    def log_ignored(self, known: frozenset[str]) -> None:
        ignored = sorted(str(key) for key in self.server if key not in known)
        if ignored:
            logger.debug("%signored keys: %r", self.label, ignored)
