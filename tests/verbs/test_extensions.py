"""Extensions of the user's: advertised, heard, and asked to finish the results they claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest
from mcp.client import ClaimContext, ClientExtension, NotificationBinding, ResultClaim, advertise
from mcp.types import CallToolResult, Result, TextContent
from pydantic import BaseModel

from anyio_mcp.client import Client
from anyio_mcp.errors import DeadlineExceededError, SessionLostError
from anyio_mcp.results import ResultSchemaError
from anyio_mcp.testing import ScriptedPeer
from tests.verbs.servers import BOUND

pytestmark = pytest.mark.anyio

VOUCHER: dict[str, Any] = {"resultType": "voucher", "code": "abc"}
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
OWN_TASKS = "io.modelcontextprotocol/tasks"


class Voucher(Result):
    result_type: Literal["voucher"]
    code: str


class Sold(BaseModel):
    item: str


class Shop(ClientExtension):
    """Claims vouchers, redeems them, and listens to what is sold."""

    identifier = "com.example/shop"

    def __init__(self, *, versions: frozenset[str] | None = None) -> None:
        self.versions = versions
        self.redeemed: list[tuple[str, ClaimContext]] = []
        self.sold: list[str] = []
        self.news = anyio.Event()
        self.structured: dict[str, Any] | None = None
        self.never = False

    def settings(self) -> dict[str, Any]:
        return {"currency": "EUR"}

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [
            ResultClaim(
                result_type="voucher",
                model=Voucher,
                resolve=self.redeem,
                protocol_versions=self.versions,
            )
        ]

    def notifications(self) -> Sequence[NotificationBinding[Any]]:
        return [NotificationBinding(method="notifications/shop/sold", params_type=Sold, handler=self.on_sold)]

    async def redeem(self, voucher: Voucher, context: ClaimContext) -> CallToolResult:
        self.redeemed.append((voucher.code, context))
        if self.never:
            await anyio.sleep_forever()
        if voucher.code == "void":
            raise LookupError("the voucher is void")
        await context.session.list_tools()
        return CallToolResult(
            content=[TextContent(type="text", text=f"for {voucher.code}")],
            structured_content=self.structured,
        )

    async def on_sold(self, sold: Sold) -> None:
        self.sold.append(sold.item)
        self.news.set()


def shop(era: Any = "modern") -> ScriptedPeer:
    """A server that answers every call with a voucher."""
    peer = ScriptedPeer(era=era)
    peer.on("tools/call", VOUCHER)
    return peer


async def test_a_claimed_result_is_finished_by_its_extension() -> None:
    peer, extension = shop(), Shop()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, extensions=[extension]) as client:
            result = await client.call_tool("buy", timeout=10)
            raw = await client.call_tool_mcp("buy", timeout=None)
    assert result.content == raw.content == [TextContent(type="text", text="for abc")]
    (_, first), (_, second) = extension.redeemed
    assert first.tool_name == "buy"
    assert first.read_timeout_seconds is not None
    assert 9 < first.read_timeout_seconds <= 10
    assert second.read_timeout_seconds is None


async def test_what_an_extension_makes_is_held_against_the_schema_of_the_tool() -> None:
    peer, extension = shop(), Shop()
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    peer.on(
        "tools/list", {"tools": [{"name": "buy", "inputSchema": {"type": "object"}, "outputSchema": schema}]}
    )
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, extensions=[extension]) as client:
            extension.structured = {"n": 7}
            assert (await client.call_tool("buy")).data.n == 7
            extension.structured = {"n": "seven"}
            with pytest.raises(ResultSchemaError):
                await client.call_tool("buy")


async def test_what_an_extension_raises_is_what_the_call_raises() -> None:
    peer = shop()
    peer.on("tools/call", {"resultType": "voucher", "code": "void"})
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, extensions=[Shop()]) as client:
            with pytest.raises(LookupError, match="void"):
                await client.call_tool("buy")
            assert await client.ping()


async def test_an_extension_that_never_finishes_is_bounded_by_the_deadline_and_by_the_session() -> None:
    peer, extension = shop(), Shop()
    extension.never = True
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, extensions=[extension]) as client:
            with pytest.raises(DeadlineExceededError, match="voucher"):
                await client.call_tool("buy", timeout=0.05)
            async with anyio.create_task_group() as tg:

                async def call() -> None:
                    with pytest.raises(SessionLostError):
                        await client.call_tool("buy", timeout=None)

                tg.start_soon(call)
                while len(extension.redeemed) < 2:
                    await anyio.lowlevel.checkpoint()
                peer.connection.lose()


async def test_a_claim_of_another_version_is_not_known_in_this_one() -> None:
    peer, extension = shop(), Shop(versions=frozenset({"2026-07-28"}))
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, extensions=[extension]) as client:
            assert (await client.call_tool("buy")).content
        peer = ScriptedPeer(era="legacy")
        async with Client(peer.transport, mode="legacy", extensions=[extension]) as client:
            assert (await client.call_tool("add")).content
    assert len(extension.redeemed) == 1


async def test_extensions_are_advertised_with_their_settings_beside_our_own() -> None:
    peer = shop()
    with anyio.fail_after(BOUND):
        async with Client(
            peer.transport, extensions=[Shop(), advertise("org.example/x", {"y": 1})]
        ) as client:
            await client.list_tools()
    told = peer.requests_of("tools/list")[0].params["_meta"][CAPABILITIES]["extensions"]
    assert told == {OWN_TASKS: {}, "com.example/shop": {"currency": "EUR"}, "org.example/x": {"y": 1}}


async def test_an_extension_hears_its_notifications() -> None:
    peer, extension = shop(), Shop()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, extensions=[extension]):
            peer.connection.notify("notifications/shop/sold", {"item": "tea"})
            await extension.news.wait()
    assert extension.sold == ["tea"]


async def test_every_session_of_a_client_has_its_extensions() -> None:
    peer, extension = shop(), Shop()
    client = Client(peer.transport, extensions=[extension])
    with anyio.fail_after(BOUND):
        for each in (client, client, client.new()):
            async with each:
                await each.call_tool("buy")
    assert len(extension.redeemed) == 3


class Nameless(ClientExtension):
    pass


class Tasks(ClientExtension):
    identifier = OWN_TASKS


class TasksTag(Shop):
    identifier = "com.example/tag"

    def claims(self) -> Sequence[ResultClaim[Any]]:
        class Tag(Result):
            result_type: Literal["task"]

        return [ResultClaim(result_type="task", model=Tag, resolve=self.redeem)]


class Second(Shop):
    identifier = "com.example/second"


@pytest.mark.parametrize(
    ("extensions", "error", "says"),
    [
        ({"com.example/x": {}}, TypeError, "sequence"),
        ("com.example/x", TypeError, "sequence"),
        (7, TypeError, "sequence"),
        (["com.example/x"], TypeError, "not str"),
        ([Nameless()], ValueError, "no identifier"),
        ([Shop(), Shop()], ValueError, "identifier 'com.example/shop'"),
        ([Shop(), Second()], ValueError, "resultType 'voucher'"),
        ([Tasks()], ValueError, "this library's own"),
        ([TasksTag()], ValueError, "resultType 'task'"),
    ],
)
async def test_extensions_that_cannot_work_are_refused_at_once(
    extensions: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Client(shop().transport, extensions=extensions)


async def test_a_modern_server_is_told_which_log_messages_are_wanted() -> None:
    key = "io.modelcontextprotocol/logLevel"
    peer = ScriptedPeer()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, log_level="warning") as client:
            await client.call_tool("add")
        async with Client(peer.transport) as client:
            await client.call_tool("add")
        async with Client(peer.transport, log_handler=lambda message: None) as client:
            await client.call_tool("add")
    first, second, third = (request.params["_meta"] for request in peer.requests_of("tools/call"))
    assert first[key] == "warning"
    assert key not in second
    assert third[key] == "debug", "who gives a handler wants to hear"


async def test_a_log_level_there_is_not_is_refused_at_once() -> None:
    level: Any = "loud"
    with pytest.raises(ValueError, match="log_level"):
        Client(ScriptedPeer().transport, log_level=level)
