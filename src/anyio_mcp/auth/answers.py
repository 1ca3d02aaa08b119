"""What authorization servers answer, made fit for the SDK's flows, whose exceptions and logs quote what
they read.

Liberal in what is taken: members that are null or empty are not there, a form is as good as JSON, an
optional member of the wrong kind is left out. What is missing, or said by the server to be wrong, is a
typed error in the server's own words, cut, filtered, and without the secrets of the request. Pure
functions; sends nothing.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, cast
from urllib.parse import parse_qsl, quote, quote_plus, unquote

import httpx2
from mcp.client.auth import OAuthFlowError, OAuthRegistrationError, OAuthTokenError
from mcp.shared.auth import (
    OAuthClientInformationFull,
    OAuthMetadata,
    OAuthToken,
    ProtectedResourceMetadata,
)
from pydantic import BaseModel, ValidationError

from anyio_mcp._text import printable
from anyio_mcp.auth.hosts import canonical_host
from anyio_mcp.auth.origins import Origins
from anyio_mcp.auth.records import MAX_LIFE, is_sendable
from anyio_mcp.transports._url import DEFAULT_PORTS, visible

FORM: Final = "application/x-www-form-urlencoded"

MAX_LISTED: Final = 20
"""Authorization servers of one resource that are looked at."""

_SECRET_FIELDS: Final = frozenset(
    {"code", "code_verifier", "refresh_token", "client_secret", "client_assertion", "assertion"}
)
# https://www.rfc-editor.org/rfc/rfc9449 and https://www.rfc-editor.org/rfc/rfc8693#section-2.2.1: a token
# of such a type is nothing to put behind "Bearer". Any other word is one of a server that means a bearer
# token.
_OTHER_TYPES: Final = frozenset({"dpop", "mac", "pop", "n_a"})
_OUTAGES: Final = frozenset({"server_error", "temporarily_unavailable", "slow_down"})
_WORDS: Final = 200
_SHORTEST_SECRET: Final = 5

Members = Mapping[str, Any]


def members_of(body: bytes, content_type: str = "") -> dict[str, Any] | None:
    """The members of an answer, those that are null or empty left out; None if it has none."""
    found: Any = None
    if FORM not in content_type.lower():
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
    if found is None:
        # GitHub answers a request for a token with a form, whatever was asked for, and others have copied it.
        # https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps
        text = body.decode("utf-8", "replace")
        with suppress(ValueError):
            if re.match(r"[a-z_]+=", text):
                found = dict(parse_qsl(text, max_num_fields=50))
    if not isinstance(found, dict):
        return None
    named = cast("dict[str, Any]", found)
    return {name: value for name, value in named.items() if value is not None and value not in ("", [], {})}


def words_of(members: Members, outgoing: httpx2.Request | None = None) -> dict[str, str]:
    """`error` and `error_description` of an answer, as they may be quoted; empty if it names no error."""
    error = members.get("error")
    if isinstance(error, dict):  # as APIs of the server's own have it
        inner = cast("dict[str, Any]", error)
        error = inner.get("code") or inner.get("status") or inner.get("message")
        members = {"error": error, "error_description": inner.get("message")}
    if error is None and members.get("ok") is False:
        error = "refused"
    kept: dict[str, str] = {}
    for name, value in (("error", error), ("error_description", members.get("error_description"))):
        if isinstance(value, str | int) and not isinstance(value, bool):
            kept[name] = quotable(str(value), outgoing)
    return kept if "error" in kept else {}


def quotable(text: str, outgoing: httpx2.Request | None = None) -> str:
    """Text of a server's as it may stand in an exception or a log, without the secrets it was sent."""
    for secret in () if outgoing is None else secrets_of(outgoing):
        text = text.replace(secret, "***")
    return printable(text, _WORDS)


def form(request: httpx2.Request) -> dict[str, str]:
    """The fields of a request to a token endpoint; empty for any other request."""
    if not request.headers.get("content-type", "").startswith(FORM):
        return {}
    return dict(parse_qsl(request.content.decode("utf-8", "replace")))


