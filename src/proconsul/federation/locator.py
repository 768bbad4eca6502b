"""Which mesh gateways lead to which datacenter: a pure decision, fed by its watchers.

Three states, as in Consul's `agent/consul/gateway_locator.go`. A secondary's server reaches the
primary by

1. addresses from its configuration (`primary_gateways`, resolved by the agent),
2. the primary's WAN addresses from replicated federation states,
3. its own datacenter's gateways, by LAN address. This is the normal state.

A leader leaves state 3 after three consecutive failures of federation-state replication. Unlike the
reference, followers stay in state 3 (they have no replication of their own), and a server whose
Raft log already holds federation states starts in state 3 (docs/divergence.md). The ways that a
state does not prefer are not forgotten: they follow at the end of the list of candidates.

Everything that changes the choice of a gateway lives in this file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from typing_extensions import override

from proconsul.domain.catalog import META_WAN_FEDERATION, CheckServiceNode
from proconsul.domain.federation import FederationState
from proconsul.util.address import host_port
from proconsul.util.clock import Rng

log = logging.getLogger("proconsul.gateway_locator")

REPLICATION_FAILURES_BEFORE_BYPASS = 3
"""Consecutive failures after which a secondary's leader stops trusting its local gateways."""

FAILURE_MEMORY_S = 60.0
"""A gateway that failed towards a datacenter is tried after the others for this long, or until it
works again."""

Address = tuple[str, int]


class Source(Enum):
    """Where the knowledge of a gateway's address comes from."""

    CATALOG = "catalog"
    """Registered in our own datacenter."""
    REPLICATED = "replicated"
    """The primary's, from a federation state."""
    CONFIGURED = "configured"
    """The primary's, from `primary_gateways`."""


@dataclass(frozen=True, slots=True, order=True)
class Gateway:
    """One way out. `address` is (host, port); the host may be a name."""

    address: Address
    source: Source = Source.CATALOG

    @override
    def __str__(self) -> str:
        return host_port(self.address)


def usable(nodes: Iterable[CheckServiceNode]) -> list[CheckServiceNode]:
    """Those that carry servers' traffic and have no critical check."""
    return [
        node
        for node in nodes
        if (node.service.meta or {}).get(META_WAN_FEDERATION) == "1" and not node.is_critical
    ]


def addresses(nodes: Iterable[CheckServiceNode], *, wan: bool) -> tuple[Address, ...]:
    """Sorted, distinct addresses of the usable gateways among `nodes`."""
    return tuple(sorted({node.best_address(wan=wan) for node in usable(nodes)}))


