"""What a server asks, read as far as it can be, at a bounded cost."""

from __future__ import annotations

from typing import Any

from mcp.types.version import LATEST_MODERN_VERSION

from anyio_mcp._session.questions import read_question, readable_input


def test_one_odd_member_is_left_out_and_what_has_too_many_is_not_looked_through() -> None:
    params: dict[str, Any] = {"messages": [], "maxTokens": 5, "temperature": "warm"}
    question = {"method": "sampling/createMessage", "params": params}
    asked = {"resultType": "input_required", "inputRequests": {"a": question}}
    known = readable_input("tools/call", LATEST_MODERN_VERSION, asked)
    assert "temperature" not in known["inputRequests"]["a"]["params"]
    read = read_question(question)
    assert read is not None
    assert read.params.max_tokens == 5

    many = {"resultType": "input_required", "inputRequests": {str(n): {"method": n} for n in range(20_000)}}
    odd = {"method": "sampling/createMessage", "params": {"messages": [{"role": n} for n in range(20_000)]}}
    assert readable_input("tools/call", LATEST_MODERN_VERSION, many) is many
    assert read_question(odd) is None
