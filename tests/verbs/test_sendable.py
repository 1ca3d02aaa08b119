"""What we send arrives as it was given, or nothing is sent and the caller learns why."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer
from mcp.types import CreateMessageResult, TextContent
from pydantic import BaseModel

from anyio_mcp import Client, MemoryTransport
from anyio_mcp._sendable import check_sendable


class Point(BaseModel):
    x: float


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


pytestmark = pytest.mark.anyio

LOOP: list[Any] = []
LOOP.append(LOOP)

UNSENDABLE: list[tuple[Any, type[Exception], str]] = [
    (math.nan, ValueError, "nan"),
    (math.inf, ValueError, "inf"),
    ([1.0, -math.inf], ValueError, r"\[1\]: -inf"),
    ({"a": {"b": [math.nan]}}, ValueError, r"\.a\.b\[0\]: nan"),
    ((1, math.nan), ValueError, "nan"),
    (Decimal("NaN"), ValueError, "NaN"),
    (Point(x=math.nan), ValueError, r"\.x: nan"),
    ("cut \ud83d", ValueError, "surrogate"),
    ({"\ud83d": 1}, ValueError, "surrogate"),
    ({1: 2}, TypeError, "must be a str, not 1"),
    ({"a": [{None: 1}]}, TypeError, r"\.a\[0\]: .*must be a str, not None"),
    (LOOP, ValueError, "nested deeper"),
    (nested(500), ValueError, "nested deeper"),
]


@pytest.mark.parametrize(("value", "kind", "words"), UNSENDABLE, ids=range(len(UNSENDABLE)))
def test_what_json_cannot_say_is_refused_with_its_place(
    value: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        check_sendable({"arguments": {"v": value}}, "tools/call")
    assert str(caught.value).startswith("tools/call.arguments.v")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("value", "kind", "words"), UNSENDABLE, ids=range(len(UNSENDABLE)))
async def test_arguments_that_json_cannot_say_are_refused_and_nothing_is_sent(
    value: Any, kind: type[Exception], words: str
) -> None:
    server = MCPServer("server")
    calls: list[Any] = []

    @server.tool()
    def save(v: Any) -> str:
        calls.append(v)
        return "saved"

    for mode in ("legacy", "auto"):
        async with Client(MemoryTransport(server), mode=mode) as client:
            with pytest.raises(kind, match=words):
                await client.call_tool("save", {"v": value})
            if not isinstance(value, Point):
                with pytest.raises(kind, match=words):
                    await client.call_tool("save", {"v": 1}, meta={"v": value})
            assert not calls
            await client.call_tool("save", {"v": 1})
            assert calls == [1]
            calls.clear()


async def test_values_arrive_as_they_were_sent_and_are_nobody_elses() -> None:
    server = MCPServer("server")
    received: list[Any] = []

    @server.tool()
    def save(v: Any) -> str:
        received.append(v)
        if isinstance(v, dict):
            v["mine"] = True
        return "saved"

    sent: dict[str, Any] = {
        "big": 2**53 + 1,
        "bigger": 10**400,
        "float": 1.0,
        "none": None,
        "list": [1, [2.5, "ä\u2028\0"]],
    }
    async with Client(MemoryTransport(server)) as client:
        await client.call_tool("save", {"v": sent})
        await client.call_tool("save", {"v": datetime.date(2026, 1, 2)})
    assert received[0] == {**sent, "mine": True}
    assert type(received[0]["float"]) is float
    assert "mine" not in sent
    assert received[1] == "2026-01-02"


def test_a_result_of_a_handler_is_checked_in_its_depth() -> None:
    content = TextContent(type="text", text="x", _meta={"v": math.nan})
    result = CreateMessageResult(role="assistant", model="m", content=content)
    with pytest.raises(ValueError, match=r"the result\.content\.meta\.v: nan"):
        check_sendable(result, "the result")
