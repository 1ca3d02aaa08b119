"""What the exchanges of one connection share: with what to make them, how a message is written, and what
a refusal means. Must not know how an exchange goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import httpx2
from mcp.types import JSONRPCError, JSONRPCMessage, RequestId

from anyio_mcp.config import Limits
from anyio_mcp.errors import RequestFailedError, ServerError, SessionLostError
from anyio_mcp.transports._headers import SessionHeaders, Stamp
from anyio_mcp.transports._httpclient import HttpRequester
from anyio_mcp.transports._inbox import Inbox
from anyio_mcp.transports._messages import encode_message, same_id
from anyio_mcp.transports._reading import read_messages

# What servers on the TypeScript SDK's examples, and Python ones before they said 404, answer with a 400
# to a session they do not know. Taken for a fault of the request, it would fail every call from then on.
_NO_SESSION: Final = re.compile(rb"\b(no valid|invalid|invalid or missing|unknown) session\b", re.IGNORECASE)


@final
@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Wire:
    """What the tasks of one connection share."""

    http: HttpRequester
    session: SessionHeaders
    inbox: Inbox
    limits: Limits
    lose: Callable[[SessionLostError], None]
    """Ends the connection for everybody. Does not wait."""


async def refusal(
    wire: Wire,
    response: httpx2.Response,
    stamp: Stamp,
    message_id: RequestId | None = None,
    *,
    unseen: bool = False,
) -> Exception:
    """What a status that is no success means: the end of the session, the server's own error in its
    body, or the status itself. `unseen`: it answers the message itself, not the wait for its answer."""
    error, body = await wire.http.status_error(response)
    denied = response.status_code == 400 and unseen and _NO_SESSION.search(body) is not None
    if (response.status_code == 404 or denied) and stamp.in_session:
        text = f"{wire.http.describe} does not know the session any more"
        return SessionLostError(text, reason="expired", refused=unseen, cause=error)
    for message in read_messages(body, wire.limits):
        if isinstance(message, JSONRPCError) and (message.id is None or same_id(message.id, message_id)):
            said = message.error
            return ServerError(said.code, said.message, said.data, cause=error)
    return error


def encode(message: JSONRPCMessage) -> bytes:
    try:
        return encode_message(message)
    except ValueError as error:
        raise RequestFailedError(
            f"the message cannot be written as JSON: {error}", reason="transport", cause=error
        ) from error
