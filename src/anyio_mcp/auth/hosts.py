"""Which part of the world a host is in: an address however it is spelled, or a name. Asks nobody."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final, Literal

Reach = Literal["local", "special", "private", "public", "name"]

# What the resolver of the platform takes for an IPv4 address: 127.1, 0x7f000001, 2130706433, 0177.0.0.1.
_NUMERIC: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}", re.IGNORECASE)
# https://www.rfc-editor.org/rfc/rfc6052#section-2.1
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def canonical_host(host: str) -> str:
    """One spelling of a host: in lower case, an address as it is written usually."""
    host = host.lower().rstrip(".")
    address = _address(host)
    return host if address is None else str(address)


def reach(host: str) -> Reach:
    """Where a host is: on this machine as everybody calls it, at some other address that is not for
    networks, in a private network, in the public one; or not known, because it is a name."""
    host = canonical_host(host)
    if host in _LOCAL or host.endswith(".localhost"):
        return "local"
    address = _address(host)
    return "name" if address is None else _reach_of(address)


def _reach_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Reach:
    if str(address) in _LOCAL:
        return "local"
    if (
        address.is_loopback
        or address.is_unspecified
        or address.is_link_local
        or address.is_multicast
        or str(address) == "255.255.255.255"
    ):
        return "special"
    return "public" if address.is_global else "private"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    host = host.partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not _NUMERIC.fullmatch(host):
            return None
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address
