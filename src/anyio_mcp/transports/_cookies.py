"""The cookies of our own client: few, small, and such as can be sent back.

A load balancer that binds a session to a machine does it with a cookie, so they are kept; but all of them go
with every request. Must not know of requests.
"""

from __future__ import annotations

import urllib.request
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import Cookie, CookieJar
from typing import Any, Final, cast, final

COOKIES: Final = 50
"""How many are kept, the oldest first to go: what RFC 6265 (section 6.1) asks of a browser for one host."""

COOKIE_BYTES: Final = 4096
"""How long one may be, all its attributes included. A longer one is not kept, nor read."""


@final
class BoundedCookies(CookieJar):
    """At most `COOKIES` of `COOKIE_BYTES` each, in ASCII: any other byte could not be sent in a header."""

    def extract_cookies(self, response: Any, request: urllib.request.Request) -> None:
        offered: list[str] = response.info().get_all("set-cookie", [])
        # The newest of them count: the oldest are the first to go anyway.
        usable = [one for one in offered if len(one) <= COOKIE_BYTES and one.isascii()][-COOKIES:]
        if usable:
            super().extract_cookies(cast("HTTPResponse", _Answer(usable)), request)

    def set_cookie(self, cookie: Cookie) -> None:
        super().set_cookie(cookie)
        kept = list(self)
        for oldest in kept[: max(0, len(kept) - COOKIES)]:
            self.clear(oldest.domain, oldest.path, oldest.name)


@final
class _Answer:
    """A response of nothing but cookies, as far as a jar looks at one."""

    def __init__(self, cookies: list[str]) -> None:
        self._headers = Message()
        for cookie in cookies:
            self._headers["Set-Cookie"] = cookie

    def info(self) -> Any:
        return self._headers
