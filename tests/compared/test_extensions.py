"""What an extension's own methods and result shapes come to below the verbs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import pytest
from mcp.client import ClaimContext, ClientExtension, ResultClaim
from mcp.types import CallToolResult, EmptyResult, Request, RequestParams, Result, TextContent

from anyio_mcp.client import Client
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.testing import ScriptedPeer
from tests.actor.support import in_time

pytestmark = pytest.mark.anyio


class JobParams(RequestParams):
    job_id: str


class PauseJob(Request[JobParams, Literal["com.example/pause"]]):
    method: Literal["com.example/pause"] = "com.example/pause"
    params: JobParams
    name_param: ClassVar[str | None] = "jobId"


class Receipt(Result):
    result_type: Literal["receipt"]
    code: str


class Receipts(ClientExtension):
    identifier = "com.example/receipts"

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="receipt", model=Receipt, resolve=self.redeem)]

    async def redeem(self, receipt: Receipt, context: ClaimContext) -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text=f"redeemed {receipt.code}")])


@in_time
async def test_a_vendors_request_goes_through_the_session_with_its_name_in_the_header() -> None:
    peer = ScriptedPeer()
    peer.on("com.example/pause", {})
    async with Client(peer.transport) as client:
        await client.session.send_request(PauseJob(params=JobParams(job_id="j7")), EmptyResult)
    (request,) = peer.requests_of("com.example/pause")
    assert request.params["jobId"] == "j7"
    assert request.headers["mcp-name"] == "j7"


@in_time
async def test_a_claimed_shape_can_be_had_unfinished_from_the_session() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", {"resultType": "receipt", "code": "abc"})
    async with Client(peer.transport, extensions=[Receipts()]) as client:
        raw = await client.session.call_tool("buy", allow_claimed=True)
        assert isinstance(raw, Receipt)
        assert raw.code == "abc"
        finished = await client.call_tool("buy")
    assert [block.model_dump()["text"] for block in finished.content] == ["redeemed abc"]


@in_time
async def test_a_shape_that_nobody_claims_is_a_violation() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", {"resultType": "receipt", "code": "abc"})
    async with Client(peer.transport) as client:
        with pytest.raises(RequestFailedError) as caught:
            await client.call_tool("buy")
        assert caught.value.reason == "violation"
        assert await client.ping()
