"""Handlers as users write them, called as the session calls them."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, cast

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import ClientSession, MCPError, types
from mcp.client import Client, ClientRequestContext
from mcp.server.mcpserver import Context, MCPServer
from pydantic import AnyUrl, BaseModel, Field, FileUrl

from anyio_mcp._schema import at_once
from anyio_mcp.handlers import (
    ElicitResult,
    MessageHandler,
    default_log_handler,
    elicitation_callback,
    logging_callback,
    message_callback,
    progress_callback,
    roots_callback,
    sampling_callback,
)
from anyio_mcp.handlers import handler as _handler
from anyio_mcp.handlers.elicitation import answer_form, form_steps
from anyio_mcp.results import tool_result

pytestmark = pytest.mark.anyio

CONTEXT = ClientRequestContext(session=cast("ClientSession", None), request_id=7)
SAMPLING = types.CreateMessageRequestParams(
    messages=[types.SamplingMessage(role="user", content=types.TextContent(type="text", text="hi"))],
    max_tokens=5,
)
URL = types.ElicitRequestURLParams(message="go", url="https://example.com", elicitation_id="1")


def form(schema: dict[str, Any]) -> types.ElicitRequestFormParams:
    return types.ElicitRequestFormParams(message="who?", requested_schema=schema)


PERSON = form(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "age": {"type": "integer", "default": 36},
            "born on": {"type": "string", "format": "date"},
        },
        "required": ["name"],
    }
)


async def sampled(handler: Any) -> Any:
    with anyio.fail_after(10):
        return await sampling_callback(handler)(CONTEXT, SAMPLING)


async def elicited(handler: Any, params: types.ElicitRequestParams = PERSON) -> Any:
    with anyio.fail_after(10):
        return await elicitation_callback(handler)(CONTEXT, params)


def answering(answer: Any) -> Callable[..., Any]:
    async def handler(*args: Any) -> Any:
        return answer

    return handler


# --- sampling, and what is the same for every handler of a request


async def test_a_text_of_a_sampling_handler_is_the_assistants() -> None:
    seen: list[Any] = []

    async def handler(messages: Any, params: Any, context: Any) -> str:
        seen.extend((messages, params, context))
        return "hello"

    result = await sampled(handler)
    assert seen == [SAMPLING.messages, SAMPLING, CONTEXT]
    assert isinstance(result, types.CreateMessageResult)
    assert (result.role, result.content) == ("assistant", types.TextContent(type="text", text="hello"))


TOOL_USE = types.ToolUseContent(type="tool_use", id="1", name="t", input={})
IMAGE = types.ImageContent(type="image", data="", mime_type="image/png")


@pytest.mark.parametrize(
    "answer",
    [
        types.CreateMessageResult(role="assistant", content=IMAGE, model="m"),
        types.CreateMessageResultWithTools(role="assistant", content=[TOOL_USE], model="m"),
        types.ErrorData(code=-1, message="User rejected sampling request"),
    ],
)
async def test_a_whole_sampling_answer_is_passed_on_as_it_is(answer: Any) -> None:
    assert await sampled(answering(answer)) is answer


@pytest.mark.parametrize("content", [IMAGE, TOOL_USE, [TOOL_USE, IMAGE]])
async def test_content_of_a_sampling_handler_becomes_an_answer(content: Any) -> None:
    result = await sampled(answering(content))
    assert result.role == "assistant"
    assert result.content == content


async def test_an_answer_that_is_none_is_an_error_to_the_server(caplog: pytest.LogCaptureFixture) -> None:
    result = await sampled(answering(42))
    assert result.code == types.INTERNAL_ERROR
    assert result.message.startswith("TypeError: a sampling handler must return")
    assert "the sampling handler raised" in caplog.text


async def test_a_plain_function_runs_in_a_thread() -> None:
    here = threading.get_ident()

    def handler(*args: Any) -> str:
        return str(threading.get_ident() != here)

    assert (await sampled(handler)).content.text == "True"
    assert (await sampled(functools.partial(handler))).content.text == "True"


async def test_an_async_function_in_any_wrapping_is_awaited_here() -> None:
    here = threading.get_ident()

    async def handler(*args: Any) -> str:
        return str(threading.get_ident() == here)

    class Callable:
        async def __call__(self, *args: Any) -> str:
            return str(threading.get_ident() == here)

        async def method(self, *args: Any) -> str:
            return str(threading.get_ident() == here)

    wrappings = [
        handler,
        functools.partial(handler),
        Callable(),
        functools.partial(Callable()),
        Callable().method,
    ]
    for wrapped in [*wrappings, lambda *args: handler(*args)]:
        assert (await sampled(wrapped)).content.text == "True"


async def test_an_exception_is_told_the_server_shortly_and_logged_in_full(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(*args: Any) -> str:
        raise ValueError("no " * 1000)

    result = await sampled(handler)
    assert result.code == types.INTERNAL_ERROR
    assert result.message.startswith("ValueError: no no")
    assert len(result.message) == 500
    assert "the sampling handler raised" in caplog.text
    assert "Traceback" in caplog.text


async def test_an_exception_that_cannot_say_what_it_is_still_answers() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def handler(*args: Any) -> str:
        raise MuteError

    logger = logging.getLogger("anyio_mcp.handlers.handler")
    logger.disabled = True  # logging could not format it either
    try:
        result = await sampled(handler)
    finally:
        logger.disabled = False
    assert result.message == "MuteError"


async def test_an_mcp_error_is_the_answer_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(*args: Any) -> str:
        raise MCPError(-1, "User rejected sampling request", {"a": 1})

    result = await sampled(handler)
    assert (result.code, result.message, result.data) == (-1, "User rejected sampling request", {"a": 1})
    assert not caplog.records


async def test_cancellation_passes_through_an_async_handler() -> None:
    entered = anyio.Event()

    async def handler(*args: Any) -> str:
        entered.set()
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sampled, handler)
            await entered.wait()
            tasks.cancel_scope.cancel()
    assert tasks.cancel_scope.cancelled_caught


async def test_a_blocked_thread_is_abandoned_at_once_and_counted_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_handler, "MAX_THREADS", 2)
    release, ended = threading.Event(), threading.Semaphore(0)
    entered: list[None] = []

    def handler(*args: Any) -> str:
        entered.append(None)
        release.wait(30)
        ended.release()
        return "done"

    callback = sampling_callback(handler)

    async def run() -> None:
        await callback(CONTEXT, SAMPLING)

    try:
        with anyio.fail_after(20):
            for count in (1, 2):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(run)
                    while len(entered) < count:
                        await anyio.sleep(0.001)
                    started = time.monotonic()
                    tasks.cancel_scope.cancel()
                assert time.monotonic() - started < 5
            refused = await callback(CONTEXT, SAMPLING)
            assert isinstance(refused, types.ErrorData)
            assert refused.message == "RuntimeError: 2 sampling handlers are running already"
            assert len(entered) == 2
    finally:
        release.set()
    for _ in range(2):
        assert ended.acquire(timeout=10)
    with anyio.fail_after(20):
        while isinstance(result := await callback(CONTEXT, SAMPLING), types.ErrorData):
            await anyio.sleep(0.001)
    assert isinstance(result, types.CreateMessageResult)


async def test_a_handler_cancelled_before_its_thread_started_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_handler, "MAX_THREADS", 1)
    called: list[None] = []

    def handler(*args: Any) -> str:
        called.append(None)
        return "done"

    callback = sampling_callback(handler)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await callback(CONTEXT, SAMPLING)
    assert not called
    with anyio.fail_after(10):
        assert isinstance(await callback(CONTEXT, SAMPLING), types.CreateMessageResult)


@pytest.mark.parametrize(
    "make", [sampling_callback, elicitation_callback, logging_callback, message_callback, progress_callback]
)
def test_what_cannot_be_called_is_no_handler(make: Any) -> None:
    with pytest.raises(TypeError, match="handler must be a function, not str"):
        make("handler")


# --- elicitation


async def test_an_elicitation_handler_gets_a_dataclass_of_the_form_and_answers_with_it() -> None:
    seen: list[Any] = []

    async def handler(message: str, response_type: Any, params: Any, context: Any) -> Any:
        seen.extend((message, params, context))
        return response_type(name="Ada", born_on=date(1815, 12, 10))

    result = await elicited(handler)
    assert seen == ["who?", PERSON, CONTEXT]
    assert result.action == "accept"
    assert result.content == {"name": "Ada", "age": 36, "born on": "1815-12-10"}


@dataclass
class Ada:
    name: str = "Ada"
    age: int | None = None


class Grace(BaseModel):
    name: str = "Grace"
    birthday: date = Field(default=date(1906, 12, 9), serialization_alias="born on")


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        ({"name": "A", "age": 3}, {"name": "A", "age": 3}),
        ({"name": "A", "more": True}, {"name": "A", "more": True, "age": 36}),
        (Ada(), {"name": "Ada", "age": 36}),
        (Grace(), {"name": "Grace", "born on": "1906-12-09", "age": 36}),
        (ElicitResult(action="accept", content={"name": "A"}), {"name": "A", "age": 36}),
        (ElicitResult(action="accept", content=Ada(age=1)), {"name": "Ada", "age": 1}),
        (types.ElicitResult(action="accept", content={"name": "A"}), {"name": "A", "age": 36}),
    ],
)
@pytest.mark.parametrize("in_thread", [False, True])
async def test_any_shape_of_answer_becomes_the_forms_content(
    answer: Any, content: Any, in_thread: bool
) -> None:
    result = await elicited((lambda *args: answer) if in_thread else answering(answer))
    assert (result.action, result.content) == ("accept", content)


@pytest.mark.parametrize("action", ["decline", "cancel"])
@pytest.mark.parametrize("kind", [ElicitResult, types.ElicitResult])
@pytest.mark.parametrize("params", [PERSON, URL])
async def test_only_an_acceptance_has_content(action: Any, kind: Any, params: Any) -> None:
    result = await elicited(answering(kind(action=action, content={"name": "A"})), params)
    assert (result.action, result.content) == (action, None)


async def test_the_meta_of_an_answer_reaches_the_server() -> None:
    for params in (PERSON, URL):
        result = await elicited(answering(ElicitResult(action="decline", meta={"a": 1})), params)
        assert result.meta == {"a": 1}


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JavaScript://host/%0aalert(1)",
        "java\nscript:alert(1)",
        "java\tscript:alert(1)",
        "java\rscript:alert(1)",
        "\x00javascript:alert(1)",
        "\tJaVaScRiPt:alert(1)",
        " JaVaScRiPt://host/%0aalert(1)",
        " javascript:alert(1)",
        "vbscript://host/x",
        " FILE://host/etc/passwd",
        "da\tta://host/text/html,x",
        "view-source:https://host/",
        "blob:https://host/x",
        "\nhttps://host/",
        "https://ho\tst/",
        "https://host/\r\n",
        "https://host/\x9b2J",
        "https://host/\ud800",
        "https://host\xa0.example/",
        "file:///etc/passwd",
        "data:text/html,<script>1</script>",
        "vscode://extension/run",
        "ftp://127.0.0.1/",
        "not a url",
        "//host/path",
        "https:///path",
        "https://[::1",
        "https://host/\u202egpj.exe",
        "https://host/\x1b[2J",
        "https://host/ a",
        "https://host/" + "x" * 10_000,
        "",
    ],
    ids=ascii,
)
async def test_a_url_that_is_no_link_is_refused_before_the_handler_sees_it(url: str) -> None:
    seen: list[str] = []

    async def handler(message: str, kind: Any, params: Any, context: Any) -> None:
        seen.append(params.url)

    params = types.ElicitRequestURLParams(message="go", url=url, elicitation_id="1")
    refusal = await elicited(handler, params)
    assert isinstance(refusal, types.ErrorData)
    assert refusal.code == types.INVALID_PARAMS
    assert "http" in refusal.message
    assert not seen


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/a?b=c#d", "HTTPS://host", "https://b\u00fccher.example/\u00fc"]
)
async def test_a_url_that_is_a_link_is_shown_as_it_was_sent(url: str) -> None:
    seen: list[str] = []

    async def handler(message: str, kind: Any, params: Any, context: Any) -> None:
        seen.append(params.url)

    params = types.ElicitRequestURLParams(message="go", url=url, elicitation_id="1")
    assert (await elicited(handler, params)).action == "accept"
    assert seen == [url]


async def test_a_url_and_a_form_without_fields_have_no_response_type() -> None:
    types_seen: list[Any] = []

    async def handler(message: str, response_type: Any, *rest: Any) -> None:
        types_seen.append(response_type)

    result = await elicited(handler, URL)
    assert (result.action, result.content) == ("accept", None)
    result = await elicited(handler, form({"type": "object", "properties": {}}))
    assert (result.action, result.content) == ("accept", {})
    assert types_seen == [None, None]


async def test_an_error_is_an_answer_too() -> None:
    error = types.ErrorData(code=-1, message="not now")
    assert await elicited(answering(error)) is error
    assert await elicited(answering(error), URL) is error


def test_an_answer_is_accepted_declined_or_cancelled() -> None:
    with pytest.raises(ValueError, match="not 'maybe'"):
        ElicitResult(action=cast("Any", "maybe"))


@pytest.mark.parametrize(("kind", "value"), [("string", "x"), ("integer", 3), ("boolean", False)])
async def test_a_question_for_one_value_is_answered_by_the_value(kind: str, value: Any) -> None:
    params = form({"type": "object", "properties": {"value": {"type": kind}}, "required": ["value"]})
    result = await elicited(answering(value), params)
    assert result.content == {"value": value}


def fields(**properties: Any) -> types.ElicitRequestFormParams:
    return form({"type": "object", "properties": properties})


async def test_defaults_fill_what_was_left_open_and_null_is_kept_where_it_is_a_value() -> None:
    params = fields(
        color={"type": "string", "enum": ["red", "blue"], "default": "blue"},
        tags={"type": "array", "items": {"type": "string"}, "default": ["a"]},
        maybe={"type": ["string", "null"], "default": "x"},
        ratio={"type": "number"},
    )
    result = await elicited(answering(None), params)
    assert result.content == {"color": "blue", "tags": ["a"], "maybe": "x"}
    result = await elicited(answering({"maybe": None, "ratio": None, "color": "red", "tags": []}), params)
    assert result.content == {"maybe": None, "color": "red", "tags": []}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "the answer has no 'name'"),
        ({"name": None}, "'name': a value of another type"),
        ({"name": 3}, "'name': a value of another type"),
        ({"name": ""}, "'name' breaks the rule minLength"),
        ({"name": "A", "age": "old"}, "'age': a value of another type"),
        ({"name": "A", "born on": "soon"}, "'born on': not a date"),
        ({"name": "A", "more": {"a": 1}}, "'more': a form takes strings"),
        ({"name": "A", "more": [1]}, "'more': a form takes strings"),
        ({"name": "A", "more": float("nan")}, "'more': a form takes strings"),
        ("Ada", "an answer must be a dataclass, a pydantic model or a dict, not str"),
        (object(), "Unable to serialize"),
    ],
)
async def test_an_answer_that_does_not_fit_the_form_is_an_error_to_the_server(
    answer: Any, message: str
) -> None:
    result = await elicited(answering(answer))
    assert isinstance(result, types.ErrorData)
    assert result.code == types.INTERNAL_ERROR
    assert message in result.message


@pytest.mark.parametrize(
    ("schema", "good", "bad", "rule"),
    [
        ({"type": "string", "maxLength": 2}, "ab", "abc", "maxLength"),
        ({"type": "string", "pattern": "^a+$"}, "aa", "ab", "pattern"),
        ({"type": "integer", "minimum": 2}, 2, 1, "minimum"),
        ({"type": "number", "maximum": 2}, 2.0, 2.5, "maximum"),
        ({"type": "number", "exclusiveMinimum": 2}, 2.5, 2, "exclusiveMinimum"),
        ({"type": "number", "exclusiveMaximum": 2}, 1, 2.0, "exclusiveMaximum"),
        ({"type": "array", "minItems": 1}, ["a"], [], "minItems"),
        ({"type": "array", "maxItems": 1}, ["a"], ["a", "b"], "maxItems"),
        ({"type": "string", "enum": ["a", "b"]}, "a", "c", "not one of"),
        ({"oneOf": [{"const": "a", "title": "A"}, {"const": "b"}]}, "b", "c", "another type|not one of"),
        ({"type": "array", "items": {"enum": ["a"]}}, ["a"], ["b"], "not one of"),
    ],
)
async def test_the_rules_of_a_field_are_checked(schema: Any, good: Any, bad: Any, rule: str) -> None:
    assert (await elicited(answering({"it": good}), fields(it=schema))).content == {"it": good}
    result = await elicited(answering({"it": bad}), fields(it=schema))
    assert isinstance(result, types.ErrorData)
    assert any(part in result.message for part in rule.split("|"))


async def test_a_form_may_refuse_fields_it_does_not_have() -> None:
    closed = form({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False})
    result = await elicited(answering({"b": "x"}), closed)
    assert result.message == "ValueError: the form has no 'b'"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(a+)+$"},
        {"type": "string", "pattern": "(?=a)(a+)+$"},
        {"type": "string", "pattern": "a" * 5000},
        {"type": "string", "pattern": 7, "minLength": "x", "maxLength": True, "minimum": 9},
        {"type": "boolean", "minimum": 9},
    ],
)
async def test_a_rule_that_is_hostile_or_means_nothing_does_no_harm(schema: Any) -> None:
    value: Any = (
        True if schema["type"] == "boolean" else "a" * 28 + "!"
    )  # 2^28 steps for an engine that backtracks
    started = time.monotonic()
    result = await elicited(answering({"it": value}), fields(it=schema))
    assert time.monotonic() - started < 5
    if schema.get("pattern") == "(a+)+$":
        assert "pattern" in result.message
    else:
        assert result.content == {"it": value}


def deep() -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(200):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": "object", "properties": []},
        {"properties": {"a": {}}, "$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
        deep(),
    ],
)
async def test_a_form_that_is_none_is_refused_without_asking_anybody(schema: Any) -> None:
    async def handler(*args: Any) -> None:
        raise AssertionError

    result = await elicited(handler, form(schema))
    assert result.code == types.INVALID_PARAMS


class Booking(BaseModel):
    day: date
    guests: int = 2


async def test_a_real_server_takes_the_answer_and_its_result_comes_back_typed() -> None:
    server = MCPServer("booking")

    @server.tool()
    async def book(ctx: Context[Any, Any]) -> Booking:
        answer = await ctx.elicit("when?", Booking)
        assert answer.action == "accept"
        return answer.data

    async def handler(message: str, response_type: Any, *rest: Any) -> Any:
        return response_type(day=date(2026, 2, 3))

    with anyio.fail_after(20):
        async with Client(
            server, mode="legacy", elicitation_callback=elicitation_callback(handler)
        ) as client:
            schema = (await client.list_tools()).tools[0].output_schema
            raw = await client.call_tool("book")
    assert isinstance(raw, types.CallToolResult)
    data = tool_result(raw, output_schema=schema).data
    assert (data.day, data.guests) == (date(2026, 2, 3), 2)


class Answer(BaseModel):
    text: str
    count: int
    ratio: float
    yes: bool
    day: date
    choice: Literal["a", "b"] = "b"
    several: list[str] = []
    nothing: str | None = None


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.builds(Answer, ratio=st.floats(allow_nan=False, allow_infinity=False)))
def test_any_answer_a_model_allows_fits_the_form_made_of_it(answer: Answer) -> None:
    made = at_once(form_steps(Answer.model_json_schema(mode="serialization")))
    assert made.response_type is not None
    content = answer.model_dump(mode="json")
    for given_as in (answer, content, made.response_type(**answer.model_dump())):
        result = answer_form(made, given_as)
        assert isinstance(result, types.ElicitResult)
        assert result.content == content


# --- roots


async def roots_of(roots: Any) -> Any:
    with anyio.fail_after(10):
        return await roots_callback(roots)(CONTEXT)


async def test_roots_are_paths_urls_or_roots() -> None:
    named = types.Root(uri=FileUrl("file:///r"), name="r")
    result = await roots_of(
        ["/a b/ü#%", Path("/c"), "file:///d e", AnyUrl("file:///f"), FileUrl("file:///g"), named]
    )
    uris = [str(root.uri) for root in result.roots]
    assert uris == [
        "file:///a%20b/%C3%BC%23%25",
        "file:///c",
        "file:///d%20e",
        "file:///f",
        "file:///g",
        "file:///r",
    ]
    assert result.roots[-1] is named


async def test_roots_are_copied_when_they_are_given() -> None:
    given_roots = ["/a"]
    callback = roots_callback(given_roots)
    given_roots.append("relative")
    result = await callback(CONTEXT)
    assert isinstance(result, types.ListRootsResult)
    assert len(result.roots) == 1
    assert (await roots_of(())).roots == []


@pytest.mark.parametrize(
    ("roots", "error", "message"),
    [
        ("/a", TypeError, "roots must be a list"),
        (b"/a", TypeError, "roots must be a list"),
        (Path("/a"), TypeError, "roots must be a list"),
        (None, TypeError, "roots must be a list"),
        ({"/a"}, TypeError, "roots must be a list"),
        ([7], TypeError, "not int"),
        (["a/b"], ValueError, "absolute path"),
        ([Path()], ValueError, "absolute path"),
        (["~/a"], ValueError, "absolute path"),
        ([""], ValueError, "absolute path"),
        (["file:a"], ValueError, "file:// URI"),
        (["http://a/b"], ValueError, "file:// URI"),
        ([AnyUrl("http://a/b")], ValueError, "file:// URI"),
        (["file://[/a"], ValueError, "valid file:// URI"),
    ],
)
async def test_a_root_that_is_none_is_refused_where_it_is_given(roots: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        roots_callback(roots)
    result = await roots_of(answering(roots))
    assert isinstance(result, types.ErrorData)
    assert message in result.message


async def test_a_roots_handler_is_asked_each_time() -> None:
    seen: list[Any] = []

    def handler(context: Any) -> list[str]:
        seen.append(context)
        return ["/a"]

    callback = roots_callback(handler)
    for count in (1, 2):
        result = await callback(CONTEXT)
        assert isinstance(result, types.ListRootsResult)
        assert str(result.roots[0].uri) == "file:///a"
        assert seen == [CONTEXT] * count


# --- notifications


def log_message(level: Any = "info", data: Any = "hello", logger: str | None = None) -> Any:
    return types.LoggingMessageNotificationParams(level=level, data=data, logger=logger)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", logging.DEBUG),
        ("info", logging.INFO),
        ("notice", logging.INFO),
        ("warning", logging.WARNING),
        ("error", logging.ERROR),
        ("critical", logging.CRITICAL),
        ("alert", logging.CRITICAL),
        ("emergency", logging.CRITICAL),
    ],
)
async def test_a_servers_log_goes_to_pythons(
    level: Any, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "anyio_mcp.server")
    await logging_callback()(log_message(level, {"a": [1, "ü"]}, "db"))
    record = caplog.records[0]
    assert (record.name, record.levelno) == ("anyio_mcp.server", expected)
    assert record.getMessage() == 'db: {"a": [1, "ü"]}'


async def test_a_servers_log_text_is_bounded_and_cannot_drive_the_terminal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "anyio_mcp.server")
    for data in ("x" * 1_000_000, ["x" * 10] * 1_000_000, {"a": object()}, "\x1b[2J\x9bm\r\nnext\t"):
        await default_log_handler(log_message(data=data))
    started = time.monotonic()
    texts = [record.getMessage() for record in caplog.records]
    assert time.monotonic() - started < 5
    assert len(texts[0]) == len(texts[1]) == len("server: ") + 10_000 + len("...")
    assert texts[2].startswith('server: {"a": "<object')
    assert texts[3] == "server: \\x1b[2J\\x9bm\\x0d\\x0anext\t"


async def test_a_log_message_nobody_reads_is_not_formatted(caplog: pytest.LogCaptureFixture) -> None:
    class Costly:
        def __repr__(self) -> str:
            raise AssertionError

    caplog.set_level(logging.WARNING, "anyio_mcp.server")
    await default_log_handler(log_message("info", Costly()))
    assert not caplog.records


async def test_notification_handlers_get_what_arrived_and_their_errors_are_only_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[Any] = []

    async def failing(*args: Any) -> None:
        seen.append(args)
        raise ValueError("no")

    def failing_in_thread(*args: Any) -> None:
        seen.append(args)
        raise ValueError("no")

    message = types.ToolListChangedNotification()
    with anyio.fail_after(10):
        for handler in (failing, failing_in_thread):
            await logging_callback(handler)(log_message())
            await message_callback(handler)(message)
            await progress_callback(handler)(1, None, "m")
    assert seen == [(log_message(),), (message,), (1, None, "m")] * 2
    kinds = [record.getMessage() for record in caplog.records]
    assert kinds == [f"the {kind} handler raised" for kind in ("log", "message", "progress")] * 2


NOTIFICATIONS: list[tuple[str, types.ServerNotification]] = [
    ("on_tool_list_changed", types.ToolListChangedNotification()),
    ("on_resource_list_changed", types.ResourceListChangedNotification()),
    ("on_prompt_list_changed", types.PromptListChangedNotification()),
    (
        "on_resource_updated",
        types.ResourceUpdatedNotification(params=types.ResourceUpdatedNotificationParams(uri="x://y")),
    ),
    (
        "on_progress",
        types.ProgressNotification(params=types.ProgressNotificationParams(progress_token=1, progress=1)),
    ),
    ("on_logging_message", types.LoggingMessageNotification(params=log_message())),
    (
        "on_elicitation_complete",
        types.ElicitCompleteNotification(params=types.ElicitCompleteNotificationParams(elicitation_id="1")),
    ),
]


class Recording(MessageHandler):
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        async def record(message: Any) -> None:
            self.calls.append((name, message))
            await getattr(MessageHandler, name)(self, message)

        return record


@pytest.mark.parametrize(("hook", "message"), NOTIFICATIONS)
async def test_a_message_handler_has_a_method_for_each_notification(hook: str, message: Any) -> None:
    handler = Recording()
    await message_callback(handler)(message)
    assert handler.calls == [("on_message", message), ("on_notification", message), (hook, message)]


async def test_a_message_handler_is_told_of_faults_and_of_notifications_without_a_method() -> None:
    handler = Recording()
    fault = ValueError("broken")
    unknown = types.SubscriptionsAcknowledgedNotification(
        params=types.SubscriptionsAcknowledgedNotificationParams(notifications=types.SubscriptionFilter())
    )
    await message_callback(handler)(fault)
    await message_callback(handler)(unknown)
    assert handler.calls == [
        ("on_message", fault),
        ("on_exception", fault),
        ("on_message", unknown),
        ("on_notification", unknown),
    ]


# --- forms that cost


FORMS: dict[str, dict[str, Any]] = {
    "a field for each of many": {f"f{n}": {"type": "string"} for n in range(10_000)},
    "many choices": {"it": {"enum": [f"choice {n}" for n in range(50_000)]}},
    "a long default": {"it": {"type": "string", "default": "x" * 150_000}},
    "many patterns": {f"f{n}": {"type": "string", "pattern": "^(a+)+$" * 20} for n in range(1_000)},
    "deep": {"it": functools.reduce(lambda inner, _: {"properties": {"a": inner}}, range(5_000), {})},
}


@pytest.mark.parametrize("kind", FORMS)
async def test_a_form_beyond_what_forms_are_for_is_refused_without_asking_anybody(kind: str) -> None:
    async def handler(*_: Any) -> Any:
        raise AssertionError

    result = await elicited(handler, form({"type": "object", "properties": FORMS[kind]}))
    assert isinstance(result, types.ErrorData)
    assert result.code == types.INVALID_PARAMS


async def test_a_rule_of_the_whole_form_is_checked_as_well() -> None:
    params = form({"type": "object", "properties": {"a": {}, "b": {}}, "dependentRequired": {"a": ["b"]}})
    result = await elicited(answering({"a": "x"}), params)
    assert result.message == "ValueError: the answer breaks the rule dependentRequired"


async def test_a_number_of_an_answer_is_a_multiple_as_it_is_written() -> None:
    params = fields(it={"type": "number", "multipleOf": 0.01})
    assert (await elicited(answering({"it": 0.07}), params)).content == {"it": 0.07}
    assert "multipleOf" in (await elicited(answering({"it": 0.075}), params)).message
