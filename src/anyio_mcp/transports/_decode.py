"""The content codings that are accepted, undone in small pieces. No I/O; of HTTP only their names.

Own code, since httpx decodes whatever one read brought in one go (classic httpx, and the other codings
in either): 64 KiB from the network could become gigabytes before anybody counts them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias, final

ACCEPT_ENCODING: Final = "gzip, deflate"
PIECE: Final = 256 * 1024

Decode: TypeAlias = Callable[[bytes], Iterable[bytes]]
"""What more encoded data decodes to. Raises `ValueError` for data that is not in the coding."""


def decoder(coding: str) -> Decode:
    """Undoes one coding. Raises `ValueError` for one not asked for; a coding of a coding is one."""
    match coding:
        case "" | "identity":
            return _identity
        case "gzip":
            return _Inflater(16 + zlib.MAX_WBITS).feed
        case "deflate":
            # It means zlib's format, but some servers took it for the bare algorithm.
            return _Inflater(zlib.MAX_WBITS, -zlib.MAX_WBITS).feed
        case _:
            raise ValueError(f"content-encoding {coding[:40]!r} was not asked for")


def _identity(data: bytes) -> Iterable[bytes]:
    return (data,)


@final
class _Inflater:
    """Data in one of the formats of zlib; the second is tried if the very first data is not in the first."""

    __slots__ = ("_inflate", "_otherwise")

    def __init__(self, format_: int, otherwise: int | None = None) -> None:
        self._inflate = zlib.decompressobj(format_)
        self._otherwise = otherwise

    def feed(self, data: bytes) -> Iterator[bytes]:
        # What follows the end of the coding is nobody's.
        while data and not self._inflate.eof:
            piece = self._decompress(data)
            data = self._inflate.unconsumed_tail
            if piece:
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
