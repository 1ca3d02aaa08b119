"""Spans and metrics of a call, its trace context on the wire, and nothing of what was said in it."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    TextContent,
)
from opentelemetry import baggage, context, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import anyio_mcp.telemetry as real
from anyio_mcp._session import actor
from anyio_mcp.client import Client
from anyio_mcp.errors import DeadlineExceededError, SessionLostError, ToolError
from anyio_mcp.transports.base import Transport
from anyio_mcp.transports.http import StreamableHttpTransport
from anyio_mcp.transports.memory import MemoryTransport
from anyio_mcp.transports.stdio import StdioTransport
from anyio_mcp.verbs import base as verbs

pytestmark = pytest.mark.anyio

VERSION = {"mcp.protocol.version": "2026-07-28"}
SECRET = "a secret nobody may record"


@dataclass
class Recorded:
    """The telemetry module under an OpenTelemetry SDK, and what that recorded.

    A copy of the module, because the providers of a process can be set only once, and the other tests
    run without any.
    """

    telemetry: Any
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracer: trace.Tracer

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def span(self) -> ReadableSpan:
        (span,) = self.spans()
        return span

    def metric(self, name: str) -> Any:
        """The metric called `name`, once."""
        data = self.reader.get_metrics_data()
        found = [
            metric
            for resource in (data.resource_metrics if data is not None else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        assert len(found) == 1
        return found[0]

    def points(self, name: str = "mcp.client.operation.duration") -> list[Any]:
        return list(self.metric(name).data.data_points)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader])
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracers)
    monkeypatch.setattr(trace, "get_tracer", tracers.get_tracer)
    monkeypatch.setattr(metrics, "get_meter", meters.get_meter)
    spec = importlib.util.find_spec("anyio_mcp.telemetry")
    assert spec is not None
    assert spec.loader is not None
    telemetry = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(telemetry)
    monkeypatch.setattr(verbs, "operation", telemetry.operation)
    monkeypatch.setattr(actor, "record_session", telemetry.record_session)
    yield Recorded(telemetry, exporter, reader, tracers.get_tracer("the user's own"))
    tracers.shutdown()
    meters.shutdown()


class Metas:
    """A server that keeps the `_meta` of every request, as it came."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Mapping[str, Any]]] = []
        self.fails = False
        self.server = Server(
            "telemetry",
            on_call_tool=self.call_tool,
            on_list_tools=self.list_tools,
            on_get_prompt=self.get_prompt,
            on_read_resource=self.read_resource,
        )

    def keep(self, context: ServerRequestContext[Any]) -> None:
        meta: Any = dict(context.params or {}).get("_meta") or {}
        self.seen.append((context.method, meta))

    async def list_tools(
        self, context: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        self.keep(context)
        return ListToolsResult(tools=[])

    async def call_tool(
        self, context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        self.keep(context)
        if params.name == "refused":
            raise MCPError(-32050, SECRET, SECRET)
        if params.name == "hangs":
            await anyio.sleep_forever()
        return CallToolResult(content=[TextContent(type="text", text=SECRET)], is_error=self.fails)

    async def get_prompt(
        self, context: ServerRequestContext[Any], params: GetPromptRequestParams
    ) -> GetPromptResult:
        self.keep(context)
        return GetPromptResult(messages=[])

    async def read_resource(
        self, context: ServerRequestContext[Any], params: ReadResourceRequestParams
    ) -> ReadResourceResult:
        self.keep(context)
        return ReadResourceResult(contents=[])


# --- spans ----------------------------------------------------------------------------------------


async def test_a_call_is_one_client_span_named_after_its_method_and_tool(recorded: Recorded) -> None:
    with anyio.fail_after(5):
        async with Client(Metas().server) as client:
            await client.call_tool("add", {"a": 1})
    span = recorded.span()
    assert span.name == "tools/call add"
    assert span.kind is SpanKind.CLIENT
    expected = {**VERSION, "mcp.method.name": "tools/call", "gen_ai.tool.name": "add"}
    assert dict(span.attributes or {}) == expected
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()


async def test_a_prompt_is_named_and_a_listing_has_no_target(recorded: Recorded) -> None:
    with anyio.fail_after(5):
        async with Client(Metas().server) as client:
            await client.get_prompt("greet")
            await client.list_tools()
    prompt, listing = recorded.spans()
    assert (prompt.name, listing.name) == ("prompts/get greet", "tools/list")
    assert dict(prompt.attributes or {}) == {
        **VERSION,
        "mcp.method.name": "prompts/get",
        "gen_ai.prompt.name": "greet",
    }
    assert dict(listing.attributes or {}) == {**VERSION, "mcp.method.name": "tools/list"}


async def test_a_span_is_a_child_of_the_callers_span_and_calls_side_by_side_are_not_nested(
    recorded: Recorded,
) -> None:
    with anyio.fail_after(5):
        async with Client(Metas().server) as client:
            with recorded.tracer.start_as_current_span("my work") as mine:
                async with anyio.create_task_group() as tg:
                    for name in ("a", "b", "c"):
                        tg.start_soon(client.call_tool, name)
    spans = [span for span in recorded.spans() if span.name != "my work"]
    assert sorted(span.name for span in spans) == ["tools/call a", "tools/call b", "tools/call c"]
    for span in spans:
        assert span.parent is not None
        assert span.parent.span_id == mine.get_span_context().span_id


async def test_the_uri_of_a_resource_is_an_attribute_of_the_span_and_no_part_of_its_name(
    recorded: Recorded,
) -> None:
    with anyio.fail_after(5):
        async with Client(Metas().server) as client:
            await client.read_resource("memo://x")
    span = recorded.span()
    assert span.name == "resources/read"
    assert (span.attributes or {}).get("mcp.resource.uri") == "memo://x"
    assert "mcp.resource.uri" not in recorded.points()[0].attributes, "of as many values as there are URIs"


@pytest.mark.parametrize(
    ("transport", "expected"),
    [
        (
            StreamableHttpTransport("https://user:secret@example.com/mcp?key=secret"),
            {"network.transport": "tcp", "server.address": "example.com", "server.port": 443},
        ),
        (
            StreamableHttpTransport("http://[::1]:8000/mcp"),
            {"network.transport": "tcp", "server.address": "::1", "server.port": 8000},
        ),
        (StdioTransport("python"), {"network.transport": "pipe"}),
        (MemoryTransport(Metas().server), {}),
    ],
)
def test_how_and_where_the_server_is_reached_is_told_and_no_secret(
    recorded: Recorded, transport: Transport, expected: dict[str, Any]
) -> None:
    server = recorded.telemetry.server_attributes(transport)
    assert server == expected
    with recorded.telemetry.operation("ping", None, server):
        pass
    assert dict(recorded.span().attributes or {}) == {"mcp.method.name": "ping", **expected}
    assert dict(recorded.points()[0].attributes) == {"mcp.method.name": "ping", **expected}


# --- failures -------------------------------------------------------------------------------------


async def test_the_servers_error_is_recorded_by_its_code(recorded: Recorded) -> None:
    with anyio.fail_after(5):
        async with Client(Metas().server) as client:
            with pytest.raises(MCPError):
                await client.call_tool("refused")
    span = recorded.span()
    assert span.status.status_code is StatusCode.ERROR
    for attributes in (span.attributes or {}, recorded.points()[0].attributes):
        assert attributes["error.type"] == "-32050"
        assert attributes["rpc.response.status_code"] == "-32050"


@pytest.mark.parametrize("raise_on_error", [True, False])
async def test_a_tool_that_fails_is_recorded_as_one(recorded: Recorded, raise_on_error: bool) -> None:
    metas = Metas()
    metas.fails = True
    with anyio.fail_after(5):
        async with Client(metas.server) as client:
            with contextlib.suppress(ToolError):
                await client.call_tool("add", raise_on_error=raise_on_error)
    for attributes in (recorded.span().attributes or {}, recorded.points()[0].attributes):
        assert attributes.get("error.type") == "tool_error"
    assert recorded.span().status.status_code is StatusCode.ERROR


async def test_a_deadline_is_recorded_by_its_name(recorded: Recorded) -> None:
    with anyio.fail_after(5):
        async with Client(Metas().server) as client:
            with pytest.raises(DeadlineExceededError):
                await client.call_tool("hangs", timeout=0.01)
    span = recorded.span()
    assert (span.attributes or {})["error.type"] == "DeadlineExceededError"
    assert "rpc.response.status_code" not in (span.attributes or {})
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "DeadlineExceededError")
    assert recorded.points()[0].attributes["error.type"] == "DeadlineExceededError"


async def test_a_cancelled_call_ends_its_span(recorded: Recorded) -> None:
    metas = Metas()
    with anyio.fail_after(5):
        async with Client(metas.server) as client, anyio.create_task_group() as tg:
            tg.start_soon(client.call_tool, "hangs")
            while not metas.seen:
                await anyio.lowlevel.checkpoint()
            tg.cancel_scope.cancel()
    span = recorded.span()
    assert span.status.status_code is StatusCode.ERROR
    assert "Cancelled" in str((span.attributes or {})["error.type"])


def test_each_kind_of_error_has_its_type(recorded: Recorded) -> None:
    kinds: dict[Exception, str] = {
        SessionLostError("gone", reason="eof"): "SessionLostError",
        KeyError("x"): "KeyError",
        MCPError(-32601, "no"): "-32601",
    }
    for error in kinds:
        with contextlib.suppress(type(error)), recorded.telemetry.operation("tools/call", "add", {}):
            raise error
    assert [(span.attributes or {})["error.type"] for span in recorded.spans()] == list(kinds.values())


def test_what_is_raised_leaves_the_operation_as_it_was(recorded: Recorded) -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, recorded.telemetry.operation("ping", None, {}):
        raise error
    assert caught.value is error


# --- metrics --------------------------------------------------------------------------------------


async def test_every_operation_is_one_measurement_of_the_histogram(recorded: Recorded) -> None:
    with anyio.fail_after(5):
        async with Client(Metas().server) as client:
            for _ in range(3):
                await client.call_tool("add")
            await client.list_tools()
    metric = recorded.metric("mcp.client.operation.duration")
    assert metric.unit == "s"
    points = {point.attributes["mcp.method.name"]: point for point in metric.data.data_points}
    assert points.keys() == {"tools/call", "tools/list"}
    assert dict(points["tools/call"].attributes) == {
        "mcp.method.name": "tools/call",
        "gen_ai.tool.name": "add",
        **VERSION,
    }
    assert (points["tools/call"].count, points["tools/list"].count) == (3, 1)
    assert 0 < points["tools/call"].sum < 5, "seconds"


def test_durations_fall_into_the_buckets_of_the_conventions(recorded: Recorded) -> None:
    with recorded.telemetry.operation("ping", None, {}):
        pass
    recorded.telemetry.record_session(1.5, server={}, protocol_version="2025-11-25", error=None)
    boundaries = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
    for name in ("mcp.client.operation.duration", "mcp.client.session.duration"):
        assert recorded.points(name)[0].explicit_bounds == boundaries
        assert recorded.metric(name).unit == "s"


@pytest.mark.parametrize(
    ("error", "kind"),
    [(None, None), (SessionLostError("gone", reason="eof"), "SessionLostError")],
    ids=["closed", "lost"],
)
async def test_a_session_is_measured_when_it_ends(
    recorded: Recorded, error: Exception | None, kind: str | None
) -> None:
    with anyio.fail_after(5):
        async with Client(Metas().server, mode="legacy") as client:
            assert client._keeper.actor is not None
            client._keeper.actor.close(error)
    (point,) = recorded.points("mcp.client.session.duration")
    assert point.count == 1
    assert 0 <= point.sum < 5, "seconds"
    assert point.attributes.get("mcp.protocol.version") == "2025-11-25"
    assert point.attributes.get("error.type") == kind


def test_a_session_is_one_measurement_with_its_version_and_why_it_ended(recorded: Recorded) -> None:
    record = recorded.telemetry.record_session
    record(1.5, server={"network.transport": "tcp"}, protocol_version="2025-11-25", error=None)
    record(2.5, server={}, protocol_version=None, error="SessionLostError")
    points = recorded.points("mcp.client.session.duration")
    assert {(frozenset(point.attributes.items()), point.sum) for point in points} == {
        (frozenset({("network.transport", "tcp"), ("mcp.protocol.version", "2025-11-25")}), 1.5),
        (frozenset({("error.type", "SessionLostError")}), 2.5),
    }


# --- what is not recorded -------------------------------------------------------------------------


async def test_nothing_of_what_was_said_is_recorded(recorded: Recorded) -> None:
    with anyio.fail_after(5):
        async with Client(Metas().server) as client:
            await client.call_tool("add", {"password": SECRET}, meta={"x": SECRET})
            await client.get_prompt("greet", {"name": SECRET})
            with pytest.raises(MCPError, match=SECRET):
                await client.call_tool("refused")
    assert len(recorded.spans()) == 3
    data = recorded.reader.get_metrics_data()
    assert data is not None
    for text in [span.to_json() for span in recorded.spans()] + [data.to_json()]:
        assert "secret" not in text


# --- trace context on the wire --------------------------------------------------------------------


def traceparent(context: trace.SpanContext | None) -> str:
    """The header of the W3C Trace Context specification."""
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_trace_context_of_a_call_travels_with_it(recorded: Recorded, mode: str) -> None:
    metas = Metas()
    with anyio.fail_after(5):
        async with Client(metas.server, mode=mode) as client:
            await client.call_tool("add", meta={"mine": 1})
            await client.read_resource("memo://x")
    (_, called), (_, read) = metas.seen
    assert called["traceparent"] == traceparent(recorded.spans()[0].context)
    assert called["mine"] == 1, "beside what the caller said"
    assert read["traceparent"] == traceparent(recorded.spans()[1].context)


async def test_the_callers_own_span_is_propagated_where_the_session_is_used_directly(
    recorded: Recorded,
) -> None:
    metas = Metas()
    with anyio.fail_after(5):
        async with Client(metas.server) as client:
            with recorded.tracer.start_as_current_span("mine") as mine:
                await client.session.list_tools()
    ((_, meta),) = metas.seen
    assert meta["traceparent"] == traceparent(mine.get_span_context())


def test_parameters_are_left_alone_without_a_trace(recorded: Recorded) -> None:
    params = {"name": "add", "_meta": {"a": 1}}
    assert recorded.telemetry.inject_trace_context(params) is params
    assert recorded.telemetry.inject_trace_context(None) is None


def test_the_callers_parameters_are_not_changed(recorded: Recorded) -> None:
    params: dict[str, Any] = {"name": "add", "_meta": {"a": 1}}
    with recorded.tracer.start_as_current_span("mine"):
        sent = recorded.telemetry.inject_trace_context(params)
        alone = recorded.telemetry.inject_trace_context(None)
    assert params == {"name": "add", "_meta": {"a": 1}}
    assert sent["_meta"].keys() == {"a", "traceparent"}
    assert alone["_meta"].keys() == {"traceparent"}


def test_the_baggage_of_the_process_is_not_sent_to_servers(recorded: Recorded) -> None:
    token = context.attach(baggage.set_baggage("tenant", "hush"))
    try:
        with recorded.tracer.start_as_current_span("mine"):
            sent = recorded.telemetry.inject_trace_context({"_meta": {"baggage": "asked=for"}})
            alone = recorded.telemetry.inject_trace_context(None)
    finally:
        context.detach(token)
    assert sent["_meta"] == {"baggage": "asked=for", "traceparent": sent["_meta"]["traceparent"]}
    assert alone["_meta"].keys() == {"traceparent"}


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("memo://x", "memo://x"),
        ("https://me:hush@host/a/b?key=hush#hush", "https://host/a/b"),
        ("postgres://me:h@sh@host:5432/db", "postgres://host:5432/db"),
        ("file:///tmp/a@b.txt", "file:///tmp/a@b.txt"),
        ("memo:x?hush", "memo:x"),
        ("memo://x#hush?hush", "memo://x"),
        (f"https://{'hush' * 1000}@host/a", "https://"),
        (f"https://host/{'a' * 4000}?hush", f"https://host/{'a' * 2035}"),
    ],
)
def test_a_uri_on_a_span_has_no_user_info_and_no_query(recorded: Recorded, uri: str, shown: str) -> None:
    with recorded.telemetry.operation("resources/read", uri, {}):
        pass
    (span,) = recorded.spans()
    assert span.attributes is not None
    assert span.attributes["mcp.resource.uri"] == shown
    assert "hush" not in span.to_json()


