"""Where a sign-in may lead: which URLs that a server names are asked, and which are shown to the user.

A server that wants to be signed in to names URLs for it, and each answer names more. All of them are
requests that somebody else has this machine make. Two rules bound them, whoever names the URL:

* TLS wherever the server has it. Plain http only from this machine to this machine, unless the user allows
  more.
* An address of this machine, of the local link or of a private network only where the server is at one
  itself. A server on this machine may lead to `localhost`, `127.0.0.1` and `::1`, to no other address of
  it.

Names are resolved once before they are asked, within a second. That finds the name of a server that stands
for a private address; it does not bind the connection that is made afterwards to what was found (DNS
rebinding), and it is left to the user's own HTTP client where there is one.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Final, final

import anyio
import httpx2
from mcp.client.auth import OAuthFlowError

from anyio_mcp.auth.hosts import Reach, canonical_host, reach
from anyio_mcp.transports._url import visible

RESOLVE_SECONDS: Final = 1.0
"""For a name to be looked up. One that takes longer is not checked, and most likely not reached either."""

_MAX_URL: Final = 4096


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """The rules for the sign-in to one server."""

    server_url: str
    issuer: str | None = None
    """The user's word for the authorization server: its host needs no other permission."""
    plain_http: bool = False
    """Whether the user allows secrets to travel without TLS to a server that is not on this machine."""
    resolves: bool = True
    """Whether names are looked up here. A client of the user's may look them up elsewhere, or not at all."""
    _server: httpx2.URL = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_server", httpx2.URL(self.server_url))

    def check_server(self) -> None:
        """Raises `OAuthFlowError` for a server whose tokens anybody on the way could read."""
        server = self._server
        if server.scheme == "http" and reach(server.host) not in ("local", "special") and not self.plain_http:
            raise OAuthFlowError(
                f"signing in to {visible(self.server_url)} would send secrets without TLS over a network; "
                "OAuth(allow_plain_http=True) allows it"
            )

    def check(self, url: str) -> httpx2.URL:
        """`url` as it will be asked. Raises `OAuthFlowError` for one that must not be."""
        self.check_server()
        try:
            parsed = httpx2.URL(url) if len(url) <= _MAX_URL else None
        except (httpx2.InvalidURL, ValueError):
            parsed = None
        if (
            parsed is None
            or parsed.scheme not in ("http", "https")
            or not parsed.host
            or not 0 < (parsed.port or 1) < 65536
        ):
            raise OAuthFlowError("signing in leads to something that is no URL of http or https")
        where = f"signing in leads to {visible(str(parsed))}"
        if parsed.userinfo:
            raise OAuthFlowError(f"{where}, with user info")
        here, there = reach(self._server.host), reach(parsed.host)
        if parsed.scheme == "http":
            on_this_machine = here in ("local", "special") and (there == "local" or self._is_own(parsed.host))
            if self._server.scheme != "http" or not (on_this_machine or self.plain_http):
                # RFC 6749, 3.1 and 3.2: no metadata is a reason to send secrets in the clear.
                raise OAuthFlowError(f"{where}, without TLS")
        if not (self._is_own(parsed.host) or _may_lead(here, there)):
            raise OAuthFlowError(f"{where}, an address that a server elsewhere has no business with")
        return parsed

    async def check_resolved(self, url: str) -> None:
        """`check(url)`, and the same for the addresses that its name stands for."""
        parsed = self.check(url)
        if not self.resolves or self._is_own(parsed.host) or reach(parsed.host) != "name":
            return
        found = await _resolved(parsed.host)
        if found in ("name", "public"):
            return
        here = reach(self._server.host)
        if here == "name":
            here = await _resolved(self._server.host)
        if not _may_lead(here, found):
            raise OAuthFlowError(
                f"signing in leads to {visible(url)}, whose name stands for an address of a private network"
            )

    def _is_own(self, host: str) -> bool:
        """Whether it is the host of the server, or of the issuer that the user has named."""
        if canonical_host(host) == canonical_host(self._server.host):
            return True
        return self.issuer is not None and canonical_host(host) == canonical_host(
            httpx2.URL(self.issuer).host
        )


def _may_lead(here: Reach, there: Reach) -> bool:
    match there:
        case "public" | "name":
            return True
        case "private":
            return here in ("private", "local", "special")
        case "local":
            return here in ("local", "special")
        case "special":
            return False


async def _resolved(host: str) -> Reach:
    """The most private of the addresses of a name; `name` if it cannot be told."""
    try:
        with anyio.fail_after(RESOLVE_SECONDS):
            found = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return "name"
    reached = {reach(str(address[4][0])) for address in found}
    order: tuple[Reach, ...] = ("special", "local", "private", "public", "name")
    return next(each for each in order if each in reached or each == "name")
