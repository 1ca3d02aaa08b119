"""An MCP server of either era that misbehaves once: `python -IS stdio_server.py <plan as JSON>`.

The plan says which fault is made, and when (`trigger`): at the start of the process, when the session
begins, in answer to the tool `fault`, behind that answer, or at the end of the input. Only the first
process of a plan's directory is faulty, so that whoever starts another one meets a server that works.
Every process, grandchildren included, leaves its pid in that directory.

What a fault does to the pipes is `children/faulty.py`'s; this file adds the protocol.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "transports" / "children"))

import faulty

PLAN = json.loads(sys.argv[1])
ERA = PLAN["era"]
DIRECTORY = Path(PLAN["directory"])
MARK = DIRECTORY / "made"
TRIGGER = None if MARK.exists() else PLAN["trigger"]
ARGUMENTS = PLAN["arguments"]

LOG = {"level": "info", "data": "flood"}


def register(pid):
    (DIRECTORY / f"pid-{pid}").touch()


# What a server says when nothing is wrong


def result_of(request):
    method = request["method"]
    if ERA == "modern" and method == "server/discover":
        return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    if ERA == "legacy" and method == "initialize":
        return {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "faulty", "version": "1"},
        }
    if ERA == "legacy" and method == "ping":
        return {}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("fault", "echo")]}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": request["params"]["name"]}]}
    return None


def answer_of(request):
    result = result_of(request)
    if result is None:
        return {"id": request["id"], "error": {"code": -32601, "message": "Method not found"}}
    if ERA == "modern":
        result = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **result}
    return {"id": request["id"], "result": result}


def answer(request):
    if request is not None:
        faulty.say(answer_of(request))


def line_of(request):
    return json.dumps({"jsonrpc": "2.0", **answer_of(request)}).encode()


# What goes wrong. Each is given the request that triggered it, which it may answer, or None.


def exits(request, code, *stderr):
    faulty.exits(code, *stderr)


def exits_within_an_answer(request, code):
    faulty.write(line_of(request)[:20])
    sys.exit(code)


def exits_behind_an_answer_without_newline(request):
    faulty.write(line_of(request))
    sys.exit(0)


def is_killed(request, name):
    os.kill(os.getpid(), getattr(signal, name))


def leaves_a_grandchild(request, code):
    register(faulty.grandchild())
    faulty.exits(code, "last words")


def is_silent(request):
    """Reads on, and says nothing more."""
    sys.stdin.buffer.read()


def never_reads(request):
    faulty.sleep()


def reads_when_told(request):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.sigwait([signal.SIGUSR1])


def is_stopped(request):
    os.kill(os.getpid(), signal.SIGSTOP)


def closes_stdout(request):
    os.close(1)
    faulty.sleep()


def closes_stdout_and_exits(request, seconds, code):
    """As a program does whose interpreter takes its time to shut down."""
    os.close(1)
    time.sleep(seconds)
    os._exit(code)


def closes_stdin(request):
    os.close(0)
    if request is None:
        # For whoever waits until it has happened: something that is counted.
        faulty.write(b"closed\n")
    faulty.sleep()


def hangs_on(request):
    """Never answers, and does not let go either."""
    sys.stdin.buffer.read()
    (DIRECTORY / "at-end").touch()
    never_ends(request, "SIGTERM")


def ends(request):
    """No fault at all."""


def says_before(request, *lines):
    """Lines of its own, with Python's escapes, and then what it should say."""
    for line in lines:
        faulty.write(line.encode().decode("unicode_escape").encode("latin-1") + b"\n")
    answer(request)


def says_instead(request, *lines):
    for line in lines:
        text = line.encode().decode("unicode_escape").encode("latin-1")
        if request is not None:
            text = text.replace(b"@id", str(request["id"]).encode())
        faulty.write(text + b"\n")


def says_what_it_is_asked_for(request):
    """Once for each call, so that a session can hear many things."""
    for text in request["params"]["arguments"]["messages"]:
        faulty.write(text.encode("latin-1").replace(b"@id", str(request["id"]).encode()) + b"\n")


def begins_with_a_byte_order_mark(request):
    faulty.write(b"\xef\xbb\xbf")
    answer(request)


def says_half_an_answer(request):
    faulty.write(line_of(request)[:20])
    is_silent(request)


def answers_with(request, size):
    text = line_of(request).replace(b'"text": "fault"', b'"text": "' + b"x" * size + b'"')
    faulty.write(text + b"\n")


def says_a_long_line(request, size):
    faulty.write(b'{"jsonrpc": "2.0", "method": "' + b"x" * size + b'"}\n')


def says_a_long_line_of_each_kind(request, size):
    filling = b"x" * size
    faulty.write(filling + b"\n")
    faulty.write(b'{"jsonrpc": "2.0", "id": null, "error": {"code": 1, "message": "' + filling + b'"}}\n')
    os.write(2, b"x" * 4000 + b"\n")
    answer(request)


def answers_twice(request):
    answer(request)
    answer(request)


def notifies(request, count):
    line = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": LOG}).encode() + b"\n"
    faulty.write(line * count)
    answer(request)


def floods_stderr(request, size):
    for _ in range(size // 10_000):
        os.write(2, (b"x" * 99 + b"\n") * 100)
    answer(request)


def says_on_stderr(request, text, times):
    data = text.encode("latin-1") * times
    while data:
        data = data[os.write(2, data) :]
    answer(request)


def says_why_and_is_silent(request):
    os.write(2, b"sign in first\n")
    faulty.write(b"listening on port 3333\n")
    is_silent(request)


def floods_stdout(request):
    while True:
        faulty.note("notifications/message", **LOG)


def ignores_sigterm(request):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def never_ends(request, *signals):
    for name in signals:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    faulty.sleep()


# The server


def make(request):
    (DIRECTORY / "faulty-now").touch()
    globals()[PLAN["fault"]](request, *ARGUMENTS)


def take(request):
    begins = request["method"] in ("server/discover", "initialize")
    named = request.get("params", {}).get("name") == "fault"
    if (begins and TRIGGER == "begin") or (named and TRIGGER == "call"):
        make(request)
    elif named and TRIGGER == "behind":
        answer(request)
        make(None)
    else:
        answer(request)


register(os.getpid())
MARK.touch()
if TRIGGER == "start":
    make(None)
for read in sys.stdin.buffer:
    message = json.loads(read)
    if "id" in message and "method" in message:
        take(message)
if TRIGGER == "end":
    make(None)
