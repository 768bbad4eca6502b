"""What a mesh gateway's Envoy has to know, as one consistent immutable value.

Follows `configSnapshotMeshGateway` of the reference's agent/proxycfg/snapshot.go, but holds only
what has been decided (which source of a datacenter's gateways is fresher, which address of an
instance counts, whether it is healthy), so that equal configurations are equal values whatever
the order their parts came in. `mesh.build` makes one from domain types, `mesh.gateway` makes
Envoy's resources of it.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One address behind a cluster. `host` is an IP literal or a host name."""

    host: str
    port: int
    healthy: bool = True
    weight: int = 1


@dataclass(frozen=True, slots=True, order=True)
class Bind:
    """An address to listen on. `name` tells several listeners of a gateway apart."""

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True, order=True)
class RemoteDatacenter:
    """Another datacenter and the WAN addresses of its mesh gateways.

    Service traffic goes to all `gateways`, server traffic to those that expose their servers: the
    others refuse the servers' names.
    """

    name: str
    gateways: tuple[Endpoint, ...]
    server_gateways: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True, order=True)
class Server:
    """A Consul server of the gateway's own datacenter, by its LAN address."""

    node: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True, order=True)
class LocalService:
    """The connect-capable instances of a service of the gateway's own datacenter."""

    name: str
    endpoints: tuple[Endpoint, ...]
    namespace: str = "default"
    subset: str = ""


@dataclass(frozen=True, slots=True)
class MeshGatewaySnapshot:
    """Everything one mesh gateway serves. Parts may come in any order, with duplicates."""

    proxy_id: str
    datacenter: str
    domain: str
    """The agents' DNS domain, without trailing dot ("consul")."""
    trust_domain: str
    """`<cluster id>.consul`, from the CA roots."""
    binds: tuple[Bind, ...]
    datacenters: tuple[RemoteDatacenter, ...] = ()
    servers: tuple[Server, ...] = ()
    services: tuple[LocalService, ...] = ()
    wan_federation: bool = False
    """Whether the servers are exposed: service meta `consul-wan-federation` = `1`."""
    connect_timeout_s: float = DEFAULT_CONNECT_TIMEOUT_S
    """For local services. Servers and remote gateways have shorter ones of their own."""
