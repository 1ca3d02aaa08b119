"""The names a group gives out: what stands in front of a server's own, so that no two are the same.

Plain functions of strings. A set of servers is accepted only if no prefix, with its mark, begins
another's: then a name has one reading, whatever the servers call their things.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

URI_MARK: Final = "+"
"""Between prefix and URI. `docs+file:///a` is a URI again where the prefix has only letters, digits,
`+`, `-` and `.`; an underscore may not occur in a URI's scheme."""

_SHOWN: Final = 100
"""Characters of an unknown name that an error repeats: it may come from a language model."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Naming:
    """How names of one group are made and read."""

    separator: str = "_"
    prefix: Callable[[str], str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.separator, str):
            raise TypeError(f"separator must be a str, not {type(self.separator).__name__}")
        if not self.separator.isprintable() or not self.separator:
            raise ValueError(f"separator must have printable characters, not {self.separator!r}")
        if self.prefix is not None and not callable(self.prefix):
            raise TypeError("prefix must be a function from the name of a server to a str")

    def prefix_of(self, server: str, taken: Mapping[str, str]) -> str:
        """The prefix of one more server, next to those that are `taken`, by server.

        Raises `ValueError` if it cannot be one, or if a name could then be read in two ways.
        """
        prefix = server if self.prefix is None else self.prefix(server)
        if not isinstance(prefix, str):
            raise TypeError(f"the prefix of server {server!r} must be a str, not {type(prefix).__name__}")
        if not prefix or not prefix.isprintable():
            raise ValueError(f"the prefix of server {server!r} must have printable characters: {prefix!r}")
        for other, its in taken.items():
            for mark in (self.separator, URI_MARK):
                if f"{prefix}{mark}".startswith(f"{its}{mark}") or f"{its}{mark}".startswith(
                    f"{prefix}{mark}"
                ):
                    raise ValueError(
                        f"with the servers {other!r} and {server!r} a name could be read in two ways: "
                        f"{its + mark!r} and {prefix + mark!r}; rename one, or give separator= or prefix="
                    )
        return prefix


def split(name: str, mark: str, prefixes: Mapping[str, str]) -> tuple[str, str]:
    """The server that `name` belongs to and what that server calls it. `prefixes` are by server.

    Raises `ValueError` if it belongs to none.
    """
    for server, prefix in prefixes.items():
        own = name.removeprefix(f"{prefix}{mark}")
        if own and len(own) < len(name):
            return server, own
    known = ", ".join(repr(f"{prefix}{mark}") for prefix in prefixes.values()) or "nothing: it is empty"
    shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
    raise ValueError(f"{shown!r} belongs to no server of this group; names in it begin with {known}")
