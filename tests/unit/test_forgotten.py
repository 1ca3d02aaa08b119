"""Which answers mean that the server does not know the session, and which only look like it."""

from __future__ import annotations

import time

import pytest

from anyio_mcp.transports._forgotten import denies, verdict

SID = "f3b1-session-77"

DENIALS = [
    "Session not found",
    f"Session {SID} not found",
    f"Session ID '{SID}' does not exist",
    "Session not found or has expired",
    "Session expired",
    "Your session has expired, please reconnect",
    "session was terminated",
    "Session is no longer valid",
    "Session timed out",
    "Session does not exist",
    "The session doesn't exist",
    "Mcp-Session-Id header is required",
    "Session ID missing",
    "No valid session ID provided",
    "Bad Request: No valid session ID provided",
    "No active session",
    "no such session",
    "Unknown session",
    "Unknown MCP session id",
    "Invalid or missing session ID",
    "Missing or invalid Mcp-Session-Id",
    "Could not find session",
    "unable to find a session",
    "Bad Request: Server not initialized",
    "Server not initialized",
    "Not initialized",
    "Client is not initialized",
    "session has not been initialized",
    "Received request before initialization was complete",
    "Initialization required",
    "You must send an initialize request",
    "Please initialize first",
    '{"error": "session_not_found"}',
    '{"detail": "Session not found"}',
]

OTHERS = [
    "",
    "a session of yoga is no argument",
    "the session is busy",
    "session 7 of the course not found in the calendar",
    "no room in this session",
    "Model not initialized",
    "could not initialize the database",
    "not enough arguments for the session tool",
    "unknown tool: sessions",
    "the file was not found",
    "invalid argument: session",
]


@pytest.mark.parametrize("text", DENIALS)
def test_a_denial_of_the_session_is_recognized_by_what_it_says(text: str) -> None:
    assert denies(text, SID)
    assert verdict(SID, status=400, text=text) == "forgotten"
    assert verdict(SID, status=400, code=-32000, text=text) == "forgotten"
    for code in (-32000, -32001, -32002, -32005, -32600):
        assert verdict(SID, code=code, text=text) == "doubtful"
    assert verdict(SID, status=500, text=text) == "doubtful"
    assert verdict(SID, status=401, text=text) == "doubtful"


@pytest.mark.parametrize("text", OTHERS)
def test_what_only_speaks_of_sessions_is_none(text: str) -> None:
    assert not denies(text, SID)
    assert verdict(SID, status=400, text=text) == "known"
    assert verdict(SID, code=-32000, text=text) == "known"


@pytest.mark.parametrize("code", [-32601, -32602, -32603, 0, 1, 404])
def test_an_error_about_the_request_says_nothing_of_the_session(code: int) -> None:
    assert verdict(SID, code=code, text="Session not found") == "known"
    # With the status of a refusal, an argument that is a session may be this one, or the tool's own.
    refused = "doubtful" if code == -32602 else "known"
    assert verdict(SID, status=400, code=code, text="Session not found") == refused


@pytest.mark.parametrize("status", [404, 410])
def test_two_statuses_need_no_words(status: int) -> None:
    assert verdict(SID, status=status) == "forgotten"


def test_a_text_is_searched_in_linear_time_and_only_where_it_begins() -> None:
    began = time.process_time()
    for piece in ("session ", "session is ", "no valid ", "server is not ", "must be ", "a1"):
        assert not denies(piece * 1_000_000, SID)
    assert time.process_time() - began < 0.5
    assert not denies("x " * 10_000 + "session not found", SID)
