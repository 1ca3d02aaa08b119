"""`OAuth`: how a user signs in to a server, in a browser.

Settings only: `flow.py` puts them to work.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, final, get_args
from urllib.parse import urlsplit

import httpx2

from anyio_mcp.auth.hosts import reach
from anyio_mcp.auth.store import FileTokenStore, TokenStore

OpenBrowser = Callable[[str], Awaitable[object] | object]
"""Shows a URL to the user: a coroutine function, or a plain one, which runs in a worker thread. It may
return before the user is done. `False` says that it could not."""

ClientAuth = Literal["client_secret_basic", "client_secret_post"]

AUTO: Final = "auto"

_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_HOSTS: Final = ("localhost", "127.0.0.1")
_PATH: Final = "/callback"


@final
@dataclass(frozen=True, slots=True)
class Redirect:
    """Where the browser is sent back to. Port 0 is any that is free."""

    host: str
    port: int
    path: str

    def uri(self, port: int) -> str:
        return f"http://{self.host}:{port}{self.path}"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class OAuth:
    """How a user signs in: `auth=OAuth(...)`; `auth="oauth"` is one with the defaults.

    * `scopes`: what to ask for, instead of what the server says it needs.
    * `client_name`: what the authorization server calls this program when it asks the user.
    * `client_id`, `client_secret`: of a client registered beforehand. Without them one is registered with
      the server the first time. `client_auth` is how the secret is sent: in the header every server has to
      understand (RFC 6749, 2.3.1), or in the body.
    * `issuer`: the authorization server, by its issuer identifier. Nothing is sent to another one, whatever
      the server says, and one that says nothing of authorization servers is signed in to there. Required
      with a `client_secret`, which belongs to one authorization server: a client or transport is not made
      without it.
    * `client_metadata_url`: an id for servers that take a URL for one.
    * `callback_port`: the port the browser is sent back to; by default one that is free.
    * `redirect_host`: the host it is sent back to, `"127.0.0.1"` or `"localhost"`, or the whole redirect
      URI, such as `"http://localhost:8080/oauth/callback"`, where an authorization server insists on one.
    * `resource`: the `resource` parameter (RFC 8707), which says what the token is for. By default it is
      what the server says; a text replaces that, and `None` leaves it out, for authorization servers that
      refuse it.
    * `assume_pkce`: ask the `issuer` although its metadata does not say that it supports PKCE with S256.
      MCP has clients refuse such a server; Microsoft Entra ID and Amazon Cognito support it without saying
      so.
    * `allow_plain_http`: sign in to a server without TLS that is not on this machine. Everybody on the way
      can read the tokens then. Without it such a server is refused, and nothing is sent to it.
    * `token_store`: what remembers the tokens, those of each client and choice of scopes by themselves; by
      default a `FileTokenStore`.
    * `open_browser`: shows a URL to the user; by default Python's `webbrowser`.

    Signing in is part of connecting, or of the call that needs it, and ends with its deadline: give
    `Timeouts(connect=...)` as long as a person may take. All calls that wait share one sign-in, also those
    of other sessions with the same store; it is given up when none waits any more. A sign-in whose token is
    refused, or the third in a row that fails, is the last for five minutes: until then the server's refusal
    is the answer.

    Only URLs that could be the server's business are asked, whatever it says: https where the server has
    it, http only on this machine, and no address of this machine or of a private network unless the server
    is at one itself.

    Raises `TypeError` and `ValueError` for settings that could never work.
    """

    scopes: str | Sequence[str] | None = None
    client_name: str = "anyio-mcp"
    client_id: str | None = None
    client_secret: str | None = None
    client_auth: ClientAuth = "client_secret_basic"
    issuer: str | None = None
    client_metadata_url: str | None = None
    callback_port: int | None = None
    redirect_host: str = "127.0.0.1"
    resource: str | None = AUTO
    assume_pkce: bool = False
    allow_plain_http: bool = False
    token_store: TokenStore = field(default_factory=FileTokenStore)
    open_browser: OpenBrowser | None = None

    def __post_init__(self) -> None:
        scopes = self.scopes.split() if isinstance(self.scopes, str) else self.scopes
        if scopes is not None:
            if not all(isinstance(scope, str) and _SCOPE.fullmatch(scope) for scope in scopes):
                raise ValueError("OAuth.scopes must be names of scopes, separated by blanks or in a sequence")
            object.__setattr__(self, "scopes", tuple(scopes))
        self._check_texts()
        self._check_issuer()
        if self.client_auth not in get_args(ClientAuth):
            raise ValueError(f"OAuth.client_auth must be one of {get_args(ClientAuth)}")
        url = self.client_metadata_url
        if url is not None and (urlsplit(url).scheme != "https" or urlsplit(url).path in ("", "/")):
            raise ValueError("OAuth.client_metadata_url must be an https URL with a path")
        port = self.callback_port
        if port is not None:
            if isinstance(port, bool) or not isinstance(port, int):
                raise TypeError(f"OAuth.callback_port must be an int, not {type(port).__name__}")
            if not 0 < port < 65536:
                raise ValueError("OAuth.callback_port must be between 1 and 65535")
        _ = self.redirect
        for name in ("assume_pkce", "allow_plain_http"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"OAuth.{name} must be a bool")
        if not all(hasattr(self.token_store, verb) for verb in ("get", "set", "delete")):
            raise TypeError(f"OAuth.token_store must be a TokenStore, not {type(self.token_store).__name__}")
        if self.open_browser is not None and not callable(self.open_browser):
            raise TypeError("OAuth.open_browser must be callable")

    def _check_texts(self) -> None:
        required = ("client_name", "redirect_host")
        optional = ("client_id", "client_secret", "client_metadata_url", "issuer", "resource")
        for name in (*required, *optional):
            value = getattr(self, name)
            may_miss = value is None and name in optional
            if not may_miss and not (isinstance(value, str) and value):
                raise TypeError(f"OAuth.{name} must be a str, and not empty")
        if self.resource not in (None, AUTO) and not urlsplit(self.resource or "").scheme:
            raise ValueError("OAuth.resource must be an absolute URI, or None")

    def _check_issuer(self) -> None:
        if self.client_secret is not None and self.client_id is None:
            raise ValueError("OAuth.client_secret belongs to a client_id")
        if self.assume_pkce and self.issuer is None:
            raise ValueError("OAuth.assume_pkce is said of one authorization server: it needs its issuer=")
        if self.issuer is None:
            return
        try:
            url = httpx2.URL(self.issuer)
        except (httpx2.InvalidURL, ValueError):
            raise ValueError("OAuth.issuer is not a valid URL") from None
        if not url.host or url.userinfo or url.query or url.fragment:
            raise ValueError("OAuth.issuer must be a URL with a host, without user info, query and fragment")
        plain = url.scheme == "http" and (reach(url.host) in ("local", "special") or self.allow_plain_http)
        if url.scheme != "https" and not plain:
            raise ValueError("OAuth.issuer must be an https URL, or an http one on this machine")

    def check_secret(self) -> None:
        """Raises `ValueError` for a secret that any server could have sent anywhere."""
        if self.client_secret is not None and self.issuer is None:
            raise ValueError(
                "OAuth.client_secret needs the issuer= it belongs to: "
                "else the server would say who is sent the secret"
            )

    @property
    def redirect(self) -> Redirect:
        """Where the browser is sent back to, by `redirect_host` and `callback_port`."""
        port = self.callback_port
        if self.redirect_host in _HOSTS:
            return Redirect(self.redirect_host, port or 0, _PATH)
        parts = urlsplit(self.redirect_host)
        try:
            named = parts.port
        except ValueError:
            named = -1
        if (
            parts.scheme != "http"
            or parts.hostname not in _HOSTS
            or parts.query
            or parts.fragment
            or parts.username is not None
            or named in (-1, 0)
        ):
            raise ValueError(
                f"OAuth.redirect_host must be one of {_HOSTS}, or a URI of http at one of them: "
                "nobody else could be sent back to this program"
            )
        if port is not None and named is not None and port != named:
            raise ValueError("OAuth.redirect_host names another port than callback_port")
        return Redirect(parts.hostname, port or named or 0, parts.path or "/")

    def __repr__(self) -> str:
        client = "" if self.client_id is None else f"client_id={self.client_id!r}, "
        return f"OAuth({client}token_store={self.token_store!r})"
