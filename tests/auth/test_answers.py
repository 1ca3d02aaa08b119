"""What is made of answers and challenges: liberal in what works, typed in what does not. No network."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx2
import pytest
from mcp.client.auth import OAuthFlowError, OAuthRegistrationError, OAuthTokenError
from mcp.shared.auth import OAuthClientInformationFull, OAuthMetadata, OAuthToken

from anyio_mcp.auth.answers import (
    client_answer,
    resource_answer,
    same_issuer,
    server_answer,
    token_answer,
    words_of,
)
from anyio_mcp.auth.challenges import MAX_CHALLENGE, Challenge, challenge_of
from anyio_mcp.auth.origins import Origins

HERE = Origins(server_url="https://mcp.example.com/mcp")
AS = "https://as.example.com"


def asked(**fields: str) -> httpx2.Request:
    return httpx2.Request("POST", f"{AS}/token", data={"grant_type": "authorization_code", **fields})


def token(body: Any, status: int = 200, kind: str = "application/json", **fields: str) -> OAuthToken:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx2.Response(status, content=content, headers={"content-type": kind})
    found, text = token_answer(asked(**fields), response)
    assert found == 200
    return OAuthToken.model_validate_json(text)


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"token_type": None},
        {"token_type": ""},
        {"token_type": "user"},
        {"token_type": "BEARER"},
        {"token_type": 5},
        {"expires_in": ""},
        {"expires_in": None},
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": "soon"},
        {"expires_in": True},
        {"expires_in": {}},
        {"scope": None},
        {"scope": ""},
        {"scope": 5},
        {"refresh_token": None},
        {"refresh_token": ""},
        {"refresh_token": 5},
        {"id_token": "x.y.z", "ok": True, "error": None},
        {"error": ""},
    ],
)
def test_a_token_with_harmless_oddities_is_a_token(odd: dict[str, Any]) -> None:
    found = token({"access_token": "key", "token_type": "Bearer", **odd})
    assert (found.access_token, found.token_type, found.expires_in) == ("key", "Bearer", None)
    assert (found.scope, found.refresh_token) == (None, None)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(3599.5, 3599), ("3600", 3600), (0.2, 1), (10**400, 315360000), (1e300, 315360000)],
)
def test_a_life_in_any_spelling_is_a_life(said: Any, seconds: int) -> None:
    assert token({"access_token": "key", "expires_in": said}).expires_in == seconds


def test_scopes_in_a_list_are_scopes() -> None:
    assert token({"access_token": "key", "scope": ["a", 5, "b"]}).scope == "a b"


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded; charset=utf-8", "text/plain", ""])
def test_a_form_is_as_good_as_json(kind: str) -> None:
    found = token(b"access_token=a%2Bb&scope=x+y&token_type=bearer&expires_in=", 200, kind)
    assert (found.access_token, found.scope) == ("a+b", "x y")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/json"])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"error": "bad_verification_code", "error_description": "expired"},
            "bad_verification_code: expired",
        ),
        ({"ok": False, "error": "invalid_code"}, "invalid_code"),
        ({"ok": False}, "refused"),
        ({"error": {"code": 190, "message": "no such app"}}, "190: no such app"),
        (b"error=bad_code&error_description=The+code+is+old", "bad_code: The code is old"),
    ],
)
def test_an_error_with_status_200_is_told_in_the_servers_words(body: Any, words: str, kind: str) -> None:
    if kind != "application/json" and not isinstance(body, bytes):
        kind = "text/javascript"
    with pytest.raises(OAuthTokenError, match=words):
        token(body, 200, kind)


@pytest.mark.parametrize("status", [200, 201, 400])
def test_a_refresh_token_that_is_void_is_one_whatever_the_status(status: int) -> None:
    request = httpx2.Request(
        "POST", f"{AS}/token", data={"grant_type": "refresh_token", "refresh_token": "r"}
    )
    response = httpx2.Response(status, json={"error": "invalid_grant"})
    assert token_answer(request, response) == (400, b'{"error": "invalid_grant"}')


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, {}), (503, {"error": "x"}), (429, {}), (400, {"error": "temporarily_unavailable"})],
)
def test_an_outage_says_nothing_about_a_refresh_token(status: int, body: Any) -> None:
    request = httpx2.Request(
        "POST", f"{AS}/token", data={"grant_type": "refresh_token", "refresh_token": "r"}
    )
    with pytest.raises(OAuthTokenError, match="not refreshed"):
        token_answer(request, httpx2.Response(status, json=body))


@pytest.mark.parametrize(
    "secret", ["S3CRET\n", "S3CRET\r\nx: y", " S3CRET", "S3CRET\x00", "S3CRÉT", "S3CRET\ud800", "S3" * 40000]
)
def test_a_token_that_no_header_can_hold_is_refused_and_not_quoted(secret: str) -> None:
    with pytest.raises(OAuthTokenError, match="cannot be sent") as caught:
        token({"access_token": secret, "token_type": "Bearer"})
    assert "S3" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no token"),
        (b"<html>", "no token"),
        (b"[" * 100000, "no token"),
        (b"9" * 5000, "no token"),
        (b"null", "no token"),
        (b"[]", "no token"),
        (b"\xff\xfe", "no token"),
        ({}, "no token"),
        ({"access_token": None}, "no token"),
        ({"access_token": ""}, "no token"),
        ({"access_token": 5}, "no token"),
        ({"access_token": ["a"]}, "no token"),
        ({"access_token": "key", "token_type": "DPoP"}, "DPoP"),
        ({"access_token": "key", "token_type": "mac"}, "mac"),
    ],
)
def test_what_is_no_token_is_said_to_be_none(body: Any, why: str) -> None:
    with pytest.raises(OAuthTokenError, match=why):
        token(body)


def test_the_words_of_a_server_act_on_no_terminal_and_are_cut() -> None:
    words = words_of({"error": "bad\x1b[2J\x9b\u202e", "error_description": "x" * 5000})
    assert words["error"].isprintable()
    assert len(words["error_description"]) <= 210


# --- clients -----------------------------------------------------------------------------------------


def client(body: Any, status: int = 201) -> OAuthClientInformationFull:
    request = httpx2.Request("POST", f"{AS}/register", json={})
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client_answer(request, httpx2.Response(status, content=content))
    return OAuthClientInformationFull.model_validate_json(answer)


@pytest.mark.parametrize(
    "odd",
    [
        {"client_uri": "", "logo_uri": None, "contacts": None},
        {"client_uri": "no URL", "jwks_uri": 5, "contacts": "me", "response_types": "code"},
        {"client_secret_expires_at": "", "client_id_issued_at": "today"},
        {"redirect_uris": "x"},
        {"issuer": "https://evil.example"},
    ],
)
def test_a_client_with_odd_members_is_a_client(odd: dict[str, Any]) -> None:
    found = client({"client_id": "me", **odd})
    assert (found.client_id, found.issuer) == ("me", None)


def test_a_secret_that_comes_without_a_method_is_sent_as_the_rfc_says() -> None:
    assert (
        client({"client_id": "me", "client_secret": "s"}).token_endpoint_auth_method == "client_secret_basic"
    )
    assert client({"client_id": "me"}).token_endpoint_auth_method is None


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 405, 500])
def test_a_registration_that_is_refused_says_why_and_what_to_do(status: int) -> None:
    with pytest.raises(OAuthRegistrationError, match=r"not for you.*client_id="):
        client({"error": "access_denied", "error_description": "not for you"}, status)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", {}, {"client_id": None}, {"client_id": 5}])
def test_what_is_no_client_is_said_to_be_none(body: Any) -> None:
    with pytest.raises(OAuthRegistrationError, match="no client"):
        client(body)


# --- metadata ----------------------------------------------------------------------------------------


def metadata(expected: str | None = AS, *, registers: bool = True, **members: Any) -> OAuthMetadata | None:
    said = {
        "issuer": AS,
        "authorization_endpoint": f"{AS}/authorize",
        "token_endpoint": f"{AS}/token",
        "registration_endpoint": f"{AS}/register",
        **members,
    }
    found = server_answer(json.dumps(said).encode(), expected, HERE, registers=registers)
    return None if found is None else OAuthMetadata.model_validate(found)


@pytest.mark.parametrize(
    "odd",
    [
        {"op_policy_uri": "", "service_documentation": None, "revocation_endpoint": "nonsense"},
        {"scopes_supported": "a b", "ui_locales_supported": 5, "grant_types_supported": {}},
        {"client_id_metadata_document_supported": "perhaps"},
    ],
)
def test_metadata_with_odd_members_is_metadata(odd: dict[str, Any]) -> None:
    found = metadata(**odd)
    assert found is not None
    assert str(found.token_endpoint) == f"{AS}/token"


@pytest.mark.parametrize("methods", [["S256"], "S256", ["plain", "S256"]])
def test_the_methods_of_pkce_may_be_a_text(methods: Any) -> None:
    found = metadata(code_challenge_methods_supported=methods)
    assert found is not None
    assert "S256" in (found.code_challenge_methods_supported or ())


@pytest.mark.parametrize(
    ("stated", "expected"),
    [(AS, f"{AS}/"), (f"{AS}/", AS), (f"{AS}/t/", f"{AS}/t"), ("https://AS.example.com:443", AS)],
)
def test_an_issuer_with_and_without_a_final_slash_is_one(stated: str, expected: str) -> None:
    found = metadata(expected, issuer=stated)
    assert found is not None
    assert str(found.issuer) == expected


@pytest.mark.parametrize(
    "other",
    ["https://evil.example", "http://as.example.com", f"{AS}:8443", f"{AS}/t", f"{AS}//", f"{AS}?x=1", "x"],
)
def test_another_issuer_is_another_one(other: str) -> None:
    assert not same_issuer(AS, other)


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "registration_endpoint"])
@pytest.mark.parametrize("url", ["http://as.example.com/x", "https://127.0.0.1/x", "https://10.0.0.1/x"])
def test_an_endpoint_that_is_none_of_the_servers_business_ends_the_sign_in(name: str, url: str) -> None:
    with pytest.raises(OAuthFlowError, match="signing in leads to"):
        metadata(**{name: url})
    if name == "registration_endpoint":
        assert metadata(registers=False, **{name: url}) is not None


@pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///etc/passwd", "nonsense", "", None, 5])
def test_metadata_whose_endpoints_are_no_urls_is_none(url: Any) -> None:
    assert metadata(token_endpoint=url) is None
    assert metadata(authorization_endpoint=url) is None


@pytest.mark.parametrize("resource", [None, "", "https://mcp.example.com/mcp"])
def test_a_resource_that_does_not_name_itself_is_where_it_was_found(resource: Any) -> None:
    said = json.dumps({"resource": resource, "authorization_servers": [5, AS]}).encode()
    found = resource_answer(said, True, HERE)
    assert found == {"resource": HERE.server_url, "authorization_servers": [AS]}
    elsewhere = resource_answer(said, False, HERE)
    assert (elsewhere is not None) == bool(resource)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"authorization_servers": []}', b"\xff", b"[" * 99999])
def test_what_names_no_authorization_server_is_no_metadata(body: bytes) -> None:
    assert resource_answer(body, True, HERE) is None


def test_the_first_authorization_server_that_may_be_used_is() -> None:
    said = json.dumps({"authorization_servers": ["https://127.0.0.1", "http://as.example.com", AS]}).encode()
    found = resource_answer(said, True, HERE)
    assert found is not None
    assert found["authorization_servers"] == [AS]
    with pytest.raises(OAuthFlowError):
        resource_answer(b'{"authorization_servers": ["https://127.0.0.1"]}', True, HERE)


def test_the_issuer_of_the_user_is_the_one_that_is_used() -> None:
    mine = Origins(server_url=HERE.server_url, issuer="https://mine.example.com")
    said = json.dumps({"authorization_servers": [AS, "https://mine.example.com/"]}).encode()
    found = resource_answer(said, True, mine)
    assert found is not None
    assert found["authorization_servers"] == ["https://mine.example.com/"]
    with pytest.raises(OAuthFlowError, match=r"as\.example\.com.* not of the issuer .*mine"):
        resource_answer(json.dumps({"authorization_servers": [AS]}).encode(), True, mine)


# --- challenges --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "text", "challenge"),
    [
        (401, "", Challenge(401)),
        (401, "Bearer", Challenge(401)),
        (401, 'Basic realm="x", Bearer scope="a b"', Challenge(401, "a b")),
        (401, "Bearer scope=a, resource_metadata=https://x/y", Challenge(401, "a", "https://x/y")),
        (401, "Bearer resource_metadata='https://x/y'", Challenge(401, None, "https://x/y")),
        (401, 'Bearer scope="", resource_metadata=""', Challenge(401)),
        (401, 'Bearer scope="a a \x01 b"', Challenge(401, "a b")),
        (403, 'Bearer error="insufficient_scope", scope="a"', Challenge(403, "a")),
        (403, "Bearer error=insufficient_scope", Challenge(403)),
        (403, 'Bearer error="other"', None),
        (403, "", None),
        (200, 'Bearer error="insufficient_scope"', None),
        (500, "Bearer", None),
    ],
)
def test_what_a_refusal_asks_for(status: int, text: str, challenge: Challenge | None) -> None:
    assert challenge_of(httpx2.Response(status, headers={"www-authenticate": text})) == challenge


@pytest.mark.parametrize("part", ["a", "a=", 'a="', "a = ", "scope='", "=", " ", "scope=x,"])
def test_a_challenge_of_any_length_costs_next_to_nothing(part: str) -> None:
    response = httpx2.Response(401, headers={"www-authenticate": part * 1_000_000})
    began = time.process_time()
    found = challenge_of(response)
    assert time.process_time() - began < 0.2
    assert found is not None
    assert len(found.scope or "") <= MAX_CHALLENGE
