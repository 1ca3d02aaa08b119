"""A result and the schema it was promised in: what is checked, and what a listing may never cost."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import anyio
import httpx2
import pytest
from mcp.server import ServerRequestContext
from mcp.types import HEADER_MISMATCH, CallToolRequestParams, ListToolsResult, TextContent

from anyio_mcp.client import Client
from anyio_mcp.errors import DeadlineExceededError, MCPError
from anyio_mcp.results import CallToolResult, ResultSchemaError
from anyio_mcp.testing import PeerRequest, ScriptedPeer, VirtualTime
from tests.verbs.servers import Era, Scripted, connected, text_result, tool

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


class Lying(Scripted):
    """A server whose tool `count` promises an integer and returns what the test says."""

    def __init__(self, structured: Any, **result: Any) -> None:
        super().__init__()
        self.tools = [tool("count", SCHEMA)]
        self.structured = structured
        self.result = result

    async def calling(self, context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        return text_result("done", self.structured, **self.result)


# --- a server that lies about its schema ----------------------------------------------------------


async def test_a_result_that_breaks_its_schema_is_an_error_that_carries_it(era: Era) -> None:
    server = Lying({"n": "many"})
    async with connected(server.server, era) as client:
        with pytest.raises(ResultSchemaError, match="many") as caught:
            await client.call_tool("count")
        assert await client.ping(), "the session lives"
    assert caught.value.result.structured_content == {"n": "many"}
    assert len(str(caught.value)) <= 2000


@pytest.mark.parametrize("is_listed", [False, True])
async def test_a_result_without_the_structure_it_promised_is_a_result_listed_or_not(
    era: Era, is_listed: bool
) -> None:
    server = Lying(None)
    async with connected(server.server, era) as client:
        if is_listed:
            await client.list_tools()
        result = await client.call_tool("count")
    assert replace(result, meta=None) == CallToolResult(content=[TextContent(type="text", text="done")])


@pytest.mark.parametrize("is_listed", [False, True])
async def test_who_is_strict_gets_no_result_without_the_structure_it_promised(
    era: Era, is_listed: bool
) -> None:
    server = Lying(None)
    async with connected(server.server, era, strict_schemas=True) as client:
        if is_listed:
            await client.list_tools()
        with pytest.raises(ResultSchemaError, match="did not return structured content") as caught:
            await client.call_tool("count")
    assert caught.value.result.content


async def test_what_the_server_lies_about_can_still_be_had_unchecked(era: Era) -> None:
    server = Lying({"n": "many"})
    async with connected(server.server, era) as client:
        raw = await client.call_tool_mcp("count")
    assert raw.structured_content == {"n": "many"}


async def test_a_result_that_is_an_error_is_not_checked(era: Era) -> None:
    server = Lying({"n": "many"}, is_error=True)
    async with connected(server.server, era) as client:
        result = await client.call_tool("count", raise_on_error=False)
    assert result.is_error
    assert result.structured_content == {"n": "many"}
    assert server.log.count("tools/list") == 0


UNUSABLE: dict[str, Any] = {
    "a type that is none": {"type": 7},
    "a type nobody knows": {"type": "int"},
    "a reference to elsewhere": {"$ref": "http://127.0.0.1:9/x.json"},
    "a reference to a file": {"$ref": "file:///etc/passwd"},
    "a reference to nowhere": {"$ref": "#/$defs/Nope"},
    "a reference to itself": {"$ref": "#/properties/n"},
    "a boolean bound of draft 4": {"minimum": 0, "exclusiveMinimum": True},
    "required of draft 3": {"type": "integer", "required": True},
    "a dynamic reference": {"$dynamicRef": "#n"},
    "what was not evaluated": {"allOf": [{}], "unevaluatedProperties": False},
    "a pattern with a class of Unicode": {"pattern": r"^\p{L}+$"},
    "a pattern that looks ahead": {"pattern": "^(?=.*[0-9]).+$"},
    "an identity of its own": {"$id": "http://x/y"},
    "an unknown draft": {"type": "object"},
    "a bound beyond all floats": {"maximum": float("inf")},
    "too many choices": {"enum": list(range(100_000))},
}


def unusable(kind: str) -> dict[str, Any]:
    draft = {"$schema": "http://json-schema.org/draft-04/schema#"} if kind == "an unknown draft" else {}
    return {**draft, "type": "object", "properties": {"n": UNUSABLE[kind]}}


@pytest.mark.parametrize("kind", UNUSABLE)
async def test_what_cannot_be_checked_is_delivered_and_says_so(
    kind: str, era: Era, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "anyio_mcp")
    server = Lying({"n": "some text" if kind.startswith("a pattern") else 1})
    server.tools = [tool("count", unusable(kind))]
    async with connected(server.server, era) as client:
        for _ in range(3):
            result = await client.call_tool("count")
            assert result.structured_content == server.structured
            assert result.unchecked
    warnings = [record for record in caplog.records if "unchecked" in record.getMessage()]
    assert len(warnings) == 1, "once for each tool"


@pytest.mark.parametrize("kind", UNUSABLE)
async def test_what_cannot_be_checked_is_an_error_for_who_is_strict(kind: str, era: Era) -> None:
    server = Lying({"n": "some text" if kind.startswith("a pattern") else 1})
    server.tools = [tool("count", unusable(kind))]
    async with connected(server.server, era, strict_schemas=True) as client:
        with pytest.raises(ResultSchemaError, match="could not be checked") as caught:
            await client.call_tool("count")
    assert caught.value.result.structured_content == server.structured
    assert caught.value.result.unchecked


async def test_a_schema_that_has_changed_unannounced_is_listed_again_before_a_result_is_called_wrong(
    era: Era,
) -> None:
    server = Lying({"n": "many"})
    async with connected(server.server, era) as client:
        await client.list_tools()
        server.tools = [tool("count", {"type": "object", "properties": {"n": {"type": "string"}}})]
        result = await client.call_tool("count")
    assert (result.structured_content, result.unchecked) == ({"n": "many"}, None)


async def test_a_result_of_a_version_that_the_caller_pinned_is_not_held_against_another(era: Era) -> None:
    server = Lying({"n": "many"})
    async with connected(server.server, era) as client:
        result = await client.call_tool("count", meta={"fastmcp": {"version": "1.0"}})
        assert "another version" in str(result.unchecked)
        with pytest.raises(ResultSchemaError):
            await client.call_tool("count", meta={"trace": "1.0"})


async def test_an_error_about_a_huge_result_is_short_and_carries_it(era: Era) -> None:
    server = Lying({"n": list(range(100_000))})
    schema = {"type": "object", "properties": {"n": {"maxItems": 1, "enum": [[n] for n in range(1000)]}}}
    server.tools = [tool("count", schema)]
    async with connected(server.server, era) as client:
        with pytest.raises(ResultSchemaError) as caught:
            await client.call_tool("count")
    assert len(str(caught.value)) < 300
    assert caught.value.result.structured_content == server.structured


async def test_the_sdk_session_checks_by_the_same_rules(era: Era) -> None:
    server = Lying({"n": "a" * 40 + "b"})
    async with connected(server.server, era) as client:
        with pytest.raises(RuntimeError, match="does not fit its schema") as caught:
            await client.session.call_tool("count")
        assert isinstance(caught.value, ResultSchemaError)
        server.tools = [tool("count", {"type": "object", "properties": {"n": {"pattern": "^(a+)+$"}}})]
        await client.session.list_tools()
        with pytest.raises(RuntimeError, match="pattern"):
            await client.session.call_tool("count")
        server.tools = [tool("count", unusable("a reference to elsewhere"))]
        await client.session.list_tools()
        assert await client.session.call_tool("count")


async def test_a_tool_that_is_not_listed_is_not_checked(era: Era) -> None:
    server = Lying({"n": "many"})
    server.tools = []
    async with connected(server.server, era) as client:
        result = await client.call_tool("count")
        await client.call_tool("count")
    assert result.data == {"n": "many"}
    assert "does not list" in str(result.unchecked)
    assert server.log.count("tools/list") == 1


# --- a listing that fails after the tool has run --------------------------------------------------


async def test_a_server_that_does_not_list_its_tools_costs_no_result(era: Era) -> None:
    server = Lying({"n": "many"})

    async def refuses(cursor: str | None) -> ListToolsResult:
        raise MCPError(-32601, "no list")

    server.listing = refuses
    async with connected(server.server, era) as client:
        for _ in range(2):
            assert (await client.call_tool("count")).structured_content == {"n": "many"}
    assert server.log.count("tools/list") == 1, "it has said no"


async def test_a_listing_that_is_nonsense_costs_no_result(era: Era, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "anyio_mcp")
    server = Lying({"n": "many"})

    async def endless(cursor: str | None) -> ListToolsResult:
        return ListToolsResult(tools=[], next_cursor="again")

    server.listing = endless
    async with connected(server.server, era) as client:
        assert (await client.call_tool("count")).structured_content == {"n": "many"}
    assert "repeats a cursor" in caplog.text


class TestListingsThatTakeForEver:
    """On a virtual clock: the listing may take as long as the call's deadline allows, and no longer."""

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> tuple[str, Any]:
        return request.param, VirtualTime(request.param).options

    @pytest.mark.parametrize(("timeout", "waited"), [(10.0, 5.0), (None, 30.0), (1000.0, 30.0)])
    async def test_a_listing_that_never_comes_costs_no_result(
        self, era: Era, timeout: float | None, waited: float
    ) -> None:
        server = Lying({"n": "many"})

        async def hangs(cursor: str | None) -> ListToolsResult:
            await anyio.sleep_forever()
            raise AssertionError

        server.listing = hangs
        with anyio.fail_after(3600):
            async with connected_for_long(server, era) as client:
                began = anyio.current_time()
                result = await client.call_tool("count", timeout=timeout)
                assert anyio.current_time() - began == pytest.approx(waited)
        assert result.structured_content == {"n": "many"}

    async def test_a_call_that_never_ends_is_bounded_whatever_listing_would_follow(self, era: Era) -> None:
        server = Lying(None)

        async def hangs(context: Any, params: Any) -> Any:
            await anyio.sleep_forever()

        server.calling = hangs
        with anyio.fail_after(3600):
            async with connected_for_long(server, era) as client:
                with pytest.raises(DeadlineExceededError) as caught:
                    await client.call_tool("count", timeout=7)
        assert (caught.value.phase, caught.value.seconds) == ("call", 7.0)


