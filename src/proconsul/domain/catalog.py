"""Nodes, services and checks of the catalog (`agent/structs/structs.go`).

`is_same` of a type ignores the Raft indexes: it says whether a write would change anything.
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from proconsul.domain.base import GoStruct, Int64, Uint64
from proconsul.domain.options import QueryMeta, WriteRequest

META_WAN_FEDERATION = "consul-wan-federation"
META_SEGMENT = "consul-network-segment"
SERF_CHECK_ID = "serfHealth"
SERF_CHECK_NAME = "Serf Health Status"
SERF_ALIVE_OUTPUT = "Agent alive and reachable"
SERF_FAILED_OUTPUT = "Agent not live or unreachable"
NODE_MAINTENANCE = "_node_maintenance"
SERVICE_MAINTENANCE_PREFIX = "_service_maintenance:"

PASSING, WARNING, CRITICAL = "passing", "warning", "critical"
ANY_STATE = "any"
HEALTH_STATES = frozenset({PASSING, WARNING, CRITICAL})

TYPICAL = ""
CONNECT_PROXY = "connect-proxy"
MESH_GATEWAY = "mesh-gateway"
TERMINATING_GATEWAY = "terminating-gateway"
INGRESS_GATEWAY = "ingress-gateway"
GATEWAY_KINDS = frozenset({MESH_GATEWAY, TERMINATING_GATEWAY, INGRESS_GATEWAY})


class Node(GoStruct, frozen=True, gc=False):
    """A member of the catalog; `id` is a UUID or empty."""

    id: str = ""
    node: str = ""
    address: str = ""
    datacenter: str = ""
    tagged_addresses: dict[str, str] | None = None
    meta: dict[str, str] | None = None
    create_index: Uint64 = 0
    modify_index: Uint64 = 0

    def is_same(self, other: Node) -> bool:
        return (
            self.id == other.id
            and self.node == other.node
            and self.address == other.address
            and self.datacenter == other.datacenter
            and self.tagged_addresses == other.tagged_addresses
            and self.meta == other.meta
        )

    def best_address(self, *, wan: bool) -> str:
        """The address to reach it by, from another datacenter if `wan`."""
        if wan and self.tagged_addresses:
            return self.tagged_addresses.get("wan", self.address)
        return self.address


class ServiceAddress(GoStruct, frozen=True, gc=False):
    address: str = ""
    port: Int64 = 0


class Weights(GoStruct, frozen=True, gc=False):
    """DNS weights per health; each between 0 and 65535, passing at least 1."""

    passing: Int64 = 0
    warning: Int64 = 0

    def is_valid(self) -> bool:
        return 1 <= self.passing <= 65535 and 0 <= self.warning <= 65535


DEFAULT_WEIGHTS = Weights(passing=1, warning=1)


class MeshGatewayConfig(GoStruct, frozen=True, gc=False):
    """How upstream traffic leaves: "", `none`, `local` or `remote`."""

    mode: str = ""


class Upstream(GoStruct, frozen=True, gc=False):
    destination_type: str = ""
    destination_namespace: str = ""
    destination_name: str = ""
    datacenter: str = ""
    local_bind_address: str = ""
    local_bind_port: Int64 = 0
    config: dict[str, Any] | None = None
    mesh_gateway: MeshGatewayConfig = MeshGatewayConfig()
    ingress_hosts: list[str] | None = None


class ExposePath(GoStruct, frozen=True, gc=False):
    listener_port: Int64 = 0
    path: str = ""
    local_path_port: Int64 = 0
    protocol: str = ""
    parsed_from_check: bool = False


class ExposeConfig(GoStruct, frozen=True, gc=False):
    checks: bool = False
    paths: list[ExposePath] | None = None


class ConnectProxyConfig(GoStruct, frozen=True, gc=False):
    """What a proxy or gateway was registered with; `config` is opaque to the catalog."""

    destination_service_name: str = ""
    destination_service_id: str = ""
    local_service_address: str = ""
    local_service_port: Int64 = 0
    config: dict[str, Any] | None = None
    upstreams: list[Upstream] | None = None
    mesh_gateway: MeshGatewayConfig = MeshGatewayConfig()
    expose: ExposeConfig = ExposeConfig()


class ServiceConnect(GoStruct, frozen=True, gc=False):
    """`sidecar_service` is a definition that only agents look at; here it is carried along."""

    native: bool = False
    sidecar_service: dict[str, Any] | None = None


def _same_free_form(mine: ConnectProxyConfig, theirs: ConnectProxyConfig) -> bool:
    """Whether what is equal is also of the same types, which Go's `reflect.DeepEqual` demands."""
    if not _same_types(mine.config, theirs.config):
        return False
    pairs = zip(mine.upstreams or (), theirs.upstreams or (), strict=True)
    return all(_same_types(a.config, b.config) for a, b in pairs)


