"""Rounds of input whose answers the caller finds, and how many rounds a call may take."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.types import ElicitRequest, ElicitResult, InputRequiredResult

from anyio_mcp.client import Client
from anyio_mcp.config import Limits
from anyio_mcp.errors import DeadlineExceededError, RequestFailedError
from anyio_mcp.testing import PeerRequest, ScriptedPeer, silence
from tests.actor.support import in_time

pytestmark = pytest.mark.anyio

QUESTION: dict[str, Any] = {
    "method": "elicitation/create",
    "params": {
        "mode": "form",
        "message": "Which one?",
        "requestedSchema": {"type": "object", "properties": {"value": {"type": "string"}}},
    },
}
STATE = '{"opaque":  "state"}'


def booking(request: PeerRequest) -> dict[str, Any]:
    """Asks before it answers, and answers with what it was told."""
    answers = request.params.get("inputResponses")
    if answers is None:
        return {
            "resultType": "input_required",
            "inputRequests": {"seat": QUESTION, "meal": QUESTION},
            "requestState": STATE,
        }
    told = ", ".join(f"{key} {answer['content']['value']}" for key, answer in sorted(answers.items()))
    return {"content": [{"type": "text", "text": told}]}


def asking() -> ScriptedPeer:
    peer = ScriptedPeer()
    peer.on("tools/call", booking)
    return peer


@in_time
async def test_the_questions_of_a_round_can_be_had_and_answered_by_another_client_later() -> None:
    peer = asking()
    async with Client(peer.transport) as client:
        first = await client.session.call_tool("book", {"to": "Rome"}, allow_input_required=True)
    assert isinstance(first, InputRequiredResult)
    assert first.input_requests is not None
    assert set(first.input_requests) == {"seat", "meal"}
    (question, _) = first.input_requests.values()
    assert isinstance(question, ElicitRequest)
    assert question.params.message == "Which one?"
    async with Client(peer.transport) as another:
        result = await another.session.call_tool(
            "book",
            {"to": "Rome"},
            input_responses={
                "seat": ElicitResult(action="accept", content={"value": "12A"}),
                "meal": ElicitResult(action="accept", content={"value": "none"}),
            },
            request_state=first.request_state,
        )
    assert result.content[0].model_dump()["text"] == "meal none, seat 12A"
    sent = peer.requests_of("tools/call")[1].params
    assert sent["requestState"] == STATE
    assert sent["arguments"] == {"to": "Rome"}


@in_time
async def test_rounds_driven_by_hand_are_bounded_like_every_call() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", silence)
    async with Client(peer.transport, heartbeat=None) as client:
        with pytest.raises(DeadlineExceededError) as caught:
            await client.session.call_tool("book", allow_input_required=True)
        assert caught.value.seconds == 300.0


ASK = {
    "tools/call": lambda client: client.call_tool("book"),
    "prompts/get": lambda client: client.get_prompt("book"),
    "resources/read": lambda client: client.read_resource("memo://book"),
}


@pytest.mark.parametrize("method", ASK)
@in_time
async def test_how_many_rounds_a_call_may_take_is_the_users_to_say(method: str) -> None:
    peer = ScriptedPeer(capabilities={"tools": {}, "prompts": {}, "resources": {}})
    peer.on(method, {"resultType": "input_required", "inputRequests": {"a": QUESTION}, "requestState": ""})

    async def answer(*_: Any) -> dict[str, str]:
        return {"value": "this"}

    async with Client(
        peer.transport, elicitation_handler=answer, limits=Limits(max_input_rounds=3)
    ) as client:
        with pytest.raises(RequestFailedError, match="after 3 rounds") as caught:
            await ASK[method](client)
        assert caught.value.reason == "violation"
        assert await client.ping()
    assert len(peer.requests_of(method)) == 4


@pytest.mark.parametrize("rounds", [0, -1])
def test_a_number_of_rounds_that_allows_none_is_refused(rounds: int) -> None:
    with pytest.raises(ValueError, match="max_input_rounds must be positive"):
        Limits(max_input_rounds=rounds)
