"""Raft's configuration follows the LAN pool (agent/consul/leader.go, `joinConsulServer` and so on).

Who gets a vote, and which dead servers go, is `autopilot`'s.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from proconsul.rpc.server_meta import ServerMeta
from proconsul.services.server import reconcile
from proconsul.services.server.bootstrap import raft_address

if TYPE_CHECKING:
    from proconsul.services.server.server import Server

log = logging.getLogger("proconsul.server")

CHANGE_S = 10.0


class RaftMembership:
    """Keeps Raft's configuration in step with the LAN pool."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + CHANGE_S

    async def joined(self, meta: ServerMeta) -> None:
        """An alive server: make sure that Raft knows it under this id and address."""
        server = self._server
        servers = server.raft.configuration()[0].servers
        if meta.bootstrap and any(
            other is not None and other.bootstrap and other.id != meta.id
            for other in map(reconcile.server_of, server.lan.members())
        ):
            log.error(
                "Two nodes are in bootstrap mode. Only one node should be in bootstrap mode, "
                "not adding Raft peer: node_to_add=%s",
                meta.name,
            )
            return
        is_self = meta.id == server.config.identity.node_id
        address = raft_address(server.config.rpc_advertise if is_self else meta.address)
        for known in servers:
            if known.id == meta.id and known.address == address:
                return
            if known.id != meta.id and known.address == address:
                await server.raft.remove_server(known.id, self._deadline())
                log.info("removed server with duplicate address: id=%s", known.id)
        # Of a server that is known this changes the address alone: a voter stays one, ourselves
        # included, and the quorum what it was.
        await server.raft.add_nonvoter(meta.id, address, self._deadline())
        log.info("added raft peer: node=%s address=%s", meta.name, address)

    async def left(self, meta: ServerMeta) -> None:
        """A server that left, or was reaped."""
        await self.gone(meta.id)

    async def gone(self, server_id: str) -> None:
        """Take a server out of Raft's configuration, if it is there. Never ourselves."""
        server = self._server
        if server_id == server.config.identity.node_id:
            return
        for known in server.raft.configuration()[0].servers:
            if known.id == server_id:
                log.info("removing server by ID: id=%s", known.id)
                await server.raft.remove_server(known.id, self._deadline())
                return
