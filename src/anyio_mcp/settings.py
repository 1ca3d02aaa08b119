"""What a client is configured with: frozen, shared by nobody, copied by `client.new()`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from mcp.client.session import (
    ElicitationFnT,
    ListRootsFnT,
    LoggingFnT,
    MessageHandlerFnT,
    SamplingFnT,
)
from mcp.types import Implementation, SamplingCapability

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
    name: str
    mode: str
    timeouts: Timeouts
    heartbeat: Heartbeat | None
    restart: Restart | None
    limits: Limits
    client_info: Implementation | None
    auto_initialize: bool
    callbacks: Callbacks
    progress_handler: ProgressHandler | None

    def __post_init__(self) -> None:
        if self.progress_handler is not None:
            progress_callback(self.progress_handler)
