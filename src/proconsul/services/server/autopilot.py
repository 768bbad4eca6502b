"""Autopilot: who is healthy, who gets a vote, which dead servers go (agent/consul/autopilot).

Runs on the leader. The rules are `domain.autopilot`'s; where ours are more careful than the
reference's, `docs/divergence.md` says why.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from proconsul.core.gossip.serf import Member, MemberStatus
from proconsul.domain import autopilot as ap
from proconsul.domain.base import decode
from proconsul.domain.operator import AutopilotConfig
from proconsul.drivers.scope import TaskScope
from proconsul.rpc.methods import RaftStats
from proconsul.rpc.server_meta import ServerMeta
from proconsul.services.server import reconcile
from proconsul.services.server.bootstrap import raft_address
from proconsul.util.errors import ProconsulError
from proconsul.util.goduration import parse_duration_ns
from proconsul.wire.raft import Server as RaftServer
from proconsul.wire.raft import Suffrage

if TYPE_CHECKING:
    from proconsul.services.server.server import Server

log = logging.getLogger("proconsul.server.autopilot")

HEALTH_S = 2.0
"""How often servers are asked for their logs' ends; each has half of it to answer."""
ROUND_S = 10.0
"""How often dead servers are looked for; one that gossip does not know is spared for so long."""
CHANGE_S = 10.0
SERVERS_MIN = 3
"""With fewer voters nothing is tolerated: up to here nobody waits to be promoted, and no failed
server is removed, since that would only keep it out when it comes back."""
_NEVER = "never"


