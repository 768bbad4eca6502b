"""What endpoints and forwarding ask of a server, and what `info` shows.

The part of `server.Server` that answers; it decides nothing about the server's own life.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from proconsul.core.gossip.serf import Member, MemberStatus
from proconsul.core.raft.types import NotLeader
from proconsul.domain import coordinate as co
from proconsul.domain import errors
from proconsul.domain.acl import Authorizer
from proconsul.domain.autopilot import OperatorHealthReply
from proconsul.domain.connect import CASignRequest, IndexedCARoots
from proconsul.domain.messages import IGNORE_UNKNOWN_TYPE_FLAG, MessageType, encode_command
from proconsul.domain.options import DCSpecificRequest
from proconsul.domain.snapshot import SnapshotRequest, SnapshotResponse
from proconsul.federation.rate import Signal
from proconsul.rpc.dialer import Destination
from proconsul.rpc.server_meta import ServerMeta
from proconsul.rpc.snapshot_stream import Answer
from proconsul.services.server.ca_secondary import PrimaryCa, SecondaryCa
from proconsul.services.server.datacenter_maps import round_trip_s, wan_maps
from proconsul.state.errors import StateError
from proconsul.state.store import Store

if TYPE_CHECKING:
    from proconsul.drivers.gossip.pool import GossipPool
    from proconsul.drivers.raft.node import RaftNode
    from proconsul.rpc.forward import Forwarder
    from proconsul.rpc.listener import RpcListener
    from proconsul.rpc.pool import ConnectionPool
    from proconsul.rpc.router import Router
    from proconsul.rpc.token_resolver import TokenResolver
    from proconsul.services.server.ca import CertificateAuthority
    from proconsul.services.server.config import ServerConfig
    from proconsul.services.server.fsm import RaftFsm
    from proconsul.services.server.leader import LeaderDuties
    from proconsul.services.server.raft_views import RaftViews
    from proconsul.services.server.session_timers import LockDelays
    from proconsul.services.server.snapshots import Snapshots

APPLY_S = 30.0
VERIFY_S = 10.0
COMMAND_BYTES_MAX = 8 << 20
"""Of one Raft entry. A replica that lags has to get it within a heartbeat's time, or elections
follow; Consul splits what exceeds 512 KB, and its own limits keep requests far below this."""


class ServerAnswers:
    """`EndpointServer`, `Cluster`, `Forwarding`, `RpcCaller` and `SnapshotCaller` of a server.

    `Server` makes the parts that are declared here.
    """

    config: ServerConfig
    raft: RaftNode
    router: Router
    pool: ConnectionPool
    lan: GossipPool
    wan: GossipPool | None
    views: RaftViews
    snapshots: Snapshots
    ca: CertificateAuthority
    primary_appeared: Signal
    acl: TokenResolver
    resolve_token: Callable[[str], Authorizer | None]
    """See `Forwarding.resolve_token`. A plain function: every call asks it."""
    _fsm: RaftFsm
    _forwarder: Forwarder
    _listener: RpcListener
    _lock_delays: LockDelays
    _leader: LeaderDuties | None

    def __init__(self) -> None:
        self.ready_for_consistent_reads = False
        self._became_ready = Signal()
        self._heard_from_leader = False

    @property
    def datacenter(self) -> str:
        """Our own."""
        return self.config.identity.datacenter

    @property
    def store(self) -> Store:
        """The replicated state."""
        return self._fsm.store

    @property
    def key_list_policy(self) -> bool:
        """See `EndpointServer.key_list_policy`."""
        return self.config.acl.enable_key_list_policy

    @property
    def is_leader(self) -> bool:
        """Whether we lead, as far as we know."""
        return self.raft.is_leader

    @staticmethod
    def unix_ns() -> int:
        """Wall clock."""
        return time.time_ns()

    async def resolve_token_later(self, token: str) -> Authorizer:
        """See `Forwarding.resolve_token_later`."""
        return await self.acl.resolve(token)

    def contact(self) -> tuple[bool, int]:
        """See `EndpointServer.contact`."""
        age = self.raft.last_contact_s
        return self.raft.leader is not None, int((age or 0.0) * 1e9)

    def heard_from_leader(self) -> bool:
        """See `Forwarding.heard_from_leader`."""
        return self._heard_from_leader

    async def consistent_read(self) -> None:
        """See `EndpointServer.consistent_read`."""
        loop = asyncio.get_running_loop()
        await self.raft.verify_leader(loop.time() + VERIFY_S)
        deadline = loop.time() + self.config.rpc_hold_s
        while not self.ready_for_consistent_reads:
            if not self.is_leader:
                raise NotLeader(self.raft.leader)
            if not await self._became_ready.wait(deadline - loop.time()):
                raise errors.NotReadyForConsistentReadsError

    async def apply(self, type_: MessageType, request: Any, *, may_ignore: bool = False) -> Any:
        """See `EndpointServer.apply`."""
        data = encode_command(type_, request)
        if may_ignore:
            data = bytes((type_ | IGNORE_UNKNOWN_TYPE_FLAG,)) + data[1:]
        if len(data) > COMMAND_BYTES_MAX:
            raise errors.DomainError(
                f"request of {len(data)} bytes is too large: one Raft entry can hold "
                f"{COMMAND_BYTES_MAX} bytes"
            )
        deadline = asyncio.get_running_loop().time() + APPLY_S
        result = await self.raft.apply(data, deadline)
        if isinstance(result, StateError):
            raise result
        return result

    def lock_delayed(self, key: str) -> bool:
        """See `EndpointServer.lock_delayed`."""
        return self._lock_delays.holds(key)

    async def remove_peer(self, server_id: str, deadline: float) -> None:
        """See `Cluster.remove_peer`."""
        await self.raft.remove_server(server_id, deadline)

    def health(self) -> OperatorHealthReply:
        """See `Cluster.health`."""
        return self._leader.autopilot.health if self._leader else OperatorHealthReply()

    def leader(self) -> Destination | None:
        """See `Forwarding.leader`."""
        leader = self.raft.leader
        if leader is None:
            return None
        host, _, port = leader[1].rpartition(":")
        address = (host.strip("[]"), int(port))
        known = self.router.server_at(self.datacenter, address)
        return Destination(self.datacenter, known.node if known else "", address)

    def servers(self, datacenter: str) -> list[Destination]:
        """See `Forwarding.servers`."""
        return [server.destination for server in self.router.servers(datacenter)]

    def knows_datacenter(self, datacenter: str) -> bool:
        """See `Forwarding.knows_datacenter`."""
        if self.router.has_datacenter(datacenter):
            return True
        members = self.wan.members() if self.wan is not None else ()
        return any(
            m.tags.get("dc") == datacenter and m.status is not MemberStatus.LEFT for m in members
        )

    def limit_connections(self, per_client: int) -> None:
        """`limits.rpc_max_conns_per_client` from now on; those that are there stay."""
        self._listener.limiter.limit = per_client

    def allow_gateways(self, hosts: set[str]) -> None:
        """Addresses that many remote clients come from: they get an allowance of connections."""
        self._listener.limiter.gateways = frozenset(hosts)

    def failed_server(self, to: Destination) -> None:
        """See `Forwarding.failed_server`."""
        for server in self.router.servers(to.datacenter):
            if server.destination == to:
                self.router.failed(server)

    async def send(self, to: Destination, method: str, body: bytes, deadline: float) -> bytes:
        """See `Forwarding.send`."""
        return await self.pool.rpc(to, method, body, deadline)

    async def snapshot(
        self, request: SnapshotRequest, body: AsyncIterator[bytes]
    ) -> tuple[SnapshotResponse, Answer]:
        """See `rpc.snapshot_stream.SnapshotCaller`."""
        return await self.snapshots.snapshot(request, body)

    async def call(self, method: str, request: Any) -> Any:
        """See `rpc.caller.RpcCaller.call`."""
        return await self._forwarder.call(method, request)

    def try_call(self, method: str, request: Any) -> Any | None:
        """The answer of `call` if it can be had here without waiting, else None."""
        return self._forwarder.try_call(method, request)

    def stats(self) -> dict[str, dict[str, str]]:
        """For `consul info`."""
        stats = {
            "consul": {
                "acl": "enabled" if self.acl.settings.enabled else "disabled",
                "bootstrap": str(self.config.bootstrap).lower(),
                "known_datacenters": str(len(self.router.datacenters())),
                "leader": str(self.is_leader).lower(),
                "leader_addr": self.views.leader_address(),
                "server": "true",
            },
            "raft": self.raft.stats(),
            "serf_lan": self.lan.stats(),
        }
        if self.wan is not None:
            stats["serf_wan"] = self.wan.stats()
        return stats

    async def call_datacenter(self, method: str, datacenter: str, request: Any) -> Any:
        """Ask another datacenter's servers, whatever the request's own datacenter is."""
        return await self._forwarder.call_datacenter(method, datacenter, request)

    def secondary_ca(self) -> SecondaryCa:
        """What keeps our CA in step with the primary's."""

        async def roots(request: DCSpecificRequest) -> IndexedCARoots:
            found: IndexedCARoots = await self._forwarder.call_datacenter(
                "ConnectCA.Roots", primary, request
            )
            return found

        async def sign(request: CASignRequest) -> str:
            request = replace(request, token=self.config.replication_token())
            method = "ConnectCA.SignIntermediate"
            return str(await self._forwarder.call_datacenter(method, primary, request))

        primary = self.config.identity.primary_datacenter
        return SecondaryCa(self.ca, PrimaryCa(primary, roots, sign), self.primary_appeared)

    def datacenters(self) -> list[str]:
        """Known datacenters, nearest first."""
        return self.router.datacenters_by_distance(self._round_trip_s)

    def wan_coordinates(self) -> list[co.DatacenterMap]:
        """The servers of all datacenters; empty without a WAN."""
        return [] if self.wan is None else wan_maps(self.wan)

    def _round_trip_s(self, server: ServerMeta) -> float | None:
        return None if self.wan is None else round_trip_s(self.wan, server)

    def alive_wan_servers(self, datacenter: str) -> list[Member]:
        """Members of the WAN pool that are alive in `datacenter`."""
        members = self.wan.members() if self.wan is not None else ()
        return [
            m for m in members if m.status is MemberStatus.ALIVE and m.tags.get("dc") == datacenter
        ]
