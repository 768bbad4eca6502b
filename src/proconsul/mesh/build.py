"""Catalog view -> mesh gateway snapshot: which address, which source, healthy or not.

Decides what the reference decides in agent/proxycfg/state.go and agent/xds/{endpoints,config}.go.
Unlike it, the fresher of catalog and federation state counts for another datacenter's gateways,
and server traffic goes only to gateways that expose their servers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proconsul.domain.catalog import (
    CRITICAL,
    META_WAN_FEDERATION,
    WARNING,
    CheckServiceNode,
    NodeService,
)
from proconsul.mesh.clusters import is_ip
from proconsul.mesh.snapshot import (
    DEFAULT_CONNECT_TIMEOUT_S,
    Bind,
    Endpoint,
    LocalService,
    MeshGatewaySnapshot,
    RemoteDatacenter,
    Server,
)

ANY_ADDRESS = "0.0.0.0"  # an address to listen on, as in the reference
_TRUE = frozenset({"1", "t", "true", "yes"})


@dataclass(frozen=True, slots=True)
class CatalogGateways:
    """What another datacenter's own catalog last answered about its mesh gateways.

    `index` is that answer's index; `live` says whether the blocking query is still being answered
    (false: the datacenter cannot be reached now, the answer may be old).
    """

    nodes: Sequence[CheckServiceNode]
    index: int
    live: bool = True


@dataclass(frozen=True, slots=True)
class GatewayView:
    """All that the agent has watched on behalf of one mesh gateway."""

    service: NodeService
    """The gateway's own registration with this agent."""
    datacenter: str
    domain: str
    trust_domain: str
    federation: Mapping[str, Sequence[CheckServiceNode]]
    """Datacenter -> gateways, from the replicated federation states."""
    catalog: Mapping[str, CatalogGateways]
    servers: Sequence[CheckServiceNode]
    """The instances of service `consul` of this datacenter."""
    services: Mapping[str, Sequence[CheckServiceNode]]
    """Connect-capable instances of this datacenter, by the name of the service they stand for."""


def mesh_gateway_snapshot(view: GatewayView) -> MeshGatewaySnapshot:
    """Everything sorted: equal views give equal snapshots whatever the order of their parts."""
    service = view.service
    config = service.proxy.config or {}
    others = (view.federation.keys() | view.catalog.keys()) - {view.datacenter}
    return MeshGatewaySnapshot(
        proxy_id=service.id or service.service,
        datacenter=view.datacenter,
        domain=view.domain.rstrip("."),
        trust_domain=view.trust_domain,
        binds=_binds(service),
        datacenters=tuple(_remote(name, view) for name in sorted(others)),
        servers=tuple(sorted(Server(n.node.node, _endpoint(n, wan=False)) for n in view.servers)),
        services=tuple(
            LocalService(name, _endpoints(nodes, wan=False))
            for name, nodes in sorted(view.services.items())
            if nodes
        ),
        wan_federation=_exposes_servers(service),
        connect_timeout_s=_connect_timeout_s(config),
    )


def fresher(
    federation: Sequence[CheckServiceNode] | None, catalog: CatalogGateways | None
) -> Sequence[CheckServiceNode]:
    """The newer of two views of one datacenter's gateways.

    Both carry the indexes of that datacenter's own catalog. A live answer of it at index I knows
    everything up to I, so only a federation state with something newer in it beats it. An answer
    that is no longer followed counts no further than its own newest entry.
    """
    if catalog is None or (federation and not catalog.nodes):
        # An empty answer may be a token's lack of rights; there is nothing to lose in trying.
        return federation or ()
    if not federation:
        return catalog.nodes
    known = catalog.index if catalog.live else _newest(catalog.nodes) - 1
    return federation if _newest(federation) > known else catalog.nodes


def _newest(nodes: Iterable[CheckServiceNode]) -> int:
    return max(
        (
            max(
                node.node.modify_index,
                node.service.modify_index,
                *(check.modify_index for check in node.checks or ()),
            )
            for node in nodes
        ),
        default=0,
    )


def _remote(name: str, view: GatewayView) -> RemoteDatacenter:
    nodes = fresher(view.federation.get(name), view.catalog.get(name))
    exposing = [node for node in nodes if _exposes_servers(node.service)]
    return RemoteDatacenter(name, _endpoints(nodes, wan=True), _endpoints(exposing, wan=True))


def _exposes_servers(service: NodeService) -> bool:
    return (service.meta or {}).get(META_WAN_FEDERATION) == "1"


def _endpoints(nodes: Iterable[CheckServiceNode], *, wan: bool) -> tuple[Endpoint, ...]:
    return tuple(sorted({_endpoint(node, wan=wan) for node in nodes}))


def _endpoint(node: CheckServiceNode, *, wan: bool) -> Endpoint:
    host, port = node.best_address(wan=wan)
    states = {check.status for check in node.checks or ()}
    weight = 1
    if (weights := node.service.weights) is not None:
        weight = weights.warning if WARNING in states else weights.passing
    # A weight of 0 asks for no traffic at all.
    return Endpoint(host, port, CRITICAL not in states and weight > 0, max(weight, 1))


def _binds(service: NodeService) -> tuple[Bind, ...]:
    """Where to listen, as the reference's `envoy_*gateway_bind_*` settings say.

    Falls back to the default address if they leave nothing: a gateway always has a listener.
    """
    config = service.proxy.config or {}
    default = Bind("default", service.address or ANY_ADDRESS, service.port)
    binds = [] if _flag(_setting(config, "no_default_bind")) else [default]
    if _flag(_setting(config, "bind_tagged_addresses")):
        for name, tagged in (service.tagged_addresses or {}).items():
            binds.append(Bind(name, tagged.address, tagged.port or service.port))
    addresses = _setting(config, "bind_addresses")
    if isinstance(addresses, list) and len(addresses) == 1:
        addresses = addresses[0]  # HCL makes a list of a block
    if isinstance(addresses, Mapping):
        for name, value in addresses.items():
            fields = (
                {str(key).lower(): field for key, field in value.items()}
                if isinstance(value, Mapping)
                else {}
            )
            binds.append(
                Bind(
                    str(name),
                    _text(fields.get("address", "")) or ANY_ADDRESS,
                    _number(fields.get("port")) or service.port,
                )
            )
    usable = {bind for bind in binds if is_ip(bind.host)}
    if not usable:
        usable = {default if is_ip(default.host) else Bind("default", ANY_ADDRESS, service.port)}
    return tuple(sorted(usable))


def _setting(config: Mapping[str, Any], name: str) -> Any:
    """A gateway setting by its present name or the one it had for mesh gateways alone."""
    value = config.get(f"envoy_gateway_{name}")
    return config.get(f"envoy_mesh_gateway_{name}") if value is None else value


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _flag(value: Any) -> bool:
    return value is not None and _text(value).lower() in _TRUE


def _number(value: Any) -> int:
    """Weakly typed, as the opaque configuration is: 0 for what is no number."""
    try:
        return int(float(_text(value)))
    except (ValueError, OverflowError):
        return 0


def _connect_timeout_s(config: Mapping[str, Any]) -> float:
    timeout_ms = _number(config.get("connect_timeout_ms"))
    return timeout_ms / 1000 if timeout_ms > 0 else DEFAULT_CONNECT_TIMEOUT_S
