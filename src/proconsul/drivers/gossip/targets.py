"""What an operator may write as a node to join, made into names and addresses."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from ipaddress import ip_address

from proconsul.util.errors import ProconsulError

Address = tuple[str, int]

ADDRESSES_MAX = 64
"""Addresses of one host name that are tried."""
RESOLVE_S = 10.0


class TargetError(ProconsulError):
    """A join target that cannot be understood or resolved."""


@dataclass(frozen=True, slots=True)
class Target:
    """`node` is empty unless the target names it (`name/host:port`)."""

    node: str
    host: str
    port: int


def parse_target(text: str, default_port: int) -> Target:
    """`host`, `host:port`, `[v6]`, `[v6]:port`, `v6`, each optionally after `name/`.

    Raises `TargetError`.
    """
    node, slash, rest = text.rpartition("/")
    if slash and not node:
        raise TargetError(f"{text!r}: the node name before '/' is empty")
    host, port = rest, ""
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise TargetError(f"{text!r}: unbalanced brackets in the address")
        port = tail[1:]
    elif rest.count(":") == 1:
        host, port = rest.split(":")
    if not host:
        raise TargetError(f"{text!r}: the host is empty")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise TargetError(f"{text!r}: {port!r} is no port")
    return Target(node, host, int(port) if port else default_port)


async def resolve(target: Target) -> list[Address]:
    """All addresses of the target, in the resolver's order. Raises `TargetError`."""
    try:
        return [(str(ip_address(target.host)), target.port)]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise TargetError(f"lookup {target.host}: no answer within {RESOLVE_S:.0f} s") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise TargetError(f"lookup {target.host}: {reason.lower()}") from error
    addresses = dict.fromkeys((str(entry[4][0]), int(entry[4][1])) for entry in found)
    return list(addresses)[:ADDRESSES_MAX]
