"""The services behind ingress and terminating gateways (agent/consul/{catalog,internal}_endpoint.go)."""

from __future__ import annotations

from typing import Any

from proconsul.domain import options as o
from proconsul.domain.acl import Authorizer
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.gateways import (
    GatewayService,
    IndexedGatewayServices,
    IndexedServiceDump,
    ServiceInfo,
)
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, Sharing, read
from proconsul.rpc.endpoints.vetting import unrestricted
from proconsul.rpc.methods import METHODS
from proconsul.rpc.shared_reads import SharedReads
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.state.watch import Answer


class Gateways:
    """What gateways lead to."""

    def __init__(self, server: EndpointServer) -> None:
        self._server = server
        self._reads = SharedReads()

    async def services(
        self, request: o.ServiceSpecificRequest, call: Call
    ) -> IndexedGatewayServices:
        """Of one gateway, what its config entry says."""
        may = call.authorizer
        if not may.service_read(request.service_name):
            raise PermissionDeniedError
        return await read(
            self._server,
            request,
            lambda: self._server.store.ingress.services_of(request.service_name),
            lambda rows: {"services": _shown(rows, may)},
            IndexedGatewayServices,
            Sharing(self._reads, "GatewayServices", may),
        )

    async def dump(self, request: o.ServiceSpecificRequest, call: Call) -> IndexedServiceDump:
        """The same with the instances of the services."""
        if not request.service_name:
            raise RequestError("Must provide gateway name")
        may = call.authorizer
        if not may.service_read(request.service_name):
            raise PermissionDeniedError
        return await read(
            self._server,
            request,
            lambda: self._with_instances(request.service_name),
            lambda rows: _allowed(rows, may),
            IndexedServiceDump,
        )

    def _with_instances(self, gateway: str) -> Answer[list[ServiceInfo]]:
        store = self._server.store
        index, services, watch = store.ingress.services_of(gateway)
        rows: list[ServiceInfo] = []
        for one in services:
            found = store.catalog.check_service_nodes(one.service.name)
            index, watch = max(index, found.index), watch.merged(found.watch)
            rows += [ServiceInfo(r.node, r.service, r.checks, one) for r in found.value]
            if not found.value:
                rows.append(ServiceInfo(gateway_service=one))
        return Answer(index, rows, watch)


def _shown(rows: list[GatewayService], may: Authorizer) -> list[GatewayService] | None:
    """None is null in JSON: what Consul's lookup gives if nothing is found, and its filter never."""
    if unrestricted(may):
        return rows or None
    return [row for row in rows if may.service_read(row.service.name)]


def _allowed(rows: list[ServiceInfo], may: Authorizer) -> dict[str, Any]:
    def sees(row: ServiceInfo) -> bool:
        behind = row.gateway_service or GatewayService()
        named = may.service_read(behind.gateway.name) and may.service_read(behind.service.name)
        return named and (row.node is None or may.node_read(row.node.node))

    return {"dump": [row for row in rows if sees(row)] or None}


def endpoints(server: EndpointServer) -> list[Endpoint]:
    """What is served of gateways' services."""
    it, needs = Gateways(server), Requires.SERVICE_READ
    return [
        Endpoint(METHODS["Catalog.GatewayServices"], needs, it.services),
        Endpoint(METHODS["Internal.GatewayServiceDump"], needs, it.dump),
    ]
