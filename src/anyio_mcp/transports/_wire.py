"""What the exchanges of one connection share: with what to make them, how a message is written, and what
a refusal means. Must not know how an exchange goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import httpx2
from mcp.types import ErrorData, JSONRPCError, JSONRPCMessage, RequestId

from anyio_mcp.config import Limits
from anyio_mcp.errors import MCPError, RequestFailedError, SessionLostError
from anyio_mcp.transports._forgotten import GONE, BadRequests, verdict
from anyio_mcp.transports._headers import SessionHeaders, Stamp
from anyio_mcp.transports._httpclient import HttpRequester
from anyio_mcp.transports._inbox import Inbox
from anyio_mcp.transports._messages import encode_message, same_id
from anyio_mcp.transports._reading import read_messages


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
    doubt: Callable[[SessionLostError], None]
    """Lets nothing more be sent in it; it ends with the next message. Does not wait."""
    bad_requests: BadRequests = field(default_factory=BadRequests)

    def forgotten(self, cause: Exception, *, refused: bool = False) -> SessionLostError:
        text = f"{self.http.describe} does not know the session any more"
        return SessionLostError(text, reason="expired", refused=refused, cause=cause)

    def judge(self, said: ErrorData | MCPError, session_id: str | None) -> None:
        """Doubt a session in which a request was answered by an error that says there is no such session."""
        if session_id is not None and verdict(session_id, code=said.code, text=said.message) != "known":
            cause = said if isinstance(said, MCPError) else MCPError(said.code, said.message, said.data)
            self.doubt(self.forgotten(cause))


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
    errors = [one for one in read_messages(body, wire.limits) if isinstance(one, JSONRPCError)]
    if stamp.session_id is not None:
        if not unseen:
            # To a message nobody answers, or to a GET, only what a status says by itself is the end.
            if response.status_code in GONE:
                return wire.forgotten(error)
        else:
            code, text = None, body.decode(errors="replace")
            if errors:
                code, text = errors[0].error.code, errors[0].error.message
            match verdict(stamp.session_id, status=response.status_code, code=code, text=text):
                case "forgotten":
                    return wire.forgotten(error, refused=True)
                case "doubtful":
                    wire.doubt(wire.forgotten(error))
                case "known":
                    if wire.bad_requests.refused(response.status_code, explained=bool(errors)):
                        wire.doubt(wire.forgotten(error))
    for message in errors:
        if message.id is None or same_id(message.id, message_id):
            said = message.error
            return MCPError(said.code, said.message, said.data, cause=error)
    return error


def encode(message: JSONRPCMessage) -> bytes:
    try:
        return encode_message(message)
    except ValueError as error:
        raise RequestFailedError(
            f"the message cannot be written as JSON: {error}", reason="transport", cause=error
        ) from error
