"""The `auth=` of a user as the authentication of a connection.

Knows which kinds there are; how each works is `anyio_mcp.auth`'s. Classic `httpx` is never imported here:
whoever hands over one of its objects has imported it.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final, TypeAlias

import httpx2
from anyio.abc import TaskGroup
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider

from anyio_mcp.auth.flow import OAuthFlow
from anyio_mcp.auth.oauth import OAuth
from anyio_mcp.auth.provider import SIGN_IN_ID, ProviderAuth, TokenAuth
from anyio_mcp.transports._headers import EVENT_STREAM, JSON
from anyio_mcp.transports._httpclient import HttpRequester
from anyio_mcp.transports._httpsettings import AuthFlow

Auth: TypeAlias = str | OAuth | AuthFlow
"""A bearer token; `"oauth"` or `OAuth(...)` to sign in with a browser; or an `httpx2.Auth`, such as the
SDK's OAuth providers."""

_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_PING: Final = f'{{"jsonrpc":"2.0","id":"{SIGN_IN_ID}","method":"ping"}}'.encode()


def check_auth(auth: object, http_client: object) -> None:
    """Raises `TypeError` for a client or an authentication that is neither library's, or of different
    ones, and `ValueError` for a token that cannot be sent."""
    module: Any = httpx2
    if http_client is not None and not isinstance(http_client, httpx2.AsyncClient):
        module = sys.modules.get("httpx")
        if module is None or not isinstance(http_client, module.AsyncClient):
            raise TypeError(
                f"http_client must be an httpx2.AsyncClient or httpx.AsyncClient, "
                f"not {type(http_client).__name__}"
            )
    if auth is None or isinstance(auth, module.Auth):
        return
    if auth == "oauth" or isinstance(auth, OAuth):
        if isinstance(auth, OAuth):
            auth.check_secret()
        if module is not httpx2:
            raise TypeError("signing in with OAuth needs an httpx2.AsyncClient as http_client")
        return
    if not isinstance(auth, str):
        raise TypeError(
            f"auth must be a bearer token or an {module.__name__}.Auth, not {type(auth).__name__}"
        )
    if not _TOKEN.fullmatch(auth):
        raise ValueError("the bearer token is empty or holds characters that no token has")


def authentication(auth: Auth | None, client: Any, url: str, tasks: TaskGroup, *, own: bool) -> Any | None:
    """`auth`, which was checked, as the argument of the `send` of `client`, for one connection to `url`;
    None to leave it to the client.

    Tokens are obtained in `tasks`, the connection's. `own`: the client was made for this connection.
    """
    if auth == "oauth":
        auth = OAuth()
    if isinstance(auth, OAuth):
        return OAuthFlow(auth, url, client, tasks, own=own)
    if isinstance(auth, OAuthClientProvider | IdentityAssertionOAuthProvider):
        return ProviderAuth(auth, client, url, tasks, own=own)
    if not isinstance(auth, str):
        return auth
    value = f"Bearer {auth}"

    # A function rather than a header: it also wins over user info in the URL and over the
    # authentication of the user's client, which would both overwrite a header.
    def bear(request: Any) -> Any:
        request.headers["authorization"] = value
        return request

    return bear


async def sign_in(http: HttpRequester) -> None:
    """Have a person sign in before the first question to the server is asked, if it wants that.

    The probe for the era has little time, and a server that was not reached within it would be taken for
    one of another era.
    """
    if not isinstance(http.auth, TokenAuth):
        return
    headers = {"accept": f"{JSON}, {EVENT_STREAM}", "content-type": JSON}
    async with http.open("POST", headers, _PING) as response:
        # Whatever the answer is, the session will ask again: here it only matters that it came.
        await http.discard(response)
