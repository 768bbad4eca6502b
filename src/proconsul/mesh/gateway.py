"""Mesh gateway snapshot -> Envoy resources.

The one place that decides what a mesh gateway routes where; `clusters` and `listeners` know how
such things are written for Envoy. Other kinds of proxies become modules beside this one, each from
its own type of snapshot to the same `ResourceSet`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proconsul.mesh.clusters import (
    REMOTE_CONNECT_TIMEOUT_S,
    SERVER_CONNECT_TIMEOUT_S,
    make_cluster,
)
from proconsul.mesh.listeners import make_listener
from proconsul.mesh.names import datacenter_sni, server_sni, service_sni
from proconsul.mesh.resources import Resource, ResourceSet, by_name
from proconsul.mesh.snapshot import Bind, Endpoint, MeshGatewaySnapshot


@dataclass(frozen=True, slots=True)
class Route:
    """Server names, and the cluster that they lead to."""

    cluster: str
    server_names: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    connect_timeout_s: float


def mesh_gateway_resources(snapshot: MeshGatewaySnapshot) -> ResourceSet:
    """All Envoy resources of a mesh gateway: equal configurations give equal bytes."""
    routes = _distinct(_routes(snapshot))
    clusters: list[Resource] = []
    endpoints: list[Resource] = []
    for route in routes:
        cluster, assignment = make_cluster(route.cluster, route.endpoints, route.connect_timeout_s)
        clusters.append(cluster)
        if assignment is not None:
            endpoints.append(assignment)
    names = {route.cluster: route.server_names for route in routes}
    listeners = [
        make_listener(bind, f"mesh_gateway.{bind.name}", names)
        for bind in _distinct_binds(snapshot.binds)
    ]
    return ResourceSet(by_name(clusters), by_name(endpoints), by_name(listeners))


def _routes(snapshot: MeshGatewaySnapshot) -> Iterable[Route]:
    own = snapshot.datacenter.lower()
    for datacenter in sorted(snapshot.datacenters):
        if datacenter.name.lower() == own:
            continue
        suffix = datacenter_sni(datacenter.name, snapshot.trust_domain)
        yield Route(suffix, (f"*.{suffix}",), datacenter.gateways, REMOTE_CONNECT_TIMEOUT_S)
        if snapshot.wan_federation:
            servers = server_sni(datacenter.name, snapshot.domain)
            names = (servers, f"*.{servers}")
            yield Route(servers, names, datacenter.server_gateways, REMOTE_CONNECT_TIMEOUT_S)
    if snapshot.wan_federation:
        every = server_sni(own, snapshot.domain)
        endpoints = tuple(server.endpoint for server in snapshot.servers)
        yield Route(every, (every,), endpoints, SERVER_CONNECT_TIMEOUT_S)
        for server in sorted(snapshot.servers):
            name = server_sni(own, snapshot.domain, server.node)
            yield Route(name, (name,), (server.endpoint,), SERVER_CONNECT_TIMEOUT_S)
    for service in sorted(snapshot.services):
        name = service_sni(
            service.name, own, snapshot.trust_domain, service.namespace, service.subset
        )
        yield Route(name, (name,), service.endpoints, snapshot.connect_timeout_s)


def _distinct(routes: Iterable[Route]) -> list[Route]:
    """Without routes whose name is taken or which Envoy would refuse, with all the others.

    One of these in a listener makes Envoy reject all of it; names come from registrations, so one
    odd name must not cut off a whole datacenter.
    """
    taken: set[str] = set()
    kept = []
    for route in routes:
        if route.cluster in taken or not _valid(route.cluster):
            continue
        taken.add(route.cluster)
        kept.append(route)
    return kept


def _valid(name: str) -> bool:
    labels = name.split(".")
    return len(name) <= 253 and all(
        label and len(label) <= 63 and label.isascii() and label.isprintable()
        and not set(label) & set("* /")
        for label in labels
    )  # fmt: skip


def _distinct_binds(binds: Iterable[Bind]) -> list[Bind]:
    """One listener per address: of several names for one, the first in order."""
    found: dict[tuple[str, int], Bind] = {}
    for bind in sorted(binds):
        found.setdefault((bind.host, bind.port), bind)
    return list(found.values())
