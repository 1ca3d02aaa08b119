"""A stdio server behind a pipe that breaks what it carries: python pipe.py SEED COMMAND [ARGUMENT ...]

Lines of the server pass, are lost, doubled, cut short, or come with noise around them; now and then the
pipe stalls, floods stderr, or takes the server down with it. Everything is drawn from the seed and the
process id, so that a server started again meets other faults.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time

HARM = 0.01
"""The chance of a fault, per line of the server."""

chance = random.Random(int(sys.argv[1]) * 100_003 + os.getpid())
server = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert server.stdin is not None
assert server.stdout is not None


def downwards() -> None:
    try:
        while data := os.read(0, 65536):
            server.stdin.write(data)
            server.stdin.flush()
        server.stdin.close()
    except OSError:
        pass


def write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def spoil(line: bytes) -> None:
    match chance.choice(("lost", "twice", "noise", "bytes", "half", "stall", "stderr", "crash")):
        case "lost":
            pass
        case "twice":
            write(line + line)
        case "noise":
            write(b"a line of log\n\n" + line + b'{"jsonrpc": "2.0"}\n')
        case "bytes":
            write(chance.randbytes(50).replace(b"\n", b"") + b"\n" + line)
        case "half":
            write(line[: len(line) // 2] + b"\n")
        case "stall":
            time.sleep(chance.uniform(0.2, 4))
            write(line)
        case "stderr":
            sys.stderr.write("noise\n" * 5000)
            write(line)
        case _:
            write(line[: len(line) // 2])
            server.kill()
            os._exit(chance.choice((0, 1, 3)))


threading.Thread(target=downwards, daemon=True).start()
try:
    for line in server.stdout:
        if chance.random() < HARM:
            spoil(line)
        else:
            write(line)
except OSError:
    pass
finally:
    server.kill()
    os._exit(server.wait())
