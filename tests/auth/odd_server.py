"""A guarded MCP server of 2025-06-18 with its authorization server; a test can replace each answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2

from anyio_mcp import Client, MemoryTokenStore, OAuth, Timeouts
from tests.faults.http_server import FaultServer, Talk, fault_server

Answer = dict[str, Any] | tuple[int, Any]
RESOURCE = "/.well-known/oauth-protected-resource"
SERVER = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"


class OddServer:
    """What the server answers, by path; anything not replaced is what an ordinary server says."""

    def __init__(self) -> None:
        self.faults: FaultServer
        self.replaced: dict[str, Callable[[Talk], Awaitable[None]] | Answer | None] = {}
        self.metadata: dict[str, Any] = {}
        """Members of the authorization server's metadata to replace; None to leave one out."""
        self.resource: dict[str, Any] = {}
        self.challenge: str | None = None
        self.grants: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        """Of the requests for a token."""
        self.accepts: Callable[[Talk], bool] = lambda talk: "authorization" in talk.received.headers
        self.refusal: Callable[[Talk], tuple[int, str]] | None = None
        self.paths: Counter[str] = Counter()

    @property
    def base(self) -> str:
        return self.faults.url.removesuffix("/mcp")

    @property
    def url(self) -> str:
        return self.faults.url

    async def handle(self, talk: Talk) -> None:
        path = urlsplit(talk.received.target).path
        self.paths[path] += 1
        if path == "/token":
            self.grants.append(dict(parse_qsl(talk.received.body.decode())))
            self.headers.append(dict(talk.received.headers))
        replaced = self.replaced.get(path, ...)
        if replaced is None:
            await talk.reply(404)
        elif callable(replaced):
            await replaced(talk)
        elif replaced is not ...:
            await self._json(talk, replaced)
        elif path.startswith(RESOURCE):
            said = {"resource": f"{self.base}/mcp", "authorization_servers": [self.base], **self.resource}
            await self._json(talk, said)
        elif path.startswith((SERVER, OPENID)):
            await self._json(talk, self._metadata())
        elif path == "/register":
            await self._json(talk, (201, {**json.loads(talk.received.body), "client_id": "registered"}))
        elif path == "/token":
            await self._json(talk, {"access_token": f"key{len(self.grants)}", "token_type": "Bearer"})
        elif not self.accepts(talk):
            status, text = (401, "Bearer") if self.refusal is None else self.refusal(talk)
            hint = self.challenge if self.challenge is not None else text
            await talk.reply(status, headers={"www-authenticate": hint})
        else:
            await self._mcp(talk)

    def _metadata(self) -> dict[str, Any]:
        said = {
            "issuer": self.base,
            "authorization_endpoint": f"{self.base}/authorize",
            "token_endpoint": f"{self.base}/token",
            "registration_endpoint": f"{self.base}/register",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
        }
        return {name: value for name, value in {**said, **self.metadata}.items() if value is not ...}

    async def _json(self, talk: Talk, answer: Answer) -> None:
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        await talk.reply(status, content, "application/json")

    async def _mcp(self, talk: Talk) -> None:
        if talk.received.method != "POST" or not talk.received.body:
            await talk.reply(405)
        elif talk.id is None:
            await talk.reply(202)
        elif talk.received.rpc_method == "initialize":
            info = {"name": "odd", "version": "1"}
            await talk.result({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": info})
        else:
            await talk.result({"content": []})


@asynccontextmanager
async def odd_server(*, tls: bool = False) -> AsyncGenerator[OddServer]:
    odd = OddServer()
    async with fault_server(odd.handle, tls=tls) as odd.faults:
        yield odd


class Person:
    """Agrees to everything at once, and remembers where that was asked."""

    def __init__(self, **brings: str) -> None:
        self.urls: list[str] = []
        self.brings = brings

    @property
    def asked(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.urls[-1]).query))

    async def __call__(self, url: str) -> None:
        self.urls.append(url)
        query = {"code": "c0de", "state": self.asked["state"], **self.brings}
        async with httpx2.AsyncClient(trust_env=False) as http:
            await http.get(f"{self.asked['redirect_uri']}?{urlencode(query)}")


def signing_in(person: Person | None = None, **settings: Any) -> OAuth:
    return OAuth(**{"token_store": MemoryTokenStore(), "open_browser": person or Person(), **settings})


def client_of(url: Any, auth: Any = None, **settings: Any) -> Client:
    return Client(url, **{"auth": auth, "mode": "legacy", "timeouts": Timeouts(close=1), **settings})
