"""Content that the protocol's models do not know, and the results that can carry it.

Plain models. How an answer is read, and what becomes of the rest of it, is `_session.reading`'s.
"""

from __future__ import annotations

from typing import Any

from mcp.types import CallToolResult, GetPromptResult, PromptMessage
from pydantic import BaseModel, ConfigDict


class UnknownContent(BaseModel):
    """A content block as the server sent it: of a type that the protocol does not know, or one that does
    not fit its type.

    `type` is the server's word for it, "" if it has none. Everything else is an attribute under the name
    it has on the wire, and in `model_extra`.
    """

    model_config = ConfigDict(extra="allow")

    type: str = ""


class OddMessage(PromptMessage):
    """A prompt's message with an `UnknownContent`, or in a role that the protocol does not know."""

    role: Any
    content: Any


class OddPromptResult(GetPromptResult):
    """A prompt in which some message is an `OddMessage`."""

    messages: list[Any]


class OddToolResult(CallToolResult):
    """A tool's answer in which some block is an `UnknownContent`."""

    content: list[Any]
