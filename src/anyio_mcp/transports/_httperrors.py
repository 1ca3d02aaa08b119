"""What errors of HTTP tell the user: all that helps, and none of the secrets a request carries."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import httpx2
from mcp.client.auth import OAuthFlowError

from anyio_mcp._text import printable
from anyio_mcp.errors import FaultReason
from anyio_mcp.transports._url import redact, visible

_CAUSES: Final = 8
# They describe the body as it was sent, and the rebuilt response has another.
_BODY_HEADERS: Final = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
# Of the headers an error keeps: a server may send some thousands.
_HEADERS: Final = 100
_HEADER_BYTES: Final = 32 * 1024


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
            return redact(text, 500)
        cause = cause.__cause__ or cause.__context__
    return "no reason given"


def failed_at(error: BaseException, peer: str) -> str:
    """What failed with `error`: the exchange with `peer`, or the proxy on the way to it.

    A client does not say that it uses a proxy, but the modules it went through do. Through a proxy the only
    address that is connected to is the proxy's.
    """
    proxied = connecting = False
    cause: BaseException | None = error
    for _ in range(_CAUSES):
        if cause is None:
            break
        entry = cause.__traceback__
        while entry is not None:
            module = str(entry.tb_frame.f_globals.get("__name__"))
            proxied |= module.startswith("httpcore") and module.endswith("_proxy")
            connecting |= module.startswith("httpcore") and entry.tb_frame.f_code.co_name == "connect_tcp"
            entry = entry.tb_next
        cause = cause.__cause__ or cause.__context__
    if not proxied:
        return f"the exchange with {peer} failed"
    if connecting:
        return f"the proxy on the way to {peer} cannot be reached"
    return f"the exchange with {peer} by way of a proxy failed"


def rebuilt_error(response: httpx2.Response, body: bytes) -> Exception:
    """What `raise_for_status` raises: for a complete response, and for a request without secrets.

    The request's headers, query and user info hold the user's credentials, and this exception is
    what ends up in logs and pickles. Raises `ValueError` for a status that is no error.
    """
    request = type(response.request)(response.request.method, visible(str(response.request.url)))
    phrase = {key: value for key, value in response.extensions.items() if key == "reason_phrase"}
    complete = type(response)(
        response.status_code,
        headers=_kept(response.headers.raw),
        content=body,
        request=request,
        extensions=phrase,
    )
    try:
        complete.raise_for_status()
    except Exception as error:
        # The status line and the Location that httpx quotes are the server's text.
        text = printable(str(error), lines=True)
        return _portable(type(error))(text, request=request, response=complete)
    raise ValueError(f"status {response.status_code} is no error")


def _kept(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Of the headers of a response what an error keeps of them: as bytes, which need not be ASCII."""
    kept: list[tuple[bytes, bytes]] = []
    left = _HEADER_BYTES
    for name, value in headers:
        left -= len(name) + len(value)
        if left < 0 or len(kept) == _HEADERS:
            break
        if name.lower() not in _BODY_HEADERS:
            kept.append((name, value))
    return kept


@cache
def _portable(library: type[Any]) -> type[Any]:
    """The `HTTPStatusError` of a library, as an error that survives pickling: its own does not, whose
    arguments are keywords."""
    return type(library.__name__, (library,), {"__module__": library.__module__, "__reduce__": _reduced})


def _reduced(error: Any) -> tuple[Any, ...]:
    (library,) = type(error).__bases__
    return _restored, (library, str(error), error.request, error.response)


def _restored(library: type[Any], message: str, request: Any, response: Any) -> Any:
    return _portable(library)(message, request=request, response=response)
