"""Compiled chains as RPC and HTTP show them (`agent/structs/discovery_chain.go`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proconsul.domain.base import GoStruct
from proconsul.domain.catalog import MeshGatewayConfig
from proconsul.domain.config_entries import (
    ProxyConfigEntry,
    ServiceConfigEntry,
    ServiceResolverConfigEntry,
    ServiceResolverSubset,
    ServiceRoute,
    ServiceRouterConfigEntry,
    ServiceSplitterConfigEntry,
)
from proconsul.domain.options import QueryMeta

ROUTER, SPLITTER, RESOLVER = "router", "splitter", "resolver"


class DiscoveryFailover(GoStruct, frozen=True, gc=False):
    targets: list[str] | None = None


class DiscoveryResolver(GoStruct, frozen=True, gc=False):
    """The end of a chain: a target, and others in case it has no instances."""

    default: bool = False
    connect_timeout_ns: int = 0
    target: str = ""
    failover: DiscoveryFailover | None = None


class DiscoveryRoute(GoStruct, frozen=True, gc=False):
    definition: ServiceRoute | None = None
    next_node: str = ""


class DiscoverySplit(GoStruct, frozen=True, gc=False):
    weight: float = 0.0
    next_node: str = ""


class DiscoveryGraphNode(GoStruct, frozen=True, gc=False):
    """`type` says which of the rest is set."""

    type: str = ""
    name: str = ""
    routes: list[DiscoveryRoute] | None = None
    splits: list[DiscoverySplit] | None = None
    resolver: DiscoveryResolver | None = None


class DiscoveryTarget(GoStruct, frozen=True, gc=False):
    """Instances of a service in a datacenter, and the SNI by which they are reached."""

    id: str = ""
    service: str = ""
    service_subset: str = ""
    namespace: str = ""
    datacenter: str = ""
    mesh_gateway: MeshGatewayConfig = MeshGatewayConfig()
    subset: ServiceResolverSubset = ServiceResolverSubset()
    external: bool = False
    sni: str = ""
    name: str = ""


class CompiledDiscoveryChain(GoStruct, frozen=True, gc=False):
    """Nodes by type and name, targets by id."""

    service_name: str = ""
    namespace: str = ""
    datacenter: str = ""
    customization_hash: str = ""
    protocol: str = ""
    start_node: str = ""
    nodes: dict[str, DiscoveryGraphNode] | None = None
    targets: dict[str, DiscoveryTarget] | None = None


class DiscoveryChainResponse(QueryMeta, frozen=True, gc=False):
    chain: CompiledDiscoveryChain | None = None


@dataclass(frozen=True, slots=True)
class ChainEntries:
    """The config entries that a chain may consist of: by a service's name, None if there is none."""

    router: Callable[[str], ServiceRouterConfigEntry | None]
    splitter: Callable[[str], ServiceSplitterConfigEntry | None]
    resolver: Callable[[str], ServiceResolverConfigEntry | None]
    service: Callable[[str], ServiceConfigEntry | None]
    proxy: ProxyConfigEntry | None = None


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """For whom a chain is compiled. `use_datacenter` is where its result will be used."""

    service: str
    datacenter: str
    trust_domain: str
    use_datacenter: str
    override_mesh_gateway: str = ""
    override_protocol: str = ""
    override_connect_timeout_ns: int = 0
