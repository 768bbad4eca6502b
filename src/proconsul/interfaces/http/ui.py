"""`/v1/internal/ui/`: overviews of nodes and services (`agent/ui_endpoint.go`).

They are answered by any server while there is no leader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from proconsul.domain.catalog import (
    CONNECT_PROXY,
    CheckServiceNode,
    IndexedCheckServiceNodes,
    IndexedNodeDump,
)
from proconsul.domain.errors import is_no_leader
from proconsul.domain.gateways import GatewayService, IndexedServiceDump
from proconsul.domain.options import (
    DCSpecificRequest,
    NodeSpecificRequest,
    ServiceDumpRequest,
    ServiceSpecificRequest,
)
from proconsul.drivers.http import Response
from proconsul.interfaces.http import views
from proconsul.interfaces.http.api import HttpApi
from proconsul.interfaces.http.errors import bad_request
from proconsul.interfaces.http.options import query_options
from proconsul.interfaces.http.query import Ask
from proconsul.util.errors import ProconsulError

EXTERNAL_SOURCE = "external-source"
"""Of an instance's metadata: what it was synchronised from."""


async def nodes(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/internal/ui/nodes"""
    request = DCSpecificRequest(**query_options(ask, api.config))
    out: IndexedNodeDump = await _asked(api, "Internal.NodeDump", request)
    return api.json(ask, [views.node_info(one) for one in out.dump or ()], api.meta(out))


async def node(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/internal/ui/node/:node"""
    options = query_options(ask, api.config)
    if not ask.rest:
        raise bad_request("Missing node name")
    request = NodeSpecificRequest(node=ask.rest, **options)
    out: IndexedNodeDump = await _asked(api, "Internal.NodeInfo", request)
    if not out.dump:
        return Response(404)
    return api.json(ask, views.node_info(out.dump[0]), api.meta(out))


async def services(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/internal/ui/services"""
    request = ServiceDumpRequest(**query_options(ask, api.config))
    out: IndexedCheckServiceNodes = await _asked(api, "Internal.ServiceDump", request)
    by_name: dict[str, list[CheckServiceNode]] = {}
    for one in out.nodes or ():
        by_name.setdefault(one.service.service, []).append(one)
    rows = [_summary(name, by_name[name], ()) for name in sorted(by_name)]
    return api.json(ask, rows, api.meta(out))


async def gateway_services(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/internal/ui/gateway-services-nodes/:gateway, with where ingress gateways offer them."""
    options = query_options(ask, api.config)
    if not ask.rest:
        raise bad_request("Missing gateway name")
    request = ServiceSpecificRequest(service_name=ask.rest, **options)
    out: IndexedServiceDump = await _asked(api, "Internal.GatewayServiceDump", request)
    by_name: dict[str, list[CheckServiceNode]] = {}
    addresses: dict[str, dict[str, None]] = {}
    for row in out.dump or ():
        if (behind := row.gateway_service) is not None:
            name = behind.service.name
            by_name.setdefault(name, [])
            known = addresses.setdefault(name, {})
            known.update(dict.fromkeys(_addresses(api, behind, request.datacenter)))
        if row.service is not None and row.node is not None:
            one = CheckServiceNode(node=row.node, service=row.service, checks=row.checks)
            by_name.setdefault(row.service.service, []).append(one)
    rows = [_summary(name, by_name[name], addresses.get(name, ())) for name in sorted(by_name)]
    return api.json(ask, rows, api.meta(out))


def _addresses(api: HttpApi, behind: GatewayService, datacenter: str) -> list[str]:
    """Host and port at which an ingress gateway offers a service."""
    if not behind.port:
        return []
    hosts = behind.hosts or [
        f"{behind.service.name}.ingress.{datacenter}.{domain}" for domain in api.config.dns_domains
    ]
    return [f"{host}:{behind.port}" for host in hosts]


async def _asked(api: HttpApi, method: str, request: Any) -> Any:
    try:
        return await api.agent.rpc(method, request)
    except ProconsulError as error:
        if not is_no_leader(error) or request.allow_stale:
            raise
        return await api.agent.rpc(method, replace(request, allow_stale=True))


def _summary(
    name: str, instances: list[CheckServiceNode], addresses: Iterable[str]
) -> dict[str, Any]:
    kind = instances[-1].service.kind if instances else ""
    proxied = {
        one.service.proxy.destination_service_name: None
        for one in instances
        if one.service.kind == CONNECT_PROXY
    }
    tags = {tag for one in instances for tag in one.service.tags or ()}
    sources = {
        source: None
        for one in instances
        if (source := (one.service.meta or {}).get(EXTERNAL_SOURCE))
    }
    states = Counter(check.status for one in instances for check in one.checks or ())
    view: dict[str, Any] = {"Kind": kind} if kind else {}
    view |= {
        "Name": name,
        "Tags": sorted(tags) or None,
        "Nodes": sorted(one.node.node for one in instances) or None,
        "InstanceCount": len(instances),
    }
    if proxied:
        view["ProxyFor"] = list(proxied)
    return view | {
        "ChecksPassing": states["passing"],
        "ChecksWarning": states["warning"],
        "ChecksCritical": states["critical"],
        "ExternalSources": list(sources) or None,
        "GatewayConfig": {"Addresses": found} if (found := list(addresses)) else {},
    }
