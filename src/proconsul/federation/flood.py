"""Flood join: every server of our datacenter's LAN pool is brought into the WAN pool.

With gateways nobody configures WAN addresses: this is how the WAN pool fills
(`agent/router/serf_flooder.go`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.server")

FLOOD_S = 60.0
"""How often to look, beside every change of the LAN pool."""

Join = Callable[[Sequence[str]], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class LanServer:
    """An alive server of our LAN pool and where its WAN gossip listens, by its own tags."""

    name: str
    wan_address: tuple[str, int]


def missing(lan: Iterable[LanServer], wan_alive: Collection[str], datacenter: str) -> list[str]:
    """Join addresses (`name.dc/host:port`) of LAN servers that the WAN pool lacks.

    `wan_alive` are the names of alive WAN members. Addresses are not compared: a server may well
    advertise another one to the WAN than it listens on in the LAN.
    """
    out = []
    for server in lan:
        name = f"{server.name}.{datacenter}"
        host, port = server.wan_address
        if name not in wan_alive:
            rendered = f"[{host}]" if ":" in host else host
            out.append(f"{name}/{rendered}:{port}")
    return out


async def flood_join(addresses: Iterable[str], join: Join) -> int:
    """Join each; failures are left to the next round. Returns how many succeeded."""
    joined = 0
    for address in addresses:
        try:
            joined += await join([address])
        except (ProconsulError, TimeoutError) as error:
            log.debug("Failed to flood-join server at %s: %s", address, error)
        else:
            log.debug("Successfully performed flood-join for server at %s", address)
    return joined
