"""Whether an answer means that the server does not know the session any more: by what it says, however it
says it. No I/O.

The specification has one way to say so, the status 404. Servers that were restarted say it with other
statuses, with JSON-RPC errors of codes of their own, and in words of their own; taken for faults of one
request, they would fail every call from then on.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias, final

Verdict: TypeAlias = Literal["known", "doubtful", "forgotten"]
"""`forgotten`: the request was refused unseen. `doubtful`: it may have run, but was answered what a server
says that does not know the session."""

# What such an error says is short; a text of a tool's own may be megabytes.
_LONGEST_TEXT: Final = 1000

GONE: Final = frozenset({404, 410})
"""Statuses that say so, whatever else is said: 404 by the specification, 410 by what HTTP means by it."""
# A client error that a server answers to a request it does not look at. 401 and 403 speak of the user.
_REFUSES: Final = frozenset({400, 409, 412, 422, 428, 440})

# Each gap has a bound, so that a search takes time in proportion to the text.
_NO_SESSION: Final = re.compile(
    r"\b(?:no|not a|invalid|unknown|expired|missing|stale|unrecogni[sz]ed|inactive|terminated|closed"
    r"|nonexistent|(?:find|locate|lookup)(?: (?:a|an|the|your|any))?)"
    r"(?: (?:or|and|a|the|valid|invalid|missing|expired|unknown|active|such|existing|current|known"
    r"|matching|open|mcp|transport|connection|found|for|with|this)){0,4} session\b"
)
_SESSION_NOT: Final = re.compile(
    r"\bsession(?: (?:id|header|is|was|has|have|had|been|does|do|did|could|can|may|or|and|already)){0,6}"
    r" (?:not (?:be )?(?:found|valid|active|known|exist|initiali[sz]ed|recogni[sz]ed|available|open"
    r"|registered|connected)|no longer|never|expired|invalid|unknown|missing|terminated|closed|gone|lost"
    r"|required|ended|deleted|stale|timed out|doesn t exist|isn t (?:valid|active|known)|wasn t found"
    r"|inactive|nonexistent|unrecogni[sz]ed)\b"
)
_NOT_INITIALIZED: Final = re.compile(
    r"\b(?:server|session|client|connection|protocol|mcp|transport)(?: (?:is|was|has|id|yet)){0,3}"
    r" (?:not (?:(?:yet|been|properly) ){0,2}|un)initiali[sz]ed\b"
    r"|\A(?:(?:bad request|error|invalid request) )?not (?:yet )?initiali[sz]ed\b"
    r"|\bbefore (?:the )?initiali[sz](?:e|ation|ed)\b"
    r"|\binitiali[sz](?:e|ation)(?: request)? (?:first|(?:is )?required|(?:is |was )?not complete)\b"
    r"|\b(?:must|please|need to|needs to) (?:be )?(?:first )?(?:call |send )?(?:an )?initiali[sz]ed?\b"
)
_OTHER: Final = re.compile(r"[^a-z]+")
_WORD_IN_WORD: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")

_UNEXPLAINED: Final = 2


@final
class BadRequests:
    """The requests in a row that a server refused with 400 and without a JSON-RPC error.

    One may be due to the request. Where the next one fares no better, the session may be what the server does
    not know, and has no words for.
    """

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def answered(self) -> None:
        """A request was taken."""
        self._count = 0

    def refused(self, status: int, *, explained: bool) -> bool:
        """Whether this refusal makes the session doubtful."""
        self._count = self._count + 1 if status == 400 and not explained else 0
        return self._count >= _UNEXPLAINED


def verdict(
    session_id: str, *, status: int | None = None, code: int | None = None, text: str = ""
) -> Verdict:
    """What an answer to a POST in the session means for it: of an HTTP error its `status`, of a JSON-RPC
    error its `code`, and what either says."""
    if status in GONE:
        return "forgotten"
    is_argument = code == -32602 and status in _REFUSES
    if code is not None and code != -32600 and not -32099 <= code <= -32000 and not is_argument:
        # Any other code is about the request; -32603 is what a tool that raised is answered with.
        return "known"
    if not denies(text, session_id):
        return "known"
    # An argument may be a session of the tool's own.
    return "forgotten" if status in _REFUSES and not is_argument else "doubtful"


def denies(text: str, session_id: str) -> bool:
    """Whether `text` says that there is no such session, or that it has yet to begin."""
    plain = _WORD_IN_WORD.sub(" ", text[:_LONGEST_TEXT].replace(session_id, "")).lower()
    words = _OTHER.sub(" ", plain).replace("sessionid", "session id").strip()
    return any(said.search(words) for said in (_NO_SESSION, _SESSION_NOT, _NOT_INITIALIZED))
