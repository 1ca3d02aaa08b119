"""URLs in texts: what of them may be seen. User info and queries are where URLs carry secrets."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

_USER_INFO: Final = re.compile(r"(?<=://)[^/?#\s'\"]*@")
_QUERY: Final = re.compile(r"(://[^\s'\"?#]*)[?#][^\s'\"]*")
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def visible(url: str) -> str:
    """`scheme://host:port/path` of an absolute URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
        return f"{parts.scheme}://{_host(parts)}:{port}{parts.path}"
    except ValueError:
        return "an unreadable URL"


def redact(text: str) -> str:
    """`text` with the user info and the query taken out of every URL in it."""
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1", _USER_INFO.sub("", text))


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host
