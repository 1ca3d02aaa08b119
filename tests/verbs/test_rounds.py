"""Results that ask for input (2026-07-28): answered by the user's handlers, sent again, within bounds."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.types import (
    ElicitRequest,
    ElicitRequestFormParams,
    GetPromptResult,
    InputRequiredResult,
    ReadResourceResult,
)

from anyio_mcp.client import Client
from anyio_mcp.config import DEFAULT_MAX_INPUT_ROUNDS as MAX_ROUNDS
from anyio_mcp.config import Timeouts
from anyio_mcp.errors import DeadlineExceededError, RequestFailedError, SessionLostError
from anyio_mcp.handlers import ElicitResult
from anyio_mcp.testing import VirtualTime
from tests.verbs.servers import MODERN, Log, text_result

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, VirtualTime(request.param).options


def question(text: str) -> ElicitRequest:
    return ElicitRequest(
        params=ElicitRequestFormParams(
            message=text,
            requested_schema={"type": "object", "properties": {"value": {"type": "string"}}},
        )
    )


class Curious:
    """A server that answers nothing before `rounds` returns something else than questions.

    `rounds(number, params)` is called for each time the request is sent.
    """

    def __init__(self, rounds: Callable[[int, Any], InputRequiredResult | None]) -> None:
        self.rounds = rounds
        self.sent = 0
        self.ids: list[Any] = []
        self.log = Log()
        self.server: Server[Any] = Server(
            "curious",
            on_call_tool=self.serve,
            on_get_prompt=self.serve,
            on_read_resource=self.serve,
        )
        self.server.middleware.append(self.log)

    async def serve(self, context: ServerRequestContext[Any], params: Any) -> Any:
        self.ids.append(context.request_id)
        self.sent += 1
        wanted = self.rounds(self.sent, params)
        if wanted is not None:
            return wanted
        if context.method == "tools/call":
            return text_result("done")
        return (
            GetPromptResult(messages=[])
            if context.method == "prompts/get"
            else ReadResourceResult(contents=[])
        )


async def answer(message: str, *_: Any) -> Any:
    return {"value": message.upper()}


@asynccontextmanager
async def asked_by(server: Curious, handler: Any = answer, **options: Any) -> AsyncGenerator[Client]:
    with anyio.fail_after(100_000):
        async with Client(
            server.server, mode=MODERN, elicitation_handler=handler, heartbeat=None, **options
        ) as client:
            yield client
            while (stats := client.stats()).calls_in_flight or stats.waiters:
                await anyio.lowlevel.checkpoint()


ASK: dict[str, Callable[[Client], Any]] = {
    "tools/call": lambda client: client.call_tool("x", {"a": 1}),
    "prompts/get": lambda client: client.get_prompt("x", {"a": "1"}),
    "resources/read": lambda client: client.read_resource("memo://x"),
}
EACH = pytest.mark.parametrize(("method", "ask"), ASK.items(), ids=ASK)


@EACH
async def test_a_request_is_sent_again_with_the_answers_and_the_servers_state(
    method: str, ask: Callable[[Client], Any]
) -> None:
    states = ['{"spaces":  "kept"}', "Ünïcode \x00", ""]
    answers: list[Any] = []

    def rounds(number: int, params: Any) -> InputRequiredResult | None:
        if number > 1:
            assert params.request_state == states[number - 2]
            answers.append({key: each.content for key, each in params.input_responses.items()})
        if number > len(states):
            return None
        return InputRequiredResult(
            input_requests={f"q{number}": question(f"ask {number}")}, request_state=states[number - 1]
        )

    server = Curious(rounds)
    async with asked_by(server) as client:
        await ask(client)
    assert answers == [{f"q{number}": {"value": f"ASK {number}"}} for number in (1, 2, 3)]
    assert len(set(server.ids)) == 4, "every round has an id of its own"
    sent = server.log.params(method)
    plain = [
        {key: value for key, value in params.items() if key not in ("inputResponses", "requestState")}
        for params in sent
    ]
    assert plain == [plain[0]] * 4, "everything else is sent as it was"


async def test_the_questions_of_one_round_are_answered_at_the_same_time() -> None:
    together = anyio.Event()
    waiting = 0

    async def handler(message: str, *_: Any) -> Any:
        nonlocal waiting
        waiting += 1
        if waiting == 3:
            together.set()
        await together.wait()
        return {"value": message}

    def rounds(number: int, params: Any) -> InputRequiredResult | None:
        if number == 2:
            assert {key: each.content for key, each in params.input_responses.items()} == {
                key: {"value": key} for key in ("a", "b", "c")
            }
            return None
        return InputRequiredResult(input_requests={key: question(key) for key in ("a", "b", "c")})

    async with asked_by(Curious(rounds), handler) as client:
        await client.call_tool("x")
    assert waiting == 3


async def test_a_refusal_ends_the_call_and_the_other_questions() -> None:
    stopped = anyio.Event()

    async def handler(message: str, *_: Any) -> Any:
        if message == "unwanted":
            raise MCPError(-1, "The user has no time")
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    def rounds(number: int, params: Any) -> InputRequiredResult | None:
        return InputRequiredResult(
            input_requests={"a": question("slow"), "b": question("unwanted"), "c": question("slow")}
        )

    server = Curious(rounds)
    async with asked_by(server, handler) as client:
        with pytest.raises(MCPError, match="no time") as caught:
            await client.call_tool("x")
        assert await client.ping()
    assert caught.value.code == -1
    assert stopped.is_set()
    assert server.sent == 1


async def test_declining_is_an_answer_and_no_refusal() -> None:
    async def decline(*_: Any) -> Any:
        return ElicitResult(action="decline")

    def rounds(number: int, params: Any) -> InputRequiredResult | None:
        if number == 1:
            return InputRequiredResult(input_requests={"a": question("well?")})
        assert params.input_responses["a"].action == "decline"
        return None

    async with asked_by(Curious(rounds), decline) as client:
        await client.call_tool("x")


@EACH
async def test_a_server_that_never_stops_asking_is_stopped(method: str, ask: Callable[[Client], Any]) -> None:
    def rounds(number: int, params: Any) -> InputRequiredResult | None:
        return InputRequiredResult(input_requests={"a": question("well?")})

    server = Curious(rounds)
    async with asked_by(server) as client:
        with pytest.raises(RequestFailedError, match=f"after {MAX_ROUNDS} rounds") as caught:
            await ask(client)
        assert await client.ping()
    assert caught.value.reason == "violation"
    assert server.sent == MAX_ROUNDS + 1


async def test_the_last_round_allowed_may_bring_the_result() -> None:
    def rounds(number: int, params: Any) -> InputRequiredResult | None:
        return InputRequiredResult(input_requests={"a": question("?")}) if number <= MAX_ROUNDS else None

    server = Curious(rounds)
    async with asked_by(server) as client:
        await client.call_tool("x")
    assert server.sent == MAX_ROUNDS + 1


async def test_a_round_without_questions_is_a_wish_for_patience_and_no_busy_loop() -> None:
    def rounds(number: int, params: Any) -> InputRequiredResult | None:
        if number > 1:
            assert params.input_responses is None
            assert params.request_state == f"state {number - 1}"
        return InputRequiredResult(request_state=f"state {number}") if number <= 4 else None

    async with asked_by(Curious(rounds)) as client:
        began = anyio.current_time()
        await client.call_tool("x")
        assert anyio.current_time() - began == pytest.approx(0.05 + 0.1 + 0.25 + 0.25)


@EACH
async def test_the_deadline_covers_all_rounds_and_the_handlers(
    method: str, ask: Callable[[Client], Any]
) -> None:
    async def takes_four_seconds(*_: Any) -> Any:
        await anyio.sleep(4)
        return {"value": "x"}

    def rounds(number: int, params: Any) -> InputRequiredResult | None:
        return InputRequiredResult(input_requests={"a": question("well?")})

    async with asked_by(Curious(rounds), takes_four_seconds, timeouts=Timeouts(call=10)) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await ask(client)
        assert anyio.current_time() - began == pytest.approx(10)
        assert (caught.value.phase, caught.value.seconds) == ("call", 10.0)


async def test_a_handler_that_hangs_ends_with_the_session() -> None:
    asked = anyio.Event()

    async def hangs(*_: Any) -> Any:
        asked.set()
        await anyio.sleep_forever()

    def rounds(number: int, params: Any) -> InputRequiredResult | None:
        return InputRequiredResult(input_requests={"a": question("well?")})

    async with asked_by(Curious(rounds), hangs) as client, anyio.create_task_group() as tg:

        async def call() -> None:
            with pytest.raises(SessionLostError, match="closed"):
                await client.call_tool("x", timeout=None)

        tg.start_soon(call)
        await asked.wait()
        await client.close()


async def test_without_a_handler_the_call_is_refused() -> None:
    def rounds(number: int, params: Any) -> InputRequiredResult | None:
        return InputRequiredResult(input_requests={"a": question("well?")})

    server = Curious(rounds)
    async with asked_by(server, None) as client:
        with pytest.raises(MCPError):
            await client.call_tool("x")
        assert await client.ping()
