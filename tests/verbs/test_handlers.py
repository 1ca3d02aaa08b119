"""What a server asks of its client, in either era, and the user's handlers that answer."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import MCPError
from mcp.client import ClientRequestContext
from mcp.server import ServerRequestContext
from mcp.types import (
    CallToolRequestParams,
    ClientCapabilities,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitRequestURLParams,
    EmptyResult,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    PingRequest,
    SamplingCapability,
    SamplingMessage,
    SamplingToolsCapability,
    TextContent,
)
from mcp.types import (
    ElicitResult as RawElicitResult,
)

from anyio_mcp.handlers import ElicitResult
from tests.verbs.servers import LEGACY, MODERN, Era, Scripted, connected, text_result

pytestmark = pytest.mark.anyio


SAMPLING = CreateMessageRequest(
    params=CreateMessageRequestParams(
        messages=[SamplingMessage(role="user", content=TextContent(type="text", text="Well?"))],
        max_tokens=100,
    )
)
FORM = ElicitRequest(
    params=ElicitRequestFormParams(
        message="Who?",
        requested_schema={
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer", "default": 7}},
            "required": ["name"],
        },
    )
)
URL = ElicitRequest(
    params=ElicitRequestURLParams(message="Go there", url="https://example.com/", elicitation_id="e1")
)
ROOTS = ListRootsRequest()
RESULTS: dict[type[Any], type[Any]] = {
    CreateMessageRequest: CreateMessageResult,
    ElicitRequest: RawElicitResult,
    ListRootsRequest: ListRootsResult,
}


class Asking(Scripted):
    """A server whose tool `ask` asks its client something, in the way of the era, and keeps the answer.

    In the older era it is a request of the server; in the modern one a result that wants input.
    """

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request
        self.answer: Any = None
        self.refusal: MCPError | None = None
        self.capabilities: ClientCapabilities | None = None

    async def calling(self, context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        self.capabilities = context.session.client_capabilities
        if context.session.can_send_request:
            try:
                self.answer = await context.session.send_request(self.request, RESULTS[type(self.request)])
            except MCPError as error:
                self.refusal = error
            return text_result("thanks")
        if params.input_responses is None:
            return InputRequiredResult(input_requests={"it": self.request}, request_state="state é")
        assert params.request_state == "state é"
        self.answer = params.input_responses["it"]
        return text_result("thanks")


async def ask(server: Asking, era: Era, **handlers: Any) -> Any:
    """What the server got for an answer."""
    async with connected(server.server, era, **handlers) as client:
        await client.call_tool("ask")
    assert server.refusal is None
    return server.answer


async def refused(server: Asking, era: Era, **handlers: Any) -> MCPError:
    """The error that the server got, or in the modern era, where it gets none, the caller."""
    async with connected(server.server, era, **handlers) as client:
        if era == LEGACY:
            await client.call_tool("ask")
            assert server.refusal is not None
            return server.refusal
        with pytest.raises(MCPError) as caught:
            await client.call_tool("ask")
        assert await client.ping(), "the session lives"
        return caught.value


# --- sampling -------------------------------------------------------------------------------------


async def test_a_sampling_handler_answers_with_text(era: Era) -> None:
    asked: list[Any] = []

    async def handler(
        messages: list[SamplingMessage], params: CreateMessageRequestParams, context: ClientRequestContext
    ) -> str:
        asked.append((messages, params.max_tokens, context.session is not None))
        return "Fine."

    server = Asking(SAMPLING)
    answer = await ask(server, era, sampling_handler=handler)
    assert asked == [(SAMPLING.params.messages, 100, True)]
    assert answer.role == "assistant"
    assert answer.content == TextContent(type="text", text="Fine.")
    assert server.capabilities is not None
    assert server.capabilities.sampling is not None
    assert server.capabilities.sampling.tools is None


async def test_sampling_capabilities_are_those_the_user_declared(era: Era) -> None:
    server = Asking(SAMPLING)
    capabilities = SamplingCapability(tools=SamplingToolsCapability())
    await ask(server, era, sampling_handler=answer_fine, sampling_capabilities=capabilities)
    assert server.capabilities is not None
    assert server.capabilities.sampling == capabilities


async def answer_fine(*_: Any) -> str:
    return "Fine."


async def test_a_plain_function_answers_from_a_thread(era: Era) -> None:
    threads: list[int] = []

    def handler(*_: Any) -> str:
        threads.append(threading.get_ident())
        return "Fine."

    answer = await ask(Asking(SAMPLING), era, sampling_handler=handler)
    assert answer.content.text == "Fine."
    assert threads
    assert threads[0] != threading.get_ident()


async def test_a_sampling_handler_set_later_answers_from_then_on(era: Era) -> None:
    server = Asking(SAMPLING)

    async def other(*_: Any) -> str:
        return "Better."

    async with connected(server.server, era, sampling_handler=answer_fine) as client:
        await client.call_tool("ask")
        assert server.answer.content.text == "Fine."
        client.set_sampling_callback(other)
        await client.call_tool("ask")
        assert server.answer.content.text == "Better."


async def test_a_sampling_handler_set_before_connecting_declares_the_capability(era: Era) -> None:
    server = Asking(SAMPLING)
    async with connected(server.server, era) as client:
        assert client.protocol_version
        other = client.new()
        other.set_sampling_callback(answer_fine)
        async with other:
            await other.call_tool("ask")
    assert server.answer.content.text == "Fine."
    assert server.capabilities is not None
    assert server.capabilities.sampling is not None


# --- elicitation ----------------------------------------------------------------------------------


async def test_an_elicitation_handler_gets_a_type_to_fill_in(era: Era) -> None:
    asked: list[str] = []

    async def handler(
        message: str, response_type: Any, params: ElicitRequestParams, context: ClientRequestContext
    ) -> Any:
        asked.append(message)
        return response_type(name="Ada", age=36)

    server = Asking(FORM)
    answer = await ask(server, era, elicitation_handler=handler)
    assert asked == ["Who?"]
    assert (answer.action, answer.content) == ("accept", {"name": "Ada", "age": 36})
    assert server.capabilities is not None
    assert server.capabilities.elicitation is not None


@dataclasses.dataclass
class Person:
    name: str
    age: int = 36


@pytest.mark.parametrize("given", [{"name": "Ada", "age": 36}, Person("Ada")], ids=["dict", "dataclass"])
async def test_an_elicitation_may_be_answered_by_data_of_any_kind(era: Era, given: Any) -> None:
    async def handler(*_: Any) -> Any:
        return given

    answer = await ask(Asking(FORM), era, elicitation_handler=handler)
    assert (answer.action, answer.content) == ("accept", {"name": "Ada", "age": 36})


async def test_what_an_answer_leaves_out_is_filled_with_the_schemas_default(era: Era) -> None:
    async def handler(*_: Any) -> Any:
        return {"name": "Ada"}

    answer = await ask(Asking(FORM), era, elicitation_handler=handler)
    assert answer.content == {"name": "Ada", "age": 7}


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_an_elicitation_can_be_declined_and_cancelled(era: Era, action: Any) -> None:
    async def handler(*_: Any) -> Any:
        return ElicitResult(action=action)

    answer = await ask(Asking(FORM), era, elicitation_handler=handler)
    assert (answer.action, answer.content) == (action, None)


async def test_an_elicitation_may_send_the_user_to_a_url(era: Era) -> None:
    asked: list[Any] = []

    async def handler(
        message: str, response_type: Any, params: ElicitRequestParams, context: ClientRequestContext
    ) -> Any:
        assert isinstance(params, ElicitRequestURLParams)
        asked.append((message, response_type, str(params.url)))
        return None

    answer = await ask(Asking(URL), era, elicitation_handler=handler)
    assert asked == [("Go there", None, "https://example.com/")]
    assert (answer.action, answer.content) == ("accept", None)


async def test_an_elicitation_handler_set_later_answers_from_then_on(era: Era) -> None:
    async def decline(*_: Any) -> Any:
        return ElicitResult(action="decline")

    async def accept(*_: Any) -> Any:
        return {"name": "Ada"}

    server = Asking(FORM)
    async with connected(server.server, era, elicitation_handler=decline) as client:
        await client.call_tool("ask")
        assert server.answer.action == "decline"
        client.set_elicitation_callback(accept)
        await client.call_tool("ask")
        assert server.answer.action == "accept"


# --- roots ----------------------------------------------------------------------------------------


async def test_roots_are_listed_to_the_server(era: Era) -> None:
    server = Asking(ROOTS)
    answer = await ask(server, era, roots=["/tmp", "file:///home"])
    assert [str(root.uri) for root in answer.roots] == ["file:///tmp", "file:///home"]
    assert server.capabilities is not None
    assert server.capabilities.roots is not None


async def test_roots_may_come_from_a_handler(era: Era) -> None:
    async def handler(context: ClientRequestContext) -> list[str]:
        return ["/from/a/handler"]

    answer = await ask(Asking(ROOTS), era, roots=handler)
    assert [str(root.uri) for root in answer.roots] == ["file:///from/a/handler"]


async def test_roots_set_later_are_listed_from_then_on(era: Era) -> None:
    server = Asking(ROOTS)
    async with connected(server.server, era, roots=["/a"]) as client:
        await client.call_tool("ask")
        client.set_roots(["/b"])
        await client.call_tool("ask")
        assert [str(root.uri) for root in server.answer.roots] == ["file:///b"]
        client.set_roots(lambda _: ["/c"])
        await client.call_tool("ask")
        assert [str(root.uri) for root in server.answer.roots] == ["file:///c"]


# --- handlers that are missing, raise, or take their time -----------------------------------------

HANDLERS = {"sampling_handler": SAMPLING, "elicitation_handler": FORM, "roots": ROOTS}
EACH_HANDLER = pytest.mark.parametrize(
    ("handler", "request_"), HANDLERS.items(), ids=[name.removesuffix("_handler") for name in HANDLERS]
)


@EACH_HANDLER
async def test_a_capability_without_a_handler_is_not_declared_and_the_request_refused(
    era: Era, handler: str, request_: Any
) -> None:
    server = Asking(request_)
    error = await refused(server, era)
    assert "not supported" in error.message
    assert server.capabilities is not None
    capabilities = server.capabilities
    assert (capabilities.sampling, capabilities.elicitation, capabilities.roots) == (None, None, None)


@EACH_HANDLER
async def test_a_handler_that_raises_is_an_error_to_the_server_and_harms_nobody_else(
    era: Era, handler: str, request_: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def clumsy(*_: Any) -> Any:
        raise KeyError("clumsy")

    server = Asking(request_)
    error = await refused(server, era, **{handler: clumsy})
    assert error.code == -32603
    assert "clumsy" in error.message
    assert "handler raised" in caplog.text


@EACH_HANDLER
async def test_an_mcp_error_of_a_handler_is_its_own_choice_of_words(
    era: Era, handler: str, request_: Any
) -> None:
    async def unwilling(*_: Any) -> Any:
        raise MCPError(-1, "The user has no time", {"until": "tomorrow"})

    error = await refused(Asking(request_), era, **{handler: unwilling})
    assert (error.code, error.message, error.data) == (-1, "The user has no time", {"until": "tomorrow"})


@EACH_HANDLER
async def test_a_handler_that_returns_nonsense_is_an_error_to_the_server(
    era: Era, handler: str, request_: Any
) -> None:
    async def nonsense(*_: Any) -> Any:
        return object()

    error = await refused(Asking(request_), era, **{handler: nonsense})
    assert error.code == -32603


async def test_a_handler_may_call_the_same_client(era: Era) -> None:
    server = Asking(SAMPLING)
    async with connected(server.server, era) as outer:
        client = outer.new()

        async def handler(*_: Any) -> str:
            assert await client.ping()
            return f"{len(await client.list_tools())} tools"

        client.set_sampling_callback(handler)
        async with client:
            await client.call_tool("ask")
    assert server.answer.content.text == "0 tools"


async def test_a_handler_that_hangs_delays_only_its_own_call() -> None:
    server, asked = Asking(SAMPLING), anyio.Event()

    async def hangs(*_: Any) -> Any:
        asked.set()
        await anyio.sleep_forever()

    async with (
        connected(server.server, LEGACY, sampling_handler=hangs) as client,
        anyio.create_task_group() as tg,
    ):
        tg.start_soon(client.call_tool, "ask")
        await asked.wait()
        for _ in range(3):
            assert await client.ping()
        tg.cancel_scope.cancel()


async def test_the_server_may_ping_its_client() -> None:
    scripted, answers = Scripted(), list[Any]()

    async def calling(context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        answers.append(await context.session.send_request(PingRequest(), EmptyResult))
        return text_result("done")

    scripted.calling = calling
    async with connected(scripted.server, LEGACY) as client:
        await client.call_tool("x")
    assert len(answers) == 1


@pytest.mark.parametrize("request_", [SAMPLING, FORM, ROOTS], ids=["sampling", "elicitation", "roots"])
async def test_a_modern_server_has_no_other_way_to_ask(request_: Any) -> None:
    scripted, errors = Scripted(), list[MCPError]()

    async def calling(context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        with pytest.raises(MCPError, match="no back-channel") as caught:
            await context.session.send_request(request_, RESULTS[type(request_)])
        errors.append(caught.value)
        return text_result("done")

    scripted.calling = calling
    async with connected(scripted.server, MODERN, sampling_handler=answer_fine) as client:
        await client.call_tool("x")
    assert len(errors) == 1
