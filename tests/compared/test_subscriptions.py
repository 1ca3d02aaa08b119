"""`listen()` when its stream ends, and what the SDK says of an open one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import anyio
import pytest
from mcp.shared.subscriptions import ResourceUpdated, ToolsListChanged

from anyio_mcp.client import Client
from anyio_mcp.config import Restart
from anyio_mcp.errors import ConnectError, RequestFailedError, SessionLostError
from anyio_mcp.testing import PeerRequest, ScriptedPeer
from tests.actor.support import in_time

pytestmark = pytest.mark.anyio

EVEN = Restart(max_attempts=3, backoff=2.0, jitter=0.0)
LISTEN = "subscriptions/listen"
URIS = ["memo://a", "memo://b"]
ID = {"io.modelcontextprotocol/subscriptionId": ""}


def stamped(request: PeerRequest, **params: Any) -> dict[str, Any]:
    return {"_meta": dict.fromkeys(ID, request.id), **params}


def agree(request: PeerRequest) -> None:
    """Acknowledge all that was asked for."""
    wanted = request.params["notifications"]
    request.connection.notify(
        "notifications/subscriptions/acknowledged", stamped(request, notifications=wanted)
    )


def tell(request: PeerRequest, uri: str) -> None:
    """Say on the subscription that a resource was updated."""
    request.connection.notify("notifications/resources/updated", stamped(request, uri=uri))


def drop(request: PeerRequest) -> None:
    """End the stream without a result, as a connection that breaks does."""
    request.fault(RequestFailedError("the stream broke", reason="connection"))


def listening(handler: Any = agree) -> ScriptedPeer:
    peer = ScriptedPeer(capabilities={"tools": {"listChanged": True}, "resources": {"subscribe": True}})
    peer.on(LISTEN, handler)
    return peer


@in_time
async def test_after_a_drop_everything_subscribed_to_counts_as_changed_once() -> None:
    peer = listening()
    async with (
        Client(peer.transport) as client,
        client.listen(tools_list_changed=True, resource_subscriptions=URIS) as events,
    ):
        drop(peer.requests_of(LISTEN)[0])
        missed = [await anext(events) for _ in range(3)]
        assert missed == [ToolsListChanged(), *map(ResourceUpdated, URIS)]
        tell(peer.requests_of(LISTEN)[1], URIS[1])
        assert await anext(events) == ResourceUpdated(URIS[1])
    assert peer.attempts == 1, "a stream that breaks costs no session"


@in_time
async def test_a_subscription_goes_on_in_the_session_that_replaces_a_lost_one() -> None:
    peer = listening()
    async with Client(peer.transport) as client, client.listen(tools_list_changed=True) as events:
        peer.connection.lose()
        assert await anext(events) == ToolsListChanged()
        assert await client.ping()
    assert peer.attempts == 2


@in_time
async def test_a_stream_the_server_ends_in_order_ends_the_loop() -> None:
    peer = listening()
    async with Client(peer.transport) as client, client.listen(resource_subscriptions=URIS) as events:
        (request,) = peer.requests_of(LISTEN)
        tell(request, URIS[0])
        request.answer({})
        assert [event async for event in events] == [ResourceUpdated(URIS[0])]
    assert len(peer.requests_of(LISTEN)) == 1


@in_time
async def test_a_subscription_that_only_drops_is_given_up_after_so_many_attempts() -> None:
    def disagree(request: PeerRequest) -> None:
        agree(request)
        drop(request)

    peer = listening(disagree)
    async with Client(peer.transport, restart=EVEN) as client:
        async with client.listen(tools_list_changed=True) as events:
            with pytest.raises(SessionLostError, match="dropped") as caught:
                while True:
                    await anext(events)
            assert caught.value.reason == "eof"
        assert await client.ping()
    times = [request.received_at for request in peer.requests_of(LISTEN)]
    assert [after - before for before, after in pairwise(times)] == [0.0, 2.0, 4.0]


@in_time
async def test_without_restart_a_drop_is_raised() -> None:
    peer = listening()
    async with (
        Client(peer.transport, restart=None) as client,
        client.listen(tools_list_changed=True) as events,
    ):
        drop(peer.requests_of(LISTEN)[0])
        with pytest.raises(SessionLostError, match="dropped"):
            await anext(events)


@in_time
async def test_a_wait_cancelled_while_it_listens_again_is_taken_up_by_the_next() -> None:
    silent = True

    def sometimes(request: PeerRequest) -> None:
        if request.id == peer.requests_of(LISTEN)[0].id or not silent:
            agree(request)

    peer = listening(sometimes)
    async with Client(peer.transport) as client, client.listen(tools_list_changed=True) as events:
        drop(peer.requests_of(LISTEN)[0])
        with anyio.move_on_after(3.0) as waiting:
            await anext(events)
        assert waiting.cancelled_caught
        silent = False
        assert await anext(events) == ToolsListChanged()


@in_time
async def test_a_subscription_whose_server_is_gone_says_so_and_goes_on_when_it_is_back() -> None:
    gone = False

    async def connect(attempt: int) -> None:
        if gone:
            raise OSError(111, "Connection refused")

    peer = listening()
    peer.on_connect = connect
    async with (
        Client(peer.transport, restart=EVEN) as client,
        client.listen(tools_list_changed=True) as events,
    ):
        gone = True
        peer.connection.lose()
        with pytest.raises(ConnectError):
            await anext(events)
        assert peer.attempts == 1 + EVEN.max_attempts
        gone = False
        assert await anext(events) == ToolsListChanged()


@in_time
async def test_equal_events_that_wait_become_one() -> None:
    peer = listening()
    async with Client(peer.transport) as client, client.listen(resource_subscriptions=URIS) as events:
        (request,) = peer.requests_of(LISTEN)
        for uri in (URIS[0], URIS[1], URIS[0], URIS[0]):
            tell(request, uri)
        await client.ping()  # its answer comes behind all of them
        request.answer({})
        assert [event async for event in events] == [*map(ResourceUpdated, URIS)]


@in_time
async def test_who_falls_a_thousand_events_behind_is_told_that_all_may_have_changed() -> None:
    peer = listening()
    async with Client(peer.transport) as client, client.listen(resource_subscriptions=URIS) as events:
        (first,) = peer.requests_of(LISTEN)
        for number in range(2000):
            tell(first, f"{URIS[0]}/{number}")
            if number % 100 == 0:
                await client.ping()
        found = [await anext(events)]
        while found[-1] != ResourceUpdated(URIS[1]):
            found.append(await anext(events))
        assert len(peer.requests_of(LISTEN)) == 2
        assert len(found) < 2000
        assert found[-2:] == [*map(ResourceUpdated, URIS)]
