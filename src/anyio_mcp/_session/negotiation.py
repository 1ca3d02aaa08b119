"""Which era a server speaks, settled once per session, and remembered for the sessions that follow.

`auto` asks the modern question (`server/discover`) and falls back to the handshake (`initialize`), whose
answer counts: a server that does not know the question may answer it with any error, with a page of
HTML, not at all, or by ending. What says who is asking or how often (401, 403, 429), and a network that
fails, is raised: taking it for an old server would downgrade every later call without a word.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast, final

import anyio
from mcp import MCPError
from mcp.types import UNSUPPORTED_PROTOCOL_VERSION, DiscoverResult, ServerCapabilities
from mcp.types.version import (
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    LATEST_MODERN_VERSION,
    MODERN_PROTOCOL_VERSIONS,
)
from pydantic import ValidationError

from anyio_mcp.errors import DeadlineExceededError, RequestFailedError, SessionLostError

PROBE_SECONDS: Final = 10.0
"""How long `server/discover` may take before the server counts as one that does not know it. Some
older servers do not answer what they do not know."""

PROBE_SHARE: Final = 1 / 3
"""The most of the connect deadline the probe may use up, so that time is left for the handshake."""

_NOT_AN_ERA: Final = frozenset({401, 402, 403, 407, 408, 421, 425, 429, 451})
"""HTTP 4xx that say nothing about the protocol: who is asking, how often, or when."""

_PASSING: Final = frozenset({502, 503, 504})
"""HTTP 5xx by which a gateway says that the server is not there just now. The handshake is tried behind
them, as some gateways answer so for good, but nothing is remembered."""

_NOT_THIS_TRANSPORT: Final = frozenset({400, 404, 405})
"""HTTP statuses by which a server of HTTP+SSE refuses a POST to the address of its stream
(https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#backwards-compatibility)."""

_TRIES: Final = 2

_NAMED_VALUES: Final = 50
_NAMED_CHARACTERS: Final = 2_000
"""How much of a refusal is searched for the versions that it names: so many values, each so far."""

_VERSION: Final = re.compile(r"\b20\d\d-\d\d-\d\d\b")


class _Response(Protocol):
    @property
    def status_code(self) -> int: ...


class Negotiator(Protocol):
    """A session that has not settled its era."""

    is_probing: bool
    """`server/discover` has been sent and not been answered: a connection that is lost now was lost to it."""

    async def handshake(self, version: str) -> object:
        """Send `initialize` with this version, adopt the answer, and say so."""
        ...

    async def send_discover(self, version: str) -> dict[str, Any]:
        """Send `server/discover`; the answer as it came."""
        ...

    def adopt(self, result: DiscoverResult) -> None:
        """Speak the newest version of `result`."""
        ...


@final
@dataclass(slots=True, eq=False)
class KnownServer:
    """What the sessions of one configuration have found out about their server."""

    is_older: bool = False
    """The server has been reached by the handshake, so the next session begins with it. Forgotten when a
    handshake fails, for whatever reason: the next session asks again."""

    is_on_older_transport: bool = False
    """The server has been reached over the older of two transports, so the next session begins there.
    Forgotten when a session cannot connect over it, for whatever reason."""


async def negotiate(
    session: Negotiator,
    mode: str,
    *,
    seconds: float,
    known: KnownServer,
    prior: DiscoverResult | None = None,
) -> None:
    """Settle the era of `session`: `auto`, `legacy`, or a modern version that is adopted unasked.

    With `prior` such a version comes with what the server once said of itself.
    `seconds` is the whole connect deadline, which the caller enforces; the probe uses part of it.
    Raises `MCPError` or the transport's error when the server refuses.
    """
    if mode == "legacy":
        await _handshake(session)
    elif mode != "auto":
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
    elif not known.is_older or not await _reached_as_before(session, known):
        await _negotiate_auto(session, known, probe_seconds(seconds))


async def _reached_as_before(session: Negotiator, known: KnownServer) -> bool:
    """Whether the handshake has worked again. False when the server has changed and must be asked."""
    known.is_older = False
    try:
        await _handshake(session)
    except MCPError as error:
        if not _tells_an_era(error.__cause__):
            raise
        return False
    except Exception as error:
        if _status_of(error) is None or not _tells_an_era(error):
            raise
        return False
    known.is_older = True
    return True


async def _negotiate_auto(session: Negotiator, known: KnownServer, probe_seconds: float) -> None:
    version = LATEST_MODERN_VERSION
    for attempt in range(_TRIES):
        last = attempt == _TRIES - 1
        is_lasting = True
        discovered: DiscoverResult | None = None
        session.is_probing = True
        try:
            discovered = await _discover(session, version, probe_seconds)
        except SessionLostError:
            raise  # still probing: that is what the server may have ended over
        except MCPError as error:
            session.is_probing = False
            if not _tells_an_era(error.__cause__):
                raise
            is_lasting = _status_of(error.__cause__) not in _PASSING
            supported = _supported_versions(error)
            mutual = _newest(supported, MODERN_PROTOCOL_VERSIONS)
            if mutual is not None and not last:
                version = mutual
                continue
            if supported and not any(v in HANDSHAKE_PROTOCOL_VERSIONS for v in supported):
                raise  # modern, and none of its versions is ours
        except Exception as error:
            session.is_probing = False
            if _status_of(error) is None or not _tells_an_era(error):
                raise
            is_lasting = _status_of(error) not in _PASSING
        session.is_probing = False
        if discovered is not None:
            session.adopt(discovered)
            return
        try:
            await _handshake(session)
        except MCPError as error:
            # A server that only now says which versions it speaks is modern after all: its answer to
            # the probe may have come too late.
            mutual = _newest(_supported_versions(error), MODERN_PROTOCOL_VERSIONS)
            if mutual is None or last:
                raise
            version = mutual
        else:
            known.is_older = is_lasting
            return


async def _discover(session: Negotiator, version: str, seconds: float) -> DiscoverResult | None:
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
    try:
        result = DiscoverResult.model_validate(raw, by_name=False)
    except ValidationError:
        return None
    # A server that answers and names no modern version advertises the older era.
    return result if _newest(result.supported_versions, MODERN_PROTOCOL_VERSIONS) is not None else None


async def _handshake(session: Negotiator) -> None:
    """Initialize; a server that refuses the version and names others is offered the newest of those."""
    try:
        await session.handshake(LATEST_HANDSHAKE_VERSION)
    except MCPError as error:
        if not _tells_an_era(error.__cause__):
            raise
        offer = _newest(_named_versions(error), HANDSHAKE_PROTOCOL_VERSIONS[:-1])
        if offer is None:
            raise
        await session.handshake(offer)


def refuses_transport(error: Exception) -> bool:
    """Whether a server whose first answer is `error` may speak the older transport at the same URL."""
    answer = error.__cause__ if isinstance(error, MCPError) else error
    return _status_of(answer) in _NOT_THIS_TRANSPORT


def probe_seconds(connect_seconds: float) -> float:
    """How long a step that many servers do not know may take, of the time in which a session connects."""
    return min(PROBE_SECONDS, connect_seconds * PROBE_SHARE)


def _tells_an_era(error: BaseException | None) -> bool:
    """Whether a refusal may mean "I do not know this method, path or version".

    One that came without an HTTP status does: the server understood enough to refuse. So does one with
    a status of the server's own failure: frameworks answer so to what they do not know, and a server
    that is really broken breaks the handshake as well.
    """
    status = _status_of(error)
    return status is None or (status >= 400 and status not in _NOT_AN_ERA)


def _status_of(error: BaseException | None) -> int | None:
    # By shape, not by class: the caller's own client may be a classic httpx one.
    response = getattr(error, "response", None)
    return None if response is None else cast("_Response", response).status_code


def _supported_versions(error: MCPError) -> list[str]:
    """The versions a server names when it refuses one (-32022); empty for any other error."""
    data: object = error.data
    if error.code != UNSUPPORTED_PROTOCOL_VERSION or not isinstance(data, dict):
        return []
    supported = cast("dict[str, object]", data).get("supported")
    if not isinstance(supported, list):
        return []
    return [version for version in cast("list[object]", supported) if isinstance(version, str)]


def _named_versions(error: MCPError) -> list[str]:
    """The versions that a refusal names, wherever it does: servers of the older era have no one way."""
    texts: list[object] = [error.message]
    data: object = error.data
    if isinstance(data, dict):
        for key, value in itertools.islice(cast("dict[str, object]", data).items(), _NAMED_VALUES):
            # What was asked for is no version the server knows, though it is named beside those.
            if key != "requested":
                texts += cast("list[object]", value)[:_NAMED_VALUES] if isinstance(value, list) else [value]
    elif isinstance(data, list):
        texts += cast("list[object]", data)[:_NAMED_VALUES]
    else:
        texts.append(data)
    found = (_VERSION.findall(text[:_NAMED_CHARACTERS]) for text in texts if isinstance(text, str))
    return [version for versions in found for version in versions]


def _newest(versions: Iterable[str], ours: Iterable[str]) -> str | None:
    """The newest of our versions, which are given in their order, that is among `versions`."""
    theirs = set(versions)
    mutual = [version for version in ours if version in theirs]
    return mutual[-1] if mutual else None
