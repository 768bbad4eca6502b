"""`Operator.*`: Raft's members and autopilot (agent/consul/operator_{raft,autopilot}_endpoint.go)."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from proconsul.domain import operator as op
from proconsul.domain import options as o
from proconsul.domain.acl import Authorizer
from proconsul.domain.autopilot import OperatorHealthReply
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.rpc.endpoints.base import EndpointServer, RequestError
from proconsul.rpc.endpoints.status import RaftView
from proconsul.rpc.methods import METHODS, Empty
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.util.errors import ProconsulError
from proconsul.util.goquote import go_quote

log = logging.getLogger("proconsul.server.operator")

REMOVE_S = 30.0


class Cluster(Protocol):
    """What operators may do to Raft's members, and see of their health."""

    async def remove_peer(self, server_id: str, deadline: float) -> None: ...

    def health(self) -> OperatorHealthReply:
        """What autopilot found last; empty where it does not run."""
        ...


class Operator:
    """Answered by the leader; configurations also by others, if that is asked for."""

    def __init__(self, server: EndpointServer, raft: RaftView, cluster: Cluster) -> None:
        self._server, self._raft, self._cluster = server, raft, cluster

    async def raft_configuration(
        self, _request: o.DCSpecificRequest, call: Call
    ) -> op.RaftConfigurationResponse:
        _require_read(call.authorizer)
        return self._raft.peers()

    async def remove_by_address(self, request: op.RaftRemovePeerRequest, call: Call) -> Empty:
        _require_write(call.authorizer)
        for peer in self._raft.peers().servers or ():
            if peer.address == request.address:
                return await self._remove(peer)
        raise RequestError(
            f"address {go_quote(request.address)} was not found in the Raft configuration"
        )

    async def remove_by_id(self, request: op.RaftRemovePeerRequest, call: Call) -> Empty:
        _require_write(call.authorizer)
        for peer in self._raft.peers().servers or ():
            if peer.id == request.id:
                return await self._remove(peer)
        raise RequestError(f"id {go_quote(request.id)} was not found in the Raft configuration")

    async def _remove(self, peer: op.RaftServer) -> Empty:
        """Whoever is known to Serf comes back with the leader's next reconciliation."""
        deadline = asyncio.get_running_loop().time() + REMOVE_S
        try:
            await self._cluster.remove_peer(peer.id, deadline)
        except ProconsulError as error:
            log.warning(
                "Failed to remove Raft peer: peer=%s address=%s error=%s",
                peer.id,
                peer.address,
                error,
            )
            raise
        log.warning("Removed Raft peer: peer=%s address=%s", peer.id, peer.address)
        return Empty()

    async def autopilot(self, _request: o.DCSpecificRequest, call: Call) -> op.AutopilotConfig:
        _require_read(call.authorizer)
        config = self._server.store.autopilot().value
        if config is None:
            raise RequestError("autopilot config not initialized yet")
        return config

    async def set_autopilot(self, request: op.AutopilotSetConfigRequest, call: Call) -> bool:
        _require_write(call.authorizer)
        result = await self._server.apply(MessageType.AUTOPILOT, request)
        return result if isinstance(result, bool) else False

    async def health(self, _request: o.DCSpecificRequest, call: Call) -> OperatorHealthReply:
        _require_read(call.authorizer)
        return self._cluster.health()


def _require_read(authorizer: Authorizer) -> None:
    if not authorizer.operator_read():
        raise PermissionDeniedError


def _require_write(authorizer: Authorizer) -> None:
    if not authorizer.operator_write():
        raise PermissionDeniedError


def endpoints(server: EndpointServer, raft: RaftView, cluster: Cluster) -> list[Endpoint]:
    """All of `Operator`."""
    it = Operator(server, raft, cluster)
    read, write = Requires.OPERATOR_READ, Requires.OPERATOR_WRITE
    return [
        Endpoint(METHODS["Operator.RaftGetConfiguration"], read, it.raft_configuration),
        Endpoint(METHODS["Operator.RaftRemovePeerByAddress"], write, it.remove_by_address),
        Endpoint(METHODS["Operator.RaftRemovePeerByID"], write, it.remove_by_id),
        Endpoint(METHODS["Operator.AutopilotGetConfiguration"], read, it.autopilot),
        Endpoint(METHODS["Operator.AutopilotSetConfiguration"], write, it.set_autopilot),
        Endpoint(METHODS["Operator.ServerHealth"], read, it.health),
    ]
