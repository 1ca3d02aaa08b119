"""What is remembered of an authorization: tokens, their age, the client's registration, the endpoints.

Turns a `TokenStore`, which keeps texts, into the `TokenStorage` that the SDK's providers take. A record
that cannot be read, or a store that fails, means to start anew. Must not know how tokens are obtained.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, final

from mcp.client.auth import TokenStorage
from mcp.shared.auth import OAuthClientInformationFull, OAuthMetadata, OAuthToken
from pydantic import BaseModel, ValidationError

from anyio_mcp._text import get_logger
from anyio_mcp.auth.store import TokenStore

logger = get_logger(__name__)

EARLY_SECONDS: Final = 10.0
EARLY_SHARE: Final = 0.1
"""A token is renewed this long before it expires, so that it does not expire on its way; one that lives
for seconds only, this part of its life."""


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

    `ClientCredentialsOAuthProvider(server_url=url, storage=ServerTokens(store, url), ...)`
    """

    __slots__ = ("_server_url", "_store", "record")

    def __init__(self, store: TokenStore, server_url: str) -> None:
        self._store = store
        self._server_url = server_url
        self.record = AuthorizationRecord()
        """As last loaded or saved."""

    def __repr__(self) -> str:
        return f"<ServerTokens {self.record!r}>"

    async def load(self) -> AuthorizationRecord:
        """Read the store. Whatever is wrong with it or with the record makes an empty one."""
        text: str | None = None
        try:
            text = await self._store.get(self._server_url)
        except Exception as error:  # a user's store may fail in any way; its text may hold secrets
            logger.warning("the token store could not be read: %s", type(error).__name__)
        try:
            self.record = AuthorizationRecord.model_validate_json(text or "{}")
        except ValidationError:
            logger.warning("what the token store kept for a server is no record of tokens, and is ignored")
            self.record = AuthorizationRecord()
        return self.record

    async def save(self) -> None:
        """Write the record. A store that fails costs the next session a sign-in, and this one nothing."""
        text = self.record.model_dump_json(exclude_none=True)
        try:
            await self._store.set(self._server_url, text)
        except Exception as error:  # as in load()
            logger.warning("the tokens could not be stored: %s", type(error).__name__)

    async def get_tokens(self) -> OAuthToken | None:
        """The stored tokens; none if they expired, since the SDK's providers take them for fresh."""
        record = await self.load()
        return None if record.stale and not record.refreshable else record.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.record.tokens = tokens
        self.record.expires_at = None
        if tokens.expires_in is not None:
            early = min(EARLY_SECONDS, tokens.expires_in * EARLY_SHARE)
            self.record.expires_at = time.time() + tokens.expires_in - early
        await self.save()

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return (await self.load()).client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.record.client = client_info
        await self.save()