class GatewayLocator:
    """Answers "by which gateways, in which order?" for one server. Synchronous, no I/O.

    `now` arguments are seconds on the monotonic clock.
    """

    def __init__(self, datacenter: str, primary: str, rng: Rng) -> None:
        self.datacenter, self.primary = datacenter, primary
        self._rng = rng
        self._fallback: tuple[Address, ...] = ()
        self._replicated: tuple[Address, ...] = ()
        self._local: tuple[Address, ...] = ()
        self._with_gateways: frozenset[str] = frozenset()
        self._failed: dict[tuple[Address, str], float] = {}
        self._replication_failures = 0
        self._is_leader = False
        self._logged = ""
        self._callbacks: list[Callable[[], None]] = []

    # -- what the watchers report ---------------------------------------------------------

    def set_fallback(self, found: Iterable[Address]) -> None:
        """The primary's gateways as `primary_gateways` resolves now."""
        new = tuple(sorted(set(found)))
        if new != self._fallback:
            self._fallback = new
            log.info("updated fallback list of primary mesh gateways: %s", _render(new))
            self._changed()

    def update(
        self, states: Sequence[FederationState], catalog: Sequence[CheckServiceNode] | None = None
    ) -> None:
        """Take over federation states and, fresher where given, our own catalog's gateways."""
        by_datacenter = {state.datacenter: state.mesh_gateways or () for state in states}
        self._with_gateways = frozenset(name for name, nodes in by_datacenter.items() if nodes)
        local = catalog if catalog is not None else by_datacenter.get(self.datacenter, ())
        new_local = addresses(local, wan=False)
        new_replicated = addresses(by_datacenter.get(self.primary, ()), wan=True)
        if (new_local, new_replicated) == (self._local, self._replicated):
            return
        self._local, self._replicated = new_local, new_replicated
        log.info(
            "new cached locations of mesh gateways: primary=%s local=%s",
            _render(new_replicated),
            _render(new_local),
        )
        self._changed()

    def set_leader(self, is_leader: bool) -> None:
        """Leadership decides whether replication results count."""
        self._is_leader = is_leader
        self._replication_failures = 0
        self._explain()

    def replication_succeeded(self) -> None:
        """The leader's replication reached the primary."""
        self._replication_failures = 0
        self._explain()

    def replication_failed(self) -> None:
        """The leader's replication did not reach the primary."""
        self._replication_failures += 1
        self._explain()

    def failed(self, gateway: Gateway, datacenter: str, now: float) -> None:
        """A dial through `gateway` towards `datacenter` failed: try it last from now on."""
        key = (gateway.address, datacenter)
        if key not in self._failed:
            log.warning("mesh gateway %s failed towards %s, is tried last", gateway, datacenter)
        self._failed[key] = now
        if len(self._failed) > 4096:
            self._failed = {k: t for k, t in self._failed.items() if now - t < FAILURE_MEMORY_S}

    def worked(self, gateway: Gateway, datacenter: str) -> None:
        """A dial through `gateway` towards `datacenter` succeeded."""
        if self._failed.pop((gateway.address, datacenter), None) is not None:
            log.info("mesh gateway %s works again towards %s", gateway, datacenter)

    # -- what the travellers ask ----------------------------------------------------------

    @property
    def in_normal_state(self) -> bool:
        """Whether no help of configured addresses is needed: state 3, or we are the primary."""
        return self.datacenter == self.primary or (bool(self._local) and not self._bypasses_local)

    @property
    def _bypasses_local(self) -> bool:
        return self._is_leader and self._replication_failures >= REPLICATION_FAILURES_BEFORE_BYPASS

    @property
    def primary_gateways_ready(self) -> bool:
        """Whether replicated addresses of the primary's gateways are known."""
        return bool(self._replicated)

    def has_gateways(self, datacenter: str) -> bool:
        """Whether any gateway of it is registered, be it healthy or not."""
        return datacenter in self._with_gateways

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback()` whenever the known gateways changed."""
        self._callbacks.append(callback)

    def known(self, datacenter: str) -> list[Gateway]:
        """Every gateway that may lead to `datacenter`, preferred kinds first, in stable order."""
        local = [Gateway(address, Source.CATALOG) for address in self._local]
        if datacenter != self.primary:
            return local
        if self.datacenter == self.primary:
            return local
        direct = [Gateway(address, Source.REPLICATED) for address in self._replicated] + [
            Gateway(address, Source.CONFIGURED)
            for address in self._fallback
            if address not in self._replicated
        ]
        return direct + local if self._bypasses_local else local + direct

    def candidates(self, datacenter: str, now: float) -> list[Gateway]:
        """The gateways to try in this order; empty if none is known.

        Preferred kinds come first, drawn at random among equals; whatever failed towards this
        datacenter within the last `FAILURE_MEMORY_S` comes last, longest ago first.
        """
        ranked = self.known(datacenter)
        tier = {g: self._tier(g) for g in ranked}
        self._rng.shuffle(ranked)
        return sorted(ranked, key=lambda g: (self._failed_at(g, datacenter, now), tier[g]))

    def is_failed(self, gateway: Gateway, datacenter: str, now: float) -> bool:
        """Whether the last dial through it towards `datacenter` failed, recently."""
        return self._failed_at(gateway, datacenter, now) > 0

    def _failed_at(self, gateway: Gateway, datacenter: str, now: float) -> float:
        at = self._failed.get((gateway.address, datacenter))
        return at if at is not None and now - at < FAILURE_MEMORY_S else 0.0

    def _tier(self, gateway: Gateway) -> int:
        is_local = gateway.source is Source.CATALOG
        return int(is_local) if self._bypasses_local else int(not is_local)

    def describe(self) -> str:
        """The present choice and its reason, for people."""
        if self.datacenter == self.primary:
            if not self._local:
                return (
                    "no mesh gateway with meta consul-wan-federation=1 is registered and healthy "
                    "in this datacenter: start one with `connect envoy -gateway=mesh -register "
                    "-expose-servers`, or look at its check"
                )
            return "this is the primary: other datacenters are reached through our mesh gateways"
        if self._bypasses_local and self._local:
            return (
                "dialling the primary's mesh gateways directly: replication through the local "
                f"ones failed {REPLICATION_FAILURES_BEFORE_BYPASS} times in a row"
            )
        if self._local:
            return "dialling the primary datacenter through our local mesh gateways"
        if self._replicated:
            return "dialling the primary's mesh gateways: no local one is registered and healthy"
        if self._fallback:
            return "dialling the primary's mesh gateways from primary_gateways: none replicated yet"
        return "no mesh gateway is known: none configured, replicated or registered"

    def _changed(self) -> None:
        self._explain()
        for callback in self._callbacks:
            callback()

    def _explain(self) -> None:
        choice = self.describe()
        if choice != self._logged:
            self._logged = choice
            log.info("%s", choice)


def _render(found: Iterable[Address]) -> str:
    return ", ".join(str(Gateway(address)) for address in found) or "none"
