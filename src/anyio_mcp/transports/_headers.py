"""Which headers a request of a Streamable HTTP session bears. No I/O: the era and session id rules.

Must not know how requests are made. Later eras add headers of their own to each message (`Outgoing.headers`);
this file only reads the protocol version among them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from mcp.types import JSONRPCRequest
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from anyio_mcp.transports.base import Outgoing

SESSION_ID: Final = "mcp-session-id"
PROTOCOL_VERSION: Final = "mcp-protocol-version"
LAST_EVENT_ID: Final = "last-event-id"
JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"

_LONGEST_TYPE: Final = 200

# The specification's alphabet of a session id: it comes back in a header, where anything else
# would make every later request of the session fail before it is sent.
_SESSION_ID: Final = re.compile(r"[\x21-\x7e]{1,4096}")
# Control characters and surrounding blanks cannot be sent, and a server limits the size of headers.
_EVENT_ID: Final = re.compile(r"[^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]{0,4094}[^\x00-\x20\x7f])?")


@final
@dataclass(frozen=True, slots=True, eq=False)
class Stamp:
    """The headers of one request, and what they make of it."""

    headers: Mapping[str, str]
    modern: bool
    session_id: str | None = None
    """The session that the request was made in; a 404 to it means that it is gone."""


@final
class SessionHeaders:
    """What one connection has learned about its session.

    `is_in_address`: the session is named by the address of its messages, and by no header.
    """

    __slots__ = ("_is_in_address", "session_id", "version")

    def __init__(self, *, is_in_address: bool = False) -> None:
        self._is_in_address = is_in_address
        self.session_id: str | None = None
        self.version: str | None = None

    @property
    def modern(self) -> bool:
        return self.version in MODERN_PROTOCOL_VERSIONS

    def stamp(self, outgoing: Outgoing) -> Stamp:
        """The headers of the POST of a message. Called once per message, in the order of sending."""
        initialize = is_initialize(outgoing)
        if initialize:
            # A probe that failed left its version here; on the handshake it would be a claim to have
            # negotiated what the handshake is about to negotiate.
            self.version = None
        headers = {"accept": f"{JSON}, {EVENT_STREAM}", "content-type": JSON}
        headers.update({name.lower(): value for name, value in (outgoing.headers or {}).items()})
        if PROTOCOL_VERSION in headers:
            self.version = headers[PROTOCOL_VERSION]
        return self._complete(headers, session=not initialize)

    def stamp_get(self, last_event_id: str) -> Stamp:
        """The headers of a GET that opens a stream, behind the given event if there was one."""
        headers = {"accept": EVENT_STREAM, "cache-control": "no-store"}
        if resumable(last_event_id):
            headers[LAST_EVENT_ID] = last_event_id
        return self._complete(headers)

    def stamp_delete(self) -> Stamp:
        return self._complete({"accept": JSON})

    def adopt(self, session_id: str) -> bool:
        """Remember the id the server gave; False if it is one that cannot be sent back."""
        if _SESSION_ID.fullmatch(session_id) is None:
            return False
        self.session_id = session_id
        return True

    def _complete(self, headers: dict[str, str], *, session: bool = True) -> Stamp:
        if self.version is not None:
            headers[PROTOCOL_VERSION] = self.version
        if not session or self.modern or self.session_id is None:
            return Stamp(headers, self.modern)
        if not self._is_in_address:
            headers[SESSION_ID] = self.session_id
        return Stamp(headers, self.modern, self.session_id)


def is_initialize(outgoing: Outgoing) -> bool:
    return isinstance(outgoing.message, JSONRPCRequest) and outgoing.message.method == "initialize"


def resumable(event_id: str) -> bool:
    """Whether a stream can be resumed behind the event of this id."""
    return _EVENT_ID.fullmatch(event_id) is not None


def media_type(content_type: str) -> str:
    """`content_type` without its parameters. Given twice, the first counts."""
    return content_type[:_LONGEST_TYPE].partition(",")[0].partition(";")[0].strip().lower()
