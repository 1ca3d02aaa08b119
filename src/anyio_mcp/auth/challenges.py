"""What a server says when it wants a token, or a better one: the `WWW-Authenticate` of a 401 or a 403.

Pure functions on text of the server's: bounded, and of linear cost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, final

import httpx2

MAX_CHALLENGE: Final = 8 * 1024
"""Characters that are looked at. What stands behind them is none of the challenge."""

MAX_SCOPE: Final = 2 * 1024
"""Characters of the scopes a server may have the user asked for."""

# The lookbehind keeps the cost linear: a name is tried from its first letter only.
_PARAMETER: Final = re.compile(
    r"""(?<![a-z_])([a-z_]+)[ \t]*=[ \t]*(?:"([^"]*)"|'([^']*)'|([^\s,"']+))""", re.IGNORECASE
)
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


@final
@dataclass(frozen=True, slots=True)
class Challenge:
    """What is missing, in the server's words."""

    status: int
    scope: str | None = None
    resource_metadata: str | None = None
    """Where the server says that its metadata is: a URL, a path, or anything else."""

    @property
    def is_step_up(self) -> bool:
        """Whether the token is good, but not for this."""
        return self.status == 403

    def response(
        self, request: httpx2.Request, scope: str | None, metadata_url: str | None
    ) -> httpx2.Response:
        """The same challenge, as every reader understands it."""
        members = {
            "error": "insufficient_scope" if self.is_step_up else "invalid_token",
            "scope": scope,
            "resource_metadata": metadata_url,
        }
        text = ", ".join(f'{name}="{value}"' for name, value in members.items() if value)
        return httpx2.Response(self.status, headers={"www-authenticate": f"Bearer {text}"}, request=request)


def challenge_of(response: httpx2.Response) -> Challenge | None:
    """What `response` asks for; None for one that another token would not change."""
    if response.status_code not in (401, 403):
        return None
    text = response.headers.get("www-authenticate", "")[:MAX_CHALLENGE]
    members: dict[str, str] = {}
    for match in _PARAMETER.finditer(text):
        name, *values = match.groups()
        # The first one counts, as it does to the SDK.
        members.setdefault(name.lower(), next((value for value in values if value), ""))
    if response.status_code == 403 and members.get("error") != "insufficient_scope":
        return None
    return Challenge(
        response.status_code, scopes_of(members.get("scope")), members.get("resource_metadata") or None
    )


def scopes_of(text: str | None) -> str | None:
    """The scopes in a text of the server's that can be scopes, each once."""
    names = dict.fromkeys(name for name in (text or "")[:MAX_SCOPE].split() if _SCOPE.fullmatch(name))
    return " ".join(names) or None
