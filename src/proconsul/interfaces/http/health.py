"""`/v1/health/` and `/v1/status/` (`agent/health_endpoint.go`, `agent/status_endpoint.go`)."""

from __future__ import annotations

from msgspec.structs import replace

from proconsul.domain.catalog import (
    PASSING,
    CheckServiceNode,
    IndexedCheckServiceNodes,
    IndexedHealthChecks,
)
from proconsul.domain.options import (
    ChecksInStateRequest,
    DCSpecificRequest,
    QueryOptions,
    ServiceSpecificRequest,
)
from proconsul.drivers.http import Response
from proconsul.interfaces.http import views
from proconsul.interfaces.http.api import Answer, HttpApi
from proconsul.interfaces.http.catalog import node_request, service_request
from proconsul.interfaces.http.errors import bad_request
from proconsul.interfaces.http.options import meta_filters, query_options, query_source
from proconsul.interfaces.http.query import Ask, parse_bool
from proconsul.services.agent.cache_types import HEALTH_SERVICES


def node(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/health/node/:name"""
    return _checks(api, ask, "Health.NodeChecks", node_request(api, ask))


def checks(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/health/checks/:service"""
    return _checks(api, ask, "Health.ServiceChecks", service_request(api, ask))


def state(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/health/state/:state"""
    options = query_options(ask, api.config)
    if not ask.rest:
        raise bad_request("Missing check state")
    request = ChecksInStateRequest(
        state=ask.rest,
        source=query_source(ask, api.config),
        node_meta_filters=meta_filters(ask),
        **options,
    )
    return _checks(api, ask, "Health.ChecksInState", request)


def _checks(api: HttpApi, ask: Ask, method: str, request: QueryOptions) -> Answer:
    def render(out: IndexedHealthChecks) -> Response:
        head = api.meta(out, request)
        return api.shared(ask, out, out.health_checks or [], views.checks, head)

    return api.query(method, request, render)


def service(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/health/service/:name, all instances or only those with every check passing."""
    return _instances(api, ask, service_request(api, ask))


def connect(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/health/connect/:name, the instances that speak for the service in the mesh."""
    return _instances(api, ask, replace(service_request(api, ask), connect=True))


def ingress(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/health/ingress/:name, the gateways that let others in to the service."""
    return _instances(api, ask, replace(service_request(api, ask), ingress=True))


def _instances(api: HttpApi, ask: Ask, request: ServiceSpecificRequest) -> Answer:
    only_passing = False
    if ask.has("passing"):
        raw = ask.first("passing")
        wanted = parse_bool(raw) if raw else True
        if wanted is None:
            # Consul notices only once it has the answer, so that the query's errors come first.
            return api.query(
                "Health.ServiceNodes", request, _invalid_passing, cache=HEALTH_SERVICES
            )
        only_passing = wanted

    def render(out: IndexedCheckServiceNodes) -> Response:
        found = out.nodes or []
        if only_passing:
            found = [one for one in found if _is_passing(one)]
        return api.shared(ask, out, found, views.check_service_nodes, api.meta(out, request))

    return api.query("Health.ServiceNodes", request, render, cache=HEALTH_SERVICES)


def _invalid_passing(_: IndexedCheckServiceNodes) -> Response:
    raise bad_request("Invalid value for ?passing")


def _is_passing(one: CheckServiceNode) -> bool:
    return all(check.status == PASSING for check in one.checks or ())


def leader(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/status/leader"""
    return _status(api, ask, "Status.Leader")


def peers(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/status/peers"""
    return _status(api, ask, "Status.Peers")


async def _status(api: HttpApi, ask: Ask, method: str) -> Response:
    request = DCSpecificRequest(**query_options(ask, api.config))
    return api.json(ask, await api.agent.rpc(method, request))
