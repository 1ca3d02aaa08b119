"""`OAuth`: how a user signs in to a server, in a browser.

Settings only: `flow.py` puts them to work.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, final, get_args
from urllib.parse import urlsplit

from anyio_mcp.auth.store import FileTokenStore, TokenStore

OpenBrowser = Callable[[str], Awaitable[object] | object]
"""Shows a URL to the user: a coroutine function, or a plain one, which runs in a worker thread. It may
return before the user is done. `False` says that it could not."""

ClientAuth = Literal["client_secret_basic", "client_secret_post"]

_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class OAuth:
    """How a user signs in: `auth=OAuth(...)`; `auth="oauth"` is one with the defaults.

    * `scopes`: what to ask for, instead of what the server says it needs.
    * `client_name`: what the authorization server calls this program when it asks the user.
    * `client_id`, `client_secret`: of a client registered beforehand. Without them one is registered with
      the server the first time. `client_auth` is how the secret is sent: in the header every server has to
      understand (RFC 6749, 2.3.1), or in the body.
    * `client_metadata_url`: an id for servers that take a URL for one.
    * `callback_port`: where the browser is sent back to, on 127.0.0.1; by default a port that is free.
    * `token_store`: what remembers the tokens; by default a `FileTokenStore`.
    * `open_browser`: shows a URL to the user; by default Python's `webbrowser`.

    Signing in is part of connecting, or of the call that needs it, and ends with its deadline: give
    `Timeouts(connect=...)` as long as a person may take.

    Raises `TypeError` and `ValueError` for settings that could never work.
    """

    scopes: str | Sequence[str] | None = None
    client_name: str = "anyio-mcp"
    client_id: str | None = None
    client_secret: str | None = None
    client_auth: ClientAuth = "client_secret_basic"
    client_metadata_url: str | None = None
    callback_port: int | None = None
    token_store: TokenStore = field(default_factory=FileTokenStore)
    open_browser: OpenBrowser | None = None

    def __post_init__(self) -> None:
        scopes = self.scopes.split() if isinstance(self.scopes, str) else self.scopes
        if scopes is not None:
            if not all(isinstance(scope, str) and _SCOPE.fullmatch(scope) for scope in scopes):
                raise ValueError("OAuth.scopes must be names of scopes, separated by blanks or in a sequence")
            object.__setattr__(self, "scopes", tuple(scopes))
        for name in ("client_name", "client_id", "client_secret", "client_metadata_url"):
            value = getattr(self, name)
            may_miss = value is None and name != "client_name"
            if not may_miss and not (isinstance(value, str) and value):
                raise TypeError(f"OAuth.{name} must be a str, and not empty")
        if self.client_secret is not None and self.client_id is None:
            raise ValueError("OAuth.client_secret belongs to a client_id")
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
        if not all(hasattr(self.token_store, verb) for verb in ("get", "set", "delete")):
            raise TypeError(f"OAuth.token_store must be a TokenStore, not {type(self.token_store).__name__}")
        if self.open_browser is not None and not callable(self.open_browser):
            raise TypeError("OAuth.open_browser must be callable")

    def __repr__(self) -> str:
        client = "" if self.client_id is None else f"client_id={self.client_id!r}, "
        return f"OAuth({client}token_store={self.token_store!r})"
