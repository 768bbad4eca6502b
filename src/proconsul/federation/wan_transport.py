"""The WAN pool's transport: gossip for other datacenters travels through mesh gateways.

A member's name decides. Members of our own datacenter use the plain transport untouched; packets
for others go as 4-byte big-endian length + bytes over one pooled connection per member (ALPN
`consul/wan-gossip/packet`), streams over a connection of their own (`consul/wan-gossip/stream`).
Follows `agent/consul/wanfed`; ours also keeps a reader attached, so that a peer that went away is
noticed before a packet is lost on it, and has deadlines on every write.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from proconsul.drivers.channel import Channel, Overflow
from proconsul.drivers.scope import TaskScope
from proconsul.drivers.stream import Stream, StreamError
from proconsul.federation.names import NodeNameError, split_wan_name
from proconsul.rpc.dialer import Destination, Dialer, Purpose
from proconsul.util.errors import ProconsulError

if TYPE_CHECKING:
    from proconsul.drivers.gossip.transport import GossipTransport
    from proconsul.federation.routed import RoutedDatacenters
    from proconsul.util.metrics import Metrics

log = logging.getLogger("proconsul.wanfed")

PACKET_BYTES_MAX = 4 * 1024 * 1024
"""Far above what serf sends; a longer frame is an attack or a desynchronised stream."""
IDLE_S = 120.0
"""A packet connection that was not used for this long is closed."""
DIAL_S = 10.0
WRITE_S = 10.0
QUEUE_PACKETS = 128
"""Per member; the oldest are dropped, as a full socket buffer would drop them."""
PEERS_MAX = 4096

Address = tuple[str, int]
_LENGTH = struct.Struct(">I")


class WanTransport:
    """A `GossipTransport` that sends to other datacenters by gateway."""

    def __init__(
        self,
        inner: GossipTransport,
        datacenter: str,
        dialer: Dialer,
        metrics: Metrics,
        on_recovered: Callable[[str], None] = lambda _: None,
        routed: RoutedDatacenters | None = None,
    ) -> None:
        """`on_recovered(node)` is called when packets reach a member again that did not before."""
        self._routed = routed
        self._inner, self._datacenter, self._dialer = inner, datacenter, dialer
        self._metrics, self._on_recovered = metrics, on_recovered
        self._unreached: set[str] = set()
        self._scope = TaskScope("wan-transport")
        self._peers: dict[str, _PacketPeer] = {}
        self._on_packet: Callable[[bytes, Address], None] | None = None
        self._on_stream: Callable[[Stream], Awaitable[None]] | None = None

    @property
    def address(self) -> Address:
        """What the plain transport is bound to."""
        return self._inner.address

    async def start(
        self,
        on_packet: Callable[[bytes, Address], None],
        on_stream: Callable[[Stream], Awaitable[None]],
    ) -> None:
        """Begin to receive, on the plain transport and from `ingest_*`."""
        self._on_packet, self._on_stream = on_packet, on_stream
        if self._routed is None:
            await self._inner.start(on_packet, on_stream)
        else:
            heard = self._routed.heard
            await self._inner.start(_noting(on_packet, heard), _noting_streams(on_stream, heard))

    def send_packet(self, node: str, address: Address, data: bytes) -> None:
        """Queue one packet; never blocks. Lost silently, as a datagram, if there is no way."""
        try:
            short, datacenter = split_wan_name(node)
        except NodeNameError as error:
            log.debug("packet dropped: %s", error)
            return
        if self._plain(datacenter):
            self._inner.send_packet(node, address, data)
            return
        peer = self._peers.get(node)
        if peer is None:
            if len(self._peers) >= PEERS_MAX:
                log.error("packet for %s dropped: already %d WAN peers", node, PEERS_MAX)
                return
            to = Destination(datacenter, short, address)
            peer = _PacketPeer(to, self._dialer, self._metrics, lambda ok: self._reached(node, ok))
            self._peers[node] = peer
            _ = self._scope.spawn(f"packets/{node}", self._run_peer(node, peer))
        peer.queue.put_nowait(data)

    def _plain(self, datacenter: str) -> bool:
        if datacenter == self._datacenter:
            return True
        return self._routed is not None and self._routed(datacenter)

    async def _run_peer(self, node: str, peer: _PacketPeer) -> None:
        try:
            await peer.run()
        finally:
            del self._peers[node]

    def _reached(self, node: str, ok: bool) -> None:
        if not ok:
            if len(self._unreached) < PEERS_MAX:
                self._unreached.add(node)
        elif node in self._unreached:
            self._unreached.discard(node)
            self._on_recovered(node)

    async def open_stream(self, node: str, address: Address, deadline: float) -> Stream:
        """A gossip stream to `node`, whose address matters only within our own datacenter."""
        short, datacenter = split_wan_name(node)
        if self._plain(datacenter):
            return await self._inner.open_stream(node, address, deadline)
        to = Destination(datacenter, short, address)
        return await self._dialer.dial(to, Purpose.WAN_GOSSIP_STREAM, deadline)

    async def ingest_packets(self, stream: Stream) -> None:
        """Serve one accepted `consul/wan-gossip/packet` connection until it ends or idles."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                async with asyncio.timeout_at(loop.time() + IDLE_S + WRITE_S):
                    (length,) = _LENGTH.unpack(await stream.read_exactly(_LENGTH.size))
                    if length > PACKET_BYTES_MAX:
                        log.error(
                            "gossip packet size %d exceeds threshold of %d, from %s",
                            length,
                            PACKET_BYTES_MAX,
                            stream.peer.dns_names,
                        )
                        return
                    data = await stream.read_exactly(length)
                if self._on_packet is not None:
                    self._on_packet(data, stream.peer.address)
        except (StreamError, TimeoutError):
            # However it ended, within TLS or beneath: its sender opens another
            return
        finally:
            stream.abort()

    async def ingest_stream(self, stream: Stream) -> None:
        """Serve one accepted `consul/wan-gossip/stream` connection."""
        if self._on_stream is None:
            stream.abort()
            return
        await self._on_stream(stream)

    def retire(self, datacenter: str) -> None:
        """The next packet to each member of a datacenter takes a fresh way."""
        for peer in self._peers.values():
            peer.retire(datacenter)

    def connections(self) -> int:
        """Open packet connections, outgoing."""
        return sum(peer.connected for peer in self._peers.values())

    async def aclose(self) -> None:
        """Close all connections and the plain transport."""
        await self._scope.aclose()
        await self._inner.aclose()