def token_answer(outgoing: httpx2.Request, response: httpx2.Response) -> tuple[int, bytes]:
    """The status and the body of an answer about a token.

    Raises `OAuthTokenError` for a success that is none, and for a failure that says nothing about the grant.
    """
    where, status = visible(str(outgoing.url)), response.status_code
    refreshes = form(outgoing).get("grant_type") == "refresh_token"
    members = members_of(response.content, response.headers.get("content-type", "")) or {}
    words = words_of(members, outgoing)
    said = ": ".join(words.values())
    if refreshes and (status >= 500 or status == 429 or words.get("error") in _OUTAGES):
        # An outage says nothing about the refresh token: signing in anew would not end it.
        raise OAuthTokenError(
            f"the token was not refreshed: {where} answered with status {status}{said and f': {said}'}"
        )
    if status not in (200, 201):
        return status, json.dumps(words).encode() if words else b""
    if words and not isinstance(members.get("access_token"), str):
        # RFC 6749, 5.2 wants a status of 400; GitHub and Slack have 200.
        if refreshes:
            return 400, json.dumps(words).encode()
        raise OAuthTokenError(f"{where} refused to give a token: {said}")
    return 200, json.dumps(_token(members, where)).encode()


def _token(members: Members, where: str) -> dict[str, Any]:
    token = members.get("access_token")
    if not isinstance(token, str):
        raise OAuthTokenError(f"{where} answered with something that is no token")
    if not is_sendable(token):
        raise OAuthTokenError(f"{where} answered with a token that cannot be sent in a header")
    kind = members.get("token_type")
    if isinstance(kind, str) and kind.lower() in _OTHER_TYPES:
        raise OAuthTokenError(f"{where} answered with a token of type {quotable(kind)!r}, not of type Bearer")
    kept: dict[str, Any] = {"access_token": token, "token_type": "Bearer"}
    seconds = _seconds(members.get("expires_in"))
    if seconds is not None:
        kept["expires_in"] = seconds
    scope: Any = members.get("scope")
    if isinstance(scope, list):
        scope = " ".join(each for each in cast("list[Any]", scope) if isinstance(each, str))
    others = {"scope": scope, "refresh_token": members.get("refresh_token")}
    kept.update(
        {
            name: value
            for name, value in others.items()
            if _fits(OAuthToken, {"access_token": "x", name: value})
        }
    )
    return kept


