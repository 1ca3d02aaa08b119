"""Servers in processes of their own, which tests start, kill, and start again at the same port."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

START_SECONDS = 60.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(eq=False)
class ServerProcess:
    """A program that serves at a port of 127.0.0.1, given to it in `command` or in `env`."""

    command: Sequence[str]
    port: int
    env: Mapping[str, str] = field(default_factory=dict)
    """In addition to this process's environment."""
    quiet: bool = True
    """Whether what it says is thrown away."""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it can be reached."""
        output = subprocess.DEVNULL if self.quiet else None
        self.process = subprocess.Popen(
            self.command, env={**os.environ, **self.env}, stdout=output, stderr=output
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError(f"{self.command} did not start") from None
                time.sleep(0.02)  # another process: there is nothing to wait for but the port

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None
