"""Signing in to servers with OAuth, and keeping what that brought.

oauth.py        `OAuth`: the settings; flow.py which way to a token is taken when
provider.py     how requests wait for a token; the SDK's providers as the authentication of a connection
sharing.py      one attempt to obtain a token at a time, for all sessions that wait for it
driver.py       the SDK's flows, and what they ask; origins.py and hosts.py whom they may ask
challenges.py   what a refusal says; answers.py what authorization servers answer
browser.py      a person in a browser; callback.py the loopback address the browser comes back to
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
