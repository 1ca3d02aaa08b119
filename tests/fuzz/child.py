"""A stdio server that answers as a plan in a file says: child.py PLAN. Without a plan for a method, rightly.

The plan is read anew for each request, so that one process serves many cases.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.fuzz.traffic import answer, pieces, result_of

PLAN = Path(sys.argv[1])


def filled(data: bytes, request: Any) -> bytes:
    """With the id and the progress token of the request."""
    token = request.get("params", {}).get("_meta", {}).get("progressToken", 0)
    return data.replace(b'"@ID@"', json.dumps(request["id"]).encode()).replace(
        b'"@TOKEN@"', json.dumps(token).encode()
    )


def main() -> None:
    output = sys.stdout.buffer
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" not in request or "method" not in request:
            continue
        plan = json.loads(PLAN.read_text())
        chunks = plan["says"].get(request["method"])
        if chunks is None:
            result = result_of(request["method"], plan["era"])
            message = answer(result)
            if result is None:
                del message["result"]
                message["error"] = {"code": -32601, "message": "Method not found"}
            # What was said before may have been cut off in the middle of a line.
            chunks = ["\n", json.dumps(message), "\n"]
        for piece in pieces(filled("".join(chunks).encode("latin-1"), request), chunks):
            output.write(piece)
            output.flush()


main()
