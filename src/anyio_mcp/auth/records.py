"""What is remembered of an authorization: tokens, their age, the client's registration, the endpoints.

Turns a `TokenStore`, which keeps texts, into the `TokenStorage` that the SDK's providers take. A record
that cannot be read, or a store that fails, means to start anew. Must not know how tokens are obtained.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import Final, final
from urllib.parse import urlencode

from mcp.client.auth import OAuthTokenError, TokenStorage
from mcp.shared.auth import OAuthClientInformationFull, OAuthMetadata, OAuthToken
from pydantic import BaseModel, ValidationError

from anyio_mcp._text import get_logger
from anyio_mcp.auth.store import TokenStore

logger = get_logger(__name__)

MAX_TOKEN: Final = 64 * 1024
"""Characters of an access token. No server reads a header as long as that."""

MAX_LIFE: Final = 10 * 365 * 24 * 3600
"""Seconds. A token said to live longer lives that long, which a clock can hold."""

EARLY_SECONDS: Final = 10.0
EARLY_SHARE: Final = 0.1
"""A token is renewed this long before it expires, so that it does not expire on its way; one that lives
for seconds only, this part of its life."""

_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


@final
class AuthorizationRecord(BaseModel):
    """Everything that is known of one server. Its repr shows no secrets."""

    tokens: OAuthToken | None = None
    expires_at: float | None = None
    """When the access token is to be renewed, in seconds since the epoch; None if it does not expire."""
    client: OAuthClientInformationFull | None = None
    metadata: OAuthMetadata | None = None
    """Of the authorization server. A token cannot be refreshed without knowing where."""

    def __repr__(self) -> str:
        return f"<AuthorizationRecord {'with' if self.tokens else 'without'} tokens>"

    __str__ = __repr__

    def __rich_repr__(self) -> Iterator[object]:
        """As above: pydantic's own would have `rich` print the tokens, in a traceback with locals too."""
        yield "with tokens" if self.tokens else "without tokens"

    def forget_what_is_void(self) -> None:
        """Drop a token that no header can hold, and a client whose secret has expired."""
        if self.tokens is not None and not is_sendable(self.tokens.access_token):
            self.tokens = None
        expiry = None if self.client is None else self.client.client_secret_expires_at
        if expiry and time.time() >= expiry:
            self.client = None

    @property
    def access_token(self) -> str | None:
        return None if self.tokens is None else self.tokens.access_token

    @property
    def refreshable(self) -> bool:
        return bool(self.tokens and self.tokens.refresh_token)

    @property
    def stale(self) -> bool:
        return self.expires_at is not None and time.time() >= self.expires_at


@final
class ServerTokens(TokenStorage):
    """The record of one server in a `TokenStore`, as the storage the SDK's OAuth providers ask for.

    `ClientCredentialsOAuthProvider(server_url=url, storage=ServerTokens(store, url, client_id="me"), ...)`

    Tokens are those of a client, for scopes: programs that share a store and name either by `client_id` and
    `scopes` see only their own.
    """

    __slots__ = ("_saved", "key", "record", "store")

    def __init__(
        self,
        store: TokenStore,
        server_url: str,
        *,
        client_id: str | None = None,
        scopes: str | Iterable[str] | None = None,
        issuer: str | None = None,
    ) -> None:
        self.store: Final = store
        self.key: Final = record_key(server_url, client_id=client_id, scopes=scopes, issuer=issuer)
        """What the store knows the record by."""
        self._saved = True
        self.record = AuthorizationRecord()
        """As last loaded or saved."""

    def __repr__(self) -> str:
        return f"<ServerTokens {self.record!r}>"

    async def load(self) -> AuthorizationRecord:
        """Read the store. A record that is damaged counts as none, and a store that fails as unchanged."""
        try:
            text = await self.store.get(self.key)
        except Exception as error:  # a user's store may fail in any way; its text may hold secrets
            logger.warning("the token store could not be read: %s", type(error).__name__)
            return self.record
        if not text and not self._saved:
            return self.record  # it did not take what there is
        try:
            self.record = AuthorizationRecord.model_validate_json(text or "{}")
        except (ValidationError, TypeError):
            logger.warning("what the token store kept for a server is no record of tokens, and is ignored")
            self.record = AuthorizationRecord()
        self.record.forget_what_is_void()
        return self.record

    async def save(self) -> None:
        """Write the record. A store that fails costs the next session a sign-in, and this one nothing."""
        text = self.record.model_dump_json(exclude_none=True)
        try:
            await self.store.set(self.key, text)
            self._saved = True
        except Exception as error:  # as in load()
            self._saved = False
            logger.warning("the tokens could not be stored: %s", type(error).__name__)

    async def get_tokens(self) -> OAuthToken | None:
        """The stored tokens; none if they expired, since the SDK's providers take them for fresh."""
        record = await self.load()
        return None if record.stale and not record.refreshable else record.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        if not is_sendable(tokens.access_token):
            raise OAuthTokenError("a token that cannot be sent in a header is not kept")
        self.record.tokens = tokens
        self.record.expires_at = None
        if tokens.expires_in is not None:
            seconds = min(tokens.expires_in, MAX_LIFE)
            self.record.expires_at = time.time() + seconds - min(EARLY_SECONDS, seconds * EARLY_SHARE)
        await self.save()

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return (await self.load()).client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.record.client = client_info
        await self.save()


def record_key(
    server_url: str,
    *,
    client_id: str | None = None,
    scopes: str | Iterable[str] | None = None,
    issuer: str | None = None,
) -> str:
    """What a store knows a record by: the URL of the server, and in its fragment what else the tokens are
    bound to."""
    names = scopes.split() if isinstance(scopes, str) else scopes
    bound = {
        "client": client_id,
        "scopes": None if names is None else " ".join(sorted(set(names))),
        "issuer": issuer,
    }
    fragment = urlencode({name: value for name, value in bound.items() if value})
    server_url = server_url.partition("#")[0]
    return f"{server_url}#{fragment}" if fragment else server_url


def is_sendable(token: str) -> bool:
    """Whether a header can hold it."""
    return len(token) <= MAX_TOKEN and _TOKEN.fullmatch(token) is not None