def _same_types(mine: Any, theirs: Any) -> bool:
    if type(mine) is not type(theirs):
        return False
    if isinstance(mine, dict):
        return all(_same_types(value, theirs[key]) for key, value in mine.items())
    if isinstance(mine, list):
        return all(map(_same_types, mine, theirs))
    return True


class NodeService(GoStruct, frozen=True, gc=False):
    """A service instance, as an agent or a catalog client registers it."""

    kind: str = ""
    id: str = ""
    service: str = ""
    tags: list[str] | None = None
    address: str = ""
    tagged_addresses: dict[str, ServiceAddress] | None = None
    meta: dict[str, str] | None = None
    port: Int64 = 0
    weights: Weights | None = None
    enable_tag_override: bool = False
    proxy: ConnectProxyConfig = ConnectProxyConfig()
    connect: ServiceConnect = ServiceConnect()
    locally_registered_as_sidecar: bool = False
    create_index: Uint64 = 0
    modify_index: Uint64 = 0

    def is_same(self, other: NodeService) -> bool:
        return (
            self.id == other.id
            and self.service == other.service
            and self.tags == other.tags
            and self.address == other.address
            and self.port == other.port
            and self.tagged_addresses == other.tagged_addresses
            and self.weights == other.weights
            and self.meta == other.meta
            and self.enable_tag_override == other.enable_tag_override
            and self.kind == other.kind
            and self.proxy == other.proxy
            and self.connect == other.connect
            and _same_free_form(self.proxy, other.proxy)
        )

    @property
    def is_gateway(self) -> bool:
        return self.kind in GATEWAY_KINDS

    def best_address(self, *, wan: bool) -> tuple[str, int]:
        """The instance's own address ("" if it has none) and port."""
        if wan and self.tagged_addresses:
            tagged = self.tagged_addresses.get("wan")
            if tagged is not None:
                return tagged.address, tagged.port or self.port
        return self.address, self.port


class ServiceNode(GoStruct, frozen=True, gc=False):
    """A service instance together with its node, flat, as `Catalog.ServiceNodes` answers."""

    id: str = ""
    node: str = ""
    address: str = ""
    datacenter: str = ""
    tagged_addresses: dict[str, str] | None = None
    node_meta: dict[str, str] | None = None
    service_kind: str = ""
    service_id: str = ""
    service_name: str = ""
    service_tags: list[str] | None = None
    service_address: str = ""
    service_tagged_addresses: dict[str, ServiceAddress] | None = None
    service_weights: Weights = Weights()
    service_meta: dict[str, str] | None = None
    service_port: Int64 = 0
    service_enable_tag_override: bool = False
    service_proxy: ConnectProxyConfig = ConnectProxyConfig()
    service_connect: ServiceConnect = ServiceConnect()
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


class HealthCheckDefinition(GoStruct, frozen=True, gc=False):
    """How a check is run. Intervals are nanoseconds on the wire, text in JSON."""

    http: str = ""
    tls_skip_verify: bool = False
    header: dict[str, list[str]] | None = None
    method: str = ""
    body: str = ""
    tcp: str = ""
    interval_ns: Int64 = 0
    output_max_size: Int64 = 0
    timeout_ns: Int64 = 0
    deregister_critical_service_after_ns: Int64 = 0
    script_args: list[str] | None = None
    docker_container_id: str = ""
    shell: str = ""
    grpc: str = ""
    grpc_use_tls: bool = field(default=False, name="GRPCUseTLS")
    alias_node: str = ""
    alias_service: str = ""
    ttl_ns: Int64 = 0

    @property
    def kind(self) -> str:
        """The check's type, as Consul derives it: `grpc`, `http`, ..., or "" of nothing."""
        every = self.interval_ns > 0
        if every and (self.grpc or self.http):
            return "grpc" if self.grpc else "http"
        if self.ttl_ns > 0:
            return "ttl"
        if every and self.tcp:
            return "tcp"
        if self.alias_node or self.alias_service:
            return "alias"
        if self.script_args:
            return "docker" if self.docker_container_id and every else "script"
        return ""


class HealthCheck(GoStruct, frozen=True, gc=False):
    """A check of a node, or of a service if `service_id` is set."""

    node: str = ""
    check_id: str = ""
    name: str = ""
    status: str = ""
    notes: str = ""
    output: str = ""
    service_id: str = ""
    service_name: str = ""
    service_tags: list[str] | None = None
    type: str = ""
    definition: HealthCheckDefinition = HealthCheckDefinition()
    create_index: Uint64 = 0
    modify_index: Uint64 = 0

    def is_same(self, other: HealthCheck) -> bool:
        return (
            self.node == other.node
            and self.check_id == other.check_id
            and self.name == other.name
            and self.status == other.status
            and self.notes == other.notes
            and self.output == other.output
            and self.service_id == other.service_id
            and self.service_name == other.service_name
            and self.service_tags == other.service_tags
            and self.definition == other.definition
        )


