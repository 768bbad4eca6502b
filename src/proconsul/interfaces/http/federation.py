"""`/v1/internal/federation-*` (`agent/federation_state_endpoint.go`), and our own status."""

from __future__ import annotations

from typing import Any

from proconsul.domain.catalog import DatacenterIndexedCheckServiceNodes
from proconsul.domain.federation import (
    FederationStateQuery,
    FederationStateResponse,
    IndexedFederationStates,
)
from proconsul.domain.options import DCSpecificRequest
from proconsul.drivers.http import Response
from proconsul.interfaces.http import views
from proconsul.interfaces.http.api import Answer, HttpApi
from proconsul.interfaces.http.errors import bad_request
from proconsul.interfaces.http.options import query_options
from proconsul.interfaces.http.query import Ask


def state(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/internal/federation-state/:dc

    Go fills `TargetDatacenter`, by which the call is forwarded, from `?dc`, and `Datacenter` with
    the one asked about.
    """
    if not ask.rest:
        raise bad_request("Bad request: Missing datacenter name")
    options = query_options(ask, api.config)
    options["target_datacenter"] = options.pop("datacenter")
    request = FederationStateQuery(datacenter=ask.rest, **options)

    def render(out: FederationStateResponse) -> Response:
        if out.state is None:
            return Response(404)
        view = {
            "State": views.federation_state(out.state),
            "Index": out.index,
            "LastContact": out.last_contact_ns,
            "KnownLeader": out.known_leader,
            "ConsistencyLevel": out.consistency_level,
        }
        return api.json(ask, view, api.meta(out))

    return api.query("FederationState.Get", request, render, level=False)


def states(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/internal/federation-states"""
    request = DCSpecificRequest(**query_options(ask, api.config))

    def render(out: IndexedFederationStates) -> Response:
        return api.shared(ask, out, out.states or [], views.federation_states, api.meta(out))

    return api.query("FederationState.List", request, render, level=False)


def mesh_gateways(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/internal/federation-states/mesh-gateways"""
    request = DCSpecificRequest(**query_options(ask, api.config))

    def view(by_datacenter: Any) -> Any:
        return {
            datacenter: views.check_service_nodes(gateways or (), nulls=True)
            for datacenter, gateways in sorted(by_datacenter.items())
        }

    def render(out: DatacenterIndexedCheckServiceNodes) -> Response:
        return api.shared(ask, out, out.datacenter_nodes or {}, view, api.meta(out))

    return api.query("FederationState.ListMeshGateways", request, render, level=False)


async def status(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/internal/federation-status: every datacenter as seen from here."""
    return api.json(ask, await api.agent.federation_status(api.token(ask)))
