"""`FederationState.*` (agent/consul/federation_state_endpoint.go)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from proconsul.domain import catalog as c
from proconsul.domain import federation as f
from proconsul.domain import options as o
from proconsul.domain.base import is_nil
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
            if is_nil(state.raw_updated_at) or state.raw_updated_at == f.ZERO_TIME:
                state = replace(state, raw_updated_at=f.raw_time(self._unix_ns()))
                request = replace(request, state=state)
            _ = state.updated_at_ns  # raises: what a server cannot read must not get into the log
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


def endpoints(server: EndpointServer, unix_ns: Callable[[], int]) -> list[Endpoint]:
    """All of `FederationState`."""
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
    ]
