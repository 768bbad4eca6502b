"""JSON as Consul's HTTP interface writes it: which fields are left out, null or empty.

`*_view` functions turn rows into objects for `to_json`, which writes the bytes of Go's encoder:
`<`, `>` and `&` escaped, maps sorted, floats in Go's form, text that is not UTF-8 replaced. What is
null in one endpoint and `[]` in another is an argument here (Go's HTTP handlers patch some nils).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

from proconsul.domain.base import is_nil
from proconsul.domain.catalog import (
    CheckServiceNode,
    ConnectProxyConfig,
    HealthCheck,
    HealthCheckDefinition,
    Node,
    NodeInfo,
    NodeService,
    NodeServices,
    ServiceAddress,
    ServiceNode,
)
from proconsul.domain.coordinate import DatacenterMap, NodeCoordinate
from proconsul.domain.federation import FederationState
from proconsul.domain.kv import DirEntry
from proconsul.domain.options import QueryMeta
from proconsul.wire.gotime import format_duration, format_time

Json = dict[str, Any]

_NESTING_MAX = 64
_NO_PROXY = ConnectProxyConfig()
_NO_DEFINITION = HealthCheckDefinition()
_encoder = msgspec.json.Encoder()
_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def to_json(value: object) -> bytes:
    """Compact JSON, byte for byte as Go's `json.Marshal` of the same value."""
    try:
        data = _encoder.encode(value)
    except UnicodeEncodeError:
        data = _encoder.encode(_replace_invalid(value))
    for plain, escaped in _ESCAPES:
        if plain in data:
            data = data.replace(plain, escaped)
    return data


