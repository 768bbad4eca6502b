"""The JSON forms of catalog structs: Go's key order, what it omits, what it leaves null.

Domain structs are what crosses RPC; JSON differs in that some empty fields are omitted, durations
are text, and lists of tags are never null (Consul's handlers see to that).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from proconsul.domain.catalog import (
    CheckServiceNode,
    ConnectProxyConfig,
    ExposeConfig,
    HealthCheck,
    HealthCheckDefinition,
    Node,
    NodeInfo,
    NodeService,
    ServiceAddress,
    ServiceConnect,
    ServiceNode,
    Weights,
)
from proconsul.domain.coordinate import DatacenterMap, NodeCoordinate
from proconsul.domain.federation import FederationState
from proconsul.domain.gateways import GatewayService
from proconsul.domain.go_json import free_form, number
from proconsul.util.goduration import format_duration_ns
from proconsul.wire.gotime import format_time

_PLAIN_PROXY = ConnectProxyConfig()
_PLAIN_PROXY_VIEW: dict[str, Any] = {"MeshGateway": {}, "Expose": {}}
_PLAIN_CONNECT = ServiceConnect()
_PLAIN_DEFINITION = HealthCheckDefinition()
_EMPTY: dict[str, Any] = {}


def _filled(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Go's `omitempty`: without empty strings, zeros, false, and empty or nil collections."""
    return {key: value for key, value in pairs if value}