class CheckServiceNode(GoStruct, frozen=True, gc=False):
    """A service instance with its node and the checks that concern it."""

    node: Node = Node()
    service: NodeService = NodeService()
    checks: list[HealthCheck] | None = None

    def is_same(self, other: CheckServiceNode) -> bool:
        mine, theirs = self.checks or [], other.checks or []
        return (
            self.node.is_same(other.node)
            and self.service.is_same(other.service)
            and len(mine) == len(theirs)
            and all(a.is_same(b) for a, b in zip(mine, theirs, strict=True))
        )

    def best_address(self, *, wan: bool) -> tuple[str, int]:
        """Where to reach the instance: its own address, or else its node's."""
        address, port = self.service.best_address(wan=wan)
        return address or self.node.best_address(wan=wan), port

    @property
    def is_critical(self) -> bool:
        return any(check.status == CRITICAL for check in self.checks or ())


class NodeInfo(GoStruct, frozen=True, gc=False):
    """A node with everything on it, for the internal endpoints."""

    id: str = ""
    node: str = ""
    address: str = ""
    tagged_addresses: dict[str, str] | None = None
    meta: dict[str, str] | None = None
    services: list[NodeService] | None = None
    checks: list[HealthCheck] | None = None


class ServiceInfo(GoStruct, frozen=True, gc=False):
    """One row of a service dump. A gateway's service mappings are carried opaquely."""

    node: Node | None = None
    service: NodeService | None = None
    checks: list[HealthCheck] | None = None
    gateway_service: dict[str, Any] | None = None


class NodeServices(GoStruct, frozen=True, gc=False):
    node: Node | None = None
    services: dict[str, NodeService] | None = None


class NodeServiceList(GoStruct, frozen=True, gc=False):
    node: Node | None = None
    services: list[NodeService] | None = None


class ServiceName(GoStruct, frozen=True, gc=False):
    name: str = ""


class RegisterRequest(WriteRequest, frozen=True, gc=False):
    """Register a node, and with it a service and checks. Also a snapshot record."""

    datacenter: str = ""
    id: str = ""
    node: str = ""
    address: str = ""
    tagged_addresses: dict[str, str] | None = None
    node_meta: dict[str, str] | None = None
    service: NodeService | None = None
    check: HealthCheck | None = None
    checks: list[HealthCheck] | None = None
    skip_node_update: bool = False
    create_index: Uint64 = 0
    modify_index: Uint64 = 0

    def changes_node(self, node: Node | None) -> bool:
        """Whether applying this would touch the node's own row."""
        if node is None:
            return True
        if self.skip_node_update:
            return False
        return not self.as_node().is_same(node)

    def as_node(self) -> Node:
        return Node(
            id=self.id,
            node=self.node,
            address=self.address,
            datacenter=self.datacenter,
            tagged_addresses=self.tagged_addresses,
            meta=self.node_meta,
            create_index=self.create_index,
            modify_index=self.modify_index,
        )


class DeregisterRequest(WriteRequest, frozen=True, gc=False):
    """Remove a service, else a check, else the whole node."""

    datacenter: str = ""
    node: str = ""
    service_id: str = ""
    check_id: str = ""


class IndexedNodes(QueryMeta, frozen=True, gc=False):
    nodes: list[Node] | None = None


class IndexedServices(QueryMeta, frozen=True, gc=False):
    services: dict[str, list[str]] | None = None


class IndexedServiceList(QueryMeta, frozen=True, gc=False):
    services: list[ServiceName] | None = None


class IndexedServiceNodes(QueryMeta, frozen=True, gc=False):
    service_nodes: list[ServiceNode] | None = None


class IndexedNodeServices(QueryMeta, frozen=True, gc=False):
    node_services: NodeServices | None = None


class IndexedNodeServiceList(QueryMeta, frozen=True, gc=False):
    node_services: NodeServiceList = NodeServiceList()


class IndexedHealthChecks(QueryMeta, frozen=True, gc=False):
    health_checks: list[HealthCheck] | None = None


class IndexedCheckServiceNodes(QueryMeta, frozen=True, gc=False):
    nodes: list[CheckServiceNode] | None = None


class DatacenterIndexedCheckServiceNodes(QueryMeta, frozen=True, gc=False):
    datacenter_nodes: dict[str, list[CheckServiceNode] | None] | None = None


class IndexedNodeDump(QueryMeta, frozen=True, gc=False):
    dump: list[NodeInfo] | None = None


class IndexedServiceDump(QueryMeta, frozen=True, gc=False):
    dump: list[ServiceInfo] | None = None
