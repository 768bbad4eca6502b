"""`Catalog.*` (agent/consul/catalog_endpoint.go)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from proconsul.domain import catalog as c
from proconsul.domain import options as o
from proconsul.domain.definitions import multierror
from proconsul.domain.filter import create_filter
from proconsul.domain.messages import MessageType
from proconsul.domain.validate import check_service, wrong_uuid
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, Sharing, read
from proconsul.rpc.endpoints.near import near
from proconsul.rpc.endpoints.vetting import (
    allowed_node_services,
    allowed_service_nodes,
    sees_service,
    vet_deregister,
    vet_register,
    vet_service,
)
from proconsul.rpc.methods import METHODS, Empty
from proconsul.rpc.shared_reads import SharedReads
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.state.watch import Answer

CONSUL_SERVICE = "consul"
_ANY_ADDRESSES = frozenset({"0.0.0.0", "::", "[::]"})


class Catalog:
    """The catalog of the server's datacenter. `datacenters()` lists what is known, nearest first."""

    def __init__(self, server: EndpointServer, datacenters: Callable[[], list[str]]) -> None:
        self._server, self._datacenters = server, datacenters
        self._reads = SharedReads()

    async def register(self, request: c.RegisterRequest, call: Call) -> Empty:
        check_node(request.node, request.id)
        if not request.address and not request.skip_node_update:
            raise RequestError("Must provide address if SkipNodeUpdate is not set")
        service = request.service
        if service is not None:
            service = prepared_service(service)
            vet_service(service, call.authorizer)
        checks = list(request.checks or ())
        if request.check is not None:
            checks.append(request.check)
        checks = [
            replace(
                check,
                node=check.node or request.node,
                check_id=check.check_id or check.name,
                type=check.type or check.definition.kind,
            )
            for check in checks
        ]
        request = replace(request, service=service, check=None, checks=checks or None)
        vet_register(request, call.authorizer, self._server.store.catalog)
        await self._server.apply(MessageType.REGISTER, request)
        return Empty()

    async def deregister(self, request: c.DeregisterRequest, call: Call) -> Empty:
        vet_deregister(request, call.authorizer, self._server.store.catalog)
        await self._server.apply(MessageType.DEREGISTER, request)
        return Empty()

    async def list_datacenters(self, _request: o.DatacentersRequest, _call: Call) -> list[str]:
        return self._datacenters() or [self._server.datacenter]

    async def list_nodes(self, request: o.DCSpecificRequest, call: Call) -> c.IndexedNodes:
        may = call.authorizer.node_read
        wanted = create_filter(request.filter, c.Node)
        return await read(
            self._server,
            request,
            lambda: self._server.store.catalog.nodes(request.node_meta_filters),
            lambda nodes: {
                "nodes": near(
                    self._server,
                    request.source,
                    wanted.rows([n for n in nodes if may(n.node)]),
                    lambda row: row.node,
                )
            },
            c.IndexedNodes,
            Sharing(self._reads, "ListNodes", call.authorizer),
        )

    async def list_services(self, request: o.DCSpecificRequest, call: Call) -> c.IndexedServices:
        may = call.authorizer.service_read
        return await read(
            self._server,
            request,
            lambda: self._server.store.catalog.services(request.node_meta_filters),
            lambda found: {"services": {n: tags for n, tags in found.items() if may(n)}},
            c.IndexedServices,
            Sharing(self._reads, "ListServices", call.authorizer),
        )

    async def service_list(self, request: o.DCSpecificRequest, call: Call) -> c.IndexedServiceList:
        may = call.authorizer.service_read
        return await read(
            self._server,
            request,
            self._server.store.catalog.services,
            lambda found: {"services": [c.ServiceName(name) for name in found if may(name)]},
            c.IndexedServiceList,
        )

    async def service_nodes(
        self, request: o.ServiceSpecificRequest, call: Call
    ) -> c.IndexedServiceNodes:
        if not request.service_name and not request.service_address:
            raise RequestError("Must provide service name")
        may = call.authorizer
        if request.connect and not may.service_read(request.service_name):
            return c.IndexedServiceNodes()
        wanted = create_filter(request.filter, c.ServiceNode)

        def query() -> Answer[list[c.ServiceNode]]:
            return self._server.store.catalog.service_nodes(
                request.service_name,
                tags=wanted_tags(request),
                address=request.service_address,
                node_meta=request.node_meta_filters,
                connect=request.connect,
            )

        self._server.metrics.incr(
            "consul.catalog.service.query", 1, (("service", request.service_name),)
        )
        return await read(
            self._server,
            request,
            query,
            lambda rows: {
                "service_nodes": near(
                    self._server,
                    request.source,
                    wanted.rows(allowed_service_nodes(rows, may)),
                    lambda row: row.node,
                )
            },
            c.IndexedServiceNodes,
            Sharing(self._reads, "ServiceNodes", may),
        )

    async def node_services(
        self, request: o.NodeSpecificRequest, call: Call
    ) -> c.IndexedNodeServices:
        if not request.node:
            raise RequestError("Must provide node")
        may = call.authorizer
        wanted = create_filter(request.filter, c.NodeService)

        def build(found: c.NodeServices | None) -> dict[str, Any]:
            found = allowed_node_services(found, may)
            if found is None or found.node is None:
                return {"node_services": None}
            return {"node_services": replace(found, services=wanted.values(found.services or {}))}

        return await read(
            self._server,
            request,
            lambda: self._server.store.catalog.node_services(request.node),
            build,
            c.IndexedNodeServices,
        )

    async def node_service_list(
        self, request: o.NodeSpecificRequest, call: Call
    ) -> c.IndexedNodeServiceList:
        if not request.node:
            raise RequestError("Must provide node")
        may = call.authorizer
        wanted = create_filter(request.filter, c.NodeService)

        def build(found: c.NodeServices | None) -> dict[str, Any]:
            if found is None or found.node is None or not may.node_read(found.node.node):
                return {"node_services": c.NodeServiceList()}
            services = (found.services or {}).values()
            allowed = [s for s in services if sees_service(may, s.service)]
            return {"node_services": c.NodeServiceList(found.node, wanted.rows(allowed))}

        return await read(
            self._server,
            request,
            lambda: self._server.store.catalog.node_services(request.node),
            build,
            c.IndexedNodeServiceList,
        )