def _map(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A map in the order of its keys, as Go writes it."""
    if not found:
        return None if found is None else _EMPTY
    return dict(sorted(found.items())) if len(found) > 1 else dict(found)


def node(one: Node | None) -> dict[str, Any] | None:
    """A node of the catalog."""
    if one is None:
        return None
    return {
        "ID": one.id,
        "Node": one.node,
        "Address": one.address,
        "Datacenter": one.datacenter,
        "TaggedAddresses": _map(one.tagged_addresses),
        "Meta": _map(one.meta),
        "CreateIndex": one.create_index,
        "ModifyIndex": one.modify_index,
    }


def nodes(many: Iterable[Node]) -> list[Any]:
    return [node(one) for one in many]


def addresses(tagged: Mapping[str, ServiceAddress] | None) -> dict[str, Any]:
    """Tagged addresses of a service."""
    return {
        key: {"Address": a.address, "Port": a.port} for key, a in sorted((tagged or {}).items())
    }


def weights(one: Weights | None) -> dict[str, int] | None:
    return None if one is None else {"Passing": one.passing, "Warning": one.warning}


def proxy(one: ConnectProxyConfig) -> dict[str, Any]:
    """A proxy's configuration."""
    if one == _PLAIN_PROXY:
        return _PLAIN_PROXY_VIEW
    view = _filled(
        (
            ("DestinationServiceName", one.destination_service_name),
            ("DestinationServiceID", one.destination_service_id),
            ("LocalServiceAddress", one.local_service_address),
            ("LocalServicePort", one.local_service_port),
            ("Config", free_form(one.config)),
            ("Upstreams", [_upstream(up) for up in one.upstreams or ()]),
        )
    )
    view["MeshGateway"] = _filled((("Mode", one.mesh_gateway.mode),))
    view["Expose"] = _expose(one.expose)
    return view


def _upstream(up: Any) -> dict[str, Any]:
    view = {"DestinationType": up.destination_type}
    if up.destination_namespace:
        view["DestinationNamespace"] = up.destination_namespace
    view |= {"DestinationName": up.destination_name, "Datacenter": up.datacenter}
    if up.local_bind_address:
        view["LocalBindAddress"] = up.local_bind_address
    return view | {
        "LocalBindPort": up.local_bind_port,
        "Config": free_form(up.config),
        "MeshGateway": _filled((("Mode", up.mesh_gateway.mode),)),
    }


def _expose(one: ExposeConfig) -> dict[str, Any]:
    paths = [
        _filled(
            (
                ("ListenerPort", path.listener_port),
                ("Path", path.path),
                ("LocalPathPort", path.local_path_port),
                ("Protocol", path.protocol),
            )
        )
        | {"ParsedFromCheck": path.parsed_from_check}
        for path in one.paths or ()
    ]
    return _filled((("Checks", one.checks), ("Paths", paths)))


def _connect(one: ServiceConnect) -> dict[str, Any]:
    if one == _PLAIN_CONNECT:
        return _EMPTY
    return _filled((("Native", one.native), ("SidecarService", free_form(one.sidecar_service))))


def service(one: NodeService, *, nulls: bool = False) -> dict[str, Any]:
    """A service instance as the catalog knows it; with `nulls`, missing tags are null."""
    view: dict[str, Any] = {"Kind": one.kind} if one.kind else {}
    view["ID"] = one.id
    view["Service"] = one.service
    view["Tags"] = one.tags if nulls else one.tags or []
    view["Address"] = one.address
    if one.tagged_addresses:
        view["TaggedAddresses"] = addresses(one.tagged_addresses)
    view["Meta"] = _map(one.meta)
    view["Port"] = one.port
    view["Weights"] = weights(one.weights)
    view["EnableTagOverride"] = one.enable_tag_override
    view["Proxy"] = proxy(one.proxy)
    view["Connect"] = _connect(one.connect)
    view["CreateIndex"] = one.create_index
    view["ModifyIndex"] = one.modify_index
    return view


def service_node(one: ServiceNode) -> dict[str, Any]:
    """A row of `/v1/catalog/service/`."""
    view: dict[str, Any] = {
        "ID": one.id,
        "Node": one.node,
        "Address": one.address,
        "Datacenter": one.datacenter,
        "TaggedAddresses": _map(one.tagged_addresses),
        "NodeMeta": _map(one.node_meta),
        "ServiceKind": one.service_kind,
        "ServiceID": one.service_id,
        "ServiceName": one.service_name,
        "ServiceTags": one.service_tags or [],
        "ServiceAddress": one.service_address,
    }
    if one.service_tagged_addresses:
        view["ServiceTaggedAddresses"] = addresses(one.service_tagged_addresses)
    view["ServiceWeights"] = weights(one.service_weights)
    # Consul clones this map, which makes an empty one of nil.
    view["ServiceMeta"] = _map(one.service_meta) or {}
    view["ServicePort"] = one.service_port
    view["ServiceEnableTagOverride"] = one.service_enable_tag_override
    view["ServiceProxy"] = proxy(one.service_proxy)
    view["ServiceConnect"] = _connect(one.service_connect)
    view["CreateIndex"] = one.create_index
    view["ModifyIndex"] = one.modify_index
    return view


def gateway_services(many: Iterable[GatewayService] | None) -> list[Any] | None:
    """Services behind a gateway."""
    if many is None:
        return None
    return [
        {
            "Gateway": {"Name": one.gateway.name},
            "Service": {"Name": one.service.name},
            "GatewayKind": one.gateway_kind,
        }
        | _filled(
            (
                ("Port", one.port),
                ("Protocol", one.protocol),
                ("Hosts", one.hosts),
                ("CAFile", one.ca_file),
                ("CertFile", one.cert_file),
                ("KeyFile", one.key_file),
                ("SNI", one.sni),
                ("FromWildcard", one.from_wildcard),
            )
        )
        | {"CreateIndex": one.create_index, "ModifyIndex": one.modify_index}
        for one in many
    ]


def service_nodes(many: Iterable[ServiceNode]) -> list[Any]:
    return [service_node(one) for one in many]


def check_definition(one: HealthCheckDefinition) -> dict[str, Any]:
    """How a check is run; only what is set."""
    if one == _PLAIN_DEFINITION:
        return _EMPTY
    return _filled(
        (
            ("Interval", one.interval_ns and format_duration_ns(one.interval_ns)),
            ("OutputMaxSize", one.output_max_size),
            ("Timeout", one.timeout_ns and format_duration_ns(one.timeout_ns)),
            (
                "DeregisterCriticalServiceAfter",
                one.deregister_critical_service_after_ns
                and format_duration_ns(one.deregister_critical_service_after_ns),
            ),
            ("HTTP", one.http),
            ("TLSSkipVerify", one.tls_skip_verify),
            ("Header", _map(one.header)),
            ("Method", one.method),
            ("Body", one.body),
            ("TCP", one.tcp),
            ("ScriptArgs", one.script_args),
            ("DockerContainerID", one.docker_container_id),
            ("Shell", one.shell),
            ("GRPC", one.grpc),
            ("GRPCUseTLS", one.grpc_use_tls),
            ("AliasNode", one.alias_node),
            ("AliasService", one.alias_service),
            ("TTL", one.ttl_ns),
        )
    )


def check(one: HealthCheck, *, nulls: bool = False) -> dict[str, Any]:
    """A check with its state; with `nulls`, missing tags are null."""
    return {
        "Node": one.node,
        "CheckID": one.check_id,
        "Name": one.name,
        "Status": one.status,
        "Notes": one.notes,
        "Output": one.output,
        "ServiceID": one.service_id,
        "ServiceName": one.service_name,
        "ServiceTags": one.service_tags if nulls else one.service_tags or [],
        "Type": one.type,
        "Definition": check_definition(one.definition),
        "CreateIndex": one.create_index,
        "ModifyIndex": one.modify_index,
    }


def checks(many: Iterable[HealthCheck]) -> list[Any]:
    return [check(one) for one in many]


def check_service_nodes(
    many: Iterable[CheckServiceNode], *, nulls: bool = False
) -> list[dict[str, Any]]:
    """Instances with node and checks. `nulls`: as they are stored, for federation states."""
    shown_nodes: dict[int, Any] = {}
    rows = []
    for one in many:
        # Instances of one node share its row: it is shown once.
        key = id(one.node)
        if (shown := shown_nodes.get(key)) is None:
            shown = shown_nodes[key] = node(one.node)
        listed = [check(found, nulls=nulls) for found in one.checks or ()]
        rows.append(
            {
                "Node": shown,
                "Service": service(one.service, nulls=nulls),
                "Checks": None if nulls and one.checks is None else listed,
            }
        )
    return rows


def federation_state(one: FederationState) -> dict[str, Any]:
    """One datacenter's gateways."""
    view: dict[str, Any] = {"Datacenter": one.datacenter}
    if one.mesh_gateways:
        view["MeshGateways"] = check_service_nodes(one.mesh_gateways, nulls=True)
    view["UpdatedAt"] = format_time(one.updated_at_ns)
    view["PrimaryModifyIndex"] = one.primary_modify_index
    view["CreateIndex"] = one.create_index
    view["ModifyIndex"] = one.modify_index
    return view


def federation_states(many: Iterable[FederationState]) -> list[Any]:
    return [federation_state(one) for one in many]


def agent_service(one: NodeService) -> dict[str, Any]:
    """A local service, in the form of Consul's API client (`buildAgentService`)."""
    view: dict[str, Any] = {"Kind": one.kind} if one.kind else {}
    passing, warning = 1, 1
    if one.weights is not None:
        passing = one.weights.passing if one.weights.passing > 0 else 1
        warning = one.weights.warning
    view |= {
        "ID": one.id,
        "Service": one.service,
        "Tags": one.tags or [],
        "Meta": _map(one.meta) or {},
        "Port": one.port,
        "Address": one.address,
    }
    if one.tagged_addresses:
        view["TaggedAddresses"] = addresses(one.tagged_addresses)
    view["Weights"] = {"Passing": passing, "Warning": warning}
    view["EnableTagOverride"] = one.enable_tag_override
    view |= _filled((("CreateIndex", one.create_index), ("ModifyIndex", one.modify_index)))
    if one.kind == "connect-proxy" or one.is_gateway:
        view["Proxy"] = _api_proxy(one.proxy)
    if one.connect.native:
        view["Connect"] = {"Native": True}
    return view


_API_UPSTREAM_ALWAYS = frozenset({"DestinationName", "MeshGateway"})


def _api_proxy(one: ConnectProxyConfig) -> dict[str, Any]:
    """A proxy's configuration as Consul's API client has it: upstreams omit what is empty."""
    view = proxy(one)
    if one.upstreams:
        upstreams = [
            {key: value for key, value in upstream.items() if value or key in _API_UPSTREAM_ALWAYS}
            for upstream in view["Upstreams"]
        ]
        view = {**view, "Upstreams": upstreams}
    return view


def agent_health_check(one: HealthCheck) -> dict[str, Any]:
    """A check within `/v1/agent/health/service/`: fewer fields, the rest as Go's zero values."""
    zero = "0s"
    return {
        "Node": one.node,
        "CheckID": one.check_id,
        "Name": one.name,
        "Status": one.status,
        "Notes": one.notes,
        "Output": one.output,
        "ServiceID": one.service_id,
        "ServiceName": one.service_name,
        "ServiceTags": one.service_tags or None,
        "Type": "",
        "Definition": {
            "Interval": zero,
            "Timeout": zero,
            "DeregisterCriticalServiceAfter": zero,
            "HTTP": "",
            "Header": None,
            "Method": "",
            "Body": "",
            "TLSSkipVerify": False,
            "TCP": "",
        },
        "CreateIndex": 0,
        "ModifyIndex": 0,
    }


def member(one: Any) -> dict[str, Any]:
    """A gossip member."""
    return {
        "Name": one.name,
        "Addr": one.address[0],
        "Port": one.address[1],
        "Tags": dict(sorted(one.tags.items())),
        "Status": int(one.status),
        "ProtocolMin": one.protocol_min,
        "ProtocolMax": one.protocol_max,
        "ProtocolCur": one.protocol_cur,
        "DelegateMin": one.delegate_min,
        "DelegateMax": one.delegate_max,
        "DelegateCur": one.delegate_cur,
    }


def node_info(one: NodeInfo) -> dict[str, Any]:
    """A node with everything on it, as it is stored (`/v1/internal/ui/nodes`)."""
    return {
        "ID": one.id,
        "Node": one.node,
        "Address": one.address,
        "TaggedAddresses": _map(one.tagged_addresses),
        "Meta": _map(one.meta),
        "Services": [service(found, nulls=True) for found in one.services or ()],
        "Checks": [check(found, nulls=True) for found in one.checks or ()],
    }


def node_coordinate(row: NodeCoordinate) -> dict[str, Any]:
    """One element of `/v1/coordinate/nodes` and `node/:node`."""
    coord = row.coord
    return {
        "Node": row.node,
        "Segment": row.segment,
        "Coord": None
        if coord is None
        else {
            "Vec": None if coord.vec is None else [number(one) for one in coord.vec],
            "Error": number(coord.error),
            "Adjustment": number(coord.adjustment),
            "Height": number(coord.height),
        },
    }


def datacenter_maps(rows: Iterable[DatacenterMap]) -> list[dict[str, Any]]:
    """`/v1/coordinate/datacenters`."""
    return [
        {
            "Datacenter": row.datacenter,
            "AreaID": row.area_id,
            "Coordinates": [node_coordinate(one) for one in row.coordinates or ()],
        }
        for row in rows
    ]
