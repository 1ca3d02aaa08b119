"""`python -m anyio_mcp` is the command `anyio-mcp`."""

from anyio_mcp.cli import main

if __name__ == "__main__":
    main()
