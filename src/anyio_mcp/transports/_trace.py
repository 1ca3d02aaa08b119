"""What httpcore tells of a request while it is under way, through the `trace` extension of both libraries.

Two things cannot be learned from outside in time: which socket a handshake has opened, and that a
connection has broken, ahead of all that follows from it. Must not know what is done about either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, TypeAlias, final

import anyio
import httpx2

Part: TypeAlias = Literal["head", "body"]
"""What of a response was being waited for."""

_BREAKS: Final[Mapping[str, Part]] = {
    "http11.receive_response_headers.failed": "head",
    "http11.receive_response_body.failed": "body",
}


@final
class RequestTrace:
    """Follows one request. `end` is due on every path."""

    __slots__ = ("_on_break", "_secure", "_stream")

    def __init__(
        self, *, secure: bool, on_break: Callable[[Part, httpx2.TransportError], Awaitable[None]] | None
    ) -> None:
        self._secure = secure
        self._on_break = on_break
        self._stream: Any | None = None

    @property
    def extensions(self) -> dict[str, Any] | None:
        """For `build_request`. None where nothing is to be learned: following a request has its price."""
        return {"trace": self._follow} if self._secure or self._on_break is not None else None

    async def _follow(self, event: str, info: Mapping[str, Any]) -> None:
        part = _BREAKS.get(event)
        if part is not None:
            error = _as_httpx2(info["exception"])
            if error is not None and self._on_break is not None:
                await self._on_break(part, error)
        elif self._secure:
            if event.endswith(".connect_tcp.complete"):
                self._stream = info["return_value"]
            elif event.endswith(".start_tls.complete"):
                # From here on the connection may be shared, and its pool takes care of it.
                self._stream = None

    async def end(self, seconds: float) -> None:
        """Close the socket of a TLS handshake that was cancelled, which httpcore on trio leaves open."""
        if self._stream is not None:
            # Shielded: this is what a cancelled request leaves behind. Closing a socket does not wait.
            with anyio.move_on_after(seconds, shield=True):
                await self._stream.aclose()


def _as_httpx2(error: BaseException) -> httpx2.TransportError | None:
    """httpcore's error as httpx2 is going to raise it; its exceptions have the same names.

    None for anything else that ends a read: a cancellation, a body that is not read to its end.
    """
    kind: object = getattr(httpx2, type(error).__name__, None)
    if not (isinstance(kind, type) and issubclass(kind, httpx2.TransportError)):
        return None
    mapped = kind(str(error))
    mapped.__cause__ = error
    return mapped
