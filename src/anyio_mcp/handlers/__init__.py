"""The user's handlers: callbacks.py makes of each what the protocol's session calls, handler.py runs plain
functions in threads, elicitation.py and roots.py know the shapes of their answers.
"""

from anyio_mcp.handlers.callbacks import (
    ElicitationHandler,
    LogHandler,
    LogMessage,
    MessageHandler,
    MessageHandlerFunction,
    ProgressHandler,
    RootsHandler,
    SamplingAnswer,
    SamplingHandler,
    default_log_handler,
    elicitation_callback,
    logging_callback,
    message_callback,
    progress_callback,
    roots_callback,
    sampling_callback,
)
from anyio_mcp.handlers.elicitation import ElicitResult
from anyio_mcp.handlers.roots import RootsList

__all__ = (
    "SamplingHandler",
    "SamplingAnswer",
    "ElicitationHandler",
    "ElicitResult",
    "RootsHandler",
    "RootsList",
    "LogHandler",
    "LogMessage",
    "MessageHandler",
    "MessageHandlerFunction",
    "ProgressHandler",
    "default_log_handler",
    "elicitation_callback",
    "logging_callback",
    "message_callback",
    "progress_callback",
    "roots_callback",
    "sampling_callback",
)
