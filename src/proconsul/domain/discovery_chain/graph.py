"""Nodes and targets of a discovery chain while it is compiled."""

from __future__ import annotations

from dataclasses import dataclass, field

from proconsul.domain.catalog import MeshGatewayConfig
from proconsul.domain.config_entries import ServiceResolverSubset
from proconsul.domain.discovery_chain import types as t


@dataclass(slots=True)
class Target:
    """One that is being worked out."""

    service: str
    subset: str
    namespace: str
    datacenter: str
    sni: str
    name: str
    gateway_mode: str = ""
    subset_definition: ServiceResolverSubset = field(default_factory=ServiceResolverSubset)
    external: bool = False

    @property
    def id(self) -> str:
        """By which nodes name it."""
        return joined(self.subset, self.service, self.namespace, self.datacenter)

    def finished(self) -> t.DiscoveryTarget:
        """As it is shown."""
        return t.DiscoveryTarget(
            id=self.id,
            service=self.service,
            service_subset=self.subset,
            namespace=self.namespace,
            datacenter=self.datacenter,
            mesh_gateway=MeshGatewayConfig(self.gateway_mode),
            subset=self.subset_definition,
            external=self.external,
            sni=self.sni,
            name=self.name,
        )


@dataclass(slots=True)
class Node:
    """One that is being worked out; nodes refer to each other by `key`."""

    type: str
    name: str
    routes: list[t.DiscoveryRoute] = field(default_factory=list)
    splits: list[t.DiscoverySplit] = field(default_factory=list)
    resolver: t.DiscoveryResolver | None = None

    @property
    def key(self) -> str:
        """By which other nodes lead here."""
        return f"{self.type}:{self.name}"

    def next_keys(self) -> list[str]:
        """Where it leads."""
        return [one.next_node for one in self.routes] + [one.next_node for one in self.splits]

    def finished(self) -> t.DiscoveryGraphNode:
        """As it is shown."""
        return t.DiscoveryGraphNode(
            self.type, self.name, self.routes or None, self.splits or None, self.resolver
        )


def joined(*parts: str) -> str:
    """Those that are not empty, with dots between."""
    return ".".join(filter(None, parts))