def connected_for_long(server: Scripted, era: Era) -> Any:
    """Without the heartbeat, which has a say in how long a silent server is waited for."""
    return Client(server.server, mode=era, heartbeat=None)


# --- arguments that must be repeated in headers (2026-07-28) --------------------------------------


class Strict:
    """A peer that refuses so many calls: for their headers with status 400, as an HTTP server does, or with
    the same error from a tool that has run."""

    def __init__(self, refusals: int, *, status: int | None = 400, era: Any = "modern") -> None:
        self.refusals = refusals
        self.status = status
        self.peer = ScriptedPeer(era=era)
        self.peer.on("tools/call", self.calling)
        listed = {"name": "x", "inputSchema": SCHEMA, "outputSchema": SCHEMA}
        self.peer.on("tools/list", {"tools": [listed]})

    def calling(self, request: PeerRequest) -> Any:
        if not self.refusals:
            return {"content": [], "structuredContent": {"n": 1}}
        self.refusals -= 1
        cause = None
        if self.status is not None:
            asked = httpx2.Request("POST", "http://127.0.0.1/mcp")
            cause = httpx2.HTTPStatusError(
                "no", request=asked, response=httpx2.Response(self.status, request=asked)
            )
        error = MCPError(HEADER_MISMATCH, "Mcp-Param-Region is missing", cause=cause)
        request.fault(error)
        return None

    def seen(self) -> list[str]:
        return [request.method for request in self.peer.requests if request.method.startswith("tools/")]


