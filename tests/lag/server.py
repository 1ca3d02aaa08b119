"""A server that sends the messages of `messages.py`, as a program: server.py stdio | http | sse.

Which answer a call gets is in the name of the tool: `framing|kind|bytes`. In a process of its own, so that
what it costs to make them is not measured. Over a network it prints its port, and ends when its standard
input does.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.lag.messages import ANSWERS, FLOODS, ID

CALL = {"content": [{"type": "text", "text": "ok"}], "resultType": "complete"}


def usual(request: Any) -> dict[str, Any]:
    match request["method"]:
        case "initialize":
            version = request["params"]["protocolVersion"]
            info = {"name": "s", "version": "1"}
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        case "server/discover":
            known = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            return {**known, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        case "tools/list":
            return {"tools": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        case _:
            return CALL


def wrapped(request: Any, result: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()


def lines(request: Any) -> tuple[str, bytes]:
    """How the answer is framed, and the lines of it."""
    if request["method"] != "tools/call" or "|" not in request["params"]["name"]:
        return "json", wrapped(request, usual(request))
    framing, kind, size = request["params"]["name"].split("|")
    if kind in ANSWERS:
        return framing, ANSWERS[kind](int(size)).replace(ID, json.dumps(request["id"]).encode())
    return framing, FLOODS[kind](int(size)) + wrapped(request, CALL)


def events(text: bytes) -> bytes:
    """Each line an event; a blank line stays what it is."""
    return (b"data: " + text.replace(b"\n", b"\n\ndata: ") + b"\n\n").replace(b"data: \n", b"\n")


def over_stdio() -> None:
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" in request and "method" in request:
            sys.stdout.buffer.write(lines(request)[1] + b"\n")
            sys.stdout.buffer.flush()


class Network:
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.stream: socket.socket | None = None

    def serve(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            print(listener.getsockname()[1], flush=True)
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection: socket.socket) -> None:
        reader = connection.makefile("rb")
        try:
            while request_line := reader.readline():
                size = 0
                while (header := reader.readline()).strip():
                    name, _, value = header.partition(b":")
                    if name.lower() == b"content-length":
                        size = int(value)
                body = reader.read(size)
                if request_line.startswith(b"GET") and self.kind == "sse":
                    self.stream = connection
                    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
                    connection.sendall(head + b"event: endpoint\ndata: /post\n\n")
                    return
                connection.sendall(self.answer(json.loads(body) if body else None))
        except OSError:
            pass

    def answer(self, request: Any) -> bytes:
        if request is None:
            return b"HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n"
        accepted = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
        if "id" not in request or "method" not in request:
            return accepted
        framing, text = lines(request)
        if self.kind == "sse":
            # The answer on the stream follows its acknowledgement; it is large, so not in this thread.
            threading.Thread(target=self.stream.sendall, args=(events(text),), daemon=True).start()
            return accepted
        kind = b"application/json"
        if framing.startswith("events"):
            kind, text = b"text/event-stream", events(text)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: " + kind
        if framing.endswith("gzip"):
            head, text = head + b"\r\ncontent-encoding: gzip", gzip.compress(text, 6)
        return head + b"\r\ncontent-length: %d\r\n\r\n" % len(text) + text


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        over_stdio()
    else:
        threading.Thread(target=Network(sys.argv[1]).serve, daemon=True).start()
        sys.stdin.buffer.read()
        os._exit(0)
