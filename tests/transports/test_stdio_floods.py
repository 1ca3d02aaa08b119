"""A child that floods its pipes: calls go on, and neither the event loop nor the log is flooded."""

from __future__ import annotations

import logging
import sys

import anyio
import pytest

from anyio_mcp import Client, StdioTransport, Timeouts

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unmeasured", "short_steps")]

SERVER = """
import json, sys

MIB = 1024 * 1024
WORDS = {
    "lines": b"a word\\n",
    "blank lines": b"\\n",
    "one line": b"word ",
    "no text": b"\\xff\\xfe\\x80\\n",
    "escapes": b"\\x1b[2J\\r\\n",
}

def flood(stream, words, mebibytes):
    stream.buffer.write(WORDS[words] * (mebibytes * MIB // len(WORDS[words])))
    stream.buffer.flush()

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = {"content": [{"type": "text", "text": "hi"}]}
    if message["method"] == "initialize":
        info = {"name": "s", "version": "1"}
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
    else:
        pipe, words, mebibytes = message["params"]["name"].split("/")
        flood(getattr(sys, pipe), words, int(mebibytes))
        if pipe == "stdout":
            print()
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""

FLOODS = {
    "stderr/lines": 32,
    "stderr/blank lines": 32,
    "stderr/one line": 32,
    "stderr/no text": 32,
    "stderr/escapes": 32,
    "stdout/lines": 1,
    "stdout/blank lines": 4,
    "stdout/one line": 32,
    "stdout/no text": 1,
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_call_is_answered_behind_a_flood(flood: str, caplog: pytest.LogCaptureFixture) -> None:
    transport = StdioTransport(sys.executable, ["-c", SERVER])
    with anyio.fail_after(60), caplog.at_level(logging.DEBUG, "anyio_mcp"):
        async with Client(transport, mode="legacy", timeouts=Timeouts(close=1)) as client:
            for _ in range(2):
                answer = await client.call_tool(f"{flood}/{FLOODS[flood]}", {})
                assert answer.content[0].text == "hi"
    # A thousand lines at once, and a hundred a second.
    assert len(caplog.records) < 5_000
