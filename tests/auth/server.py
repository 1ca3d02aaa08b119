"""A guarded MCP server with its authorization server, both the SDK's, under uvicorn in a thread.

What it is asked to do wrong it does at its token endpoint, or in what it grants; everything else is the
SDK's. Two grants the SDK's server does not have, of programs instead of people, are added here.
"""

from __future__ import annotations

import base64
import json
import secrets
import socket
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import parse_qs, unquote

import anyio
import jwt
import uvicorn
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    IdentityAssertionParams,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    TokenError,
    construct_redirect_uri,
)
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions
from mcp.server.mcpserver import MCPServer
from mcp.shared.auth import JWT_BEARER_GRANT_TYPE, OAuthClientInformationFull, OAuthToken

Fault = Literal["500", "hang", "garbage", "refuse", "no token", "echo", "redirect", "flood"]


class Authority(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """The authorization server's memory, and what a test wants of it."""

    def __init__(self) -> None:
        self.clients: dict[str, OAuthClientInformationFull] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.access: dict[str, AccessToken] = {}
        self.refresh: dict[str, RefreshToken] = {}
        self.requests: Counter[str] = Counter()
        self.grants: Counter[str] = Counter()
        self.asked_scopes: list[str] = []
        self.secrets: set[str] = set()
        """Everything that must never be seen in a log or an exception."""
        self.denies = False
        self.wrong_state = False
        self.expires_in: int | None = 3600
        self.token_fault: Fault | None = None
        self.registration_fault: Fault | None = None
        self.secret = self._secret()
        self.public_key: Any = None
        self.id_jag = self._secret()

    def _secret(self) -> str:
        value = secrets.token_urlsafe(24)
        self.secrets.add(value)
        return value

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.clients[client_info.client_id] = client_info
        if client_info.client_secret is not None:
            self.secrets.add(client_info.client_secret)

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        self.asked_scopes = params.scopes or []
        state = "another" if self.wrong_state else params.state
        if self.denies:
            return construct_redirect_uri(str(params.redirect_uri), error="access_denied", state=state)
        code = AuthorizationCode(
            code=self._secret(),
            client_id=client.client_id,
            scopes=params.scopes or ["user"],
            expires_at=time.time() + 60,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
        )
        self.codes[code.code] = code
        return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=state)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        del self.codes[authorization_code.code]
        return self.grant(client.client_id, authorization_code.scopes, refreshable=True)

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        return self.refresh.get(refresh_token)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        del self.refresh[refresh_token.token]
        return self.grant(client.client_id, scopes, refreshable=True)

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self.access.get(token)

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        raise NotImplementedError

    async def exchange_identity_assertion(
        self, client: OAuthClientInformationFull, params: IdentityAssertionParams
    ) -> OAuthToken:
        if params.assertion != self.id_jag:
            raise TokenError("invalid_grant")
        self.grants["identity assertion"] += 1
        return self.grant(client.client_id, ["user"])

    def grant(self, client_id: str, scopes: list[str], *, refreshable: bool = False) -> OAuthToken:
        access = self._secret()
        expires = None if self.expires_in is None else int(time.time() + self.expires_in)
        self.access[access] = AccessToken(
            token=access, client_id=client_id, scopes=scopes, expires_at=expires
        )
        refresh = None
        if refreshable:
            refresh = self._secret()
            self.refresh[refresh] = RefreshToken(token=refresh, client_id=client_id, scopes=scopes)
        return OAuthToken(
            access_token=access,
            expires_in=self.expires_in,
            refresh_token=refresh,
            scope=" ".join(scopes),
        )

    def revoke_access(self) -> None:
        """Every access token is void from now on; the refresh tokens are not."""
        self.access.clear()

    def revoke_everything(self) -> None:
        self.access.clear()
        self.refresh.clear()


