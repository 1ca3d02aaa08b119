"""Where the outcome of an authorization is kept, so that the next session needs no browser.

A store keeps a text per server and does not look into it: `records.py` says what is in it. Must not know
of OAuth, and never logs or raises what it keeps.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, cast, final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from anyio_mcp._text import get_logger

logger = get_logger(__name__)

FORMAT: Final = "anyio-mcp tokens 1"
MAX_FILE_BYTES: Final = 1024 * 1024
"""A file larger than this is none of ours."""

FILE_SECONDS: Final = 3.0
"""For a file to be read or written. Longer takes a file system that hangs, and nobody waits for that."""


class TokenStore(Protocol):
    """Keeps one text per server. Implement it to keep tokens in a keyring or a database.

    `server_url` is the URL of the server. Where tokens are bound to a client, to scopes or to an issuer
    that the user has named, these follow in its fragment, and each combination is a text of its own.

    An exception of a store is logged, by its type alone, and costs a sign-in, never a call.
    """

    async def get(self, server_url: str) -> str | None:
        """What was kept for this server; None for nothing."""
        ...

    async def set(self, server_url: str, record: str) -> None:
        """Keep this for the server instead of what was kept before. It holds secrets."""
        ...

    async def delete(self, server_url: str) -> None:
        """Forget the server. Not an error if there is nothing to forget."""
        ...


@final
class MemoryTokenStore(TokenStore):
    """Keeps tokens as long as it lives itself: for a program that signs in anew each time, and for tests."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        # One record per server, of a bounded size each.
        self._records: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<MemoryTokenStore of {len(self._records)} servers>"

    async def get(self, server_url: str) -> str | None:
        return self._records.get(server_key(server_url))

    async def set(self, server_url: str, record: str) -> None:
        self._records[server_key(server_url)] = record

    async def delete(self, server_url: str) -> None:
        self._records.pop(server_key(server_url), None)


@final
class FileTokenStore(TokenStore):
    """Keeps tokens in files only this user can read: mode 0600, in a directory of mode 0700.

    A file that is damaged, not a regular file, of another user or readable by others counts as none, with
    a warning in the log; the next sign-in replaces it. `directory` defaults to one of this user's own
    (`$XDG_STATE_HOME/anyio-mcp/tokens`, `~/.local/state/anyio-mcp/tokens`, or below `%LOCALAPPDATA%`).
    """

    __slots__ = ("directory",)

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self.directory: Final = default_directory() if directory is None else Path(directory)

    def __repr__(self) -> str:
        return f"FileTokenStore({str(self.directory)!r})"

    def path(self, server_url: str) -> Path:
        """The file of one server. Its name tells nothing about the server."""
        return self.directory / f"{server_key(server_url)}.json"

    async def get(self, server_url: str) -> str | None:
        with anyio.fail_after(FILE_SECONDS):
            return await anyio.to_thread.run_sync(_read, self.path(server_url), abandon_on_cancel=True)

    async def set(self, server_url: str, record: str) -> None:
        """Raises `OSError` if it cannot be written, `PermissionError` if others could change it."""
        # Shielded: what was obtained is kept although its call was given up, or the next session could
        # not refresh what this one has replaced. Abandoned at the bound, the thread may still write it.
        with anyio.fail_after(FILE_SECONDS, shield=True):
            await anyio.to_thread.run_sync(_write, self.path(server_url), record, abandon_on_cancel=True)

    async def delete(self, server_url: str) -> None:
        with anyio.fail_after(FILE_SECONDS, shield=True):  # as in set()
            await anyio.to_thread.run_sync(_remove, self.path(server_url), abandon_on_cancel=True)


def server_key(server_url: str) -> str:
    """What identifies a record: the URL of its server without user info, however its host is spelled, and the
    fragment that says what else it is bound to."""
    parts = urlsplit(server_url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    text = f"{parts.scheme}://{parts.hostname}:{port}{parts.path or '/'}?{parts.query}"
    if "=" in parts.fragment:  # of records.record_key(); any other names a place in a page, not a server
        text = f"{text}#{parts.fragment}"
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def default_directory() -> Path:
    """The directory of this user's tokens. Nothing is created here."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return (Path(base) if base else Path.home() / "AppData" / "Local") / "anyio-mcp" / "tokens"
    base = os.environ.get("XDG_STATE_HOME", "")
    # The base directory specification has relative paths ignored.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state"
    return root / "anyio-mcp" / "tokens"


def _read(path: Path) -> str | None:
    try:
        # A link or a pipe with the name of a token file is somebody's trap: not followed, not waited for.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            problem = _problem(status)
            content = b"" if problem else file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        problem, content = f"it cannot be read ({type(error).__name__})", b""
    if problem is None:
        try:
            record = _record(content)
        except ValueError:
            problem = "it is damaged, or of another program"
        else:
            return record
    logger.warning("the token file %s is ignored: %s", path, problem)
    return None


def _problem(status: os.stat_result) -> str | None:
    """What speaks against trusting a file with this status."""
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    if sys.platform == "win32":
        return None  # the user's profile is what protects it there
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    if status.st_mode & 0o077:
        return "others have access to it"
    return None


def _record(content: bytes) -> str:
    if len(content) > MAX_FILE_BYTES:
        raise ValueError("too large")
    try:
        value: Any = json.loads(content)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(value, dict):
        raise ValueError("no object")
    found = cast("dict[str, Any]", value)
    record = found.get("record")
    if found.get("format") != FORMAT or not isinstance(record, str):
        raise ValueError("another format")
    return record


def _write(path: Path, record: str) -> None:
    directory = path.parent
    # Whoever can write to a directory above can put another one in its place: `parents=` would leave their
    # modes to the umask.
    for each in reversed((directory, *directory.parents)):
        each.mkdir(mode=0o700, exist_ok=True)
    if sys.platform != "win32" and directory.stat().st_mode & 0o022:
        raise PermissionError(f"others can write to the directory of the tokens: {directory}")
    # Another process reads the file before or after, never half of it. mkstemp makes it with mode 0600.
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=directory)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, "record": record}, file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
