"""A server made with the SDK."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("real")


@server.tool()
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


server.run("stdio")
