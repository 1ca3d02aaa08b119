"""One SDK server with something of everything, over stdio or real HTTP.

python everything.py stdio
python everything.py http PORT {uvicorn|hypercorn-trio} {json|sse|http+sse|http+sse-at-mcp} [--stateless]
"""

from __future__ import annotations

import os
import sys

import anyio
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("everything", log_level="CRITICAL")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def echo(text: str) -> str:
    """Say it again."""
    return text


@server.tool()
def pid() -> int:
    """The process that serves this."""
    return os.getpid()


@server.tool()
async def slow(seconds: float) -> str:
    """Take a while."""
    await anyio.sleep(seconds)
    return "done"


@server.tool()
async def count(to: int, context: Context) -> str:
    """Report progress."""
    for step in range(to):
        await context.report_progress(step + 1, to, f"step {step + 1}")
    return f"counted to {to}"


@server.tool()
def fail() -> str:
    """Always fails."""
    raise ValueError("as asked")


@server.resource("text://greeting")
def greeting() -> str:
    return "hello"


@server.resource("text://greeting/{name}")
def greet(name: str) -> str:
    return f"hello {name}"


@server.prompt()
def ask(topic: str) -> str:
    return f"What is {topic}?"


def main(arguments: list[str]) -> None:
    if arguments[0] == "stdio":
        server.run("stdio")
        return
    port, runner, answers = int(arguments[1]), arguments[2], arguments[3]
    if answers.startswith("http+sse"):
        app = server.sse_app(sse_path="/sse" if answers == "http+sse" else "/mcp")
    else:
        app = server.streamable_http_app(
            json_response=answers == "json", stateless_http="--stateless" in arguments
        )
    if runner == "uvicorn":
        import uvicorn

        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", backlog=4096)
    else:
        import trio
        from hypercorn.config import Config
        from hypercorn.trio import serve

        config = Config()
        config.bind = [f"127.0.0.1:{port}"]
        config.backlog = 4096
        config.loglevel = "WARNING"
        trio.run(serve, app, config)


if __name__ == "__main__":
    main(sys.argv[1:])
