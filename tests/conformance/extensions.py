"""Two ways to be authorized that the SDK has no provider for: DPoP (SEP-1932) and workload identity
federation (SEP-1933), each an `httpx2.Auth` as any user of the library may write one."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from mcp.client.auth import OAuthFlowError
from mcp.client.auth.utils import (
    build_oauth_authorization_server_metadata_discovery_urls,
    create_oauth_metadata_request,
    handle_auth_metadata_response,
    validate_metadata_issuer,
)
from mcp.shared.auth import OAuthToken

Flow = AsyncGenerator[httpx2.Request, httpx2.Response]


class DPoP(httpx2.Auth):
    """Binds the tokens of another authentication to a key of this process (RFC 9449).

    Adds a proof to each token request and to each request that bears a token, and repeats the one that
    was refused for want of the server's nonce.
    """

    def __init__(self, inner: httpx2.Auth) -> None:
        self._inner = inner
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._public = jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        # One for each server that demands one, of the two there are.
        self._nonces: dict[str, str] = {}

    async def async_auth_flow(self, request: httpx2.Request) -> Flow:
        flow = self._inner.async_auth_flow(request)
        try:
            outgoing = await anext(flow)
            while True:
                for_token = _asks_for_token(outgoing)
                self._prove(outgoing, for_token=for_token)
                response = yield outgoing
                if self._learned_nonce(response) and await _demands_nonce(response):
                    self._prove(outgoing, for_token=for_token)
                    response = yield outgoing
                    self._learned_nonce(response)
                outgoing = await flow.asend(await _as_bearer(response) if for_token else response)
        except StopAsyncIteration:
            return
        finally:
            await flow.aclose()

    def _prove(self, request: httpx2.Request, *, for_token: bool) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        bears = scheme in ("Bearer", "DPoP")
        if not (bears or for_token):
            return
        claims: dict[str, Any] = {
            "jti": str(uuid.uuid4()),
            "htm": request.method,
            "htu": str(request.url.copy_with(query=None, fragment=None)),
            "iat": int(time.time()),
        }
        nonce = self._nonces.get(_origin(request))
        if nonce is not None:
            claims["nonce"] = nonce
        if bears:
            digest = hashlib.sha256(token.encode()).digest()
            claims["ath"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            request.headers["authorization"] = f"DPoP {token}"
        headers = {"typ": "dpop+jwt", "jwk": self._public}
        request.headers["dpop"] = jwt.encode(claims, self._key, algorithm="ES256", headers=headers)

    def _learned_nonce(self, response: httpx2.Response) -> bool:
        nonce = response.headers.get("dpop-nonce")
        if nonce is None or self._nonces.get(_origin(response.request)) == nonce:
            return False
        self._nonces[_origin(response.request)] = nonce
        return True


class WorkloadIdentity(httpx2.Auth):
    """A workload's own JWT, exchanged for an access token of the one authorization server it is for
    (RFC 7523, section 2.1). A refusal is final: the assertion would not get better."""

    def __init__(self, server_url: str, client_id: str, issuer: str, assertion: str) -> None:
        self._form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": assertion,
            "client_id": client_id,
            "resource": server_url,
        }
        self._issuer = issuer
        self._token: OAuthToken | None = None

    async def async_auth_flow(self, request: httpx2.Request) -> Flow:
        if self._token is None:
            endpoint: str | None = None
            for url in build_oauth_authorization_server_metadata_discovery_urls(self._issuer, self._issuer):
                found = yield create_oauth_metadata_request(url)
                go_on, metadata = await handle_auth_metadata_response(found)
                if metadata is not None:
                    validate_metadata_issuer(metadata, self._issuer)
                    endpoint = str(metadata.token_endpoint)
                if metadata is not None or not go_on:
                    break
            if endpoint is None:
                raise OAuthFlowError(f"{self._issuer} does not publish its metadata")
            answer = yield httpx2.Request("POST", endpoint, data=self._form)
            body = await answer.aread()
            if answer.status_code != 200:
                raise OAuthFlowError(f"the workload was refused a token, status {answer.status_code}")
            self._token = OAuthToken.model_validate_json(body)
        request.headers["authorization"] = f"Bearer {self._token.access_token}"
        yield request


def _origin(request: httpx2.Request) -> str:
    parts = urlsplit(str(request.url))
    return f"{parts.scheme}://{parts.netloc}"


def _asks_for_token(request: httpx2.Request) -> bool:
    if request.headers.get("content-type") != "application/x-www-form-urlencoded":
        return False
    return "grant_type" in parse_qs(request.content.decode())


async def _demands_nonce(response: httpx2.Response) -> bool:
    """Said by an authorization server in its body, by a resource server in its challenge."""
    if response.status_code == 401:
        return "use_dpop_nonce" in response.headers.get("www-authenticate", "")
    return response.status_code == 400 and b"use_dpop_nonce" in await response.aread()


async def _as_bearer(response: httpx2.Response) -> httpx2.Response:
    """The same token, of the only type the SDK's model of a token knows."""
    body = await response.aread()
    if response.status_code != 200:
        return response
    token: dict[str, Any] = json.loads(body)
    if token.get("token_type", "").lower() != "dpop":
        raise OAuthFlowError("the authorization server gave a token that is not bound to the key")
    return httpx2.Response(200, json={**token, "token_type": "Bearer"}, request=response.request)
