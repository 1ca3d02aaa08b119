"""Whatever a server sends too much of is bounded in number and in bytes, on every way that it can take."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from mcp.types import ElicitResult, JSONRPCError

from anyio_mcp._session.correlation import PROGRESS_BYTES, Correlation, Progress
from anyio_mcp._session.courtesies import MAX_REFUSALS
from anyio_mcp._session.inbound import REQUEST_BYTES
from anyio_mcp._session.receiver import VIOLATION_CHARACTERS
from anyio_mcp._session.slots import MAX_REQUESTS
from anyio_mcp._session.weight import weigh
from anyio_mcp.client import Client
from anyio_mcp.errors import DeadlineExceededError
from anyio_mcp.testing import PeerRequest, ScriptedPeer, silence
from tests.actor.support import in_time

pytestmark = pytest.mark.anyio


def elicitation(padding: str = "") -> dict[str, Any]:
    schema = {"type": "object", "properties": {}}
    return {"message": f"m{padding}", "requestedSchema": schema}


class Asked:
    """A handler that counts how often it runs at the same time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.now = self.most = self.count = 0

    async def __call__(self, *_: Any) -> ElicitResult:
        self.now += 1
        self.most = max(self.most, self.now)
        self.count += 1
        try:
            await anyio.sleep(self.seconds)
        finally:
            self.now -= 1
        return ElicitResult(action="decline")


@in_time
async def test_a_round_of_input_asks_no_more_handlers_at_once_than_requests_may() -> None:
    peer, asked = ScriptedPeer(), Asked(1)

    def answer(request: PeerRequest) -> dict[str, Any]:
        if request.params.get("inputResponses"):
            assert len(request.params["inputResponses"]) == 1000
            return {"content": []}
        questions = {str(n): {"method": "elicitation/create", "params": elicitation()} for n in range(1000)}
        return {"resultType": "input_required", "requestState": "s", "inputRequests": questions}

    peer.on("tools/call", answer)
    async with Client(peer.transport, elicitation_handler=asked) as client:
        await client.call_tool_mcp("echo")
    assert asked.most == MAX_REQUESTS
    assert asked.count == 1000


@in_time
async def test_several_rounds_share_one_bound_and_a_cancelled_one_gives_its_part_back() -> None:
    peer, asked = ScriptedPeer(), Asked(1000)
    questions = {str(n): {"method": "elicitation/create", "params": elicitation()} for n in range(80)}
    round_of_input = {"resultType": "input_required", "requestState": "s", "inputRequests": questions}
    peer.on("tools/call", round_of_input)
    async with Client(peer.transport, elicitation_handler=asked) as client:
        with anyio.move_on_after(5):
            async with anyio.create_task_group() as tg:
                for _ in range(5):
                    tg.start_soon(client.call_tool_mcp, "echo")
        assert asked.most == MAX_REQUESTS
        asked.seconds = 0
        peer.on("tools/call", lambda r: {"content": []} if r.params.get("inputResponses") else round_of_input)
        await client.call_tool_mcp("echo")


