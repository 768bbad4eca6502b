"""A server's part in WAN federation through mesh gateways, wired together.

`Federation` has the ways out (locator, dialer, WAN transport) and the loops that every server runs;
`ServerFederation` is what the leader's federation loops see of their server.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from proconsul.core.gossip.serf import Member, MemberStatus
from proconsul.domain.catalog import MESH_GATEWAY, CheckServiceNode
from proconsul.domain.federation import (
    FederationState,
    FederationStateQuery,
    FederationStateRequest,
    IndexedFederationStates,
)
from proconsul.domain.messages import MessageType
from proconsul.domain.options import DCSpecificRequest
from proconsul.drivers.scope import TaskScope
from proconsul.federation.dialer import FederationDialer
from proconsul.federation.flood import FLOOD_S, LanServer, flood_join, missing
from proconsul.federation.gateway_connect import GatewayConnect, GatewayTraffic
from proconsul.federation.greeting import Greeter
from proconsul.federation.locator import GatewayLocator
from proconsul.federation.rate import Signal
from proconsul.federation.retry_join import (
    PrimaryGatewayRefresher,
    Resolver,
    WanJoiner,
)
from proconsul.federation.routed import RoutedDatacenters
from proconsul.federation.wan_transport import WanTransport
from proconsul.rpc.blocking import Watch
from proconsul.rpc.dialer import Destination
from proconsul.services.server.reconcile import server_of
from proconsul.util.errors import ConfigError, ProconsulError

if TYPE_CHECKING:
    from proconsul.drivers.gossip.transport import SocketTransport
    from proconsul.drivers.stream import PushStream
    from proconsul.rpc.direct_dialer import DirectDialer
    from proconsul.services.server.server import Server

log = logging.getLogger("proconsul.server")

METRICS_S = 10.0


async def next_change(watches: Sequence[Watch], timeout_s: float) -> None:
    """Return once one of them fires, or after `timeout_s` seconds."""
    changed = asyncio.Event()
    for watch in watches:
        watch.add(changed.set)
    try:
        async with asyncio.timeout(timeout_s):
            await changed.wait()
    except TimeoutError:
        return
    finally:
        for watch in watches:
            watch.cancel(changed.set)


class Federation:
    """The ways to other datacenters, of one server."""

    def __init__(self, server: Server, direct: DirectDialer) -> None:
        identity = server.config.identity
        if server.tls is None or not server.tls.config.mutual_tls_capable:
            raise ConfigError(
                "connect.enable_mesh_gateway_wan_federation needs ca_file, cert_file and key_file: "
                "servers reach each other through gateways by mutual TLS alone"
            )
        self._server = server
        self.locator = GatewayLocator(
            identity.datacenter, identity.primary_datacenter, random.SystemRandom()
        )
        self.routed = RoutedDatacenters(self.locator, self._members)
        self.traffic = GatewayTraffic()
        self.dialer = FederationDialer(
            identity.datacenter,
            identity.domain,
            direct,
            self.locator,
            GatewayConnect(server.tls, self.traffic),
            server.metrics,
            self.routed,
        )
        self.transport: WanTransport | None = None
        self.refresher: PrimaryGatewayRefresher | None = None
        self._flood = asyncio.Event()
        self._was_normal = False
        self.locator.on_change(self._way_changed)
        self._greeter = Greeter(self._join)

    def wan_transport(self, plain: SocketTransport) -> WanTransport:
        """The WAN pool's transport, on top of the plain one."""
        server = self._server
        self.transport = WanTransport(
            plain, server.datacenter, self.dialer, server.metrics, self._greet, self.routed
        )
        return self.transport

    def start(self, scope: TaskScope) -> None:
        """Begin the loops of every server."""
        _ = scope.supervise("gateway-locator", self._follow_gateways)
        _ = scope.supervise("flood-join", self._flood_forever)
        _ = scope.supervise("federation-metrics", self._measure)
        _ = scope.supervise("join-wan", self._join_wan)
        _ = scope.supervise("greet", self._greeter.run)

    def refresh_primary_gateways(
        self, entries: Sequence[str], resolver: Resolver, interval_s: float, scope: TaskScope
    ) -> None:
        """Keep `primary_gateways` resolved (a secondary's agent calls this once)."""
        self.refresher = PrimaryGatewayRefresher(
            entries, resolver, self.locator, interval_s, self._needs_help
        )
        _ = scope.supervise("primary-gateways", self.refresher.run)

    def _way_changed(self) -> None:
        """A secondary that finds its local gateways leaves the detour that it began with."""
        normal, identity = self.locator.in_normal_state, self._server.config.identity
        if normal and not self._was_normal and not identity.is_primary:
            self._server.pool.retire(identity.primary_datacenter)
            if self.transport is not None:
                self.transport.retire(identity.primary_datacenter)
        self._was_normal = normal

    def _needs_help(self) -> bool:
        primary = self._server.config.identity.primary_datacenter
        return not (self.locator.in_normal_state and self._server.alive_wan_servers(primary))

    def reconnected(self, to: Destination) -> None:
        """An RPC connection to a server was broken and is there again: it may have restarted."""
        if to.datacenter != self._server.datacenter:
            self._greet(f"{to.node}.{to.datacenter}")

    def _greet(self, node: str) -> None:
        wan = self._server.wan
        member = wan.member(node) if wan is not None else None
        if member is not None and member.status is MemberStatus.ALIVE:
            host, port = member.address
            rendered = f"[{host}]" if ":" in host else host
            self._greeter.missed(f"{member.name}/{rendered}:{port}")

    def _members(self) -> Iterator[tuple[str, str]]:
        wan = self._server.wan
        for member in wan.members() if wan is not None else ():
            yield member.tags.get("dc", ""), member.address[0]

    async def _join(self, addresses: Sequence[str]) -> int:
        wan = self._server.wan
        return await wan.join(addresses) if wan is not None else 0

    # -- accepted gossip -------------------------------------------------------------------

    async def ingest_packets(self, stream: PushStream) -> None:
        """A `consul/wan-gossip/packet` connection."""
        if self.transport is not None:
            await self.transport.ingest_packets(stream)

    async def ingest_stream(self, stream: PushStream) -> None:
        """A `consul/wan-gossip/stream` connection."""
        if self.transport is not None:
            await self.transport.ingest_stream(stream)

    # -- loops -----------------------------------------------------------------------------

    def lan_changed(self) -> None:
        """A LAN member came or went: look whether the WAN pool lacks a server."""
        self._flood.set()

    def state_changed(self) -> None:
        """A leader is known: our state may have become fit to be read."""
        self._flood.set()

    async def _follow_gateways(self) -> None:
        server = self._server
        while True:
            states = server.store.federation.all()
            local = server.store.catalog.service_dump(MESH_GATEWAY)
            # The catalog is our own and current; the federation state went through the primary.
            # Before the catalog is restored or caught up, what was replicated is better than none.
            catalog = local.value if local.value else None
            self.locator.update(states.value, catalog)
            hosts = {gateway.best_address(wan=False)[0] for gateway in local.value}
            server.allow_gateways(hosts)
            await next_change((states.watch, local.watch), 60.0)

    async def _flood_forever(self) -> None:
        server = self._server
        while True:
            self._flood.clear()
            wan = server.wan
            if wan is not None:
                alive = {m.name for m in wan.members() if m.status is MemberStatus.ALIVE}
                servers = [s for m in server.lan.members() if (s := _lan_server(m)) is not None]
                await flood_join(missing(servers, alive, server.datacenter), wan.join)
            try:
                async with asyncio.timeout(FLOOD_S):
                    await self._flood.wait()
            except TimeoutError:
                continue

    async def _join_wan(self) -> None:
        server = self._server
        if server.wan is None:
            return
        changed = Signal()
        self.locator.on_change(changed.fire)
        await WanJoiner(self._unknown_datacenters, server.wan.join, changed).run()

    def _unknown_datacenters(self) -> list[str]:
        """Those that we know a way to, but no alive server of."""
        server = self._server
        identity = server.config.identity
        wanted = {s.datacenter for s in server.store.federation.all().value if s.mesh_gateways}
        if not identity.is_primary:
            wanted.add(identity.primary_datacenter)
        return [
            datacenter
            for datacenter in sorted(wanted - {identity.datacenter})
            if self.locator.known(datacenter) and not server.alive_wan_servers(datacenter)
        ]

    async def _measure(self) -> None:
        metrics = self._server.metrics
        while True:
            metrics.gauge("consul.federation.gateway.bytes_sent", self.traffic.sent)
            metrics.gauge("consul.federation.gateway.bytes_received", self.traffic.received)
            metrics.gauge("consul.federation.gateway.connections", self.traffic.connections)
            if self.transport is not None:
                metrics.gauge("consul.federation.packet_conn.open", self.transport.connections())
            await asyncio.sleep(METRICS_S)


