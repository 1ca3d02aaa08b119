"""What a user may hand to an HTTP transport, checked; and the client that is made when none is given.

Classic `httpx` is never imported here: whoever hands over one of its objects has imported it.
"""

from __future__ import annotations

import math
import re
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import cache
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from anyio_mcp.config import Timeouts
from anyio_mcp.transports._cookies import BoundedCookies
from anyio_mcp.transports._httppool import ConnectionPool

# RFC 9110: a field name is a token. A value holds no control characters: CR and LF in it would start
# another header.
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# Servers commonly close an idle connection after 5 s. Reusing one at that moment loses a request that
# cannot be repeated safely, so ours are given up earlier.
_IDLE_SECONDS: Final = 4.0
_IDLE_CONNECTIONS: Final = 20

# Probe a silent peer after 15 s, then every 5 s, and give up after two: a call without a deadline ends some
# 25 s after the server's machine is gone. The system of a peer that is busy answers for it. No
# TCP_USER_TIMEOUT: that one ends connections to peers that only read slowly.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPALIVE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2}


class AsyncHttpClient(Protocol):
    """What an HTTP client has to offer: `httpx2.AsyncClient` and classic `httpx.AsyncClient` do."""

    @property
    def timeout(self) -> Any: ...

    @property
    def build_request(self) -> Callable[..., Any]: ...

    @property
    def send(self) -> Callable[..., Any]: ...

    async def aclose(self) -> None: ...


class AuthFlow(Protocol):
    """The `Auth` of either library."""

    def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]: ...


def check_url(url: object) -> None:
    """Raises `TypeError` or `ValueError` unless `url` is an http or https URL. Never quotes it."""
    if not isinstance(url, str):
        raise TypeError(f"the url must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL):
        raise ValueError("the url is not valid") from None
    if not usable:
        raise ValueError("the url must begin with http:// or https:// and name a host")


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """A copy of `headers`. Raises `TypeError` or `ValueError` for what cannot be a header."""
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping of str to str, not {type(headers).__name__}")
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("headers must be a mapping of str to str")
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header")
        if _CONTROL.search(value):
            raise ValueError(f"the value of the header {name!r} contains control characters")
        checked[name] = value
    return checked


def default_client(url: str, timeouts: Timeouts) -> httpx2.AsyncClient:
    """The client of a connection whose user gave none. To be closed by that connection."""
    parts = urlsplit(url)
    connect = None if math.isinf(timeouts.connect_seconds) else timeouts.connect_seconds
    # Only connecting is timed here: how long an answer may take is the deadline of its call.
    timeout = httpx2.Timeout(None, connect=connect)
    if is_proxied(url):
        # A transport of our own would make httpx2 ignore the environment's proxies.
        limits = httpx2.Limits(
            max_connections=None,
            max_keepalive_connections=_IDLE_CONNECTIONS,
            keepalive_expiry=_IDLE_SECONDS,
        )
        return httpx2.AsyncClient(
            timeout=timeout, limits=limits, follow_redirects=False, cookies=BoundedCookies()
        )
    context = None
    # Loading the CA certificates takes longer than a session on a local server does, so it is left
    # out where they cannot be used: redirects to another scheme are not followed.
    if parts.scheme == "https":
        context = httpx2.create_ssl_context()
        context.set_alpn_protocols(["http/1.1"])
    # No limit to connections: a limit turns slow calls into failures of the calls behind them.
    transport = ConnectionPool(
        ssl_context=context,
        idle=_IDLE_CONNECTIONS,
        idle_seconds=_IDLE_SECONDS,
        socket_options=keepalive_options(),
    )
    return httpx2.AsyncClient(
        transport=transport, timeout=timeout, follow_redirects=False, cookies=BoundedCookies()
    )


def request_timeout(client: Any) -> Any:
    """The timeouts of our requests on `client`: its own for connecting and writing, none otherwise.

    Its default of 5 s for reading would fail every call that is slower than that.
    """
    own = client.timeout
    return type(own)(connect=own.connect, read=None, write=own.write, pool=None)


def pool_timeouts() -> tuple[type[httpx2.PoolTimeout], ...]:
    """The `PoolTimeout` of each library that is in use."""
    classic: Any = sys.modules.get("httpx")
    return (httpx2.PoolTimeout,) if classic is None else (httpx2.PoolTimeout, classic.PoolTimeout)


def chosen_encoding(client: Any) -> str | None:
    """The Accept-Encoding that the user gave to `client`; None where it is the default of its library."""
    chosen: str | None = client.headers.get("accept-encoding")
    module = httpx2 if isinstance(client, httpx2.AsyncClient) else sys.modules["httpx"]
    return None if chosen == _default_encoding(module) else chosen


@cache
def _default_encoding(module: Any) -> str | None:
    # Of a client that nothing is sent with: it costs no certificates and no sockets.
    client = module.AsyncClient(transport=module.MockTransport(module.Response), trust_env=False)
    return client.headers.get("accept-encoding")


def status_errors() -> tuple[type[httpx2.HTTPStatusError], ...]:
    """The `HTTPStatusError` of each library that is in use."""
    classic: Any = sys.modules.get("httpx")
    return (httpx2.HTTPStatusError,) if classic is None else (httpx2.HTTPStatusError, classic.HTTPStatusError)


def keepalive_options() -> list[tuple[int, int, int]]:
    """TCP keepalive, as far as this platform lets it be configured."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in _KEEPALIVE.items():
        option = getattr(socket, name, None)
        if option is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    return options


def is_proxied(url: str) -> bool:
    """Whether the environment names a proxy for `url`, through which the pool of ours does not go."""
    parts, proxies = urlsplit(url), getproxies()
    return bool(proxies.get(parts.scheme) or proxies.get("all")) and not proxy_bypass(parts.hostname or "")
