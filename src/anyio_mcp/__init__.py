"""An MCP client that refuses to hang: pure anyio, the same on trio and on asyncio.

General layout:

client.py       `Client`: configuration and the doors into its session
group/          `ClientGroup`: many servers, each with a client
mcp_config.py   `MCPConfig`: configuration files that other programs write
verbs/          its operations: tools, resources, prompts, tasks, the server as a whole
tasks.py        handles of background tasks; _session/tasks/ speaks of them in either dialect
_session/       the session: actor.py runs it, dispatcher.py moves requests, correlation.py and
                lifecycle.py decide without waiting, watchdog.py bounds every wait, negotiation.py
                settles the era, inbound.py serves the server, keeper.py and doors.py say which
                session there is and who holds it, responses.py keeps results that are still good,
                reading.py reads what servers answer as far as it can be read
transports/     ways to a server; base.py is the seam to the session
auth/           signing in with OAuth, and keeping the tokens
handlers/       the user's handlers, as protocol callbacks
results.py      what a tool call gives back; content.py what in it the protocol does not know
errors.py       every exception; config.py every setting; telemetry.py spans, metrics, stats
testing/        for tests of clients: virtual clocks, scripted peers, faults, exploration
cli/            the `anyio-mcp` command
"""

from anyio_mcp._session.lifecycle import SessionState
from anyio_mcp.auth import FileTokenStore, MemoryTokenStore, OAuth, ServerTokens, TokenStore
from anyio_mcp.client import Client
from anyio_mcp.config import Heartbeat, Limits, Restart, Timeouts
from anyio_mcp.content import UnknownContent
from anyio_mcp.errors import (
    ConnectError,
    DeadlineExceededError,
    MCPClientError,
    MCPError,
    NotConnectedError,
    RequestFailedError,
    SessionLostError,
    ToolError,
)
from anyio_mcp.group import ClientGroup
from anyio_mcp.handlers import ElicitResult, LogMessage, MessageHandler
from anyio_mcp.mcp_config import MCPConfig
from anyio_mcp.results import CallToolResult, ResultSchemaError
from anyio_mcp.tasks import PromptTask, ResourceTask, TaskError, TaskSnapshot, ToolTask
from anyio_mcp.telemetry import SessionStats
from anyio_mcp.transports import (
    MemoryTransport,
    SSETransport,
    StdioTransport,
    StreamableHttpTransport,
    Transport,
)
from anyio_mcp.verbs.base import DEFAULT

__all__ = (
    # the client
    "Client",
    "ClientGroup",
    "CallToolResult",
    "UnknownContent",
    "SessionState",
    "SessionStats",
    # background tasks
    "ToolTask",
    "PromptTask",
    "ResourceTask",
    "TaskSnapshot",
    # settings
    "DEFAULT",
    "Heartbeat",
    "Limits",
    "MCPConfig",
    "Restart",
    "Timeouts",
    # transports
    "MemoryTransport",
    "SSETransport",
    "StdioTransport",
    "StreamableHttpTransport",
    "Transport",
    # signing in
    "OAuth",
    "TokenStore",
    "FileTokenStore",
    "MemoryTokenStore",
    "ServerTokens",
    # handlers
    "ElicitResult",
    "LogMessage",
    "MessageHandler",
    # errors
    "ConnectError",
    "DeadlineExceededError",
    "MCPClientError",
    "NotConnectedError",
    "RequestFailedError",
    "ResultSchemaError",
    "MCPError",
    "SessionLostError",
    "TaskError",
    "ToolError",
)
