"""OpenTelemetry: spans and metrics around operations, trace context on the wire.

Names follow the semantic conventions for MCP clients. Without an OpenTelemetry SDK installed an
operation costs two clock readings and a no-op histogram. Arguments, results and secrets are never
recorded.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast, final
from urllib.parse import urlsplit

from mcp import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
)
from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from anyio_mcp._text import printable
from anyio_mcp.transports._url import DEFAULT_PORTS
from anyio_mcp.transports.base import Transport

_BUCKETS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_NAMED: Final = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}

MAX_URI: Final = 2048
"""Characters of a URI, or of a name, on a span."""

_trace_context = TraceContextTextMapPropagator()
MAX_NAMES: Final = 1000
MAX_NAME_LENGTH: Final = 200
"""Names of tools and prompts that metrics tell apart in this process, and the characters of one."""

_names: Final[set[str]] = set()

_CODES: Final = frozenset(
    {
        PARSE_ERROR,
        INVALID_REQUEST,
        METHOD_NOT_FOUND,
        INVALID_PARAMS,
        INTERNAL_ERROR,
        *range(-32099, -31999),
    }
)
"""Error codes that metrics tell apart: those of JSON-RPC, and those it leaves to protocols such as MCP."""

_tracer = trace.get_tracer("anyio_mcp")
_durations = metrics.get_meter("anyio_mcp").create_histogram(
    "mcp.client.operation.duration",
    unit="s",
    description="Duration of an MCP operation, as the caller of the client saw it.",
    explicit_bucket_boundaries_advisory=list(_BUCKETS),
)
_sessions = metrics.get_meter("anyio_mcp").create_histogram(
    "mcp.client.session.duration",
    unit="s",
    description="Duration of an MCP session, from ready to its end.",
    explicit_bucket_boundaries_advisory=list(_BUCKETS),
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStats:
    """What one client's current session has going and has dropped. A snapshot.

    In a client at rest `calls_in_flight` and `waiters` are zero: that is the invariant to alert on.
    """

    sessions_started: int
    leases: int
    calls_in_flight: int
    waiters: int
    late_replies: int
    unknown_replies: int
    dropped_progress: int
    dropped_notifications: int
    refused_requests: int
    violations: int
    unsent_cancellations: int
    cache_hits: int


@final
@dataclass(slots=True, eq=False)
class Measurement:
    """One operation being measured."""

    attributes: dict[str, AttributeValue]
    error: dict[str, AttributeValue] | None = None

    def speaks(self, protocol_version: str | None) -> None:
        """The operation goes to a session of this version."""
        if protocol_version is not None:
            self.attributes["mcp.protocol.version"] = protocol_version

    def tool_failed(self) -> None:
        """The operation succeeded, and what it says is that the tool failed."""
        self.error = {"error.type": "tool_error"}


def server_attributes(transport: Transport) -> dict[str, AttributeValue]:
    """How and where a server is reached, as far as the conventions have words for it."""
    attributes: dict[str, AttributeValue] = {}
    if transport.kind != "memory":
        attributes["network.transport"] = transport.kind
    url: object = getattr(transport, "url", None)
    if isinstance(url, str):
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
        attributes["server.address"] = parts.hostname or ""
        if port is not None:
            attributes["server.port"] = port
    return attributes


@contextmanager
def operation(
    method: str, target: str | None, server: Mapping[str, AttributeValue]
) -> Generator[Measurement]:
    """Measure one public operation; with an OpenTelemetry SDK installed, also as a client span."""
    measurement = Measurement({"mcp.method.name": method, **server})
    # URIs are as many as there are resources: too many for a metric, or for the name of a span.
    named = target is not None and method in _NAMED
    if target is not None and method in _NAMED:
        # A server chose the name, as a rule, and whoever lists spans sees it on a terminal.
        target = printable(target, MAX_URI)
        measurement.attributes[_NAMED[method]] = _bounded(target)
    started = time.perf_counter()
    try:
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            yield measurement
        else:
            extra = (
                {} if target is None or named else {"mcp.resource.uri": printable(_without_secrets(target))}
            )
            yield from _in_span(f"{method} {target}" if named else method, measurement, extra)
    except BaseException as error:
        measurement.error = _error_attributes(error)
        raise
    finally:
        attributes = {**measurement.attributes, **(measurement.error or {})}
        _durations.record(time.perf_counter() - started, attributes)


def _in_span(name: str, measurement: Measurement, extra: dict[str, str]) -> Generator[Measurement]:
    with _tracer.start_as_current_span(
        name,
        kind=SpanKind.CLIENT,
        attributes={**measurement.attributes, **extra},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield measurement
        except BaseException as error:
            measurement.error = _error_attributes(error)
            if isinstance(error, MCPError):
                # A span is no time series: here it is what the server sent.
                span.set_attribute("rpc.response.status_code", str(error.code))
            raise
        finally:
            span.set_attributes(measurement.attributes)
            if measurement.error is not None:
                span.set_attributes(measurement.error)
                span.set_status(StatusCode.ERROR, str(measurement.error["error.type"]))


def _without_secrets(uri: str) -> str:
    """A URI of any scheme without user info, query and fragment, where URIs carry secrets."""
    head = uri[:MAX_URI].partition("?")[0].partition("#")[0]
    scheme, separator, rest = head.partition("://")
    authority, slash, path = rest.partition("/")
    if not slash and len(uri) > MAX_URI:
        authority = ""  # its user info may not end within what is looked at
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def _error_attributes(error: BaseException) -> dict[str, AttributeValue]:
    if isinstance(error, MCPError):
        # A server may send any number, and each would be a time series of its own.
        if error.code not in _CODES:
            return {"error.type": "_OTHER"}
        return {"error.type": str(error.code), "rpc.response.status_code": str(error.code)}
    return {"error.type": type(error).__qualname__}


def _bounded(name: str) -> str:
    """`name` as a label of a metric; `_OTHER` for those past the bound, so that a program which calls what
    servers list makes no time series without end."""
    if name not in _names:
        if len(_names) >= MAX_NAMES or len(name) > MAX_NAME_LENGTH:
            return "_OTHER"
        _names.add(name)
    return name


def record_session(
    seconds: float,
    *,
    server: Mapping[str, AttributeValue],
    protocol_version: str | None,
    error: str | None,
) -> None:
    """One session has ended."""
    attributes: dict[str, AttributeValue] = dict(server)
    if protocol_version is not None:
        attributes["mcp.protocol.version"] = protocol_version
    if error is not None:
        attributes["error.type"] = error
    _sessions.record(seconds, attributes)


def inject_trace_context(params: dict[str, Any] | None) -> dict[str, Any] | None:
    """`params` with the current trace context in `_meta` (`traceparent`, `tracestate`), if there is one."""
    if not trace.get_current_span().get_span_context().is_valid:
        return params
    carrier: dict[str, str] = {}
    # Not the propagator that is configured for the process: it sends the baggage along, which holds whatever
    # the services of the user tell each other. Who wants a server to have it gives it in `meta=`.
    _trace_context.inject(carrier)
    if not carrier:
        return params
    meta: object = (params or {}).get("_meta")
    known = cast("dict[str, Any]", meta) if isinstance(meta, dict) else {}
    return {**(params or {}), "_meta": {**known, **carrier}}
