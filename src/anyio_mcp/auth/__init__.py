"""Signing in to servers with OAuth, and keeping what that brought.

oauth.py        `OAuth`: the settings; flow.py which way to a token is taken when
callback.py     the loopback address a browser comes back to
provider.py     the SDK's providers as the authentication of a connection
records.py      what is remembered of an authorization; store.py where
"""

from anyio_mcp.auth.oauth import OAuth
from anyio_mcp.auth.records import ServerTokens
from anyio_mcp.auth.store import FileTokenStore, MemoryTokenStore, TokenStore

__all__ = (
    "FileTokenStore",
    "MemoryTokenStore",
    "OAuth",
    "ServerTokens",
    "TokenStore",
)
