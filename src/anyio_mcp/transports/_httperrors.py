"""What errors of HTTP tell the user: all that helps, and none of the secrets a request carries."""

from __future__ import annotations

from typing import Final

import httpx2
from mcp.client.auth import OAuthFlowError

from anyio_mcp._text import printable
from anyio_mcp.errors import FaultReason
from anyio_mcp.transports._url import redact, visible

_CAUSES: Final = 8
# They describe the body as it was sent, and the rebuilt response has another.
_BODY_HEADERS: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def fault_reason(error: Exception) -> FaultReason:
    """Which `RequestFailedError.reason` it is that a client raised `error` instead of answering."""
    return "sign_in" if isinstance(error, OAuthFlowError) else "transport"


def reason_of(error: BaseException) -> str:
    """What `error` says, or the nearest of its causes that says anything: httpx's are often mute."""
    cause: BaseException | None = error
    for _ in range(_CAUSES):
        if cause is None:
            break
        if text := str(cause):
            return redact(text)[:500]
        cause = cause.__cause__ or cause.__context__
    return "no reason given"


def rebuilt_error(response: httpx2.Response, body: bytes) -> Exception:
    """What `raise_for_status` raises: for a complete response, and for a request without secrets.

    The request's headers, query and user info hold the user's credentials, and this exception is
    what ends up in logs and pickles. Raises `ValueError` for a status that is no error.
    """
    request = type(response.request)(response.request.method, visible(str(response.request.url)))
    headers = [(name, value) for name, value in response.headers.multi_items() if name not in _BODY_HEADERS]
    phrase = {key: value for key, value in response.extensions.items() if key == "reason_phrase"}
    complete = type(response)(
        response.status_code, headers=headers, content=body, request=request, extensions=phrase
    )
    try:
        complete.raise_for_status()
    except Exception as error:
        # The status line and the Location that httpx quotes are the server's text.
        error.args = (printable(str(error), lines=True),)
        return error.with_traceback(None)
    raise ValueError(f"status {response.status_code} is no error")
