"""A Consul server: gossip, Raft, RPC and the federation, composed and supervised.

`Server` wires the parts; decisions live in the modules it uses. It is what RPC endpoints
(`EndpointServer`), forwarding (`Forwarding`) and the leader's duties run on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from proconsul.core.gossip.serf import Member, MemberEvent, MemberEventKind
from proconsul.core.raft.types import LeadershipLost
from proconsul.drivers.gossip.pool import GossipPool, PoolEvent
from proconsul.drivers.gossip.transport import SocketTransport
from proconsul.drivers.raft.node import NodeConfig, RaftNode
from proconsul.drivers.raft.snapshots import FileSnapshotStore, MemorySnapshotStore
from proconsul.drivers.raft.store import LmdbStore, MemoryStore
from proconsul.drivers.raft.transport import Transport as RaftTransport
from proconsul.drivers.scope import TaskScope
from proconsul.drivers.tls_config import TlsContexts
from proconsul.federation.rate import Signal
from proconsul.federation.replication import federation_state_replicator
from proconsul.federation.replicator import Replicator
from proconsul.rpc import insecure
from proconsul.rpc.blocking import BlockingLimits
from proconsul.rpc.dialer import Destination, Purpose
from proconsul.rpc.direct_dialer import DirectDialer
from proconsul.rpc.endpoints.internal import Coordinates
from proconsul.rpc.forward import ForwardConfig, Forwarder
from proconsul.rpc.listener import Handlers, ListenerConfig, RpcListener
from proconsul.rpc.pool import ConnectionPool
from proconsul.rpc.router import AREA_LAN, AREA_WAN, Router
from proconsul.rpc.server_meta import ServerMeta
from proconsul.rpc.server_session import RpcServerSession
from proconsul.services.server import acl, departure, peers_file
from proconsul.services.server.acl_admin import AclAdmin
from proconsul.services.server.answers import ServerAnswers
from proconsul.services.server.bootstrap import PEER_QUERY_S, Bootstrapper, raft_address
from proconsul.services.server.ca import CertificateAuthority
from proconsul.services.server.ca_trust import trust_mesh_roots
from proconsul.services.server.config import ServerConfig
from proconsul.services.server.endpoints import endpoint_table
from proconsul.services.server.federation import Federation, ServerFederation
from proconsul.services.server.fsm import RaftFsm
from proconsul.services.server.leader import LeaderDuties
from proconsul.services.server.pools import make_pool
from proconsul.services.server.raft_views import RaftViews
from proconsul.services.server.reconcile import server_of
from proconsul.services.server.session_timers import LockDelays, SessionTimers
from proconsul.services.server.snapshots import Snapshots
from proconsul.services.server.tags import lan_merge, server_tags, wan_merge
from proconsul.util.errors import ConfigError, ProconsulError
from proconsul.util.metrics import Metrics
from proconsul.wire.raft import Server as RaftServer
from proconsul.wire.raft import Suffrage

if TYPE_CHECKING:
    from proconsul.drivers.stream import PushStream, Stream

log = logging.getLogger("proconsul.server")

T = TypeVar("T")

LEAD_AGAIN_S = 1.0
MEASURE_S = 5.0
REASSERT_POLL_S = 0.02
LAN_SNAPSHOT, WAN_SNAPSHOT = "serf/local.snapshot", "serf/remote.snapshot"


class Server(ServerAnswers):
    """One server agent's core. `await start()`, later `await leave()`, `await aclose()`."""

    def __init__(
        self,
        config: ServerConfig,
        metrics: Metrics,
        on_member_event: Callable[[bool, PoolEvent], None] | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        """`on_member_event(is_wan, event)` sees every gossip event after the server has."""
        super().__init__()
        self.config, self.metrics = config, metrics
        self.rng = random.SystemRandom()
        self.blocking_limits = BlockingLimits(config.default_query_s, config.max_query_s)
        self.is_leaving = False
        self._on_member_event, self._on_failure = on_member_event, on_failure
        self._scope = TaskScope("server")
        self._fsm = RaftFsm(metrics)
        identity = config.identity
        tls = config.tls
        self.tls = TlsContexts(tls) if tls.has_ca or tls.has_certificate else None
        direct = DirectDialer(self.tls, identity.domain, config.rpc_bind[0])
        self.router = Router(identity.datacenter, self.rng)
        self.federation: Federation | None = None
        if config.mesh_gateway_federation:
            self.federation = Federation(self, direct)
        self.pool = (
            ConnectionPool(direct, metrics)
            if self.federation is None
            else ConnectionPool(
                self.federation.dialer, metrics, on_reconnected=self.federation.reconnected
            )
        )
        self._direct = direct
        self.snapshots = Snapshots(self, self.federation.dialer if self.federation else direct)
        self.lan = self._lan_pool()
        self.wan = self._wan_pool()
        self._recovery: Callable[[], None] | None = None
        self.raft = self._raft_node()
        self._bootstrapper = Bootstrapper(
            identity, config.bootstrap_expect, self.raft, self.pool, self._lan_servers
        )
        self.views = RaftViews(self.raft, self._lan_servers)
        self.session_timers = SessionTimers(identity.datacenter, self.store, self.apply, metrics)
        self._lock_delays = LockDelays(time.monotonic)
        self.store.on_lock_delay = self._lock_delays.begin
        self._coordinates = Coordinates(self, self.wan_coordinates)
        self.ca = CertificateAuthority(
            self, is_primary=identity.is_primary, initial=config.ca_config
        )
        self.primary_appeared = Signal()
        self.acl_admin = AclAdmin(self)
        self._forwarder = Forwarder(
            ForwardConfig(identity.datacenter, identity.primary_datacenter, config.rpc_hold_s),
            self,
            endpoint_table(self, self._coordinates),
            metrics,
            self.rng,
        )
        self.acl = acl.resolver(self)
        self.acl_admin.on_change = self.acl.forget
        self.resolve_token = self.acl.known if config.acl.enabled else acl.everyone
        self.federation_server = ServerFederation(self)
        self.replicator: Replicator | None = None
        if not identity.is_primary:
            locator = self.federation.locator if self.federation else None
            self.replicator = federation_state_replicator(
                self.federation_server, locator, metrics, time.time
            )
        self._listener = self._rpc_listener()
        self._leader: LeaderDuties | None = None
        self._leader_task: asyncio.Task[None] | None = None
        self._ending = False
        self._started = asyncio.Event()

    # -- composition -----------------------------------------------------------------------

    def _lan_pool(self) -> GossipPool:
        config = self.config
        return make_pool(
            config.lan,
            SocketTransport(*config.lan.bind),
            {**server_tags(config, wan=False), **config.extra_tags},
            lan_merge(config.identity),
            self._lan_event,
            log_name="serf.lan",
            snapshot=config.data_dir / LAN_SNAPSHOT if config.data_dir else None,
            rejoin_after_leave=config.rejoin_after_leave,
            metrics=self.metrics,
        )

    def _wan_pool(self) -> GossipPool | None:
        config = self.config
        if config.wan is None:
            return None
        plain = SocketTransport(*config.wan.bind)
        return make_pool(
            config.wan,
            self.federation.wan_transport(plain) if self.federation else plain,
            {**server_tags(config, wan=True), **config.extra_tags},
            wan_merge,
            self._wan_event,
            log_name="serf.wan",
            snapshot=config.data_dir / WAN_SNAPSHOT if config.data_dir else None,
            rejoin_after_leave=config.rejoin_after_leave,
            metrics=self.metrics,
        )

    def _raft_node(self) -> RaftNode:
        config = self.config
        directory = config.data_dir / "raft" if config.data_dir else None
        store = LmdbStore(directory) if directory else MemoryStore()
        snapshots = FileSnapshotStore(directory) if directory else MemorySnapshotStore()
        if directory is not None:
            self._recovery = partial(peers_file.obey, directory, store, snapshots)
        return RaftNode(
            NodeConfig(config.identity.node_id, raft_address(config.rpc_advertise), config.raft),
            self._fsm,
            RaftTransport(self._open_raft_stream),
            store,
            snapshots,
            on_leadership=self._leadership_changed,
            on_leader=self._leader_changed,
            on_failure=self._on_failure,
            metrics=self.metrics,
        )

    def _rpc_listener(self) -> RpcListener:
        config, identity = self.config, self.config.identity
        wan = self.federation
        return RpcListener(
            ListenerConfig(
                identity.datacenter,
                identity.domain,
                config.rpc_handshake_s,
                config.rpc_max_conns_per_client,
                insecure_tls=config.auto_encrypt,
                servers_have_names=config.mesh_gateway_federation,
            ),
            Handlers(
                on_rpc=self._serve_rpc,
                on_raft=self._serve_raft,
                on_snapshot=self.snapshots.serve,
                on_wan_packet=wan.ingest_packets if wan else self._refuse_stream,
                on_wan_stream=wan.ingest_stream if wan else self._refuse_stream,
                on_insecure_rpc=self._serve_insecure_rpc,
            ),
            self.metrics,
            self.tls,
        )

    # -- life ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind every port, load the state, become a member. Raises `ProconsulError`, `OSError`."""
        config = self.config
        try:
            await self._listener.start(*config.rpc_bind)
        except OSError as error:
            host, port = config.rpc_bind
            raise ConfigError(
                f"ports.server: cannot listen on {host}:{port} for RPC: {error.strerror}; "
                "is another agent running here? Change bind_addr or ports.server"
            ) from error
        if self._recovery is not None:
            await asyncio.to_thread(self._recovery)
        await self.raft.start()
        alone = config.bootstrap or config.data_dir is None  # dev mode, as the reference
        if alone and not self.raft.has_state:
            me = RaftServer(
                Suffrage.VOTER, config.identity.node_id, raft_address(config.rpc_advertise)
            )
            self.raft.bootstrap([me])
        self.router.add_area(AREA_LAN)
        await self.lan.start()
        if self.wan is not None:
            self.router.add_area(AREA_WAN)
            await self.wan.start()
        if self.federation is not None:
            self.federation.start(self._scope)
        supervise = self._scope.supervise
        _ = supervise("coordinates", self._flush_coordinates)
        _ = supervise("router", self._rebalance)
        _ = supervise("metrics", self._measure)
        if config.auto_encrypt and self.tls is not None:
            _ = supervise("auto-encrypt", partial(trust_mesh_roots, self.store, self.tls))
        self._started.set()

    async def _measure(self) -> None:
        while True:
            self.raft.measure()
            for pool in (self.lan, self.wan):
                if pool is not None:
                    pool.measure()
            await asyncio.sleep(MEASURE_S)

    async def _flush_coordinates(self) -> None:
        await self._coordinates.flush_forever(self.config.coordinate_update_s)

    async def _rebalance(self) -> None:
        await self.router.rebalance_forever(self._ping, lambda: len(self.lan.members()))

    async def _ping(self, server: ServerMeta) -> bool:
        deadline = asyncio.get_running_loop().time() + PEER_QUERY_S
        return await self.pool.ping(server.destination, deadline)

    async def leave(self) -> None:
        """Leave Raft and both pools in order, so that no quorum is lost by it."""
        await departure.leave(self)

    async def aclose(self) -> None:
        """Stop everything at once, except that leadership is handed over first."""
        self._ending = True
        await departure.hand_over(self.raft)
        await self._scope.aclose()
        await self._listener.aclose()
        if self.wan is not None:
            await self.wan.shutdown()
        await self.lan.shutdown()
        await self.pool.aclose()
        await self.raft.aclose()

    # -- what came in on the RPC port ------------------------------------------------------

    async def _serve_rpc(self, stream: PushStream) -> None:
        await RpcServerSession(stream, self._forwarder.dispatch, self.metrics).serve()

    async def _serve_insecure_rpc(self, stream: PushStream) -> None:
        dispatch = insecure.only_insecure(self._forwarder.dispatch)
        await RpcServerSession(stream, dispatch, self.metrics, insecure.REQUEST_BYTES_MAX).serve()

    async def _serve_raft(self, stream: PushStream) -> None:
        await self.raft.serve(stream)

    async def _refuse_stream(self, stream: PushStream) -> None:
        log.error("refusing stream %r: not served here", stream.peer.alpn or "snapshot")
        stream.abort()

    async def _open_raft_stream(self, server_id: str, address: str, deadline: float) -> Stream:
        # Where gossip knows the server: it may have moved, and Raft can learn that only from
        # a leader, whose election may need this very server.
        known = next((s for s in self.router.servers(self.datacenter) if s.id == server_id), None)
        host, _, port = address.rpartition(":")
        to = Destination(
            self.datacenter, "", known.address if known else (host.strip("[]"), int(port))
        )
        return await self._direct.dial(to, Purpose.RAFT, deadline)

    # -- gossip ----------------------------------------------------------------------------

    def _lan_event(self, event: PoolEvent) -> None:
        if isinstance(event, MemberEvent):
            for member in event.members:
                self._route(AREA_LAN, event.kind, member)
                if self._leader is not None:
                    reaped = event.kind is MemberEventKind.REAP
                    self._leader.member_changed(member, reaped=reaped)
            if self._bootstrapper.waiting and event.kind is MemberEventKind.JOIN:
                _ = self._scope.spawn("bootstrap", self._bootstrapper.look())
            if self.federation is not None:
                self.federation.lan_changed()
        if self._on_member_event is not None:
            self._on_member_event(False, event)

    def _wan_event(self, event: PoolEvent) -> None:
        if isinstance(event, MemberEvent):
            for member in event.members:
                self._route(AREA_WAN, event.kind, member)
                primary = self.config.identity.primary_datacenter
                if member.tags.get("dc") == primary and event.kind is MemberEventKind.JOIN:
                    self.primary_appeared.fire()
        if self._on_member_event is not None:
            self._on_member_event(True, event)

    def _route(self, area: str, kind: MemberEventKind, member: Member) -> None:
        server = server_of(member)
        if server is None:
            return
        match kind:
            case MemberEventKind.JOIN | MemberEventKind.UPDATE:
                self.router.add_server(area, server)
                if area == AREA_LAN:
                    self.pool.moved(server.destination)
                log.info("Adding %s server: server=%s", area.upper(), member.name)
            case MemberEventKind.FAILED:
                self.router.fail_server(area, server)
                log.info("Handled event for server in area: server=%s failed", member.name)
            case MemberEventKind.LEAVE | MemberEventKind.REAP:
                self.router.remove_server(area, server)
                log.info("Removing %s server: server=%s", area.upper(), member.name)

    def _lan_servers(self) -> list[ServerMeta]:
        return [server for m in self.lan.members() if (server := server_of(m)) is not None]

    # -- leadership ------------------------------------------------------------------------

    def _leadership_changed(self, is_leader: bool) -> None:
        if self.federation is not None:
            self.federation.locator.set_leader(is_leader)
        if is_leader:
            if self._ending:
                return
            log.info("cluster leadership acquired")
            self._take_up_duties()
        elif self._leader is not None:
            log.info("cluster leadership lost")
            self._leader = None
            self.ready_for_consistent_reads = False
            self._became_ready.fire()
            if self._leader_task is not None:
                self._leader_task.cancel()
                self._leader_task = None

    def _take_up_duties(self) -> None:
        self._leader = LeaderDuties(self)
        self._leader_task = self._scope.spawn("leader", self._lead(self._leader))

    async def reassert_leadership(self) -> None:
        """Begin the leader's duties anew, since the state is another; returns once they run.

        Raises `LeadershipLost`.
        """
        duties, task = self._leader, self._leader_task
        if duties is None or task is None:
            raise LeadershipLost
        task.cancel()
        try:
            await asyncio.wait([task])
        finally:  # a leader that nobody waits for must have its duties too
            if self._leader is duties and not self._ending:
                self._take_up_duties()
        mine = self._leader
        if mine is None or mine is duties:
            raise LeadershipLost
        while not self.ready_for_consistent_reads:
            if self._leader is not mine:
                raise LeadershipLost
            await asyncio.sleep(REASSERT_POLL_S)

    @contextmanager
    def not_ready(self) -> Iterator[None]:
        """No `consistent` reads meanwhile, nor afterwards until the leader's duties run anew.

        What raises has left the state as it was, and the duties with it.
        """
        duties, was = self._leader, self.ready_for_consistent_reads
        self.ready_for_consistent_reads = False
        try:
            yield
        except BaseException:
            if duties is not None and was:
                self.set_ready(duties, ready=True)
            raise

    def spawn(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run `work` for as long as this server lives."""
        return self._scope.spawn(name, work)

    def to_the_end(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run `work` though who waits for it may go away: to its end, or the server's."""
        return asyncio.shield(self._scope.spawn(name, work))

    async def _lead(self, duties: LeaderDuties) -> None:
        await self._started.wait()  # a server alone is elected before its pools are bound
        while self._leader is duties:
            try:
                await duties.run()
            except (ProconsulError, TimeoutError) as error:
                log.error("leader loop failed, starting again: %s", error)
            except Exception:
                # A leader without its duties would be worse than none.
                log.exception("leader loop failed, starting again")
            await asyncio.sleep(LEAD_AGAIN_S)

    def set_ready(self, duties: LeaderDuties, *, ready: bool) -> None:
        """Whether `consistent` reads may be served; only the duties of this term decide."""
        if self._leader is duties:
            self.ready_for_consistent_reads = ready
            self._became_ready.fire()

    def _leader_changed(self, server_id: str, address: str) -> None:
        self._forwarder.leader_changed()
        if address:
            self._heard_from_leader = True
            log.info("New leader elected: id=%s address=%s", server_id, address)
        if self.federation is not None and address:
            self.federation.state_changed()
