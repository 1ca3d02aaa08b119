"""The content codings that are accepted, undone in small pieces. No I/O; of HTTP only their names.

Own code, since httpx decodes whatever one read brought in one go (classic httpx, and the other codings
in either): 64 KiB from the network could become gigabytes before anybody counts them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias, final

ACCEPT_ENCODING: Final = "gzip, deflate"
PIECE: Final = 16 * 1024

# What servers write into the header of a body that is in no coding: the charset, or that there is none.
_NO_CODING: Final = frozenset(
    {"", "identity", "none", "null", "utf-8", "utf8", "us-ascii", "iso-8859-1", "7bit", "8bit", "binary"}
)
# More of it than this is copied for each piece it is decoded to, and for each member of a file.
_SLICE: Final = 4 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"
# A body of ours cannot begin like this in gzip: some proxies undo the coding and leave the header.
_PLAIN: Final = frozenset(b" \t\r\n{[:deir\xef")

Decode: TypeAlias = Callable[[bytes], Iterable[bytes]]
"""What more encoded data decodes to, in pieces; an empty one is work that brought nothing. Raises
`ValueError` for data that is not in the coding."""


def decoder(content_encoding: str) -> Decode:
    """Undoes the coding that the header names. Raises `ValueError` for one that cannot be undone here,
    such as a coding of a coding."""
    codings = [one.strip() for one in content_encoding[:200].lower().split(",")]
    match [coding for coding in codings if coding not in _NO_CODING]:
        case []:
            return _identity
        case ["gzip" | "x-gzip"]:
            return _Gunzip().feed
        case ["deflate"]:
            return _Inflater(zlib.MAX_WBITS, -zlib.MAX_WBITS).feed
        case _:
            raise ValueError(
                f"the content-encoding {content_encoding[:40]!r} cannot be undone here, "
                f"only what `accept-encoding: {ACCEPT_ENCODING}` asks for"
            )


def _identity(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


@final
class _Inflater:
    """One piece of data in a format of zlib; the second is tried if the very first data is not in the first.

    "deflate" means zlib's format, but some servers took it for the bare algorithm.
    """

    __slots__ = ("_inflate", "_otherwise")

    def __init__(self, format_: int, otherwise: int | None = None) -> None:
        self._inflate = zlib.decompressobj(format_)
        self._otherwise = otherwise

    @property
    def ended(self) -> bool:
        return self._inflate.eof

    @property
    def rest(self) -> bytes:
        """What came behind the end, in the data that was fed last."""
        return self._inflate.unused_data

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _SLICE):
            part = data[start : start + _SLICE]
            # What follows the end of the coding is nobody's.
            while part and not self._inflate.eof:
                piece = self._decompress(part)
                part = self._inflate.unconsumed_tail
                yield piece

    def _decompress(self, data: bytes) -> bytes:
        otherwise, self._otherwise = self._otherwise, None
        try:
            return self._inflate.decompress(data, PIECE)
        except zlib.error as error:
            if otherwise is None:
                raise ValueError(f"the content-encoding is broken: {error}") from error
        self._inflate = zlib.decompressobj(otherwise)
        return self._decompress(data)


@final
class _Gunzip:
    """A gzip file, which is one or more members in a row (RFC 1952, section 2.2): a proxy ends one to flush.

    Behind a member that is followed by anything else the file has ended.
    """

    __slots__ = ("_ahead", "_ended", "_member", "_plain")

    def __init__(self) -> None:
        self._member: _Inflater | None = _Inflater(16 + zlib.MAX_WBITS)
        self._ahead = b""
        """The first byte of what may be another member."""
        self._ended = False
        self._plain: bool | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._plain is None and data:
            self._plain = data[0] in _PLAIN
        if self._plain:
            yield from _identity(data)
            return
        for start in range(0, len(data), _SLICE):
            part = self._ahead + data[start : start + _SLICE]
            self._ahead = b""
            while part and not self._ended:
                if self._member is None:
                    if part == _GZIP_MAGIC[:1]:
                        self._ahead = part
                        break
                    if not part.startswith(_GZIP_MAGIC):
                        self._ended = True
                        break
                    self._member = _Inflater(16 + zlib.MAX_WBITS)
                yield from self._member.feed(part)
                if not self._member.ended:
                    break
                part = self._member.rest
                self._member = None
