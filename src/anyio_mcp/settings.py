"""What a client is configured with: frozen, shared by nobody, copied by `client.new()`."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import final, get_args

from mcp.client import CacheConfig
from mcp.client.session import (
    ElicitationFnT,
    ListRootsFnT,
    LoggingFnT,
    MessageHandlerFnT,
    SamplingFnT,
)
from mcp.types import DiscoverResult, Implementation, LoggingLevel, SamplingCapability
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from anyio_mcp._session.errands import Errands
from anyio_mcp._session.extensions import Extensions
from anyio_mcp._session.responses import ResponseCache
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
    elicitation_callback,
    logging_callback,
    message_callback,
    progress_callback,
    roots_callback,
    sampling_callback,
)
from anyio_mcp.transports.base import Transport


@functools.cache
def own_client_info() -> Implementation:
    """What servers are told that this is, unless the user says otherwise."""
    try:
        version = metadata.version("anyio-mcp")
    except metadata.PackageNotFoundError:  # the sources, without having been installed
        version = "0"
    return Implementation(name="anyio-mcp", version=version)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """The user's handlers, in the shape the SDK calls them. None means: capability not declared."""

    sampling: SamplingFnT | None
    sampling_capabilities: SamplingCapability | None
    elicitation: ElicitationFnT | None
    roots: ListRootsFnT | None
    logging: LoggingFnT
    message: MessageHandlerFnT | None

    @classmethod
    def of(
        cls,
        *,
        roots: RootsList | RootsHandler | None,
        sampling_handler: SamplingHandler | None,
        sampling_capabilities: SamplingCapability | None,
        elicitation_handler: ElicitationHandler | None,
        log_handler: LogHandler | None,
        message_handler: MessageHandler | MessageHandlerFunction | None,
    ) -> Callbacks:
        """Convert, and so check, what the user gave."""
        return cls(
            sampling=None if sampling_handler is None else sampling_callback(sampling_handler),
            sampling_capabilities=sampling_capabilities,
            elicitation=None if elicitation_handler is None else elicitation_callback(elicitation_handler),
            roots=None if roots is None else roots_callback(roots),
            logging=logging_callback(log_handler),
            message=None if message_handler is None else message_callback(message_handler),
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """One client's configuration, checked."""

    transport: Transport
    older_transport: Transport | None
    """What to try once if the server refuses `transport` as one that it does not speak."""
    name: str
    mode: str
    prior_discover: DiscoverResult | None
    timeouts: Timeouts
    heartbeat: Heartbeat | None
    restart: Restart | None
    limits: Limits
    client_info: Implementation | None
    auto_initialize: bool
    callbacks: Callbacks
    progress_handler: ProgressHandler | None
    extensions: Extensions
    cache: CacheConfig | None
    log_level: LoggingLevel | None
    strict_schemas: bool

    def __post_init__(self) -> None:
        if self.progress_handler is not None:
            progress_callback(self.progress_handler)
        if self.prior_discover is not None:
            _check_prior(self.prior_discover, self.mode)
        if self.cache is not None and not isinstance(self.cache, CacheConfig):
            raise TypeError(f"cache must be a CacheConfig, or None for no cache, not {self.cache!r}")
        if self.cache is not None and self.cache.store is not None and self._server_identity() is None:
            raise ValueError(
                "a cache with a store of its own needs CacheConfig.target_id: only a URL names a server so "
                "that another client can be served what this one has stored"
            )
        if self.log_level is not None and self.log_level not in get_args(LoggingLevel):
            raise ValueError(f"log_level must be one of {get_args(LoggingLevel)}, not {self.log_level!r}")

    def open_responses(self, version: Callable[[], str | None], errands: Errands) -> ResponseCache | None:
        """The kept results of one session. Without a store of the user's they end with it."""
        if self.cache is None:
            return None
        server = hashlib.sha256((self._server_identity() or "").encode()).hexdigest()
        return ResponseCache(self.cache, server=server, version=version, errands=errands)

    def _server_identity(self) -> str | None:
        """What tells this server from others in a store. May hold secrets: only its hash is used."""
        if self.cache is not None and self.cache.target_id is not None:
            return self.cache.target_id
        url: object = getattr(self.transport, "url", None)
        return url if isinstance(url, str) else None


def _check_prior(prior: DiscoverResult, mode: str) -> None:
    """Refuse what would be ignored, or what would settle on another version than `mode`."""
    if not isinstance(prior, DiscoverResult):
        raise TypeError(f"prior_discover must be a DiscoverResult, not {type(prior).__name__}")
    if mode not in MODERN_PROTOCOL_VERSIONS:
        raise ValueError("prior_discover goes with a modern version as mode; the other modes ask the server")
    mutual = [version for version in MODERN_PROTOCOL_VERSIONS if version in prior.supported_versions]
    if mutual[-1:] != [mode]:
        raise ValueError(f"prior_discover is of a server that does not settle on {mode!r}")
