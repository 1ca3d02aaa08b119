"""One case: what a server says instead of what is right, and the operation that meets it.

A case follows from its token alone: `target:era:seed`. It can be kept as a file, and be made smaller.
"""

from __future__ import annotations

import copy
import json
import random
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from tests.fuzz import traffic
from tests.fuzz.mutate import mutate, spoil, write

Target: TypeAlias = Literal["stdio", "http", "sse", "schema", "oauth", "config"]
TARGETS: Final[tuple[Target, ...]] = ("stdio", "http", "sse", "schema", "oauth", "config")

VERBS: Final = {
    "call_tool": "tools/call",
    "call_tool_mcp": "tools/call",
    "task": "tools/call",
    "list_tools": "tools/list",
    "list_resources": "resources/list",
    "list_resource_templates": "resources/templates/list",
    "list_prompts": "prompts/list",
    "read_resource": "resources/read",
    "get_prompt": "prompts/get",
    "complete": "completion/complete",
    "ping": "ping",
    "connect": "initialize",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    token: str
    target: str
    era: str
    verb: str
    says: dict[str, list[str]]
    """The bytes of each answer as latin-1, cut into what is sent at once."""
    valid: bool = False
    """Whether nothing is wrong with it, so that the operation has to succeed."""

    @property
    def size(self) -> int:
        return sum(len(chunk) for chunks in self.says.values() for chunk in chunks)

    def dump(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def load(cls, text: str) -> Case:
        return cls(**json.loads(text))


def from_token(token: str) -> Case:
    """The case of a token. Raises `ValueError` for what is none."""
    target, era, seed = token.split(":")
    if target not in TARGETS or era not in ("legacy", "modern"):
        raise ValueError(f"{token!r} is no token of a case")
    chance = random.Random(f"{target}:{era}:{seed}")
    case = Case(token=token, target=target, era=era, verb="", says={})
    match target:
        case "stdio":
            return _messages(case, chance, _lines)
        case "http":
            return _messages(case, chance, _response)
        case "sse":
            return _messages(case, chance, _events)
        case "schema":
            return _schema(case, chance)
        case "oauth":
            return _oauth(case, chance)
        case _:
            return _config(case, chance)


def _messages(case: Case, chance: random.Random, frame: Any) -> Case:
    verb = chance.choice([verb for verb in VERBS if case.era == "legacy" or verb != "ping"])
    method = VERBS[verb]
    if verb == "connect" and case.era == "modern":
        method = "server/discover"
    answer = traffic.answer(traffic.result_of(method, case.era))
    kind = chance.random()
    if kind < 0.1:
        del answer["result"]
        answer["error"] = copy.deepcopy(chance.choice(traffic.ERRORS))
    elif kind < 0.2 and method in ("tools/call", "prompts/get", "resources/read"):
        answer["result"] = copy.deepcopy(chance.choice(traffic.INPUT + traffic.TASKS))
    before = [copy.deepcopy(chance.choice(traffic.NOTES)) for _ in range(chance.choice([0, 0, 0, 1, 3]))]
    if chance.random() < 0.2:
        before.append(copy.deepcopy(chance.choice(traffic.REQUESTS)))
    messages: list[Any] = [*before, answer]
    changes = chance.choice([0, 1, 1, 1, 2, 3, 5])
    for _ in range(changes):
        at = chance.choice([-1, -1, chance.randrange(len(messages))])
        messages[at] = mutate(messages[at], chance)
    if chance.random() < 0.03:
        messages = [messages]
    if chance.random() < 0.05:
        messages.append(copy.deepcopy(messages[-1]))
    texts = [write(message, chance) for message in messages]
    data, framed_well = frame(texts, chance)
    plain = changes == 0 and kind >= 0.2 and framed_well and len(texts) == len(before) + 1
    if chance.random() < 0.25:
        plain = False
        for _ in range(chance.choice([1, 1, 2, 4])):
            data = spoil(data, chance)
    says = {method: _cut(data, chance)}
    if case.target == "sse" and chance.random() < 0.1:
        plain = False
        says["POST"] = [spoil(b"HTTP/1.1 202 X\r\ncontent-length: 0\r\n\r\n", chance).decode("latin-1")]
    if verb == "connect" and chance.random() < 0.1 and case.target != "stdio":
        plain = False
        says["notifications/initialized"] = [
            spoil(b"HTTP/1.1 202 X\r\ncontent-length: 0\r\n\r\n", chance).decode("latin-1")
        ]
    return replace(case, verb=verb, says=says, valid=plain and isinstance(messages[-1], dict))


def _cut(data: bytes, chance: random.Random) -> list[str]:
    text = data.decode("latin-1")
    match chance.randrange(6):
        case 0:
            at = chance.randrange(len(text) + 1)
            return [text[:at], text[at:]]
        case 1 if len(text) < 400:
            return list(text)
        case _:
            return [text]


def _lines(texts: list[bytes], chance: random.Random) -> tuple[bytes, bool]:
    end = chance.choice([b"\n", b"\n", b"\r\n", b"\n\n"])
    return end.join(texts) + end, True


HEADS: Final = [
    b"content-type: application/json",
    b"content-type: application/json; charset=utf-8",
    b"content-type: Application/JSON;charset=UTF-8",
    b"content-type: text/event-stream",
    b"content-type: text/event-stream; charset=latin-1",
    b"content-type: text/html",
    b"content-type: application/json-rpc",
    b"content-type:",
    b"content-encoding: identity",
    b"content-encoding: br",
    b"content-encoding: gzip",
    b"content-encoding: gzip, gzip",
    b"content-encoding: deflate",
    b"content-encoding: none",
    b"transfer-encoding: chunked",
    b"content-length: 5",
    b"content-length: 99999999999999999999",
    b"content-length: -1",
    b"content-length: 0",
    b"mcp-session-id: s2",
    b"mcp-session-id: \xe9",
    b"mcp-session-id:",
    b"set-cookie: a=b; Path=/",
    b"set-cookie: \xe9=\xff",
    b"x-note: caf\xe9",
    b"retry-after: 99999999999999999999999999999999",
    b"retry-after: \xe9",
    b"www-authenticate: Bearer",
    b'www-authenticate: Bearer resource_metadata="http://[::1", error="x"',
    b'www-authenticate: Bearer a=,,,=,"\\',
    b"location: http://127.0.0.1:1/",
    b"location: http://[::1",
    b"location: /mcp",
    b"location: \xe9",
    b"connection: close",
    b"connection: upgrade",
    b"upgrade: h2c",
    b"trailer: x",
    b"keep-alive: timeout=x",
    b"date: x",
    b" folded",
    b"no colon",
    b"x: " + b"y" * 20_000,
]
STATUSES: Final = [
    100,
    101,
    103,
    201,
    202,
    204,
    206,
    299,
    300,
    301,
    302,
    303,
    304,
    307,
    308,
    400,
    401,
    402,
    403,
    404,
    405,
    406,
    409,
    410,
    413,
    415,
    421,
    429,
    499,
    500,
    501,
    502,
    503,
    504,
    511,
    599,
    999,
    0,
]


def _response(texts: list[bytes], chance: random.Random) -> tuple[bytes, bool]:
    """One response with the messages in it."""
    well = True
    streams = len(texts) > 1 or chance.random() < 0.5
    if streams:
        body, kind = b"".join(_event(text, chance) for text in texts), b"text/event-stream"
    else:
        body, kind = texts[0], b"application/json"
    status = b"HTTP/1.1 200 OK"
    if chance.random() < 0.12:
        well = False
        status = b"HTTP/1.1 %d X" % chance.choice(STATUSES)
    heads = [status, b"content-type: " + kind]
    if chance.random() < 0.25:
        well = False
        heads[1:1] = [chance.choice(HEADS) for _ in range(chance.choice([1, 1, 2, 4]))]
        if chance.random() < 0.5:
            heads.pop()
    match chance.randrange(5):
        case 0:
            heads.append(b"connection: close")
        case 1:
            heads.append(b"transfer-encoding: chunked")
            pieces = [body[at : at + 1 + len(body) // 3] for at in range(0, len(body), 1 + len(body) // 3)]
            # A chunk with a place in it has another length than this says.
            if b"@ID@" in body or b"@TOKEN@" in body:
                heads[-1] = b"connection: close"
            else:
                body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        case 2:
            heads += [b"x-fuzz: gzip", b"content-encoding: gzip", b"content-length: @LEN@"]
        case _:
            heads.append(b"content-length: @LEN@")
    return b"\r\n".join(heads) + b"\r\n\r\n" + body, well


def _events(texts: list[bytes], chance: random.Random) -> tuple[bytes, bool]:
    return b"".join(_event(text, chance) for text in texts), True


def _event(text: bytes, chance: random.Random) -> bytes:
    end = chance.choice([b"\n", b"\n", b"\r\n", b"\r"])
    fields = [b"data: " + text] if chance.random() < 0.8 else [b"data:" + text]
    if chance.random() < 0.3:
        fields.insert(0, chance.choice([b"event: message", b"id: 1", b": comment", b"retry: 10"]))
    return end.join(fields) + end * 2


def _schema(case: Case, chance: random.Random) -> Case:
    """An output schema and a value."""
    schema, value = copy.deepcopy(traffic.SCHEMA), copy.deepcopy(traffic.STRUCTURED)
    for _ in range(chance.choice([0, 1, 2, 3])):
        schema = mutate(schema, chance)
    for _ in range(chance.choice([0, 1, 2])):
        value = mutate(value, chance)
    says = {"schema": [json.dumps(schema)], "value": [json.dumps(value)]}
    return replace(case, verb="call_tool", says=says)


RESOURCE: Final = "http://127.0.0.1:@PORT@"
DOCUMENTS: Final[dict[str, dict[str, Any]]] = {
    "resource": {
        "resource": RESOURCE + "/mcp",
        "authorization_servers": [RESOURCE],
        "scopes_supported": ["user"],
        "bearer_methods_supported": ["header"],
    },
    "authority": {
        "issuer": RESOURCE,
        "authorization_endpoint": RESOURCE + "/authorize",
        "token_endpoint": RESOURCE + "/token",
        "registration_endpoint": RESOURCE + "/register",
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
    },
    "register": {
        "client_id": "c",
        "client_secret": "s",
        "client_secret_expires_at": 0,
        "redirect_uris": [],
        "token_endpoint_auth_method": "client_secret_basic",
        "grant_types": ["authorization_code", "refresh_token"],
    },
    "token": {
        "access_token": "good",
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "user",
        "refresh_token": "r",
    },
}


def _oauth(case: Case, chance: random.Random) -> Case:
    """The documents of a sign-in, one or two of them different."""
    challenge = b'www-authenticate: Bearer resource_metadata="' + RESOURCE.encode() + b'/rm", scope="user"'
    says: dict[str, list[str]] = {}
    changed = chance.choice([[], ["resource"], ["authority"], ["register"], ["token"], ["token"], ["401"]])
    if chance.random() < 0.2:
        changed = [*changed, chance.choice(list(DOCUMENTS))]
    for name, document in DOCUMENTS.items():
        value: Any = copy.deepcopy(document)
        if name in changed and chance.random() < 0.1:
            value = {"error": "invalid_client", "error_description": "no", "error_uri": "https://x"}
        for _ in range(chance.choice([1, 1, 2, 3]) if name in changed else 0):
            value = mutate(value, chance)
        status = chance.choice(STATUSES) if name in changed and chance.random() < 0.2 else 200
        kind = b"content-type: application/json"
        heads = [b"HTTP/1.1 %d X" % status, kind, b"connection: close", b"content-length: @LEN@"]
        if name in changed and chance.random() < 0.2:
            heads.append(chance.choice(HEADS))
        data = b"\r\n".join(heads) + b"\r\n\r\n" + write(value, chance)
        if name in changed and chance.random() < 0.15:
            data = spoil(data, chance)
        says[name] = [data.decode("latin-1")]
    data = b"HTTP/1.1 401 X\r\n" + challenge + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    if "401" in changed:
        data = spoil(data, chance)
    says["401"] = [data.decode("latin-1")]
    return replace(case, verb="connect", says=says, valid=not changed)


CONFIG: Final[dict[str, Any]] = {
    "mcpServers": {
        "a": {
            "command": "python",
            "args": ["-c", "pass", "${HOME}"],
            "env": {"K": "${USER:-x}"},
            "cwd": "/",
            "type": "stdio",
            "disabled": False,
            "timeout": 30,
            "envFile": "/nothing.env",
        },
        "b": {
            "url": "http://127.0.0.1:1/mcp",
            "type": "http",
            "headers": {"X": "${HOME}"},
            "transportType": "streamableHttp",
        },
        "c": {"url": "http://127.0.0.1:1/sse", "type": "sse", "auth": "token", "timeout": 5000},
    }
}


def _config(case: Case, chance: random.Random) -> Case:
    value: Any = copy.deepcopy(CONFIG)
    changes = chance.choice([0, 1, 1, 2, 4])
    for _ in range(changes):
        value = mutate(value, chance)
    data = write(value, chance)
    if chance.random() < 0.3:
        data = spoil(data, chance)
    return replace(case, verb="load", says={"file": [data.decode("latin-1")]})


def smaller(case: Case) -> list[Case]:
    """Cases with less in them, the smallest first."""
    found: list[Case] = []
    for name, chunks in case.says.items():
        text = "".join(chunks)
        if len(chunks) > 1:
            found.append(replace(case, valid=False, says={**case.says, name: [text]}))
        length = len(text)
        step = length // 2
        while step >= 1 and len(found) < 400:
            for at in range(0, length, step):
                cut = text[:at] + text[at + step :]
                found.append(replace(case, valid=False, says={**case.says, name: [cut]}))
            step //= 2
    return sorted(found, key=lambda each: each.size)
