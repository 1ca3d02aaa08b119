"""The server of the benchmarks: answers canned JSON and does nothing else, so that the client is what costs.

Knows no client. Run as a child process it speaks stdio (`python canned.py stdio`) or HTTP (`python
canned.py http`, which prints its port); `memory_peer()` is the same server in this event loop. It is a
handshake-era server: an `auto` client is told that there is no `server/discover`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

TOOL = "add"
ARGUMENTS = {"a": 20, "b": 22}
ANSWER = "42"
METHOD_NOT_FOUND = -32601

_RESULTS: dict[str, Any] = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "canned", "version": "1"},
    },
    "tools/list": {
        "tools": [
            {
                "name": TOOL,
                "description": "Add two numbers.",
                "inputSchema": {
                    "type": "object",
                    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                    "required": ["a", "b"],
                },
            }
        ]
    },
    "tools/call": {"content": [{"type": "text", "text": ANSWER}], "isError": False},
    "ping": {},
}


def answer(message: dict[str, Any]) -> dict[str, Any] | None:
    """The answer to one message; None to a notification."""
    if "id" not in message:
        return None
    frame = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] in _RESULTS:
        return {**frame, "result": _RESULTS[message["method"]]}
    return {**frame, "error": {"code": METHOD_NOT_FOUND, "message": "Method not found"}}


@asynccontextmanager
async def memory_peer() -> AsyncIterator[tuple[Any, Any]]:
    """The SDK's pair of message streams, with the canned server at the other end."""
    import anyio
    from mcp.shared.memory import create_client_server_memory_streams
    from mcp.shared.message import SessionMessage
    from mcp.types import JSONRPCError, JSONRPCRequest, JSONRPCResponse

    async def serve(read: Any, write: Any) -> None:
        async for item in read:
            request = item.message
            if not isinstance(request, JSONRPCRequest):
                continue
            reply = answer({"id": request.id, "method": request.method})
            model = JSONRPCResponse if "result" in (reply or {}) else JSONRPCError
            await write.send(SessionMessage(model.model_validate(reply)))

    async with create_client_server_memory_streams() as (client, served), anyio.create_task_group() as tg:
        tg.start_soon(serve, *served)
        yield client
        tg.cancel_scope.cancel()


def serve_stdio() -> None:
    for line in sys.stdin.buffer:
        reply = answer(json.loads(line))
        if reply is not None:
            sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
            sys.stdout.buffer.flush()


class _Http(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as much of it as the clients use. `/events` answers with event streams."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = 0
            if (found := head.find(b"content-length:")) >= 0:
                length = int(head[found + 15 :].split(b"\r\n", 1)[0])
            if len(self._buffer) < end + 4 + length:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + length], self._buffer[end + 4 + length :]
            self._respond(head, body)

    def _respond(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        if method != b"post":
            status = b"405 Method Not Allowed" if method == b"get" else b"200 OK"
            self._transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")
            return
        reply = answer(json.loads(body))
        if reply is None:
            self._transport.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
            return
        text = json.dumps(reply).encode()
        if path == b"/events":
            event = b"event: message\ndata: " + text + b"\n\n"
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                b"%x\r\n%b\r\n" % (len(event), event)
            )
            # As a real server does: the end of the body is a write of its own.
            self._transport.write(b"0\r\n\r\n")
            return
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(text), text)
        )


async def serve_http() -> None:
    server = await asyncio.get_running_loop().create_server(_Http, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The parent holds our stdin: when it is gone, for whatever reason, so are we.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        serve_stdio()
    else:
        asyncio.run(serve_http())
