"""What only the leader does, from winning an election to losing it (agent/consul/leader.go).

`LeaderDuties.run` lives as long as this server leads. A member event is worked off at once; every
minute the whole LAN pool is compared with the catalog.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from proconsul.core.gossip.serf import Member, MemberStatus
from proconsul.domain.kv import TombstoneRequest
from proconsul.domain.messages import MessageType
from proconsul.domain.operator import AutopilotSetConfigRequest
from proconsul.drivers.channel import Channel, Overflow
from proconsul.drivers.scope import TaskScope
from proconsul.drivers.timing import timed
from proconsul.federation.anti_entropy import FederationStateAntiEntropy, prune_forever
from proconsul.services.server import acl_leader, mesh_bootstrap, mesh_replication, reconcile
from proconsul.services.server.autopilot import Autopilot
from proconsul.services.server.membership import RaftMembership
from proconsul.services.server.tags import NEW_LEADER_EVENT
from proconsul.util.errors import ProconsulError

if TYPE_CHECKING:
    from proconsul.services.server.server import Server

log = logging.getLogger("proconsul.server")

BARRIER_S = 120.0
RETRY_S = 1.0
TRANSFER_S = 5.0
QUEUE_MEMBERS = 1024
TOMBSTONE_TTL_S = 900.0
TOMBSTONE_GRANULARITY_S = 30.0


class LeaderDuties:
    """The loops of one term of leadership."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._changed: Channel[tuple[Member, bool]] = Channel(QUEUE_MEMBERS, Overflow.DROP_OLDEST)
        self._membership = RaftMembership(server)
        self.autopilot = Autopilot(server)

    def member_changed(self, member: Member, *, reaped: bool) -> None:
        """A LAN member joined, failed, left, or was reaped."""
        self._changed.put_nowait((member, reaped))

    async def run(self) -> None:
        """Establish leadership, then serve it until cancelled."""
        server = self._server
        async with TaskScope("leader") as scope:
            await self._established(scope)
            server.set_ready(self, ready=True)
            try:
                # A server that has just started may lead before the others have found it again:
                # whom it misses is not taken from the catalog until the second round.
                await self._reconcile_all(reap=False)
                while True:
                    await self._work_off(server.config.reconcile_s)
                    await self._reconcile_all()
            finally:
                server.set_ready(self, ready=False)

    async def _established(self, scope: TaskScope) -> None:
        server, config = self._server, self._server.config
        identity = config.identity
        name = identity.node_name.encode()
        try:
            await server.lan.user_event(NEW_LEADER_EVENT, name)
        except ProconsulError as error:
            log.warning("failed to broadcast new leader event: %s", error)
        while True:
            try:
                with timed(server.metrics, "consul.leader.barrier"):
                    await server.raft.barrier(asyncio.get_running_loop().time() + BARRIER_S)
                await self._initialize()
                break
            except (ProconsulError, TimeoutError) as error:
                log.error("failed to establish leadership: %s", error)
                await self._give_up_leadership()
                await asyncio.sleep(RETRY_S)
        start = scope.supervise
        _ = start("tombstones", self._reap_tombstones)
        _ = start("autopilot", self.autopilot.run)
        _ = start("sessions", server.session_timers.run)
        acl_leader.start(server.acl_admin, start)
        if config.connect_enabled:
            _ = start("ca-pruning", server.ca.prune_forever)
            if not identity.is_primary:
                secondary = server.secondary_ca()
                _ = start("ca", secondary.follow)
                _ = start("ca-renewal", secondary.renew_forever)
        if not identity.is_primary and (replicator := server.replicator) is not None:
            _ = start("federation-state-replication", replicator.run)
        for duty, follow in mesh_replication.replicators(server).items():
            _ = start(duty, follow)
        if config.federation_anti_entropy:
            sync = FederationStateAntiEntropy(server.federation_server, server.unix_ns)
            _ = start("federation-state-anti-entropy", sync.run)
            if identity.is_primary:
                _ = start("federation-state-pruning", self._prune)

    async def _give_up_leadership(self) -> None:
        """Somebody else may be able to establish it."""
        server = self._server
        try:
            deadline = asyncio.get_running_loop().time() + TRANSFER_S
            await server.raft.leadership_transfer(deadline)
        except (ProconsulError, TimeoutError) as error:
            log.error("failed to transfer leadership: %s", error)

    async def _initialize(self) -> None:
        server = self._server
        await acl_leader.initialize(server.acl_admin)
        if server.store.autopilot().value is None:
            request = AutopilotSetConfigRequest(
                datacenter=server.datacenter, config=server.config.autopilot
            )
            await server.apply(MessageType.AUTOPILOT, request)
        if server.config.connect_enabled and server.config.identity.is_primary:
            await server.ca.initialize_primary()
        await mesh_bootstrap.bootstrap_config_entries(server)

    async def _prune(self) -> None:
        server = self._server
        await prune_forever(server.federation_server, server.config.federation_prune_s)

    # -- the catalog -----------------------------------------------------------------------

    async def _reconcile_all(self, *, reap: bool = True) -> None:
        with timed(self._server.metrics, "consul.leader.reconcile"):
            await self._compare_all(reap=reap)

    async def _compare_all(self, *, reap: bool) -> None:
        server = self._server
        members = server.lan.members()
        for member in members:
            if not server.is_leader:
                return  # our end is on its way; the rest would only fail one by one
            await self._guarded(self._reconcile, member, False)
        if not reap:
            return
        for node in reconcile.reaped_nodes(server.store, (m.name for m in members)):
            if node != server.config.identity.node_name:
                await self._guarded(self._reaped, node)

    async def _work_off(self, period_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + period_s
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    member, reaped = await self._changed.get()
            except TimeoutError:
                return
            await self._guarded(self._reconcile, member, reaped)

    async def _guarded(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """One member that cannot be reconciled must not keep the others from it."""
        try:
            with timed(self._server.metrics, "consul.leader.reconcileMember"):
                await work(*arguments)
        except (ProconsulError, TimeoutError) as error:
            log.error("failed to reconcile member: %s", error)

    async def _reconcile(self, member: Member, reaped: bool) -> None:
        server = self._server
        agent = member.tags.get("role") in ("node", "consul")
        if not agent or member.tags.get("dc") != server.datacenter:
            log.warning("skipping reconcile of node: member=%s", member.name)
            return
        if reaped or member.status in (MemberStatus.LEFT, MemberStatus.LEAVING):
            if member.status is MemberStatus.LEAVING:
                return
            await self._left(member, "reaped" if reaped else "left")
        elif member.status is MemberStatus.ALIVE:
            await self._alive(member)
        elif member.status is MemberStatus.FAILED:
            request = reconcile.failed(member, server.store, server.datacenter)
            if request is not None:
                log.info("member failed, marking health critical: member=%s", member.name)
                await server.apply(MessageType.REGISTER, request)

    async def _alive(self, member: Member) -> None:
        server = self._server
        meta = reconcile.server_of(member)
        if meta is not None:
            await self._membership.joined(meta)
        request = reconcile.alive(member, server.store, server.datacenter)
        if request is not None:
            log.info("member joined, marking health alive: member=%s", member.name)
            await server.apply(MessageType.REGISTER, request)

    async def _left(self, member: Member, reason: str) -> None:
        if member.name == self._server.config.identity.node_name:
            log.warning("deregistering self should be done by follower: name=%s", member.name)
            return
        meta = reconcile.server_of(member)
        if meta is not None:
            await self._membership.left(meta)
        await self._deregister(member.name, reason)

    async def _reaped(self, node: str) -> None:
        """A node that gossip forgot while nobody led; it may have been a server."""
        row = self._server.store.catalog.node(node).value
        if row is not None and row.id:
            await self._membership.gone(row.id)
        await self._deregister(node, "reaped")

    async def _deregister(self, node: str, reason: str) -> None:
        server = self._server
        request = reconcile.gone(node, server.store, server.datacenter)
        if request is not None:
            log.info("deregistering member: member=%s reason=%s", node, reason)
            await server.apply(MessageType.DEREGISTER, request)

    # -- tombstones ------------------------------------------------------------------------

    async def _reap_tombstones(self) -> None:
        """Forget deletions that are older than blocking queries can be."""
        server = self._server
        marks: list[tuple[float, int]] = []
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(TOMBSTONE_GRANULARITY_S)
            now = clock()
            if server.store.tables.tombstones:
                marks.append((now, server.raft.applied_index))
            due = [index for at, index in marks if now - at >= TOMBSTONE_TTL_S]
            if not due:
                continue
            marks = [mark for mark in marks if mark[1] > due[-1]]
            request = TombstoneRequest(datacenter=server.datacenter, reap_index=due[-1])
            try:
                await server.apply(MessageType.TOMBSTONE, request)
            except (ProconsulError, TimeoutError) as error:
                log.error("failed to reap tombstones, will retry: %s", error)
                marks.insert(0, (now - TOMBSTONE_TTL_S, due[-1]))