@in_time
async def test_requests_that_are_handled_are_bounded_in_bytes() -> None:
    peer, asked = ScriptedPeer(era="legacy"), Asked(1)
    async with Client(peer.transport, elicitation_handler=asked) as client:
        padding = "x" * (REQUEST_BYTES // 4)
        requests = [peer.ask("elicitation/create", elicitation(padding)) for _ in range(8)]
        answers = [await peer.answer_to(each) for each in requests]
        assert [isinstance(answer, JSONRPCError) for answer in answers] == [False] * 3 + [True] * 5
        # One that is larger than the bound is handled when it is the only one.
        alone = peer.ask("elicitation/create", elicitation("x" * (REQUEST_BYTES + 1)))
        assert not isinstance(await peer.answer_to(alone), JSONRPCError)
        assert client.stats().refused_requests == 5


@in_time
async def test_refusals_are_sent_one_at_a_time_and_dropped_beyond_a_few() -> None:
    peer, asked = ScriptedPeer(era="legacy"), Asked(10_000)
    async with Client(peer.transport, elicitation_handler=asked) as client:
        for number in range(MAX_REQUESTS + 3000):
            peer.connection.request(f"q{number}", "elicitation/create", elicitation())
        await anyio.sleep(1)
        assert client.stats().refused_requests == 3000
        refused = [answer for answer in peer.answers if isinstance(answer, JSONRPCError)]
        assert 0 < len(refused) <= 3000
        peer.connection.wedge()
        before = len(refused)
        for number in range(3000):
            peer.connection.request(f"r{number}", "elicitation/create", elicitation())
        await anyio.sleep(1)
        peer.connection.unwedge()
        await anyio.sleep(1)
        refused = [answer for answer in peer.answers if isinstance(answer, JSONRPCError)]
        assert len(refused) - before <= MAX_REFUSALS + 2
        assert await client.ping()


@pytest.mark.parametrize("era", ["modern", "legacy"])
@in_time
async def test_every_tool_call_asks_for_progress_which_extends_it(era: Any) -> None:
    peer = ScriptedPeer(era=era)

    async def slowly(request: PeerRequest) -> dict[str, Any]:
        for number in range(10):
            await anyio.sleep(200)
            request.progress(number)
        return {"content": []}

    peer.on("tools/call", slowly)
    async with Client(peer.transport) as client:
        began = anyio.current_time()
        await client.call_tool_mcp("echo")
        assert anyio.current_time() - began == pytest.approx(2000)
        with pytest.raises(DeadlineExceededError):
            await client.call_tool_mcp("echo", timeout=300)
        # One of the user's own is sent as it is.
        peer.on("tools/call", {"content": []})
        await client.call_tool_mcp("echo", meta={"progressToken": "mine"})
        assert peer.requests_of("tools/call")[-1].params["_meta"]["progressToken"] == "mine"


@in_time
async def test_progress_behind_a_slow_handler_is_bounded_in_bytes_and_the_newest_is_kept() -> None:
    peer, seen = ScriptedPeer(), list[float]()

    async def slow(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)
        await anyio.sleep(1)

    peer.on("tools/call", silence)
    async with Client(peer.transport) as client, anyio.create_task_group() as tg:
        tg.start_soon(lambda: client.call_tool_mcp("echo", progress_handler=slow))
        (request,) = await peer.received("tools/call")
        for number in range(100):
            request.progress(number, message="m" * 2**20)
        await anyio.sleep(100)
        request.answer({"content": []})
    assert seen[-1] == 99
    assert len(seen) <= PROGRESS_BYTES // 2**20 + 1
    assert client.stats().dropped_progress == 100 - len(seen)


def test_the_progress_of_all_calls_shares_one_bound_which_leaving_gives_back() -> None:
    calls = Correlation()
    one, other = (calls.open("tools/call", lambda: None, wants_progress=True) for _ in range(2))
    large = Progress(1, None, "m" * (PROGRESS_BYTES // 2))
    for call in (one, other, one):
        assert calls.report_progress(call.request_id, large)
    assert one.progress is not None
    assert other.progress is not None
    assert len(one.progress) + len(other.progress) == 1
    calls.leave(one)
    calls.leave(other)
    third = calls.open("tools/call", lambda: None, wants_progress=True)
    calls.report_progress(third.request_id, large)
    assert calls.next_progress(third) == large
    assert calls.next_progress(third) is None


@in_time
async def test_what_is_kept_of_a_violation_is_short() -> None:
    peer = ScriptedPeer()
    async with Client(peer.transport) as client:
        for _ in range(100):
            peer.connection.violate("x" * 10**6)
        assert await client.ping()
        assert client.stats().violations == 100
        kept = client._keeper.actor.dispatcher.violations.first
        assert len(kept) == 5
        assert all(len(each) <= VIOLATION_CHARACTERS for each in kept)


@pytest.mark.parametrize(
    "value", [[[]] * 10**6, {str(n): n for n in range(10**5)}, ["x" * 100] * 10**5, [[[["deep"]]]] * 10**5]
)
def test_weighing_ends_at_its_limit(value: Any) -> None:
    assert weigh(value, 10**9) > 10**5
    assert weigh(value, 10**4) > 10**4


def test_a_value_weighs_what_its_parts_do() -> None:
    assert weigh("x" * 1000, 10**6) >= 1000
    assert weigh({"a": ["x" * 1000, {"b": "y" * 1000}]}, 10**6) >= 2000
    assert weigh(None, 10**6) < 100