class Guarded:
    """The server's application, with the faults of its token endpoint in front."""

    def __init__(self, authority: Authority, base: str) -> None:
        self.authority = authority
        self.base = base
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = AuthSettings.model_validate(
                {
                    "issuer_url": base,
                    "resource_server_url": f"{base}/mcp",
                    "client_registration_options": ClientRegistrationOptions(
                        enabled=True, valid_scopes=["user", "admin"], default_scopes=["user"]
                    ),
                    "required_scopes": ["user"],
                    "validate_token_resource": False,
                    "identity_assertion_enabled": True,
                }
            )
        server = MCPServer("guarded", auth_server_provider=authority, auth=settings, log_level="CRITICAL")

        @server.tool()
        def add(a: int, b: int) -> int:
            return a + b

        @server.tool()
        async def slow(seconds: float) -> str:
            await anyio.sleep(seconds)
            return "slept"

        self.http = server.streamable_http_app(json_response=True)
        self.sse = server.sse_app()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            self.authority.requests[path] += 1
            if path == "/token":
                await self._token(scope, receive, send)
                return
            if path == "/register" and self.authority.registration_fault is not None:
                await self._fault(self.authority.registration_fault, send, b"")
                return
            if path in ("/sse", "/messages/"):
                await self.sse(scope, receive, send)
                return
        await self.http(scope, receive, send)

    async def _token(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        self.authority.grants[form["grant_type"]] += 1
        self.authority.secrets.update(
            value for name, value in form.items() if name in ("code_verifier", "client_assertion")
        )
        if self.authority.token_fault is not None:
            await self._fault(self.authority.token_fault, send, body)
            return
        if form["grant_type"] == "client_credentials":
            await self._client_credentials(form, dict(scope["headers"]), send)
            return
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Any:
            return given.pop() if given else await receive()

        await self.http(scope, again, send)

    async def _client_credentials(self, form: dict[str, str], headers: dict[bytes, bytes], send: Any) -> None:
        basic = headers.get(b"authorization", b"").removeprefix(b"Basic ")
        name, _, secret = base64.b64decode(basic).decode().partition(":")
        if "client_assertion" in form:
            claims = jwt.decode(
                form["client_assertion"],
                self.authority.public_key,
                algorithms=["ES256"],
                audience=self.base,
            )
            welcome = claims["sub"] == "robot"
        else:
            welcome = (name, unquote(secret)) == ("robot", self.authority.secret)
        if welcome:
            await _json(send, 200, self.authority.grant("robot", ["user"]).model_dump(exclude_none=True))
        else:
            await _json(send, 401, {"error": "invalid_client"})

    async def _fault(self, fault: Fault, send: Any, body: bytes) -> None:
        match fault:
            case "500":
                await _json(send, 500, {"error": "server_error"})
            case "refuse":
                await _json(send, 400, {"error": "invalid_grant", "error_description": "it is stale"})
            case "garbage":
                await _answer(send, 200, b"<html>" + self.authority.secret.encode(), b"text/html")
            case "no token":
                await _json(send, 200, {"access_token": 5, "refresh_token": self.authority.secret})
            case "echo":
                fields = parse_qs(body.decode())
                await _json(send, 400, {"error": "bad", "error_description": str(fields), "form": fields})
            case "redirect":
                await _answer(send, 307, b"", b"text/plain", (b"location", b"http://127.0.0.1:1/token"))
            case "flood":
                await _answer(send, 200, b"x" * (2 * 1024 * 1024), b"application/json")
            case "hang":
                await anyio.sleep(60)


async def _json(send: Any, status: int, value: Any) -> None:
    await _answer(send, status, json.dumps(value).encode(), b"application/json")


async def _answer(send: Any, status: int, body: bytes, kind: bytes, *headers: tuple[bytes, bytes]) -> None:
    fields = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


class GuardedServer:
    """A running server."""

    def __init__(self, authority: Authority, base: str) -> None:
        self.authority = authority
        self.base = base

    @property
    def url(self) -> str:
        return f"{self.base}/mcp"

    @property
    def sse_url(self) -> str:
        return f"{self.base}/sse"


@contextmanager
def guarded_server() -> Iterator[GuardedServer]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    authority = Authority()
    app = Guarded(authority, base)

    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    config = uvicorn.Config(
        lifespan,
        log_config=None,
        log_level="critical",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="guarded server")
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)  # another thread's loop: there is nothing to wait for but its word
        yield GuardedServer(authority, base)
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


def identity_client(authority: Authority) -> str:
    """A client that may use the grant of identity assertions."""
    authority.clients["employee"] = OAuthClientInformationFull(
        client_id="employee",
        client_secret=authority.secret,
        redirect_uris=None,
        grant_types=[JWT_BEARER_GRANT_TYPE],
        token_endpoint_auth_method="client_secret_post",
        scope="user",
    )
    return "employee"