def _lan_server(member: Member) -> LanServer | None:
    """An alive server of the LAN pool and where its WAN gossip listens."""
    server = server_of(member)
    if server is None or member.status is not MemberStatus.ALIVE or not server.wan_join_port:
        return None
    return LanServer(server.node, (member.address[0], server.wan_join_port))


class ServerFederation:
    """`federation.ports.FederationServer` on a `Server`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.publishing_error = ""
        """Why the primary did not take our gateways when they were last written there."""

    @property
    def datacenter(self) -> str:
        return self._server.datacenter

    @property
    def primary_datacenter(self) -> str:
        return self._server.config.identity.primary_datacenter

    @property
    def primary_appeared(self) -> Signal:
        return self._server.primary_appeared

    def states(self) -> Sequence[FederationState]:
        return self._server.store.federation.all().value

    def local_gateways(self) -> Sequence[CheckServiceNode]:
        return self._server.store.catalog.service_dump(MESH_GATEWAY).value

    async def wait_for_change(self, seen: Callable[[], object], timeout_s: float) -> None:
        store = self._server.store
        before = seen()
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            watches = (
                store.federation.all().watch,
                store.catalog.service_dump(MESH_GATEWAY).watch,
            )
            if seen() != before:
                return
            await next_change(watches, left)

    async def apply_locally(self, request: FederationStateRequest) -> None:
        await self._server.apply(MessageType.FEDERATION_STATE, request)

    async def fetch_from_primary(self, min_index: int) -> IndexedFederationStates:
        request = DCSpecificRequest(
            datacenter=self.primary_datacenter,
            allow_stale=True,
            min_query_index=min_index,
            token=self._server.config.replication_token(),
        )
        answer: IndexedFederationStates = await self._server.call("FederationState.List", request)
        return answer

    async def apply_in_primary(self, request: FederationStateRequest) -> None:
        token = self._server.config.replication_token()
        try:
            await self._server.call("FederationState.Apply", replace(request, token=token))
        except ProconsulError as error:
            self.publishing_error = str(error)
            raise
        self.publishing_error = ""

    async def read_in_primary(self) -> None:
        """Read one federation state there, with the replication token. Raises ProconsulError."""
        primary = self.primary_datacenter
        token = self._server.config.replication_token()
        query = FederationStateQuery(datacenter=primary, target_datacenter=primary, token=token)
        await self._server.call("FederationState.Get", query)

    def knows_datacenter(self, datacenter: str) -> bool:
        return self._server.knows_datacenter(datacenter)