class Autopilot:
    """One term's autopilot."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.health = ap.OperatorHealthReply()
        """As of the last look."""
        self._stale_since: dict[str, float] = {}

    async def run(self) -> None:
        """Look, promote and clear away until cancelled."""
        clock = asyncio.get_running_loop().time
        next_prune = clock() + ROUND_S
        while True:
            started = clock()
            config = self._server.store.autopilot().value
            if config is not None:
                try:
                    await self.look(config)
                    promoted = await self.promote(config)
                    if promoted or started >= next_prune:
                        next_prune = started + ROUND_S
                        await self.prune(config)
                except (ProconsulError, TimeoutError) as error:
                    log.warning("autopilot: %s", error)
            await asyncio.sleep(max(0.0, started + HEALTH_S - clock()))

    # -- health

    async def look(self, config: AutopilotConfig) -> None:
        """Ask every server how far its log is, and judge them all."""
        server = self._server
        members = self._members()
        # Read first: what is written while they answer must not make them late.
        last_index, last_term = server.raft.last_index, server.views.log_position().last_term
        stats = await self._ask([meta for member, meta in members.values() if _known(member)])
        now_ns = server.unix_ns()
        leader = server.views.leader_address()
        rows: list[ap.ServerHealth] = []
        for peer in server.raft.configuration()[0].servers:
            row = _row(peer, leader, members.get(peer.id), stats.get(peer.id))
            healthy = peer.id in stats and ap.is_healthy(row, last_term, last_index, config)
            since = row.raw_stable_since
            if peer.id in stats:
                since = ap.stable_since(healthy, self.health.of(peer.id), now_ns)
            rows.append(replace(row, healthy=healthy, raw_stable_since=since))
        self.health = ap.summary(rows)
        server.metrics.gauge("consul.autopilot.failure_tolerance", self.health.failure_tolerance)
        server.metrics.gauge("consul.autopilot.healthy", int(self.health.healthy))

    async def _ask(self, servers: list[ServerMeta]) -> dict[str, RaftStats]:
        """The answers to `Status.RaftStats`, by server id, of those that gave one in time."""
        deadline = asyncio.get_running_loop().time() + HEALTH_S / 2
        found: dict[str, RaftStats] = {}

        async def ask(meta: ServerMeta) -> None:
            try:
                found[meta.id] = await self._stats(meta, deadline)
            except (ProconsulError, TimeoutError) as error:
                log.warning("error getting server health from %s: %s", meta.name, error)

        async with TaskScope("autopilot") as scope:
            tasks = [scope.spawn(meta.name, ask(meta)) for meta in servers]
            if tasks:
                await asyncio.wait(tasks)
        return found

    async def _stats(self, meta: ServerMeta, deadline: float) -> RaftStats:
        server = self._server
        if meta.id == server.config.identity.node_id:
            return server.views.log_position()
        answer = await server.pool.rpc(meta.destination, "Status.RaftStats", b"\x80", deadline)
        return decode(answer, RaftStats)

    def _members(self) -> dict[str, tuple[Member, ServerMeta]]:
        """The servers in the LAN pool that have not left, by id."""
        return {
            meta.id: (member, meta)
            for member in self._server.lan.members()
            if member.status is not MemberStatus.LEFT
            and (meta := reconcile.server_of(member)) is not None
        }

    # -- votes

    async def promote(self, config: AutopilotConfig) -> bool:
        """Give votes to healthy servers that proved stable; whether anyone got one."""
        promoted = False
        for peer in self._server.raft.configuration()[0].servers:
            promoted = await self._promote(peer.id, config) or promoted
        return promoted

    async def _promote(self, server_id: str, config: AutopilotConfig) -> bool:
        """Only in the members as they are now: who left meanwhile must not come back."""
        server = self._server
        configuration, index = server.raft.configuration()
        peer = next((peer for peer in configuration.servers if peer.id == server_id), None)
        health, known = self.health.of(server_id), self._members().get(server_id)
        if peer is None or peer.suffrage is Suffrage.VOTER or known is None or known[1].non_voter:
            return False
        voters = sum(peer.suffrage is Suffrage.VOTER for peer in configuration.servers)
        soon = voters < SERVERS_MIN and health is not None and health.healthy
        if not soon and not ap.is_stable(health, server.unix_ns(), config):
            return False
        log.info("Promoting server to voter: id=%s address=%s", peer.id, peer.address)
        await server.raft.add_voter(peer.id, peer.address, self._deadline(), index)
        return True

    # -- the dead

    async def prune(self, config: AutopilotConfig) -> None:
        """Make failed servers leave, and take those out of Raft that gossip does not know."""
        if not config.cleanup_dead_servers:
            return
        server = self._server
        peers = server.raft.configuration()[0].servers
        failed, nonvoters = self._failed(peers)
        for member in nonvoters:
            self._force_leave(member)
        stale = self._stale(peers)
        dead = len(failed) + len(stale)
        voters = sum(peer.suffrage is Suffrage.VOTER for peer in peers)
        if not dead:
            return
        allowed, why = ap.may_remove(voters, dead, max(config.min_quorum, SERVERS_MIN))
        if not allowed:
            log.debug("Failed to remove dead servers: error=%s", why)
            return
        for member in failed:
            self._force_leave(member)
        for peer in stale:
            log.info("Attempting removal of stale server: id=%s address=%s", peer.id, peer.address)
            await server.raft.remove_server(peer.id, self._deadline())

    def _failed(self, peers: tuple[RaftServer, ...]) -> tuple[list[Member], list[Member]]:
        """Members that failed: those that count for the quorum, and nonvoters."""
        nonvoters = {peer.id for peer in peers if peer.suffrage is not Suffrage.VOTER}
        failed = [
            (member, meta.id)
            for member, meta in self._members().values()
            if member.status is MemberStatus.FAILED
        ]
        return (
            [member for member, node in failed if node not in nonvoters],
            [member for member, node in failed if node in nonvoters],
        )

    def _stale(self, peers: tuple[RaftServer, ...]) -> list[RaftServer]:
        """Those that gossip does not know, nor knew for a whole round.

        Servers that all restart together find each other only after one of them leads.
        """
        metas = [reconcile.server_of(member) for member in self._server.lan.members()]
        ids = {meta.id for meta in metas if meta is not None}
        addresses = {raft_address(meta.address) for meta in metas if meta is not None}
        now = asyncio.get_running_loop().time()
        unknown = [p for p in peers if p.id not in ids and p.address not in addresses]
        self._stale_since = {p.id: self._stale_since.get(p.id, now) for p in unknown}
        return [p for p in unknown if now - self._stale_since[p.id] >= ROUND_S]

    def _force_leave(self, member: Member) -> None:
        server = self._server
        log.info("Attempting removal of failed server node: name=%s", member.name)
        server.lan.force_leave(member.name)
        if server.wan is not None:
            server.wan.force_leave(f"{member.name}.{server.datacenter}")

    @staticmethod
    def _deadline() -> float:
        return asyncio.get_running_loop().time() + CHANGE_S


def _known(member: Member) -> bool:
    return member.status is not MemberStatus.FAILED


def _row(
    peer: RaftServer,
    leader: str,
    known: tuple[Member, ServerMeta] | None,
    stats: RaftStats | None,
) -> ap.ServerHealth:
    row = ap.ServerHealth(
        id=peer.id,
        address=peer.address,
        leader=peer.address == leader,
        voter=peer.suffrage is Suffrage.VOTER,
    )
    if known is not None:
        member, meta = known
        row = replace(row, name=member.name, serf_status=int(member.status), version=meta.build)
    if known is None or stats is None:
        return row
    contact_ns = ap.NEVER_NS
    if stats.last_contact != _NEVER:
        try:
            contact_ns = parse_duration_ns(stats.last_contact)
        except ValueError as error:
            log.warning("error parsing last_contact of %s: %s", peer.id, error)
    return replace(
        row, last_contact_ns=contact_ns, last_term=stats.last_term, last_index=stats.last_index
    )
