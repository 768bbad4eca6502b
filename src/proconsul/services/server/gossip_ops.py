"""The server's gossip pools as operators' RPCs see them (`rpc.endpoints.ops.Gossip`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proconsul.core.gossip.serf import SerfError
from proconsul.domain import ops
from proconsul.drivers.gossip.key_manager import KeyManager
from proconsul.rpc.endpoints.base import RequestError

if TYPE_CHECKING:
    from proconsul.services.server.server import Server


class GossipOps:
    """Of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lan = KeyManager(server.lan)
        self._wan = KeyManager(server.wan) if server.wan is not None else None

    async def operate_lan(self, request: ops.KeyringRequest) -> ops.KeyringResponse:
        """See `Gossip`."""
        return await self._operate(self._lan, request, wan=False)

    async def operate_wan(self, request: ops.KeyringRequest) -> ops.KeyringResponse | None:
        """See `Gossip`."""
        if self._wan is None:
            return None
        return await self._operate(self._wan, request, wan=True)

    async def _operate(
        self, manager: KeyManager, request: ops.KeyringRequest, *, wan: bool
    ) -> ops.KeyringResponse:
        outcome = await manager.operate(request.operation, request.key, request.relay_factor)
        return ops.KeyringResponse(
            wan=wan,
            datacenter=self._server.datacenter,
            messages=outcome.messages,
            keys=dict(outcome.keys),
            primary_keys=dict(outcome.primary_keys),
            num_nodes=outcome.nodes,
            error=outcome.error,
        )

    async def operate_remote(
        self, datacenter: str, request: ops.KeyringRequest
    ) -> ops.KeyringResponses:
        """See `Gossip`."""
        answer: ops.KeyringResponses = await self._server.call_datacenter(
            "Internal.KeyringOperation", datacenter, request
        )
        return answer

    def remote_datacenters(self) -> list[str]:
        """See `Gossip`: those with a server that we know of, in order of their names."""
        own = self._server.datacenter
        return sorted(dc for dc in self._server.router.datacenters() if dc != own)

    async def user_event(self, name: str, payload: bytes) -> None:
        """See `Gossip`."""
        try:
            await self._server.lan.user_event(name, payload)
        except SerfError as error:
            raise RequestError(
                f'1 error occurred:\n\t* error broadcasting event to segment "": {error}\n\n'
            ) from error
