"""What a world consists of, and the address of everything in it. Pure.

Names are `<datacenter>-s<n>` for servers, `<datacenter>-g<n>` for gateway hosts and `<datacenter>-c<n>`
for other clients, or `s<n>` and so on in every datacenter where a test wants the same node names everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from uuid import uuid4

from proconsul.util.errors import ProconsulError

GATEWAY_PORT = 8443
GATEWAY_SERVICE = "mesh-gateway"
HTTP_PORT = 8500
GRPC_PORT = 8502
RPC_PORT = 8300
WAN_GOSSIP_PORT = 8302
ENVOY_ADMIN_PORT = 19000
DATACENTERS_MAX = 5


class WorldError(ProconsulError):
    """A world that cannot be built or did not do what it has to; the text says what was missing."""


class Role(Enum):
    SERVER = "server"
    GATEWAY = "gateway"
    CLIENT = "client"
    """A client agent without a gateway."""


class Software(Enum):
    """What runs as the agents of a datacenter."""

    PROCONSUL = "proconsul"
    CONSUL = "consul"
    """Real Consul 1.8.7, with gateways that are Envoys of static configuration."""


class WanAddress(Enum):
    """What servers advertise to other datacenters, where nobody can reach it anyway."""

    OWN = "own"
    """An address of its own per server: a direct attempt leaves the host and is counted."""
    LAN = "lan"
    """The LAN address, which hosts of all datacenters may share."""


@dataclass(frozen=True, slots=True)
class AclSpec:
    """ACLs that deny by default. The tokens are those that `worlds.acl` makes in the primary."""

    master: str = field(default_factory=lambda: str(uuid4()))
    """May do everything; the worlds' own requests carry it."""
    agent: str = field(default_factory=lambda: str(uuid4()))
    """Of all agents: registers nodes, reads services."""
    replication: str = field(default_factory=lambda: str(uuid4()))
    """Of the servers: replicates to secondaries, writes federation states."""
    open_reads: bool = False
    """Requests without a token, DNS above all, are made with the agents' token."""


@dataclass(frozen=True, slots=True)
class DatacenterSpec:
    name: str
    servers: int = 1
    gateways: int = 1
    software: Software = Software.PROCONSUL
    clients: int = 0
    routed: bool = False
    """Its servers can be reached from everywhere at their WAN addresses. Without gateways they federate
    by these; a datacenter that has gateways federates through them, routed or not."""
    agent_config: Mapping[str, object] = field(default_factory=dict)
    """Merged over the configuration of every agent of it, and over the world's."""


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """`datacenters[0]` is the primary."""

    datacenters: tuple[DatacenterSpec, ...]
    same_node_names: bool = False
    wan_address: WanAddress = WanAddress.OWN
    primary_gateway_name: str = ""
    """A DNS name under which secondaries find the primary's gateways, in place of addresses."""
    log_level: str = "DEBUG"
    acl: AclSpec | None = None
    agent_config: Mapping[str, object] = field(default_factory=dict)
    """Merged over the configuration of every agent."""

    @property
    def primary(self) -> DatacenterSpec:
        return self.datacenters[0]


def world_spec(
    datacenters: int = 2,
    servers: int = 1,
    gateways: int = 1,
    software: Software = Software.PROCONSUL,
    **more: object,
) -> WorldSpec:
    """`dc1` (the primary), `dc2`, ... all alike. Raises WorldError."""
    if not 1 <= datacenters <= DATACENTERS_MAX:
        raise WorldError(f"-datacenters: {datacenters} is not within 1 to {DATACENTERS_MAX}")
    if servers not in (1, 3):
        raise WorldError(f"-servers: {servers} is neither 1 nor 3")
    if not 1 <= gateways <= 9:
        raise WorldError(f"-gateways: {gateways} is not within 1 to 9")
    parts = tuple(
        DatacenterSpec(f"dc{number}", servers, gateways, software)
        for number in range(1, datacenters + 1)
    )
    return WorldSpec(parts, **more)  # type: ignore[arg-type]


@dataclass(slots=True)
class Host:
    """One machine of the world: a server, or a client agent, perhaps with a gateway."""

    name: str
    role: Role
    datacenter: DatacenterSpec
    dc_number: int
    """From 1."""
    number: int
    """From 1 within its role."""
    lan: str
    """LAN address. Changes when a test moves the host."""
    wan: str
    """What other datacenters are told. For a gateway it is reachable, for a server only if it is
    `routed`."""
    software: Software
    """What runs as its agent now."""

    @property
    def is_server(self) -> bool:
        return self.role is Role.SERVER

    @property
    def is_gateway(self) -> bool:
        return self.role is Role.GATEWAY

    @property
    def routed(self) -> bool:
        """Its WAN address is its own, and routers lead there."""
        return self.is_server and self.datacenter.routed

    @property
    def is_primary(self) -> bool:
        return self.dc_number == 1

    @property
    def label(self) -> str:
        """Unique in the world, unlike the node name."""
        return f"{self.datacenter.name}-{self.role.value[0]}{self.number}"


def node_name(spec: WorldSpec, datacenter: DatacenterSpec, role: Role, number: int) -> str:
    short = f"{role.value[0]}{number}"
    return short if spec.same_node_names else f"{datacenter.name}-{short}"