def _seconds(value: object) -> int | None:
    """How long a token lives; None if that is not known. Zero and less is how some say "for ever"."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value[:30])
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value <= 0:
        return None
    return max(1, math.floor(min(value, MAX_LIFE)))


def client_answer(outgoing: httpx2.Request, response: httpx2.Response) -> bytes:
    """The body of a registration that succeeded. Raises `OAuthRegistrationError` for one that did not."""
    where, status = visible(str(outgoing.url)), response.status_code
    members = members_of(response.content) or {}
    words = words_of(members, outgoing)
    if status not in (200, 201) or (words and "client_id" not in members):
        said = ": ".join(words.values())
        raise OAuthRegistrationError(
            f"Registration failed: {status} from {where}{said and f': {said}'}; "
            "a client that is registered already is named by OAuth(client_id=)"
        )
    kept: dict[str, Any] = {}
    for name in OAuthClientInformationFull.model_fields:
        value = members.get(name)
        # Where the registration was made is not for the answer to say (SEP-2352).
        usable = value is not None and _fits(OAuthClientInformationFull, {"client_id": "x", name: value})
        if usable and name != "issuer":
            kept[name] = value
    if not isinstance(kept.get("client_id"), str) or not _fits(OAuthClientInformationFull, kept):
        raise OAuthRegistrationError(f"{where} answered with something that is no client")
    if "client_secret" in kept:
        kept.setdefault("token_endpoint_auth_method", "client_secret_basic")  # RFC 7591, 2
    return json.dumps(kept).encode()


def resource_answer(body: bytes, well_known: bool, origins: Origins) -> dict[str, Any] | None:
    """The metadata of a resource with one authorization server, the one to use; None for no metadata.

    Raises `OAuthFlowError` if it names authorization servers, and none that may be used.
    """
    members = members_of(body)
    listed: Any = None if members is None else members.get("authorization_servers")
    if members is None or not isinstance(listed, list):
        return None
    servers = [each for each in cast("list[Any]", listed)[:MAX_LISTED] if isinstance(each, str)]
    resource = members.get("resource")
    if resource is None and well_known:
        # RFC 9728 requires it. Where the server itself has answered it can mean nothing else.
        resource = origins.server_url
    kept: dict[str, Any] = {"resource": resource}
    scopes = members.get("scopes_supported")
    if isinstance(scopes, list) and all(isinstance(each, str) for each in cast("list[Any]", scopes)):
        kept["scopes_supported"] = scopes
    if not servers:
        return None
    chosen = _authorization_server(servers, origins)
    kept["authorization_servers"] = [chosen]
    return kept if _fits(ProtectedResourceMetadata, kept) else None


def _authorization_server(servers: list[str], origins: Origins) -> str:
    issuer = origins.issuer
    if issuer is not None:
        for each in servers:
            if same_issuer(each, issuer):
                return each
        raise OAuthFlowError(
            f"{visible(origins.server_url)} wants tokens of {visible(servers[0])}, "
            f"not of the issuer {visible(issuer)}"
        )
    refused: OAuthFlowError | None = None
    for each in servers:
        try:
            origins.check(each)
        except OAuthFlowError as error:
            refused = refused or error
        else:
            return each
    raise refused or OAuthFlowError("no authorization server is named")


def server_answer(
    body: bytes, expected: str | None, origins: Origins, *, registers: bool
) -> dict[str, Any] | None:
    """The metadata of an authorization server, what is of use in it; None for no metadata.

    `registers`: whether a client has to be registered, so that it matters where. Raises `OAuthFlowError`
    for an endpoint that must not be asked, or shown to the user.
    """
    members = members_of(body)
    if members is None or not isinstance(members.get("issuer"), str):
        return None
    kept: dict[str, Any] = {}
    checked = ("authorization_endpoint", "token_endpoint", "registration_endpoint")[: 3 if registers else 2]
    required: dict[str, Any] = dict.fromkeys(("issuer", *checked[:2]), origins.server_url)
    for name in OAuthMetadata.model_fields:
        value = members.get(name)
        if name == "code_challenge_methods_supported" and isinstance(value, str):
            value = value.split()
        if value is None or not _fits(OAuthMetadata, {**required, name: value}):
            continue
        if name in checked:
            origins.check(str(value))
        kept[name] = value
    if expected is not None and same_issuer(members["issuer"], expected):
        kept["issuer"] = expected
    return kept if _fits(OAuthMetadata, kept) else None


def same_issuer(one: str, other: str) -> bool:
    """Whether two texts name one issuer.

    RFC 8414, 3.3 compares them letter by letter. Servers state theirs with a final slash in one place and
    without it in the next; both have one well-known address, of one host, so nobody else could be meant. Not
    for the `iss` that a browser brings (RFC 9207, 2.4): that one is compared letter by letter, by the SDK.
    """
    return one == other or _issuer(one) == _issuer(other) is not None


def _issuer(text: str) -> tuple[str, str, int | None, str, bytes] | None:
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError):
        return None
    port = url.port or DEFAULT_PORTS.get(url.scheme)
    return url.scheme, canonical_host(url.host), port, url.path.removesuffix("/"), url.query


def secrets_of(outgoing: httpx2.Request) -> list[str]:
    """What of a request to a token endpoint its answer may not repeat, as it is and as it was sent."""
    found = {value for key, value in form(outgoing).items() if key in _SECRET_FIELDS and value}
    credentials = outgoing.headers.get("authorization", "").rpartition(" ")[2]
    if credentials:
        found.add(credentials)
        with suppress(ValueError):
            _, _, secret = base64.b64decode(credentials).decode().partition(":")
            found.update({secret, unquote(secret)} - {""})
    spelled = {form for value in found for form in (value, quote(value, safe=""), quote_plus(value))}
    # One of a few letters is no secret, and would be found in every word.
    spelled = {each for each in spelled if len(each) >= _SHORTEST_SECRET}
    # The longest first: one may be a part of another.
    return sorted(spelled, key=len, reverse=True)


def _fits(model: type[BaseModel], members: Members) -> bool:
    try:
        model.model_validate_json(json.dumps(members))
    except ValidationError:
        return False
    return True
