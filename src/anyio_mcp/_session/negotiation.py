"""Which era a server speaks, settled once per session.

`auto` asks the modern question (`server/discover`) and falls back to the handshake (`initialize`) when
the answer is evidence of an older server. What is no such evidence, a refused connection or an HTTP
status that says "not now" or "not you", is raised: taking it for an old server would downgrade every
later call without a word.
"""

from __future__ import annotations

from typing import Final, Protocol, cast

import anyio
from mcp import ClientSession, MCPError
from mcp.types import (
    UNSUPPORTED_PROTOCOL_VERSION,
    DiscoverResult,
    ServerCapabilities,
    UnsupportedProtocolVersionErrorData,
)
from mcp.types.version import (
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_MODERN_VERSION,
    MODERN_PROTOCOL_VERSIONS,
)
from pydantic import ValidationError

from anyio_mcp.errors import DeadlineExceededError, RequestFailedError

PROBE_SECONDS: Final = 10.0
"""How long `server/discover` may take before the server counts as one that does not know it. Some
older servers do not answer what they do not know."""

PROBE_SHARE: Final = 1 / 3
"""The most of the connect deadline the probe may use up, so that time is left for the handshake."""

_NOT_AN_ERA: Final = frozenset({401, 402, 403, 407, 408, 421, 425, 429, 451})
"""HTTP 4xx that say nothing about the protocol: who is asking, how often, or when."""

_TRIES: Final = 2


class _Response(Protocol):
    @property
    def status_code(self) -> int: ...


async def negotiate(
    session: ClientSession, mode: str, *, seconds: float, prior: DiscoverResult | None = None
) -> None:
    """Settle the era of `session`: `auto`, `legacy`, or a modern version that is adopted unasked.

    With `prior` such a version comes with what the server once said of itself.
    `seconds` is the whole connect deadline, which the caller enforces; the probe uses part of it.
    Raises `MCPError` or the transport's error when the server refuses.
    """
    if mode == "legacy":
        await session.initialize()
    elif mode == "auto":
        await _negotiate_auto(session, min(PROBE_SECONDS, seconds * PROBE_SHARE))
    else:
        session.adopt(
            prior
            or DiscoverResult(
                supported_versions=[mode],
                capabilities=ServerCapabilities(),
                result_type="complete",
                ttl_ms=0,
                cache_scope="private",
            )
        )


async def _negotiate_auto(session: ClientSession, probe_seconds: float) -> None:
    version = LATEST_MODERN_VERSION
    for attempt in range(_TRIES):
        last = attempt == _TRIES - 1
        try:
            discovered = await _discover(session, version, probe_seconds)
        except MCPError as error:
            if not _tells_an_era(error.__cause__):
                raise
            supported = _supported_versions(error)
            mutual = _newest_mutual(supported)
            if mutual is not None and not last:
                version = mutual
                continue
            if supported and not any(v in HANDSHAKE_PROTOCOL_VERSIONS for v in supported):
                raise  # modern, and none of its versions is ours
            discovered = None
        if discovered is not None:
            session.adopt(discovered)
            return
        try:
            await session.initialize()
        except MCPError as error:
            # A server that only now says which versions it speaks is modern after all: its answer to
            # the probe may have come too late.
            mutual = _newest_mutual(_supported_versions(error))
            if mutual is None or last:
                raise
            version = mutual
        else:
            return


async def _discover(session: ClientSession, version: str, seconds: float) -> DiscoverResult | None:
    """The server's answer to the probe; None when there is none, or none a modern server would give."""
    raw: object = None
    with anyio.move_on_after(seconds):
        try:
            raw = await session.send_discover(version)
        except DeadlineExceededError:
            return None
        except RequestFailedError as error:
            if error.reason == "violation":
                return None  # an answer, but not to this question
            raise  # an outage is never an era verdict
        except MCPError:
            raise
        except Exception as error:
            if _status_of(error) is not None and _tells_an_era(error):
                return None
            raise
    try:
        result = DiscoverResult.model_validate(raw)
    except ValidationError:
        return None
    # A server that answers and names no modern version advertises the older era.
    return result if _newest_mutual(result.supported_versions) is not None else None


def _tells_an_era(error: BaseException | None) -> bool:
    """Whether a refusal means "I do not know this method, path or version".

    One that came without an HTTP status does: the server understood enough to refuse.
    """
    status = _status_of(error)
    return status is None or (400 <= status < 500 and status not in _NOT_AN_ERA)


def _status_of(error: BaseException | None) -> int | None:
    # By shape, not by class: the caller's own client may be a classic httpx one.
    response = getattr(error, "response", None)
    return None if response is None else cast("_Response", response).status_code


def _supported_versions(error: MCPError) -> list[str]:
    """The versions a server names when it refuses one (-32022); empty for any other error."""
    if error.code != UNSUPPORTED_PROTOCOL_VERSION:
        return []
    try:
        return UnsupportedProtocolVersionErrorData.model_validate(error.data).supported
    except ValidationError:
        return []


def _newest_mutual(versions: list[str]) -> str | None:
    mutual = [version for version in MODERN_PROTOCOL_VERSIONS if version in versions]
    return mutual[-1] if mutual else None
