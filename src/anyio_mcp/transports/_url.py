"""URLs in texts: what of them may be seen. User info and queries are where URLs carry secrets."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

# Each goes through a text once: no part of it is looked at from more than one place where a URL may begin.
_URL_REST: Final = re.compile(r"://[^\s'\"]*")
_USER_INFO: Final = re.compile(r"://[^/?#]*@")
_QUERY: Final = re.compile(r"[?#]")

LONGEST_TEXT: Final = 2000
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def visible(url: str) -> str:
    """`scheme://host:port/path` of an absolute URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
        return f"{parts.scheme}://{_host(parts)}:{port}{parts.path}"
    except ValueError:
        return "an unreadable URL"


def redact(text: str, longest: int = LONGEST_TEXT) -> str:
    """`text` with the user info and the query taken out of every URL in it, and no longer than `longest`.

    What a server has written may be megabytes: what lies far beyond the cut is not looked at.
    """
    seen = text[: 2 * longest + LONGEST_TEXT]
    if "://" in seen:
        if len(seen) < len(text):
            # A URL that is cut off may have lost the sign behind its user info.
            last = seen.rfind("://")
            if _URL_REST.fullmatch(seen, last):
                seen = seen[:last]
        seen = _URL_REST.sub(_redacted, seen)
    return seen[:longest]


def _redacted(match: re.Match[str]) -> str:
    address = _QUERY.split(match[0], maxsplit=1)[0]
    return _USER_INFO.sub("://", address)


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host
