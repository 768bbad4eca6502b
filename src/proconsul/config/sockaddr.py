"""Address settings: go-sockaddr templates, and the address that others are told by default.

Supported templates: `{{ GetPrivateIP }}`, `{{ GetPrivateIPs }}`, `{{ GetPublicIP }}`,
`{{ GetPublicIPs }}`, `{{ GetInterfaceIP "eth0" }}`, `{{ GetInterfaceIPs "eth.*" }}`. The rest of
go-sockaddr's language is refused with an error that says so.
"""

from __future__ import annotations

import ctypes
import ipaddress
import re
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Interface(NamedTuple):
    """One address of an interface of this machine."""

    name: str
    address: IpAddress
    up: bool


_PRIVATE_V4 = tuple(
    ipaddress.ip_network(net)
    for net in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.168.0.0/16",
    )
)
_IFF_UP = 1


class _IfAddrs(ctypes.Structure):
    pass


_IfAddrs._fields_ = [
    ("next", ctypes.POINTER(_IfAddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("addr", ctypes.c_void_p),
    ("netmask", ctypes.c_void_p),
    ("ifu", ctypes.c_void_p),
    ("data", ctypes.c_void_p),
]


def interfaces() -> list[Interface]:
    """The addresses of this machine, by getifaddrs(3). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = ctypes.POINTER(_IfAddrs)()
    if libc.getifaddrs(ctypes.byref(head)) != 0:
        raise OSError(ctypes.get_errno(), "getifaddrs failed")
    found: list[Interface] = []
    try:
        node = head
        while node:
            entry = node.contents
            address = _sockaddr(entry.addr)
            if address is not None:
                found.append(Interface(entry.name.decode(), address, bool(entry.flags & _IFF_UP)))
            node = entry.next
    finally:
        libc.freeifaddrs(head)
    return found


def _sockaddr(pointer: int | None) -> IpAddress | None:
    if not pointer:
        return None
    (family,) = struct.unpack("=H", ctypes.string_at(pointer, 2))
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(ctypes.string_at(pointer + 4, 4))
    if family == socket.AF_INET6:
        return ipaddress.IPv6Address(ctypes.string_at(pointer + 8, 16))
    return None


def is_private(address: IpAddress) -> bool:
    """IPv4 only: the blocks of RFC 6890 that `ipaddr/detect.go` counts as private."""
    return any(address in net for net in _PRIVATE_V4 if net.version == address.version)


def private_ipv4(table: list[Interface]) -> list[str]:
    """Candidates for the advertise address where it is not given (ipaddr.GetPrivateIPv4).

    Loopback addresses count only where there is nothing else, as in the reference.
    """
    found = [i.address for i in table if i.up and i.address.version == 4 and is_private(i.address)]
    outside = [a for a in found if not a.is_loopback]
    return list(dict.fromkeys(str(a) for a in outside or found))


def public_ipv6(table: list[Interface]) -> list[str]:
    """Candidates where the bind address is `::` (ipaddr.GetPublicIPv6)."""
    return [
        str(i.address) for i in table if i.up and i.address.version == 6 and i.address.is_global
    ]


_TEMPLATE = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_CALL = re.compile(r'(\w+)(?:\s+"([^"]*)")?')


def expand(text: str, list_interfaces: Callable[[], list[Interface]] = interfaces) -> str:
    """Replace the templates in `text`. Raises ValueError for what is not supported."""

    def replace(match: re.Match[str]) -> str:
        call = _CALL.fullmatch(match[1])
        found = _call(call[1], call[2], list_interfaces) if call else None
        if found is None:
            raise ValueError(
                f"the template {match[0]!r} is not supported; use GetPrivateIP, GetPublicIP,"
                ' GetInterfaceIP "NAME" or a literal address'
            )
        return " ".join(found)

    expanded = _TEMPLATE.sub(replace, text)
    if "{{" in expanded:
        raise ValueError(f"unterminated template in {text!r}")
    return expanded


def _call(
    name: str, argument: str | None, list_interfaces: Callable[[], list[Interface]]
) -> list[str] | None:
    if name in ("GetInterfaceIP", "GetInterfaceIPs"):
        if argument is None:
            return None
        pattern = re.compile(argument)
        found = [
            str(i.address)
            for i in list_interfaces()
            if i.up and pattern.search(i.name) and not i.address.is_link_local
        ]
    elif argument is not None:
        return None
    elif name in ("GetPrivateIP", "GetPrivateIPs"):
        found = private_ipv4(list_interfaces())
    elif name in ("GetPublicIP", "GetPublicIPs"):
        found = [str(i.address) for i in list_interfaces() if i.up and i.address.is_global]
    else:
        return None
    return found if name.endswith("s") else found[:1]
