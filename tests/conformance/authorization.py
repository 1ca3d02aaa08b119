"""How the conformance client authorizes itself: a provider for each kind of authorization scenario.

Plays the parts that are not the client's: the user with a browser who agrees to everything, the
identity provider of an enterprise, a store of tokens that ends with the process.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, TokenStorage
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from anyio_mcp import MemoryTokenStore, OAuth
from tests.conformance.extensions import DPoP, WorkloadIdentity

CLIENT_METADATA_URL = "https://conformance-test.local/client-metadata.json"


class Memory(TokenStorage):
    """Tokens of this process, for the providers of the SDK."""

    def __init__(self, client_info: OAuthClientInformationFull | None = None) -> None:
        self._tokens: OAuthToken | None = None
        self._client_info = client_info

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client_info

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._client_info = client_info


async def agree(url: str) -> None:
    """A user in a browser who agrees to everything: follows the redirect back to this program."""
    async with httpx2.AsyncClient(timeout=10, follow_redirects=True) as http:
        await http.get(url)


class Browser:
    """The same user, where there is nobody to be sent back to: keeps what the redirect says."""

    def __init__(self) -> None:
        self._redirect: AuthorizationCodeResult | None = None

    async def open(self, url: str) -> None:
        async with httpx2.AsyncClient(timeout=10, follow_redirects=False) as http:
            location = (await http.get(url)).headers["location"]
        query = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        self._redirect = AuthorizationCodeResult(
            code=query["code"], state=query.get("state"), iss=query.get("iss")
        )

    async def redirected(self) -> AuthorizationCodeResult:
        if self._redirect is None:
            raise RuntimeError("the authorization server has not redirected yet")
        return self._redirect


async def provider_for(scenario: str, url: str, context: dict[str, Any]) -> httpx2.Auth | OAuth:
    """What authorizes the client in this scenario, with what the suite says it knows beforehand."""
    match scenario:
        case "auth/client-credentials-basic":
            return ClientCredentialsOAuthProvider(
                url,
                Memory(),
                client_id=context["client_id"],
                client_secret=context["client_secret"],
                issuer=await issuer_of(url),
            )
        case "auth/client-credentials-jwt":
            return private_key_jwt(url, context, await issuer_of(url))
        case "auth/enterprise-managed-authorization":
            return identity_assertion(url, context, await issuer_of(url))
        case "auth/wif-jwt-bearer":
            return WorkloadIdentity(url, context["client_id"], await issuer_of(url), context["valid_jwt"])
        case "auth/pre-registration":
            return signing_in_by_sdk(url, context)
        case "auth/dpop" | "auth/dpop-nonce":
            return DPoP(signing_in_by_sdk(url, context))
        case _:
            return signing_in()


def signing_in() -> OAuth:
    """The library's own way to sign in."""
    return OAuth(client_metadata_url=CLIENT_METADATA_URL, token_store=MemoryTokenStore(), open_browser=agree)


def signing_in_by_sdk(url: str, context: dict[str, Any]) -> OAuthClientProvider:
    """The SDK's way, with the registration that the suite has made beforehand, if it has."""
    redirect = AnyUrl("http://127.0.0.1:3000/callback")
    known: OAuthClientInformationFull | None = None
    if "client_id" in context:
        known = OAuthClientInformationFull(
            client_id=context["client_id"],
            client_secret=context["client_secret"],
            redirect_uris=[redirect],
            token_endpoint_auth_method="client_secret_basic",
        )
    browser = Browser()
    return OAuthClientProvider(
        url,
        OAuthClientMetadata(client_name="anyio-mcp conformance", redirect_uris=[redirect]),
        Memory(known),
        redirect_handler=browser.open,
        callback_handler=browser.redirected,
    )


def private_key_jwt(url: str, context: dict[str, Any], issuer: str) -> PrivateKeyJWTOAuthProvider:
    client_id = context["client_id"]
    assertion = SignedJWTParameters(
        issuer=client_id,
        subject=client_id,
        signing_algorithm=context["signing_algorithm"],
        signing_key=context["private_key_pem"],
    )
    return PrivateKeyJWTOAuthProvider(
        url,
        Memory(),
        client_id=client_id,
        assertion_provider=assertion.create_assertion_provider(),
        issuer=issuer,
    )


def identity_assertion(url: str, context: dict[str, Any], issuer: str) -> IdentityAssertionOAuthProvider:
    """The enterprise's way (SEP-990): its identity provider exchanges the user's ID token (RFC 8693)."""

    async def exchange(audience: str, resource: str) -> str:
        wanted = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
            "subject_token": context["idp_id_token"],
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "client_id": context["idp_client_id"],
            "audience": audience,
            "resource": resource,
        }
        async with httpx2.AsyncClient(timeout=10) as http:
            response = await http.post(context["idp_token_endpoint"], data=wanted)
        return response.raise_for_status().json()["access_token"]

    return IdentityAssertionOAuthProvider(
        url,
        Memory(),
        client_id=context["client_id"],
        client_secret=context["client_secret"],
        issuer=issuer,
        assertion_provider=exchange,
        token_endpoint_auth_method="client_secret_basic",
    )


async def issuer_of(url: str) -> str:
    """The authorization server. A deployment knows its own beforehand; of the suite's, only the server
    that is tested against can tell."""
    parts = urlsplit(url)
    metadata = f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path}"
    async with httpx2.AsyncClient(timeout=10) as http:
        response = await http.get(metadata)
    return response.raise_for_status().json()["authorization_servers"][0]
