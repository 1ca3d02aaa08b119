"""Ways to reach a server. base.py is the seam to the session; infer.py chooses a way."""

from anyio_mcp.transports.base import Transport
from anyio_mcp.transports.http import StreamableHttpTransport
from anyio_mcp.transports.infer import infer_transport
from anyio_mcp.transports.memory import MemoryTransport
from anyio_mcp.transports.sse import SSETransport
from anyio_mcp.transports.stdio import StdioTransport
from anyio_mcp.transports.streams import StreamsTransport

__all__ = (
    "MemoryTransport",
    "SSETransport",
    "StdioTransport",
    "StreamableHttpTransport",
    "StreamsTransport",
    "Transport",
    "infer_transport",
)