def _of_node(request: c.DeregisterRequest) -> c.DeregisterRequest:
    """Before anybody looks at the token."""
    if not request.node:
        raise RequestError("Must provide node")
    return request


def check_node(name: str, node_id: str) -> None:
    """Raises `RequestError` for a node that cannot be written."""
    if not name:
        raise RequestError("Must provide node")
    if node_id and (reason := wrong_uuid(node_id)):
        raise RequestError(f"Bad node ID: {reason}")


def prepared_service(service: c.NodeService) -> c.NodeService:
    """The checks and defaults that every registration gets. (Metadata and weights are the state's.)"""
    if problems := check_service(service):
        raise RequestError(multierror(problems))
    if not service.id and service.service:
        service = replace(service, id=service.service)
    if service.id and not service.service:
        raise RequestError("Must provide service name with ID")
    if service.address in _ANY_ADDRESSES:
        raise RequestError("Invalid service address")
    return service


def wanted_tags(request: o.ServiceSpecificRequest) -> list[str]:
    """The tags that a query filters by; old clients send a single one."""
    if not request.tag_filter:
        return []
    return [request.service_tag] if request.service_tag else list(request.service_tags or ())


def endpoints(server: EndpointServer, datacenters: Callable[[], list[str]]) -> list[Endpoint]:
    """All of `Catalog`."""
    it = Catalog(server, datacenters)
    node, service = Requires.NODE_READ, Requires.SERVICE_READ
    return [
        Endpoint(METHODS["Catalog.Register"], Requires.NODE_WRITE, it.register),
        Endpoint(METHODS["Catalog.Deregister"], Requires.NODE_WRITE, it.deregister, _of_node),
        Endpoint(METHODS["Catalog.ListDatacenters"], Requires.NOTHING, it.list_datacenters),
        Endpoint(METHODS["Catalog.ListNodes"], node, it.list_nodes),
        Endpoint(METHODS["Catalog.ListServices"], service, it.list_services),
        Endpoint(METHODS["Catalog.ServiceList"], service, it.service_list),
        Endpoint(METHODS["Catalog.ServiceNodes"], service, it.service_nodes),
        Endpoint(METHODS["Catalog.NodeServices"], node, it.node_services),
        Endpoint(METHODS["Catalog.NodeServiceList"], node, it.node_service_list),
    ]
