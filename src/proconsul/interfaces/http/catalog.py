"""`/v1/catalog/` (`agent/catalog_endpoint.go`)."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from proconsul.domain.catalog import (
    DeregisterRequest,
    IndexedNodes,
    IndexedNodeServiceList,
    IndexedNodeServices,
    IndexedServiceNodes,
    IndexedServices,
    RegisterRequest,
)
from proconsul.domain.gateways import IndexedGatewayServices
from proconsul.domain.go_decode import GoDecodeError, decode_struct, parse_json
from proconsul.domain.options import (
    DatacentersRequest,
    DCSpecificRequest,
    NodeSpecificRequest,
    ServiceSpecificRequest,
)
from proconsul.drivers.http import Response
from proconsul.interfaces.http import views
from proconsul.interfaces.http.api import Answer, HttpApi
from proconsul.interfaces.http.errors import bad_request
from proconsul.interfaces.http.options import meta_filters, query_options, query_source
from proconsul.interfaces.http.query import Ask
from proconsul.services.agent.cache_types import CATALOG_SERVICES, DATACENTERS, LIST_SERVICES

T = TypeVar("T")


def register(api: HttpApi, ask: Ask) -> Answer:
    """PUT /v1/catalog/register"""
    return _write(api, ask, "Catalog.Register", RegisterRequest)


def deregister(api: HttpApi, ask: Ask) -> Answer:
    """PUT /v1/catalog/deregister"""
    return _write(api, ask, "Catalog.Deregister", DeregisterRequest)


async def _write(api: HttpApi, ask: Ask, method: str, type_: type[Any]) -> Response:
    count(api, method)
    request = decode_body(ask, type_)
    datacenter = request.datacenter or api.config.datacenter
    request = msgspec.structs.replace(request, datacenter=datacenter, token=api.token(ask))
    try:
        await api.agent.rpc(method, request)
    except Exception:
        count(api, method, "rpc.error")
        raise
    count(api, method, "api.success")
    return api.json(ask, True)


def decode_body(ask: Ask, type_: type[T]) -> T:
    """The request's body as a struct; `HttpError` 400 with Consul's words."""
    try:
        return decode_struct(parse_json(ask.request.body), type_)
    except GoDecodeError as error:
        raise bad_request(f"Request decode failed: {error}") from None


def count(api: HttpApi, method: str, kind: str = "api") -> None:
    """Consul's `client.api.catalog_register` and its relatives."""
    name = _METRIC_NAMES[method]
    labels = (("node", api.config.node_name),)
    api.agent.metrics.incr(f"consul.client.{kind}.{name}", 1, labels)


_METRIC_NAMES = {
    "Catalog.Register": "catalog_register",
    "Catalog.Deregister": "catalog_deregister",
    "Catalog.ListDatacenters": "catalog_datacenters",
    "Catalog.ListNodes": "catalog_nodes",
    "Catalog.ListServices": "catalog_services",
    "Catalog.ServiceNodes": "catalog_service_nodes",
    "Catalog.NodeServices": "catalog_node_services",
    "Catalog.NodeServiceList": "catalog_node_service_list",
}


async def datacenters(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/catalog/datacenters"""
    count(api, "Catalog.ListDatacenters")
    options = query_options(ask, api.config)
    del options["datacenter"]
    request = DatacentersRequest(**options)

    def render(out: list[str]) -> Response:
        count(api, "Catalog.ListDatacenters", "api.success")
        return api.json(ask, out)

    if api.may_use_cache(request):
        return await api.cached(DATACENTERS, request, render)
    return render(await api.agent.rpc("Catalog.ListDatacenters", request))


def nodes(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/catalog/nodes"""
    count(api, "Catalog.ListNodes")
    request = DCSpecificRequest(
        source=query_source(ask, api.config),
        node_meta_filters=meta_filters(ask),
        **query_options(ask, api.config),
    )

    def render(out: IndexedNodes) -> Response:
        return api.shared(ask, out, out.nodes or [], views.nodes, api.meta(out, request))

    return api.query("Catalog.ListNodes", request, render)


def services(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/catalog/services"""
    count(api, "Catalog.ListServices")
    request = DCSpecificRequest(
        node_meta_filters=meta_filters(ask), **query_options(ask, api.config)
    )

    def render(out: IndexedServices) -> Response:
        # Go writes maps in the order of their keys.
        head = api.meta(out, request)
        return api.shared(
            ask, out, out.services or {}, lambda all_: dict(sorted(all_.items())), head
        )

    return api.query("Catalog.ListServices", request, render, cache=LIST_SERVICES)


def service(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/catalog/service/:name"""
    return _instances(api, ask, service_request(api, ask))


def connect(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/catalog/connect/:name, the instances that speak for the service in the mesh."""
    return _instances(api, ask, msgspec.structs.replace(service_request(api, ask), connect=True))


def _instances(api: HttpApi, ask: Ask, request: ServiceSpecificRequest) -> Answer:
    count(api, "Catalog.ServiceNodes")

    def render(out: IndexedServiceNodes) -> Response:
        head = api.meta(out, request)
        return api.shared(ask, out, out.service_nodes or [], views.service_nodes, head)

    return api.query("Catalog.ServiceNodes", request, render, cache=CATALOG_SERVICES)


def gateway_services(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/catalog/gateway-services/:gateway"""
    options = query_options(ask, api.config)
    if not ask.rest:
        raise bad_request("Missing gateway name")
    request = ServiceSpecificRequest(service_name=ask.rest, **options)

    def render(out: IndexedGatewayServices) -> Response:
        return api.shared(ask, out, out.services, views.gateway_services, api.meta(out, request))

    return api.query("Catalog.GatewayServices", request, render)


def service_request(api: HttpApi, ask: Ask) -> ServiceSpecificRequest:
    """The request of all reads about one service."""
    options = query_options(ask, api.config)
    tags = ask.params.get("tag")
    if not ask.rest:
        raise bad_request("Missing service name")
    return ServiceSpecificRequest(
        service_name=ask.rest,
        source=query_source(ask, api.config),
        node_meta_filters=meta_filters(ask),
        service_tags=tags,
        tag_filter=tags is not None,
        **options,
    )


def node_request(api: HttpApi, ask: Ask) -> NodeSpecificRequest:
    """The request of all reads about one node."""
    options = query_options(ask, api.config)
    if not ask.rest:
        raise bad_request("Missing node name")
    return NodeSpecificRequest(node=ask.rest, **options)


def node(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/catalog/node/:name"""
    count(api, "Catalog.NodeServices")
    request = node_request(api, ask)

    def view(found: Any) -> Any:
        if found is None:
            return None
        by_id = {key: views.service(one) for key, one in sorted((found.services or {}).items())}
        return {"Node": views.node(found.node), "Services": by_id}

    def render(out: IndexedNodeServices) -> Response:
        return api.shared(ask, out, out.node_services, view, api.meta(out, request))

    return api.query("Catalog.NodeServices", request, render)


def node_services(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/catalog/node-services/:name"""
    count(api, "Catalog.NodeServiceList")
    request = node_request(api, ask)

    def view(found: Any) -> Any:
        listed = found.services
        shown = None if listed is None else [views.service(one) for one in listed]
        return {"Node": views.node(found.node), "Services": shown}

    def render(out: IndexedNodeServiceList) -> Response:
        return api.shared(ask, out, out.node_services, view, api.meta(out, request))

    return api.query("Catalog.NodeServiceList", request, render)
