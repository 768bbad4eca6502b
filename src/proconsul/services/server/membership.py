"""The leader's hand on Raft's membership: join, promote, remove (Consul's `autopilot`)."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from proconsul.core.gossip.serf import MemberStatus
from proconsul.domain.operator import DEFAULT_AUTOPILOT
from proconsul.rpc.server_meta import ServerMeta
from proconsul.services.server import reconcile
from proconsul.services.server.bootstrap import raft_address
from proconsul.util.errors import ProconsulError
from proconsul.wire.raft import Suffrage

if TYPE_CHECKING:
    from proconsul.services.server.server import Server

log = logging.getLogger("proconsul.server.autopilot")

CHANGE_S = 10.0
ROUND_S = 10.0
SELF_JOIN_SERVERS_MIN = 3
"""Correcting our own address means removing ourselves first: only with a quorum of others."""


def dead_removals(voters: int, dead: list[str], min_quorum: int) -> list[str]:
    """Which dead servers may go: never half of the voters or more, nor below `min_quorum`."""
    if not dead or len(dead) > (voters - 1) // 2:
        return []
    return dead[: max(0, voters - min_quorum)] if min_quorum else dead


class RaftMembership:
    """Keeps Raft's configuration in step with the LAN pool."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stable_since: dict[str, float] = {}

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + CHANGE_S

    async def joined(self, meta: ServerMeta) -> None:
        """An alive server: make sure that Raft knows it under this id and address."""
        server = self._server
        servers = server.raft.configuration()[0].servers
        is_self = meta.id == server.config.identity.node_id
        if is_self and len(servers) < SELF_JOIN_SERVERS_MIN:
            return
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
        address = raft_address(meta.address)
        for known in servers:
            if known.id == meta.id and known.address == address:
                return
            if known.id == meta.id or known.address == address:
                await server.raft.remove_server(known.id, self._deadline())
                log.info("removed server with duplicate id or address: id=%s", known.id)
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

    async def run(self) -> None:
        """Promote servers that have proved stable, and clear away dead ones."""
        while True:
            try:
                await self._promote()
                await self._remove_dead()
            except (ProconsulError, TimeoutError) as error:
                log.warning("autopilot: %s", error)
            await asyncio.sleep(self._period_s())

    def _period_s(self) -> float:
        return min(ROUND_S, max(1.0, self._stabilization_s() / 2))

    def _stabilization_s(self) -> float:
        config = self._server.store.autopilot().value or DEFAULT_AUTOPILOT
        return config.server_stabilization_time_ns / 1e9

    async def _promote(self) -> None:
        server = self._server
        now = asyncio.get_running_loop().time()
        alive = {
            meta.id: meta
            for member in server.lan.members()
            if member.status is MemberStatus.ALIVE
            and (meta := reconcile.server_of(member)) is not None
        }
        self._stable_since = {node: self._stable_since.get(node, now) for node in alive}
        servers = server.raft.configuration()[0].servers
        voters = sum(s.suffrage is Suffrage.VOTER for s in servers)
        for known in servers:
            meta = alive.get(known.id)
            if known.suffrage is not Suffrage.NONVOTER or meta is None or meta.non_voter:
                continue
            # A second and third voter are wanted soon: until then the cluster tolerates nothing.
            wait = self._stabilization_s() if voters >= SELF_JOIN_SERVERS_MIN else 0.0
            if now - self._stable_since[known.id] >= wait:
                log.info("Promoting server: id=%s address=%s", known.id, known.address)
                await server.raft.add_voter(known.id, known.address, self._deadline())

    async def _remove_dead(self) -> None:
        server = self._server
        config = server.store.autopilot().value or DEFAULT_AUTOPILOT
        if not config.cleanup_dead_servers:
            return
        servers = server.raft.configuration()[0].servers
        members = {
            meta.id: member
            for member in server.lan.members()
            if (meta := reconcile.server_of(member)) is not None
        }
        failed = [
            s.id for s in servers if s.id in members and members[s.id].status is MemberStatus.FAILED
        ]
        # A failed server is only replaced, never just dropped: another must have come for it.
        spare = len(servers) - len(failed)
        if spare < SELF_JOIN_SERVERS_MIN:
            return
        voters = sum(s.suffrage is Suffrage.VOTER for s in servers)
        for node in dead_removals(voters, failed, config.min_quorum):
            log.info("Attempting removal of failed server node: name=%s", members[node].name)
            server.lan.force_leave(members[node].name)
