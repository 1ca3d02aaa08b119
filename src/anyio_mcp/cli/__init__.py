"""The command `anyio-mcp`. This file owns its entry point, which works without the extra `cli`.

    app           the commands and their options
    servers       SERVER and key=value as typed -> a transport and arguments
    running       the event loop of a command, and the signals that end it
    output        stdout, stderr and log records: nothing of them is a traceback
    outcome       an exception -> one line and an exit code
    render        what a server offers and answers, as text or JSON
    demo          the demo: one client, many tasks, and a server that gets killed
    demo_server   the server of the demo, a process of its own

Nothing in the library imports this package.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line. Ends the process with the exit codes that `anyio-mcp --help` names."""
    missing = [name for name in ("typer", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"anyio-mcp: {' and '.join(missing)} not installed; the command line is an extra: "
            "pip install 'anyio-mcp[cli]'\n"
        )
        raise SystemExit(2)
    from anyio_mcp.cli.app import app  # only now: it needs the extra

    app(prog_name="anyio-mcp")
