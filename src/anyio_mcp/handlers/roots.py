"""Roots as people write them, as the protocol's `Root`s. Nothing is looked up: a root need not exist."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from mcp import types
from pydantic import AnyUrl, FileUrl, ValidationError

RootsList: TypeAlias = Sequence[str | Path | AnyUrl | FileUrl | types.Root]
"""Absolute paths, `file://` URIs, or the protocol's roots."""

# Two letters at least, so that a drive letter is no scheme.
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:").match


def to_roots(roots: RootsList) -> list[types.Root]:
    """The roots of a list. Raises `TypeError` or `ValueError` that says which entry is wrong."""
    if isinstance(roots, str | bytes) or not isinstance(roots, Sequence):
        raise TypeError(f"roots must be a list of paths, file:// URIs or roots, not {type(roots).__name__}")
    return [_to_root(root) for root in roots]


def _to_root(root: object) -> types.Root:
    match root:
        case types.Root():
            return root
        case AnyUrl() | FileUrl():
            return types.Root(uri=_file_url(str(root)))
        case str() if _HAS_SCHEME(root):
            return types.Root(uri=_file_url(root))
        case str() | Path():
            path = Path(root)
            if not path.is_absolute():
                raise ValueError(f"a root must be an absolute path or a file:// URI, not {str(root)!r}")
            return types.Root(uri=FileUrl(path.as_uri()))
        case _:
            raise TypeError(f"a root must be a path, a file:// URI or a Root, not {type(root).__name__}")


def _file_url(text: str) -> FileUrl:
    # file:name without slashes is a relative reference that the URL parser would make absolute.
    if not text.lower().startswith("file://"):
        raise ValueError(f"a root must be an absolute path or a file:// URI, not {text!r}")
    try:
        return FileUrl(text)
    except ValidationError as error:
        raise ValueError(f"a root must be a valid file:// URI, not {text!r}") from error
