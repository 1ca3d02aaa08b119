"""What a group is made of: its servers, from any shape of configuration, and what each is given.

Opens nothing; which transport reaches a server is decided by its client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, cast

from mcp.client import CacheConfig, ClientExtension
from mcp.types import Implementation, LoggingLevel, SamplingCapability

from anyio_mcp._config_text import Variables
from anyio_mcp.config import Heartbeat, Limits, Restart, Timeouts
from anyio_mcp.handlers import (
    ElicitationHandler,
    LogHandler,
    MessageHandler,
    MessageHandlerFunction,
    ProgressHandler,
    RootsHandler,
    RootsList,
    SamplingHandler,
)
from anyio_mcp.mcp_config import MCPConfig, check_name, named_servers, parse_server
from anyio_mcp.transports.infer import Source


class ServerSettings(TypedDict, total=False):
    """What every server of a group is given, as `Client` takes it.

    Not `auth`: what proves who you are to one server must not be sent to another. It is part of a
    server's own configuration.
    """

    mode: str
    timeouts: Timeouts | None
    heartbeat: Heartbeat | None
    restart: Restart | None
    limits: Limits | None
    client_info: Implementation | None
    auto_initialize: bool
    roots: RootsList | RootsHandler | None
    sampling_handler: SamplingHandler | None
    sampling_capabilities: SamplingCapability | None
    elicitation_handler: ElicitationHandler | None
    log_handler: LogHandler | None
    message_handler: MessageHandler | MessageHandlerFunction | None
    progress_handler: ProgressHandler | None
    extensions: Sequence[ClientExtension] | None
    cache: CacheConfig | None
    log_level: LoggingLevel | None
    strict_schemas: bool


def sources_of(
    config: MCPConfig | Mapping[str, Any], unusable: Callable[[str, Exception], None] | None = None
) -> dict[str, Source]:
    """The servers of a configuration by name, without those that are disabled.

    Raises what `MCPConfig.parse` raises; or tells `unusable` of the servers that it would be raised for, and
    goes on without them.
    """
    if isinstance(config, MCPConfig):
        return dict(config.servers)
    if not isinstance(config, Mapping):
        raise TypeError(
            "a ClientGroup takes an MCPConfig or a mapping of names to servers, "
            f"not {type(cast('object', config)).__name__}; a file is read by MCPConfig.load"
        )
    if not config:
        return {}
    found: dict[str, Source] = {}
    for name, server in _named_sources(config, unusable).items():
        try:
            source = source_of(name, server)
        except (TypeError, ValueError) as error:
            if unusable is None:
                raise
            unusable(name, error)
        else:
            if source is not None:
                found[name] = source
    return found


def _named_sources(
    config: Mapping[str, Any], unusable: Callable[[str, Exception], None] | None
) -> Mapping[str, Any]:
    if unusable is not None:
        config = _with_good_names(config, unusable)
    servers, is_bare = named_servers(config)
    if is_bare and not {"command", "url"} & config.keys():
        # Names to servers, of which some are no mappings.
        return {check_name(name): server for name, server in config.items()}
    return servers


def _with_good_names(
    config: Mapping[str, Any], unusable: Callable[[str, Exception], None]
) -> Mapping[str, Any]:
    """`config` without the servers whose names cannot be used."""
    key = next((key for key in ("mcpServers", "servers") if key in config), None)
    servers: object = config if key is None else config[key]
    if not isinstance(servers, Mapping):
        return config
    good: dict[str, Any] = {}
    for name, server in cast("Mapping[object, Any]", servers).items():
        try:
            good[check_name(name)] = server
        except (TypeError, ValueError) as error:
            unusable(str(name), error)
    return good if key is None else {**config, key: good}


def source_of(name: str, server: Any) -> Source | None:
    """What a client can be made of; None for a server that is disabled."""
    if isinstance(server, Mapping):
        return parse_server(name, cast("Mapping[str, Any]", server), variables=Variables())
    if server is None:
        raise TypeError(f"server {name!r}: None is no server")
    return server