def _replace_invalid(value: object) -> object:
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        # Go writes its replacement for invalid bytes as an escape; U+FFFD itself it leaves alone.
        return Raw(_encoder.encode(text).replace("\ufffd".encode(), b"\\ufffd"))
    if isinstance(value, dict):
        return {_valid_key(key): _replace_invalid(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_invalid(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return {
            field.encode_name: _replace_invalid(getattr(value, field.name))
            for field in msgspec.structs.fields(value)
        }
    return value


def _valid_key(key: object) -> object:
    if isinstance(key, str):
        return key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return key


def number(value: float) -> int | float | Raw:
    """A float as Go writes it: integral ones without a point, no exponent from 1e-6 to 1e21."""
    size = abs(value)
    if size < 1e21 and value.is_integer():
        return int(value)
    if 1e-6 <= size < 1e-3:  # where Python's shortest form would have an exponent
        digits = f"{value:.{_decimals(value)}f}"
        return Raw(digits.encode())
    if size < 1e-6 or size >= 1e21:
        mantissa, _, exponent = repr(value).partition("e")
        sign = exponent[0] if exponent[0] in "+-" else "+"
        return Raw(f"{mantissa}e{sign}{exponent.lstrip('+-').lstrip('0').rjust(1, '0')}".encode())
    return value


def _decimals(value: float) -> int:
    mantissa, _, exponent = f"{value!r}".partition("e")
    fraction = len(mantissa.partition(".")[2]) if "." in mantissa else 0
    return fraction - int(exponent or 0)


def free_form(value: Any, depth: int = 0) -> Any:
    """An opaque configuration value: maps sorted, floats in Go's form."""
    if depth > _NESTING_MAX:
        return None
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return {key: free_form(value[key], depth + 1) for key in sorted(value)}
    if isinstance(value, list):
        return [free_form(item, depth + 1) for item in value]
    return value


def _map(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """A map in Go's order; nil stays null."""
    return value if not value or len(value) == 1 else {key: value[key] for key in sorted(value)}


def _addresses(value: dict[str, ServiceAddress]) -> Json:
    return {key: {"Address": value[key].address, "Port": value[key].port} for key in sorted(value)}


def _without_empty(view: Json) -> Json:
    return {key: value for key, value in view.items() if value not in (None, "", 0, False, [], {})}


# --- catalog and health


def node_view(row: Node) -> Json:
    """`/v1/catalog/nodes`, and the node part elsewhere: nil maps are null."""
    return {
        "ID": row.id,
        "Node": row.node,
        "Address": row.address,
        "Datacenter": row.datacenter,
        "TaggedAddresses": _map(row.tagged_addresses),
        "Meta": _map(row.meta),
        "CreateIndex": row.create_index,
        "ModifyIndex": row.modify_index,
    }


def proxy_view(row: ConnectProxyConfig) -> Json:
    """`MeshGateway` and `Expose` are always there, if only as `{}`."""
    if row == _NO_PROXY:
        return {"MeshGateway": {}, "Expose": {}}
    view = _without_empty(
        {
            "DestinationServiceName": row.destination_service_name,
            "DestinationServiceID": row.destination_service_id,
            "LocalServiceAddress": row.local_service_address,
            "LocalServicePort": row.local_service_port,
            "Config": free_form(row.config) if row.config else None,
            "Upstreams": [_upstream(one) for one in row.upstreams or ()],
        }
    )
    view["MeshGateway"] = _mode(row.mesh_gateway.mode)
    view["Expose"] = _without_empty(
        {
            "Checks": row.expose.checks,
            "Paths": [
                {
                    **_without_empty(
                        {
                            "ListenerPort": path.listener_port,
                            "Path": path.path,
                            "LocalPathPort": path.local_path_port,
                            "Protocol": path.protocol,
                        }
                    ),
                    "ParsedFromCheck": path.parsed_from_check,
                }
                for path in row.expose.paths or ()
            ],
        }
    )
    return view


def _mode(mode: str) -> Json:
    return {"Mode": mode} if mode else {}


def _upstream(row: Any) -> Json:
    view: Json = {"DestinationType": row.destination_type}
    if row.destination_namespace:
        view["DestinationNamespace"] = row.destination_namespace
    view["DestinationName"] = row.destination_name
    view["Datacenter"] = row.datacenter
    if row.local_bind_address:
        view["LocalBindAddress"] = row.local_bind_address
    view["LocalBindPort"] = row.local_bind_port
    view["Config"] = free_form(row.config)
    view["MeshGateway"] = _mode(row.mesh_gateway.mode)
    return view


def _connect_view(native: bool, sidecar: dict[str, Any] | None) -> Json:
    return _without_empty({"Native": native, "SidecarService": free_form(sidecar)})


def service_view(row: NodeService, *, nil_tags: bool = False) -> Json:
    """A service instance. Nil tags are `[]`, but null in federation states and the UI's dumps."""
    view: Json = {"Kind": row.kind} if row.kind else {}
    view["ID"] = row.id
    view["Service"] = row.service
    view["Tags"] = row.tags if row.tags is not None or nil_tags else []
    view["Address"] = row.address
    if row.tagged_addresses:
        view["TaggedAddresses"] = _addresses(row.tagged_addresses)
    weights = row.weights
    view["Meta"] = _map(row.meta)
    view["Port"] = row.port
    view["Weights"] = (
        {"Passing": weights.passing, "Warning": weights.warning} if weights is not None else None
    )
    view["EnableTagOverride"] = row.enable_tag_override
    view["Proxy"] = proxy_view(row.proxy)
    view["Connect"] = _connect_view(row.connect.native, row.connect.sidecar_service)
    view["CreateIndex"] = row.create_index
    view["ModifyIndex"] = row.modify_index
    return view


def service_node_view(row: ServiceNode) -> Json:
    """`/v1/catalog/service/:name`."""
    view: Json = {
        "ID": row.id,
        "Node": row.node,
        "Address": row.address,
        "Datacenter": row.datacenter,
        "TaggedAddresses": _map(row.tagged_addresses),
        "NodeMeta": _map(row.node_meta),
        "ServiceKind": row.service_kind,
        "ServiceID": row.service_id,
        "ServiceName": row.service_name,
        "ServiceTags": row.service_tags if row.service_tags is not None else [],
        "ServiceAddress": row.service_address,
    }
    if row.service_tagged_addresses:
        view["ServiceTaggedAddresses"] = _addresses(row.service_tagged_addresses)
    view["ServiceWeights"] = {
        "Passing": row.service_weights.passing,
        "Warning": row.service_weights.warning,
    }
    view["ServiceMeta"] = _map(row.service_meta)
    view["ServicePort"] = row.service_port
    view["ServiceEnableTagOverride"] = row.service_enable_tag_override
    view["ServiceProxy"] = proxy_view(row.service_proxy)
    connect = row.service_connect
    view["ServiceConnect"] = _connect_view(connect.native, connect.sidecar_service)
    view["CreateIndex"] = row.create_index
    view["ModifyIndex"] = row.modify_index
    return view


def node_services_view(value: NodeServices | None) -> Json | None:
    """`/v1/catalog/node/:node`; null if there is no such node."""
    if value is None or value.node is None:
        return None
    services = value.services or {}
    return {
        "Node": node_view(value.node),
        "Services": {key: service_view(services[key]) for key in sorted(services)},
    }


def node_service_list_view(value: NodeServices | None) -> Json:
    """`/v1/catalog/node-services/:node`; nulls if there is no such node."""
    if value is None or value.node is None:
        return {"Node": None, "Services": None}
    services = value.services or {}
    return {
        "Node": node_view(value.node),
        "Services": [service_view(services[key]) for key in sorted(services)] or None,
    }


def definition_view(row: HealthCheckDefinition) -> Json:
    """How the check is run: durations as text, empty fields left out (the TTL is a number)."""
    if row == _NO_DEFINITION:
        return {}
    return _without_empty(
        {
            "Interval": _duration(row.interval_ns),
            "OutputMaxSize": row.output_max_size,
            "Timeout": _duration(row.timeout_ns),
            "DeregisterCriticalServiceAfter": _duration(row.deregister_critical_service_after_ns),
            "HTTP": row.http,
            "TLSSkipVerify": row.tls_skip_verify,
            "Header": _map(row.header),
            "Method": row.method,
            "Body": row.body,
            "TCP": row.tcp,
            "ScriptArgs": row.script_args,
            "DockerContainerID": row.docker_container_id,
            "Shell": row.shell,
            "GRPC": row.grpc,
            "GRPCUseTLS": row.grpc_use_tls,
            "AliasNode": row.alias_node,
            "AliasService": row.alias_service,
            "TTL": row.ttl_ns,
        }
    )


def _duration(ns: int) -> str:
    return format_duration(ns) if ns else ""


def check_view(row: HealthCheck, *, nil_tags: bool = False) -> Json:
    """`/v1/health/checks`, `node`, `state`. Nil tags are `[]` unless `nil_tags`."""
    return {
        "Node": row.node,
        "CheckID": row.check_id,
        "Name": row.name,
        "Status": row.status,
        "Notes": row.notes,
        "Output": row.output,
        "ServiceID": row.service_id,
        "ServiceName": row.service_name,
        "ServiceTags": row.service_tags if row.service_tags is not None or nil_tags else [],
        "Type": row.type,
        "Definition": definition_view(row.definition),
        "CreateIndex": row.create_index,
        "ModifyIndex": row.modify_index,
    }


def check_service_node_view(row: CheckServiceNode, *, nils: bool = False) -> Json:
    """`/v1/health/service/:name`. With `nils`, as in federation states, nil lists are null."""
    checks = [check_view(check, nil_tags=nils) for check in row.checks or ()]
    return {
        "Node": node_view(row.node),
        "Service": service_view(row.service, nil_tags=nils),
        "Checks": None if nils and row.checks is None else checks,
    }


def node_info_view(row: NodeInfo) -> Json:
    """`/v1/internal/ui/nodes` and `node/:node`."""
    return {
        "ID": row.id,
        "Node": row.node,
        "Address": row.address,
        "TaggedAddresses": _map(row.tagged_addresses),
        "Meta": _map(row.meta),
        "Services": [service_view(one, nil_tags=True) for one in row.services or ()],
        "Checks": [check_view(one, nil_tags=True) for one in row.checks or ()],
    }


# --- key-value store


def dir_entry_view(row: DirEntry) -> Json:
    """`/v1/kv/:key`: the value in base64, null if nil; the session only if locked."""
    nil = is_nil(row.raw_value)
    view: Json = {
        "LockIndex": row.lock_index,
        "Key": row.key,
        "Flags": row.flags,
        "Value": None if nil else base64.b64encode(row.value).decode("ascii"),
    }
    if row.session:
        view["Session"] = row.session
    view["CreateIndex"] = row.create_index
    view["ModifyIndex"] = row.modify_index
    return view


# --- federation and coordinates


def federation_state_view(row: FederationState) -> Json:
    """One element of `/v1/internal/federation-states`; without gateways the list is left out."""
    view: Json = {"Datacenter": row.datacenter}
    if row.mesh_gateways:
        view["MeshGateways"] = [
            check_service_node_view(one, nils=True) for one in row.mesh_gateways
        ]
    view["UpdatedAt"] = format_time(row.updated_at_ns)
    view["PrimaryModifyIndex"] = row.primary_modify_index
    view["CreateIndex"] = row.create_index
    view["ModifyIndex"] = row.modify_index
    return view


def query_meta_view(meta: QueryMeta) -> Json:
    """The fields that `/v1/internal/federation-state/:dc` shows beside `State`."""
    return {
        "Index": meta.index,
        "LastContact": meta.last_contact_ns,
        "KnownLeader": meta.known_leader,
        "ConsistencyLevel": meta.consistency_level,
    }


def datacenter_gateways_view(
    value: dict[str, list[CheckServiceNode] | None] | None,
) -> dict[str, list[Json]]:
    """`/v1/internal/federation-states/mesh-gateways`."""
    value = value or {}
    return {
        key: [check_service_node_view(one, nils=True) for one in value[key] or ()]
        for key in sorted(value)
    }


def node_coordinate_view(row: NodeCoordinate) -> Json:
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


def datacenter_maps_view(rows: Iterable[DatacenterMap]) -> list[Json]:
    """`/v1/coordinate/datacenters`."""
    return [
        {
            "Datacenter": row.datacenter,
            "AreaID": row.area_id,
            "Coordinates": [node_coordinate_view(one) for one in row.coordinates or ()],
        }
        for row in rows
    ]
