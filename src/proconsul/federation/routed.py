"""Datacenters without gateways whose servers are routed to us: a federation may have both kinds.

Consul sends everything that leaves a datacenter with gateways through these, and thereby loses every
datacenter that has none (docs/divergence.md). Here a datacenter is spoken to directly if no gateway of
it is registered and one of its servers has spoken to us so, at the plain port of WAN gossip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from proconsul.federation.locator import GatewayLocator

HOSTS_MAX = 1024
"""Beyond that the oldest is forgotten: more servers than any federation has."""


class RoutedDatacenters:
    """Answers "is it spoken to without gateways?" for one server. Synchronous, no I/O."""

    def __init__(
        self, locator: GatewayLocator, members: Callable[[], Iterable[tuple[str, str]]]
    ) -> None:
        """`members()` gives the (datacenter, IP address) of all servers of the WAN pool."""
        self._locator, self._members = locator, members
        self._heard: dict[str, None] = {}

    def heard(self, host: str) -> None:
        """A packet or stream came from this address, and not through a gateway."""
        if host not in self._heard:
            if len(self._heard) >= HOSTS_MAX:
                del self._heard[next(iter(self._heard))]
            self._heard[host] = None

    def __call__(self, datacenter: str) -> bool:
        """Whether its servers are dialled directly."""
        if self._locator.has_gateways(datacenter):
            return False
        return any(dc == datacenter and host in self._heard for dc, host in self._members())
