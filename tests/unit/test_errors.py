"""Exceptions as data: what they are, what survives a pickle, and one of its own for every waiter."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import httpx
import httpx2
import mcp
import pytest
from mcp.types import TextContent

import anyio_mcp.errors
from anyio_mcp.errors import (
    ConnectError,
    DeadlineExceededError,
    MCPClientError,
    MCPError,
    NotConnectedError,
    RequestFailedError,
    SessionLostError,
    ToolError,
    fresh,
)
from anyio_mcp.results import CallToolResult, ResultSchemaError

RESULT: CallToolResult[Any] = CallToolResult(
    content=[TextContent(type="text", text="no")], structured_content={"a": 1}, meta={"b": 2}, is_error=True
)
CAUSE = OSError(111, "refused")

ERRORS: list[MCPClientError] = [
    NotConnectedError("outside", cause=CAUSE),
    NotConnectedError("outside"),
    ConnectError("no server", cause=CAUSE, exit_code=-9, stderr_tail=("one", "two"), stray_lines=("a",)),
    ConnectError("no server"),
    SessionLostError("gone", reason="exited", cause=CAUSE, exit_code=1, stderr_tail=("bye",)),
    SessionLostError("gone", reason="eof"),
    DeadlineExceededError("too slow", phase="call", seconds=1.5, cause=CAUSE),
    DeadlineExceededError("too slow", phase="connect", seconds=30.0),
    RequestFailedError("cut off", reason="transport", cause=CAUSE),
    RequestFailedError("nonsense", reason="violation"),
    ToolError("no", result=RESULT),
    MCPError(-32000, "no", {"why": "because"}),
    MCPError(-32602, "bad", cause=CAUSE),
    ResultSchemaError("misfit", result=RESULT, cause=CAUSE),
]
EACH = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


def attributes(error: BaseException) -> dict[str, Any]:
    """Everything an exception carries; causes compared by what they say, since they have no equality."""
    found = dict(vars(error))
    found["cause"] = repr(found.get("cause"))
    return found


def http_status_error(module: Any = httpx2) -> Exception:
    response = module.Response(
        429, headers={"retry-after": "7"}, request=module.Request("POST", "http://x/mcp")
    )
    try:
        response.raise_for_status()
    except module.HTTPStatusError as error:
        return error
    raise AssertionError("429 raises")


def test_every_error_of_this_library_is_an_mcp_client_error() -> None:
    own = [
        value
        for value in vars(anyio_mcp.errors).values()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == "anyio_mcp.errors"
    ]
    assert len(own) == 8
    assert all(issubclass(error, MCPClientError) for error in own)
    assert issubclass(ResultSchemaError, MCPClientError)
    assert issubclass(MCPError, mcp.MCPError), "who catches the SDK's error catches the server's"


@pytest.mark.parametrize("kind", [NotConnectedError, ConnectError, SessionLostError])
def test_what_concerns_the_session_is_a_runtime_error(kind: type[Exception]) -> None:
    assert issubclass(kind, RuntimeError)


def test_a_deadline_is_a_timeout_error() -> None:
    assert issubclass(DeadlineExceededError, TimeoutError)


@pytest.mark.parametrize("kind", [RequestFailedError, ToolError])
def test_what_concerns_one_request_is_no_runtime_error(kind: type[Exception]) -> None:
    assert not issubclass(kind, RuntimeError | OSError)


@EACH
def test_the_message_is_the_text_and_the_cause_is_the_cause(error: MCPClientError) -> None:
    assert str(error) == (error.message if isinstance(error, MCPError) else error.args[0])
    assert error.__cause__ is error.cause


@EACH
def test_an_error_survives_a_pickle_with_all_it_carries(error: MCPClientError) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert type(copy) is type(error)
        assert copy.args == error.args
        assert attributes(copy) == attributes(error)
        assert copy.__cause__ is copy.cause
        assert attributes(pickle.loads(pickle.dumps(copy, protocol))) == attributes(error), "and once more"


def test_a_cause_that_is_an_error_of_this_library_is_pickled_with_its_own_cause() -> None:
    lost = SessionLostError("gone", reason="exited", cause=OSError("pipe"), exit_code=3, stderr_tail=("x",))
    copy = pickle.loads(pickle.dumps(ConnectError("no", cause=lost)))
    assert isinstance(copy.cause, SessionLostError)
    assert (copy.cause.reason, copy.cause.exit_code, copy.cause.stderr_tail) == ("exited", 3, ("x",))
    assert repr(copy.cause.cause) == repr(OSError("pipe"))


class UnreadableError(Exception):
    """Pickles, but cannot be rebuilt."""

    def __init__(self, *, needed: int) -> None:
        super().__init__("unreadable")
        self.needed = needed


class UnwritableError(Exception):
    """Cannot be pickled at all."""

    def __init__(self) -> None:
        super().__init__("unwritable")
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("cause", "name", "text"),
    [
        (http_status_error(), "HTTPStatusError", "429"),
        (http_status_error(httpx), "HTTPStatusError", "429"),
        (UnreadableError(needed=1), "UnreadableError", "unreadable"),
        (UnwritableError(), "UnwritableError", "unwritable"),
    ],
    ids=["httpx2", "httpx", "unreadable", "unwritable"],
)
def test_a_cause_that_does_not_survive_leaves_a_stand_in_that_says_what_it_was(
    cause: Exception, name: str, text: str
) -> None:
    copy = pickle.loads(pickle.dumps(RequestFailedError("failed", reason="transport", cause=cause)))
    assert copy.reason == "transport"
    assert type(copy.cause) is RuntimeError
    assert name in str(copy.cause)
    assert text in str(copy.cause)
    assert copy.__cause__ is copy.cause


@EACH
def test_each_waiter_gets_an_equal_error_of_its_own(error: MCPClientError) -> None:
    first, second = fresh(error), fresh(error)
    assert first is not error
    assert first is not second
    for copy in (first, second):
        assert type(copy) is type(error)
        assert copy.args == error.args
        assert vars(copy) == vars(error)
        assert copy.__cause__ is error.__cause__
        assert copy.__traceback__ is None


@EACH
def test_raising_a_copy_leaves_the_original_without_traceback_and_context(error: MCPClientError) -> None:
    with pytest.raises(type(error)) as caught:
        try:
            raise KeyError("the waiter's own trouble")
        finally:
            raise fresh(error)
    assert isinstance(caught.value.__context__, KeyError)
    assert error.__traceback__ is None
    assert error.__context__ is None


def test_a_copy_of_the_servers_error_has_its_code_message_and_data() -> None:
    error = MCPError(-32001, "no", {"why": ["so"]})
    error.__cause__ = CAUSE
    copy = fresh(error)
    assert copy is not error
    assert isinstance(copy, MCPError)
    assert (copy.code, copy.message, copy.data) == (-32001, "no", {"why": ["so"]})
    assert copy.args == error.args
    assert copy.__cause__ is CAUSE


@pytest.mark.parametrize("module", [httpx2, httpx], ids=["httpx2", "httpx"])
def test_a_copy_of_a_status_error_has_its_response_and_request(module: Any) -> None:
    error: Any = http_status_error(module)
    copy: Any = fresh(error)
    assert copy is not error
    assert type(copy) is module.HTTPStatusError
    assert copy.response is error.response
    assert copy.response.status_code == 429
    assert copy.request is error.request
    assert str(copy) == str(error)


def test_a_copy_of_a_foreign_error_has_its_attributes_and_its_notes() -> None:
    error = UnreadableError(needed=3)
    error.add_note("while connecting")
    copy: Any = fresh(error)
    assert copy is not error
    assert type(copy) is UnreadableError
    assert copy.needed == 3
    assert copy.__notes__ == ["while connecting"]
    copy.needed = 4
    assert error.needed == 3, "copies do not share what they carry"
