"""Configuration files for MCP servers, as other programs write them, read into frozen settings.

Reads shapes, expands variables, names the server in every complaint and never quotes a value: that is
where the keys are. It opens nothing but the file given to `MCPConfig.load`, and does not know how a
server is reached (`transports/infer.py` does).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, Self, TypeAlias, cast, final

from anyio_mcp._config_text import Variables, read_env_file, read_json_file
from anyio_mcp._text import get_logger
from anyio_mcp.transports._authentication import Auth
from anyio_mcp.transports._url import visible

logger = get_logger(__name__)

MAX_NAME: Final = 128
"""Characters in the name of a server: it becomes part of tool names, task names and log lines."""

BARE_NAME: Final = "server"
"""What the server of a configuration without names is called."""

RemoteKind: TypeAlias = Literal["http", "sse"]

_KINDS: Final[Mapping[str, str]] = {
    "http": "http",
    "streamable-http": "http",
    "streamablehttp": "http",
    "http-stream": "http",
    "sse": "sse",
    "stdio": "stdio",
    "local": "stdio",
}
_LISTS: Final = frozenset({"mcpServers", "servers", "context_servers"})
_KIND_KEYS: Final = ("type", "transport", "transportType")
_URL_KEYS: Final = ("httpUrl", "url", "serverUrl")
"""Gemini writes `httpUrl` beside `url`, and prefers it; Windsurf writes `serverUrl`."""

_COMMON_KEYS: Final = frozenset({*_KIND_KEYS, "disabled", "enabled", "timeout"})
_STDIO_KEYS: Final = _COMMON_KEYS | {"command", "args", "env", "envFile", "cwd"}
_REMOTE_KEYS: Final = _COMMON_KEYS | {*_URL_KEYS, "headers", "auth"}
_MILLISECONDS: Final = 1000
"""A `timeout` from here on is in milliseconds, as most programs write it; a smaller one is in seconds."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class StdioServer:
    """A server that is a child process."""

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    cwd: str | None = None
    timeout: float | None = None
    """Seconds for each call, unless the client is given `Timeouts`."""

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
    timeout: float | None = None
    """Seconds for each call, unless the client is given `Timeouts`."""
    is_declared: bool = True
    """Whether `kind` is what the configuration says. If not, the server may turn out to be of the other."""

    def __repr__(self) -> str:
        return f"<RemoteServer {self.name!r}: {visible(self.url)} ({self.kind})>"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class BrokenServer:
    """A server of which nothing can be made, and why: what a client made of it raises."""

    name: str
    error: TypeError | ValueError

    @property
    def kind(self) -> Literal["broken"]:
        return "broken"

    def __repr__(self) -> str:
        return f"<BrokenServer {self.name!r}: {self.error}>"


