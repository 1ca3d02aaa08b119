"""Transports of other makes: whatever they yield or raise is told as what it is, and raised into no task."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports.base import ConnectionLost, Outgoing, RequestFault, Violation
from anyio_mcp.transports.streams import StreamsTransport

pytestmark = pytest.mark.anyio


class MuteError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class Hostile:
    """Both streams of a transport that yields and raises what it is told to."""

    def __init__(self, *items: Any) -> None:
        self._items = list(items)

    async def receive(self) -> Any:
        item = self._items.pop(0)
        if isinstance(item, type):
            raise item("broken")
        return item

    async def send(self, message: Any) -> None:
        raise KeyError("no such pipe")


def transport(*items: Any) -> StreamsTransport:
    @asynccontextmanager
    async def opened() -> AsyncGenerator[tuple[Any, Any]]:
        streams = Hostile(*items)
        yield streams, streams

    return StreamsTransport(opened)


NOTIFICATION = JSONRPCNotification(jsonrpc="2.0", method="notifications/x")


async def test_what_is_no_message_is_a_violation_and_the_next_one_is_read() -> None:
    odd: list[Any] = [
        ValueError("what"),
        MuteError(),
        None,
        17,
        SessionMessage(cast("Any", "no message")),
        ["x"],
    ]
    with anyio.fail_after(5):
        async with transport(*odd, SessionMessage(NOTIFICATION)).connect(
            timeouts=Timeouts(), limits=Limits()
        ) as connection:
            for _ in odd:
                assert isinstance(await connection.incoming.receive(), Violation)
            assert await connection.incoming.receive() == NOTIFICATION


@pytest.mark.parametrize("kind", [KeyError, OSError, UnicodeDecodeError, RecursionError])
async def test_whatever_receiving_raises_is_the_loss_of_the_connection(kind: type[Exception]) -> None:
    raises: Any = type("Broken", (Exception,), {}) if kind is UnicodeDecodeError else kind
    with anyio.fail_after(5):
        async with transport(raises).connect(timeouts=Timeouts(), limits=Limits()) as connection:
            lost = await connection.incoming.receive()
            assert isinstance(lost, ConnectionLost)
            assert "broken" in str(lost.error)
            with pytest.raises(anyio.EndOfStream):
                await connection.incoming.receive()


async def test_whatever_sending_raises_is_told_by_the_receipt() -> None:
    failures: list[Any] = []
    with anyio.fail_after(5):
        async with transport(OSError).connect(timeouts=Timeouts(), limits=Limits()) as connection:
            await connection.send(Outgoing(NOTIFICATION, receipt=failures.append))
            await connection.send(Outgoing(JSONRPCRequest(jsonrpc="2.0", id=1, method="x")))
            assert isinstance(await connection.incoming.receive(), ConnectionLost)
    [failure] = failures
    assert isinstance(failure, RequestFailedError)
    assert isinstance(failure.cause, KeyError)


async def test_what_others_have_parsed_is_mended_in_a_copy() -> None:
    theirs: dict[str, Any] = {"text": "cut \ud83d", "list": ["\ude00"], "\ud83d": 1}
    message = JSONRPCResponse(jsonrpc="2.0", id=1, result=theirs)
    with anyio.fail_after(5):
        async with transport(SessionMessage(message)).connect(
            timeouts=Timeouts(), limits=Limits()
        ) as connection:
            answer = await connection.incoming.receive()
    assert isinstance(answer, JSONRPCResponse)
    assert answer.result == {"text": "cut \ufffd", "list": ["\ufffd"], "\ufffd": 1}
    assert theirs == {"text": "cut \ud83d", "list": ["\ude00"], "\ud83d": 1}


async def test_what_refers_to_itself_is_the_fault_of_its_request() -> None:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    wide: list[Any] = []
    for _ in range(100):
        wide = [wide, wide]
    with anyio.fail_after(5):
        async with transport(
            SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=1, result=endless)),
            SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=2, result={"wide": wide})),
        ).connect(timeouts=Timeouts(), limits=Limits()) as connection:
            for request_id in (1, 2):
                fault = await connection.incoming.receive()
                assert isinstance(fault, RequestFault)
                assert fault.request_id == request_id
