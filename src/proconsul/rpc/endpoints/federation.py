"""`FederationState.*` and `ConnectCA.Roots` (agent/consul/federation_state_endpoint.go)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from proconsul.domain import catalog as c
from proconsul.domain import connect as ca
from proconsul.domain import federation as f
from proconsul.domain import options as o
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, read
from proconsul.rpc.endpoints.vetting import allowed_instances
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires


class FederationStates:
    """Every datacenter's gateways."""

    def __init__(self, server: EndpointServer, unix_ns: Callable[[], int]) -> None:
        self._server, self._unix_ns = server, unix_ns

    async def apply(self, request: f.FederationStateRequest, call: Call) -> bool:
        if not call.authorizer.operator_write():
            raise PermissionDeniedError
        state = request.state
        if state is None or not state.datacenter:
            raise RequestError("invalid request: missing federation state datacenter")
        if request.op == f.FEDERATION_UPSERT:
            if state.raw_updated_at == f.ZERO_TIME:
                state = replace(state, raw_updated_at=f.raw_time(self._unix_ns()))
                request = replace(request, state=state)
        elif request.op != f.FEDERATION_DELETE:
            raise RequestError(f"Invalid federation state operation: {request.op}")
        result = await self._server.apply(MessageType.FEDERATION_STATE, request)
        return result if isinstance(result, bool) else False

    async def get(self, request: f.FederationStateQuery, call: Call) -> f.FederationStateResponse:
        if not call.authorizer.operator_read():
            raise PermissionDeniedError
        return await read(
            self._server,
            request,
            lambda: self._server.store.federation.get(request.datacenter),
            lambda row: {"state": row},
            f.FederationStateResponse,
        )

    async def list(self, request: o.DCSpecificRequest, call: Call) -> f.IndexedFederationStates:
        if not call.authorizer.operator_read():
            raise PermissionDeniedError
        return await read(
            self._server,
            request,
            self._server.store.federation.all,
            lambda rows: {"states": rows},
            f.IndexedFederationStates,
        )

    async def list_mesh_gateways(
        self, request: o.DCSpecificRequest, call: Call
    ) -> c.DatacenterIndexedCheckServiceNodes:
        def build(rows: list[f.FederationState]) -> dict[str, Any]:
            found = {}
            for row in rows:
                allowed = allowed_instances(row.mesh_gateways or (), call.authorizer)
                if allowed:
                    found[row.datacenter] = allowed
            return {"datacenter_nodes": found}

        return await read(
            self._server,
            request,
            self._server.store.federation.all,
            build,
            c.DatacenterIndexedCheckServiceNodes,
        )

    async def roots(self, request: o.DCSpecificRequest, _call: Call) -> ca.IndexedCARoots:
        """The CA's certificates, without keys, and the trust domain."""

        def build(
            found: tuple[list[ca.CARoot], ca.CAConfiguration | None],
        ) -> dict[str, Any]:
            roots, config = found
            active = next((r.id for r in roots if r.active), "")
            domain = trust_domain(config.cluster_id) if config is not None else ""
            public = [replace(r, signing_key="", signing_cert="") for r in roots]
            return {"active_root_id": active, "trust_domain": domain, "roots": public}

        return await read(
            self._server,
            request,
            self._server.store.connect.roots_and_config,
            build,
            ca.IndexedCARoots,
        )


def trust_domain(cluster_id: str) -> str:
    """`<cluster id>.consul`: fixed by the SPIFFE ids already issued, whatever `domain` says."""
    return f"{cluster_id}.consul" if cluster_id else ""


def endpoints(server: EndpointServer, unix_ns: Callable[[], int]) -> list[Endpoint]:
    """All of `FederationState`, and the CA's roots."""
    it = FederationStates(server, unix_ns)
    return [
        Endpoint(METHODS["FederationState.Apply"], Requires.OPERATOR_WRITE, it.apply),
        Endpoint(METHODS["FederationState.Get"], Requires.OPERATOR_READ, it.get),
        Endpoint(METHODS["FederationState.List"], Requires.OPERATOR_READ, it.list),
        Endpoint(
            METHODS["FederationState.ListMeshGateways"],
            Requires.SERVICE_READ,
            it.list_mesh_gateways,
        ),
        Endpoint(METHODS["ConnectCA.Roots"], Requires.NOTHING, it.roots),
    ]