def _noting(
    on_packet: Callable[[bytes, Address], None], heard: Callable[[str], None]
) -> Callable[[bytes, Address], None]:
    def noted(data: bytes, source: Address) -> None:
        heard(source[0])
        on_packet(data, source)

    return noted


def _noting_streams(
    on_stream: Callable[[Stream], Awaitable[None]], heard: Callable[[str], None]
) -> Callable[[Stream], Awaitable[None]]:
    async def noted(stream: Stream) -> None:
        heard(stream.peer.address[0])
        await on_stream(stream)

    return noted


class _PacketPeer:
    """The way to one remote member: a bounded queue, one task, at most one connection."""

    def __init__(
        self, to: Destination, dialer: Dialer, metrics: Metrics, reached: Callable[[bool], None]
    ) -> None:
        """`reached` is told of every connection that is made, not made, or closed by the peer."""
        self._to, self._dialer, self._metrics = to, dialer, metrics
        self._reached = reached
        self.queue: Channel[bytes] = Channel(QUEUE_PACKETS, Overflow.DROP_OLDEST)
        self.connected = False
        self._retired = False

    def retire(self, datacenter: str) -> None:
        """Dial anew for the next packet, if the member is one of `datacenter`."""
        self._retired = self._retired or self._to.datacenter == datacenter

    async def run(self) -> None:
        """Send what is queued; ends after `IDLE_S` without packets, or when no way is found."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(loop.time() + IDLE_S):
                    first = await self.queue.get()
            except TimeoutError:
                return
            try:
                await self._dial_and_send(first)
            except (ProconsulError, TimeoutError) as error:
                # A datagram without a way is lost; memberlist notices by the missing ack.
                log.debug("packet to %s in %s lost: %s", self._to.node, self._to.datacenter, error)
                self._metrics.incr("consul.federation.packet.lost", 1)
                self._reached(False)
                return

    async def _dial_and_send(self, first: bytes) -> None:
        loop = asyncio.get_running_loop()
        stream = await self._dialer.dial(self._to, Purpose.WAN_GOSSIP_PACKET, loop.time() + DIAL_S)
        self._metrics.incr("consul.federation.packet_conn.opened", 1)
        self.connected, self._retired = True, False
        self._reached(True)
        try:
            async with TaskScope("packet-conn") as scope:
                gone = scope.spawn("reader", _until_closed(stream))
                await self._send_queued(stream, first, gone)
                if gone.done():
                    self._reached(False)
        finally:
            self.connected = False
            stream.abort()

    async def _send_queued(self, stream: Stream, first: bytes, gone: asyncio.Task[None]) -> None:
        """Send until the connection idles or the peer goes away."""
        loop = asyncio.get_running_loop()
        data = first
        while True:
            async with asyncio.timeout_at(loop.time() + WRITE_S):
                await stream.write(_LENGTH.pack(len(data)) + data)
            if gone.done() or (not len(self.queue) and not await self._wait_for_more(gone)):
                return
            if self._retired:
                return  # the packet stays queued for the next connection
            data = await self.queue.get()
            self._metrics.incr("consul.federation.packet_conn.reused", 1)

    async def _wait_for_more(self, gone: asyncio.Task[None]) -> bool:
        """True once a packet is queued; False if the peer closed first, or nothing came."""
        async with TaskScope("packet-wait") as scope:
            ready = scope.spawn("queue", self.queue.wait())
            await asyncio.wait((ready, gone), timeout=IDLE_S, return_when=asyncio.FIRST_COMPLETED)
            return ready.done() and not gone.done()


async def _until_closed(stream: Stream) -> None:
    """The protocol is one-way: whatever the peer sends is dropped, its close ends us."""
    try:
        while await stream.read():
            pass
    except StreamError:
        return