async def test_a_call_refused_for_its_headers_is_sent_once_more_after_a_listing() -> None:
    server = Strict(refusals=1)
    async with Client(server.peer.transport) as client:
        result = await client.call_tool("x", {"a": 1})
        assert result.structured_content == {"n": 1}
        await client.call_tool("x")
    # The listing serves the schema as well.
    assert server.seen() == ["tools/call", "tools/list", "tools/call", "tools/call"]


async def test_a_call_refused_again_is_not_sent_a_third_time() -> None:
    server = Strict(refusals=5)
    async with Client(server.peer.transport) as client:
        with pytest.raises(MCPError, match="Mcp-Param-Region") as caught:
            await client.call_tool("x")
    assert caught.value.code == HEADER_MISMATCH
    assert server.seen() == ["tools/call", "tools/list", "tools/call"]


@pytest.mark.parametrize(
    ("era", "status"), [("legacy", None), ("legacy", 400), ("modern", None), ("modern", 200), ("modern", 500)]
)
async def test_a_tool_that_fails_as_a_refusal_would_does_not_run_twice(era: str, status: int | None) -> None:
    server = Strict(refusals=1, status=status, era=era)
    async with Client(server.peer.transport) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("x")
    assert caught.value.code == HEADER_MISMATCH
    assert server.seen() == ["tools/call"]


async def test_any_other_refusal_is_not_sent_again(era: Era) -> None:
    server = Scripted()

    async def refuses(context: Any, params: Any) -> Any:
        raise MCPError(-32000, "no")

    server.calling = refuses
    async with connected(server.server, era) as client:
        with pytest.raises(MCPError):
            await client.call_tool("x")
    assert server.log.count("tools/call") == 1
