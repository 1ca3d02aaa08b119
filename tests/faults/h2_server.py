"""A server of HTTP/2 over TLS, to be run as a program, by hypercorn on trio:

    python -m tests.faults.h2_server

prints the port it listens on. A connection may have 100 streams. Its tool `slow` is never answered, any other
at once.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.http_server import CERTIFICATE


@contextmanager
def h2_server() -> Iterator[str]:
    """Its URL. Killed in the end: it has exchanges that never end."""
    program = [sys.executable, "-m", "tests.faults.h2_server"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(program, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"https://127.0.0.1:{int(process.stdout.readline())}/mcp"
        finally:
            process.kill()


def main() -> None:
    import hypercorn.trio
    import trio
    from hypercorn.config import Config

    async def result(method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "initialize":
            info = {"name": "h2", "version": "1"}
            return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
        if method != "tools/call":
            return {}
        name = params["name"]
        if name == "slow":
            await trio.sleep_forever()
        return {"content": [{"type": "text", "text": name}]}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return
        assert scope["http_version"] == "2"
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        message = json.loads(body or b"{}")
        status, answer = (202, b"") if scope["method"] == "POST" else (405, b"")
        if "id" in message:
            said = {"jsonrpc": "2.0", "id": message["id"]}
            said["result"] = await result(message["method"], message.get("params", {}))
            status, answer = 200, json.dumps(said).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.certfile = config.keyfile = str(CERTIFICATE)
    config.alpn_protocols = ["h2"]
    config.h2_max_concurrent_streams = 100
    config.loglevel, config.errorlog = "CRITICAL", None
    trio.run(hypercorn.trio.serve, app, config)


if __name__ == "__main__":
    main()