ServerConfig: TypeAlias = StdioServer | RemoteServer | BrokenServer


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
        on_failure: Literal["raise", "report"] = "raise",
    ) -> Self:
        """Read a configuration that is in memory already.

        * Shapes: `{"mcpServers": {name: server}}` (Claude, Cursor, Gemini, Windsurf), `{"servers": ...}` or
          `{"mcp": {"servers": ...}}` (VS Code), `{"context_servers": ...}` (Zed), `{name: server}`, or one
          server alone, which is then called `server`.
        * A server has a `command` (with `args`, `env`, `envFile`, `cwd`) or a `url` (also `serverUrl`,
          `httpUrl`; with `headers`, `auth`, and `type`, `transport` or `transportType`: `http` or `sse`. If
          it is not said, a path that ends in `/sse` means `sse`, and any other URL is tried as `http` first).
          `"disabled": true` or `"enabled": false` leaves it out. `auth` is a bearer token, or `"oauth"` to
          sign in with a browser. `timeout` bounds each call: in milliseconds if it is 1000 or more, else in
          seconds. A member that is null is not there. Other keys are ignored, with a debug log.
        * `${VAR}`, `${env:VAR}` and `${VAR:-default}` (for unset or empty) are replaced in command, args,
          env, cwd, url, headers and auth, from `environ`, else from this process's environment;
          `${input:id}` from `inputs`. What they are replaced by is not expanded again, any other use of
          `$` is left as it is.

        Raises `TypeError` for a wrong type and `ValueError` for anything else, such as a variable that
        is not set and has no default; both name the server, neither quotes a value. With
        `on_failure="report"` such a server is a `BrokenServer`, and the others are there.
        """
        variables = Variables(environ, inputs)
        named, is_bare = named_servers(config)
        found: dict[str, ServerConfig | None] = {}
        for name, each in named.items():
            try:
                found[name] = parse_server(name, each, variables=variables, is_bare=is_bare)
            except (TypeError, ValueError) as error:
                if on_failure == "raise":
                    raise
                found[name] = BrokenServer(name=name, error=error)
        return cls({name: each for name, each in found.items() if each is not None})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        environ: Mapping[str, str] | None = None,
        inputs: Mapping[str, str] | None = None,
        on_failure: Literal["raise", "report"] = "raise",
    ) -> Self:
        """Read a configuration file: JSON in UTF-8; comments and trailing commas are allowed.

        Reads the file at once, so not for the middle of an event loop. Raises `OSError` if it cannot be
        read, `ValueError` if it is no regular file, too large or no JSON, and what `parse` raises.
        """
        found = read_json_file(Path(path))
        return cls.parse(found, environ=environ, inputs=inputs, on_failure=on_failure)

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
    nested = config.get("mcp")
    if isinstance(nested, Mapping) and _LISTS & nested.keys():
        # VS Code's settings.json
        config = cast("Mapping[str, Any]", nested)
    key = next((key for key in ("mcpServers", "servers", "context_servers") if key in config), None)
    if key is None and not (config and all(isinstance(each, Mapping) for each in config.values())):
        return {BARE_NAME: config}, True
    named: object = config if key is None else config[key]
    if named is None:
        return {}, False
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
    given = _present(cast("Mapping[str, object]", server))
    fields = _Fields(given, label, variables)
    if fields.is_disabled():
        logger.debug("%sdisabled, left out", label)
        return None
    url_key = next((key for key in _URL_KEYS if given.get(key)), "url")
    url, command, cwd = given.get(url_key), given.get("command"), given.get("cwd")
    if isinstance(command, str) and not url:
        fields.log_ignored(_STDIO_KEYS)
        kind = fields.kind()
        if kind not in (None, "stdio"):
            raise ValueError(f"{label}a command cannot be reached over {kind!r}; use 'stdio'")
        return StdioServer(
            name=name,
            command=fields.text("command", command),
            args=tuple(fields.texts("args")),
            env=MappingProxyType({**fields.env_file(), **fields.mapping("env")}),
            cwd=None if cwd is None else fields.text("cwd", cwd),
            timeout=fields.timeout(),
        )
    if isinstance(url, str) and not command:
        fields.log_ignored(_REMOTE_KEYS)
        kind = fields.kind()
        if kind not in (None, "http", "sse"):
            raise ValueError(f"{label}cannot reach a server over {kind!r}; use 'http' or 'sse'")
        auth: Any = given.get("auth")
        expanded = fields.text(url_key, url)
        if kind is None and url_key == "httpUrl":
            kind = "http"
        return RemoteServer(
            name=name,
            url=expanded,
            kind=kind or ("sse" if ends_in_sse(expanded) else "http"),
            headers=fields.mapping("headers"),
            auth=fields.text("auth", auth) if isinstance(auth, str) else auth,
            timeout=fields.timeout(),
            is_declared=kind is not None,
        )
    keys = json.dumps(sorted(str(key) for key in given))
    raise ValueError(f"{label}a server configuration has either a 'url' or a 'command', this one has {keys}")


def is_disabled(server: object) -> bool:
    """Whether an unread server of a configuration is to be left out. What cannot be read is not."""
    try:
        given = _present(cast("Mapping[str, object]", server)) if isinstance(server, Mapping) else {}
        return _Fields(given, "", Variables()).is_disabled()
    except TypeError:
        return False


def ends_in_sse(url: str) -> bool:
    """Whether a URL looks like that of the older HTTP+SSE transport, as servers name it by default."""
    return url.partition("#")[0].partition("?")[0].rstrip("/").lower().endswith("/sse")


def _present(server: Mapping[str, object]) -> dict[str, object]:
    """The members of a server that are not null, with the command of Zed's older shape taken apart."""
    given = {key: value for key, value in server.items() if value is not None}
    command = given.get("command")
    if isinstance(command, Mapping) and "path" in command:
        parts = cast("Mapping[str, object]", command)
        given["command"] = parts["path"]
        given.update({key: parts[key] for key in ("args", "env") if parts.get(key) is not None})
    return given


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

    def is_disabled(self) -> bool:
        return self.flag("disabled", default=False) or not self.flag("enabled", default=True)

    def timeout(self) -> float | None:
        """Seconds."""
        value = self.server.get("timeout")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{self.label}timeout must be a number, not {type(value).__name__}")
        if not 0 < value < math.inf:
            raise ValueError(f"{self.label}timeout must be a number above 0")
        return value / 1000 if value >= _MILLISECONDS else float(value)

    def kind(self) -> str | None:
        """How the server is reached, in this library's words where they exist; None if it is not said."""
        kinds = {self._kind(self.server[key]): key for key in _KIND_KEYS if self.server.get(key, "") != ""}
        # "remote" says no more than that there is a URL.
        kinds.pop("remote", None)
        if len(kinds) > 1:
            raise ValueError(f"{self.label}{' and '.join(map(repr, kinds.values()))} contradict each other")
        return next(iter(kinds), None)

    def _kind(self, value: object) -> str:
        if not isinstance(value, str):
            shown = repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"
            raise ValueError(f"{self.label}cannot reach a server over {shown}; use 'http' or 'sse'")
        plain = value.lower().replace("_", "-")
        return _KINDS.get(plain, plain[:40])

    def env_file(self) -> Mapping[str, str]:
        """The variables of the file that `envFile` names."""
        value = self.server.get("envFile", "")
        if value == "":
            return {}
        file = Path(self.text("envFile", value)).expanduser()
        try:
            return read_env_file(file)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise ValueError(f"{self.label}envFile cannot be read: {why}") from None

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
            if value is None:
                continue
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
