"""Servers that misbehave, one per function: `python -IS faulty.py <function> [arguments]`.

No library and no site-packages, so that a process is up within some 15 ms.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def write(data):
    while data:
        data = data[os.write(1, data) :]


def say(message):
    write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def note(method, **params):
    say({"method": method, "params": params})


def requests():
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "id" in message:
            yield message


def sleep():
    while True:
        time.sleep(60)


def grandchild():
    """A process that holds all pipes and sleeps. Returns its pid."""
    pid = os.fork()
    if not pid:
        sleep()
    return pid


def echo():
    """The server that does nothing wrong: it answers with what it read."""
    for line in sys.stdin.buffer:
        say({"id": json.loads(line).get("id", 0), "result": {"line": line.decode()}})


def environment():
    say(
        {
            "id": 1,
            "result": {"env": dict(os.environ), "cwd": str(Path.cwd()), "group": os.getpgrp() == os.getpid()},
        }
    )
    echo()


def exits(code, *stderr):
    for line in stderr:
        sys.stderr.write(line + "\n")
    sys.exit(int(code))


def exits_when_asked(code):
    for _ in requests():
        exits(code, "Traceback (most recent call last):", "ValueError: no such luck")


def says_half_a_line_and_exits():
    for request in requests():
        note("whole")
        write(b'{"jsonrpc": "2.0", "id": %d, "resu' % request["id"])
        sys.exit(3)


def answers_without_newline_and_exits():
    for request in requests():
        write(b'{"jsonrpc": "2.0", "id": %d, "result": {}}' % request["id"])
        sys.exit(0)


def dies_of(name):
    for _ in requests():
        os.kill(os.getpid(), getattr(signal, name))


def dies_of_a_nameless_signal():
    for _ in requests():
        os.kill(os.getpid(), signal.SIGRTMIN + 5)


def leaves_a_grandchild():
    note("pids", child=os.getpid(), grandchild=grandchild())
    sys.stderr.write("last words\n")
    sys.exit(7)


def leaves_a_chatty_grandchild(seconds, size):
    """It begins when its parent is gone, and writes lines of that size with pauses of that length."""
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        line = (
            json.dumps({"jsonrpc": "2.0", "method": "m", "params": {"x": "x" * int(size)}}).encode() + b"\n"
        )
        block = line * (1 if float(seconds) else 1000)
        while os.getppid() == parent:
            time.sleep(0.001)
        while True:
            write(block)
            time.sleep(float(seconds))
    note("pids", child=os.getpid(), grandchild=pid)
    sys.exit(7)


def has_a_grandchild():
    note("pids", child=os.getpid(), grandchild=grandchild())
    sleep()


def has_a_grandchild_and_exits_at_eof():
    note("pids", child=os.getpid(), grandchild=grandchild())
    sys.stdin.buffer.read()


def has_a_grandchild_elsewhere():
    pid = os.fork()
    if not pid:
        os.setsid()
        note("pids", grandchild=os.getpid())
        sleep()
    sys.stdin.buffer.read()


def closes_stdout():
    os.close(1)
    sys.stderr.write("still here\n")
    sys.stderr.flush()
    sleep()


def closes_stdin():
    os.close(0)
    note("closed")
    sleep()


def closes_stdin_and_exits():
    os.close(0)
    note("closed")
    sys.exit(4)


def closes_stdin_and_writes_a_lot(path, size):
    os.close(0)
    note("closed")
    time.sleep(0.2)
    write(b"x" * int(size))
    Path(path).write_text("all of it was read")


def reads_when_told(path):
    """Reads nothing until SIGUSR1, and then all of it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    note("pids", child=os.getpid())
    signal.sigwait([signal.SIGUSR1])
    Path(path).write_bytes(sys.stdin.buffer.read())


def never_reads():
    note("pids", child=os.getpid())
    sleep()


def never_reads_and_leaves_a_grandchild():
    note("pids", child=os.getpid(), grandchild=grandchild())
    sleep()


def writes(*lines):
    """Writes the given lines, with Python's escapes and without adding ends, and goes on as echo."""
    for line in lines:
        write(line.encode().decode("unicode_escape").encode("latin-1"))
    echo()


def answers_with(size, order):
    filling = "x" * int(size)
    for request in requests():
        parts = {"jsonrpc": "2.0", "id": request["id"], "result": {"text": filling}}
        if order == "id_last":
            parts = {name: parts[name] for name in ("result", "jsonrpc", "id")}
        elif order == "hidden":
            parts = {name: parts[name] for name in ("result", "id", "jsonrpc")}
        write(json.dumps(parts).encode() + b"\n")


def asks_with(size):
    """A request of the server's own, with an id that the client uses as well."""
    for request in requests():
        say({"id": request["id"], "method": "sampling/createMessage", "params": {"text": "x" * int(size)}})
        say({"id": request["id"], "result": {}})


def notifies(count):
    for request in requests():
        line = (
            json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}).encode() + b"\n"
        )
        write(line * int(count))
        say({"id": request["id"], "result": {}})


def notifies_and_exits(count):
    for _ in range(int(count)):
        note("n")


def floods_stderr(size):
    for request in requests():
        line = b"x" * 99 + b"\n"
        for _ in range(int(size) // 10_000):
            os.write(2, line * 100)
        say({"id": request["id"], "result": {}})
        exits(1, "the end")


def floods_stdout():
    while True:
        note("flood")


def ignores(*what):
    if "SIGTERM" in what:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note("pids", child=os.getpid())
    if "EOF" not in what:
        sys.stdin.buffer.read()
        return
    sleep()


def tidies_up_on_sigterm(path):
    def tidy(*_):
        Path(path).write_text("tidied up")
        sys.exit(0)

    signal.signal(signal.SIGTERM, tidy)
    note("ready")
    sleep()


def writes_a_lot_after_eof(size):
    """Exits only when all it has to say after the end of its input was read."""
    sys.stdin.buffer.read()
    write(b"x" * int(size))


def is_stopped():
    note("pids", child=os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
