"""`Health.*` (agent/consul/health_endpoint.go)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proconsul.domain import catalog as c
from proconsul.domain import options as o
from proconsul.domain.acl import Authorizer
from proconsul.domain.filter import Filter, create_filter
from proconsul.domain.options import QuerySource
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, Sharing, read
from proconsul.rpc.endpoints.catalog import wanted_tags
from proconsul.rpc.endpoints.near import near
from proconsul.rpc.endpoints.vetting import allowed_instances, sees_check
from proconsul.rpc.methods import METHODS
from proconsul.rpc.shared_reads import SharedReads
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.state.watch import Answer


class Health:
    """Checks, and instances with their checks."""

    def __init__(self, server: EndpointServer) -> None:
        self._server = server
        self._reads = SharedReads()

    def _shown(
        self, rows: Iterable[c.HealthCheck], may: Authorizer, wanted: Filter, source: QuerySource
    ) -> dict[str, Any]:
        shown = wanted.rows([row for row in rows if sees_check(may, row)])
        return {"health_checks": near(self._server, source, shown, lambda row: row.node)}

    async def checks_in_state(
        self, request: o.ChecksInStateRequest, call: Call
    ) -> c.IndexedHealthChecks:
        wanted = create_filter(request.filter, c.HealthCheck)
        return await read(
            self._server,
            request,
            lambda: self._server.store.catalog.checks_in_state(
                request.state, request.node_meta_filters
            ),
            lambda rows: self._shown(rows, call.authorizer, wanted, request.source),
            c.IndexedHealthChecks,
        )

    async def node_checks(
        self, request: o.NodeSpecificRequest, call: Call
    ) -> c.IndexedHealthChecks:
        wanted = create_filter(request.filter, c.HealthCheck)
        return await read(
            self._server,
            request,
            lambda: self._server.store.catalog.node_checks(request.node),
            lambda rows: self._shown(rows, call.authorizer, wanted, QuerySource()),
            c.IndexedHealthChecks,
        )

    async def service_checks(
        self, request: o.ServiceSpecificRequest, call: Call
    ) -> c.IndexedHealthChecks:
        if request.tag_filter:
            raise RequestError("Tag filtering is not supported")
        wanted = create_filter(request.filter, c.HealthCheck)
        return await read(
            self._server,
            request,
            lambda: self._server.store.catalog.service_checks(
                request.service_name, request.node_meta_filters
            ),
            lambda rows: self._shown(rows, call.authorizer, wanted, request.source),
            c.IndexedHealthChecks,
            Sharing(self._reads, "ServiceChecks", call.authorizer),
        )

    async def service_nodes(
        self, request: o.ServiceSpecificRequest, call: Call
    ) -> c.IndexedCheckServiceNodes:
        if not request.service_name:
            raise RequestError("Must provide service name")
        may = call.authorizer
        if (request.connect or request.ingress) and not may.service_read(request.service_name):
            return c.IndexedCheckServiceNodes()
        tags = wanted_tags(request)
        meta = request.node_meta_filters or {}
        wanted = create_filter(request.filter, c.CheckServiceNode)

        def query() -> Answer[list[c.CheckServiceNode]]:
            store, name = self._server.store, request.service_name
            if request.ingress and not request.connect and not tags:
                return store.ingress.gateways_of(name)
            return store.catalog.check_service_nodes(name, tags=tags, connect=request.connect)

        def build(rows: list[c.CheckServiceNode]) -> dict[str, Any]:
            if meta:
                rows = [r for r in rows if meta.items() <= (r.node.meta or {}).items()]
            shown = wanted.rows(allowed_instances(rows, may))
            return {"nodes": near(self._server, request.source, shown, lambda row: row.node.node)}

        self._server.metrics.incr(
            "consul.health.service.query", 1, (("service", request.service_name),)
        )
        return await read(
            self._server,
            request,
            query,
            build,
            c.IndexedCheckServiceNodes,
            Sharing(self._reads, "ServiceNodes", may),
        )


def endpoints(server: EndpointServer) -> list[Endpoint]:
    """All of `Health`."""
    it = Health(server)
    return [
        Endpoint(METHODS["Health.ChecksInState"], Requires.NODE_READ, it.checks_in_state),
        Endpoint(METHODS["Health.NodeChecks"], Requires.NODE_READ, it.node_checks),
        Endpoint(METHODS["Health.ServiceChecks"], Requires.SERVICE_READ, it.service_checks),
        Endpoint(METHODS["Health.ServiceNodes"], Requires.SERVICE_READ, it.service_nodes),
    ]