# --- without an SDK -------------------------------------------------------------------------------


class Untouchable:
    """A tracer that must not be used."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was used")


async def test_without_an_sdk_there_is_no_span_and_no_trace_context(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), "this test needs none"
    monkeypatch.setattr(real, "_tracer", Untouchable())
    metas = Metas()
    with anyio.fail_after(5):
        async with Client(metas.server) as client:
            await client.call_tool("add")
            with pytest.raises(MCPError):
                await client.call_tool("refused")
    assert all("traceparent" not in meta for _, meta in metas.seen)


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read", "resources/subscribe"])
def test_nothing_of_a_span_or_a_metric_acts_on_a_terminal(recorded: Recorded, method: str) -> None:
    evil = "a://b/\x1b]0;pwned\x07\x9b2J\u202e\u2066\u200b\u2028\ud800\x00\r\nforged"
    with recorded.telemetry.operation(method, evil, {}):
        pass
    span = recorded.span()
    (point,) = recorded.points()
    texts = [span.name, *map(str, dict(span.attributes or {}).values()), *map(str, point.attributes.values())]
    assert all(text.isprintable() for text in texts)
    assert any(r"a://b/\x1b]0;pwned\x07\x9b2J\u202e" in text for text in texts)


def test_the_name_of_a_span_is_bounded(recorded: Recorded) -> None:
    with recorded.telemetry.operation("tools/call", "x" * 1_000_000, {}):
        pass
    assert len(recorded.span().name) < 3000
