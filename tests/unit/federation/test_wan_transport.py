"""The WAN pool's transport: who goes by gateway, packets on pooled connections, bounds, ends."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from federation_support import run, soon

from proconsul.drivers.gossip.memory import MemoryNetwork, MemoryTransport
from proconsul.drivers.stream import MemoryStream, PeerInfo, Stream, StreamError, memory_pair
from proconsul.federation import wan_transport
from proconsul.federation.names import NodeNameError
from proconsul.federation.wan_transport import PACKET_BYTES_MAX, QUEUE_PACKETS, WanTransport
from proconsul.rpc.dialer import Destination, Hop, HopError, Purpose
from proconsul.testing.waiting import until
from proconsul.util.metrics import Metrics

Address = tuple[str, int]
NOWHERE = ("192.0.2.2", 8302)


@dataclass
class FakeDialer:
    """Gives memory streams, and keeps their far ends."""

    dialled: list[tuple[Destination, Purpose]] = field(default_factory=list)
    far: list[MemoryStream] = field(default_factory=list)
    fails: bool = False
    gate: asyncio.Event | None = None

    async def dial(self, to: Destination, purpose: Purpose, deadline: float) -> Stream:
        self.dialled.append((to, purpose))
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise HopError(Hop.NO_GATEWAY, to.datacenter, "none")
        near, far = memory_pair()
        self.far.append(far)
        return near


@dataclass
class Fixture:
    transport: WanTransport
    dialer: FakeDialer
    network: MemoryNetwork
    metrics: Metrics
    packets: list[tuple[bytes, Address]] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    recovered: list[str] = field(default_factory=list)


def with_transport(test: Callable[[Fixture], Awaitable[None]]) -> None:
    async def main() -> None:
        network, dialer, metrics = MemoryNetwork(), FakeDialer(), Metrics()
        recovered: list[str] = []
        transport = WanTransport(MemoryTransport(network), "dc1", dialer, metrics, recovered.append)
        it = Fixture(transport, dialer, network, metrics, recovered=recovered)

        async def on_stream(stream: Stream) -> None:
            it.streams.append(stream)

        await transport.start(lambda data, source: it.packets.append((data, source)), on_stream)
        try:
            await test(it)
        finally:
            await transport.aclose()

    run(main)


async def packet(far: MemoryStream) -> bytes:
    (length,) = struct.unpack(">I", await far.read_exactly(4))
    return await far.read_exactly(length)


def test_our_own_datacenter_is_untouched() -> None:
    async def test(it: Fixture) -> None:
        peer = MemoryTransport(it.network, "10.0.0.2")
        got: list[bytes] = []

        async def on_stream(stream: Stream) -> None:
            it.streams.append(stream)

        await peer.start(lambda data, _: got.append(data), on_stream)
        it.transport.send_packet("s2.dc1", peer.address, b"hello")
        await until(lambda: got == [b"hello"])
        await it.transport.open_stream("s2.dc1", peer.address, soon())
        await until(lambda: it.streams)
        assert it.dialer.dialled == []
        await peer.aclose()

    with_transport(test)


def test_packets_share_one_connection_and_keep_their_order() -> None:
    async def test(it: Fixture) -> None:
        for number in range(10):
            it.transport.send_packet("s1.dc2", NOWHERE, b"%d" % number)
        await until(lambda: it.dialer.far)
        far = it.dialer.far[0]
        assert [await packet(far) for _ in range(10)] == [b"%d" % i for i in range(10)]
        it.transport.send_packet("s1.dc2", NOWHERE, b"")
        assert await packet(far) == b""
        assert it.dialer.dialled == [(Destination("dc2", "s1", NOWHERE), Purpose.WAN_GOSSIP_PACKET)]
        assert it.transport.connections() == 1

    with_transport(test)


def test_members_of_one_datacenter_have_connections_of_their_own() -> None:
    async def test(it: Fixture) -> None:
        it.transport.send_packet("s1.dc2", NOWHERE, b"a")
        it.transport.send_packet("s2.dc2", NOWHERE, b"b")
        it.transport.send_packet("s1.dc3", NOWHERE, b"c")
        await until(lambda: it.transport.connections() == 3)
        names = {(to.node, to.datacenter) for to, _ in it.dialer.dialled}
        assert names == {("s1", "dc2"), ("s2", "dc2"), ("s1", "dc3")}

    with_transport(test)


def test_a_peer_that_closes_is_noticed_before_a_packet_is_lost_on_it() -> None:
    async def test(it: Fixture) -> None:
        it.transport.send_packet("s1.dc2", NOWHERE, b"one")
        await until(lambda: it.dialer.far)
        assert await packet(it.dialer.far[0]) == b"one"
        it.dialer.far[0].abort()
        await until(lambda: it.transport.connections() == 0)
        assert it.recovered == []
        it.transport.send_packet("s1.dc2", NOWHERE, b"two")
        await until(lambda: len(it.dialer.far) == 2)
        assert await packet(it.dialer.far[1]) == b"two"
        assert it.recovered == ["s1.dc2"]

    with_transport(test)


def test_a_half_closed_peer_is_noticed_too() -> None:
    async def test(it: Fixture) -> None:
        it.transport.send_packet("s1.dc2", NOWHERE, b"one")
        await until(lambda: it.dialer.far)
        await it.dialer.far[0].write_eof()
        await until(lambda: it.transport.connections() == 0)

    with_transport(test)


def test_without_a_way_packets_are_lost_silently_and_tried_again() -> None:
    async def test(it: Fixture) -> None:
        it.dialer.fails = True
        it.transport.send_packet("s1.dc2", NOWHERE, b"one")
        await until(lambda: len(it.dialer.dialled) == 1 and not it.transport._peers)
        it.dialer.fails = False
        it.transport.send_packet("s1.dc2", NOWHERE, b"two")
        await until(lambda: it.dialer.far)
        assert await packet(it.dialer.far[0]) == b"two"
        assert it.recovered == ["s1.dc2"]

    with_transport(test)


def test_the_queue_is_bounded_and_drops_the_oldest() -> None:
    async def test(it: Fixture) -> None:
        it.dialer.gate = asyncio.Event()
        it.transport.send_packet("s1.dc2", NOWHERE, b"first")
        await until(lambda: it.dialer.dialled)
        for number in range(QUEUE_PACKETS + 5):
            it.transport.send_packet("s1.dc2", NOWHERE, b"%d" % number)
        it.dialer.gate.set()
        await until(lambda: it.dialer.far)
        assert await packet(it.dialer.far[0]) == b"first"
        assert await packet(it.dialer.far[0]) == b"5"

    with_transport(test)


def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wan_transport, "IDLE_S", 0.02)

    async def test(it: Fixture) -> None:
        it.transport.send_packet("s1.dc2", NOWHERE, b"one")
        await until(lambda: it.dialer.far)
        far = it.dialer.far[0]
        assert await packet(far) == b"one"
        with pytest.raises(StreamError):
            await far.read()
        await until(lambda: not it.transport._peers)

    with_transport(test)


def test_a_peer_that_takes_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wan_transport, "WRITE_S", 0.03)

    async def test(it: Fixture) -> None:
        for _ in range(20):
            it.transport.send_packet("s1.dc2", NOWHERE, b"x" * 65536)
        await until(lambda: it.transport.connections() == 1)
        await until(lambda: it.transport.connections() == 0)

    with_transport(test)


def test_names_without_datacenter_are_dropped() -> None:
    async def test(it: Fixture) -> None:
        it.transport.send_packet("s1", NOWHERE, b"x")
        with pytest.raises(NodeNameError):
            await it.transport.open_stream("s1", NOWHERE, soon())
        assert it.dialer.dialled == []

    with_transport(test)


def test_members_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wan_transport, "PEERS_MAX", 2)

    async def test(it: Fixture) -> None:
        for number in range(4):
            it.transport.send_packet(f"s{number}.dc2", NOWHERE, b"x")
        await until(lambda: len(it.dialer.dialled) == 2)
        assert len(it.transport._peers) == 2

    with_transport(test)


def test_streams_go_by_gateway() -> None:
    async def test(it: Fixture) -> None:
        stream = await it.transport.open_stream("*.dc2", NOWHERE, soon())
        await stream.write(b"push/pull")
        assert await it.dialer.far[0].read() == b"push/pull"
        assert it.dialer.dialled == [(Destination("dc2", "*", NOWHERE), Purpose.WAN_GOSSIP_STREAM)]

    with_transport(test)


def test_packets_that_came_in() -> None:
    async def test(it: Fixture) -> None:
        peer = PeerInfo(("10.0.0.9", 40000), ("s1.server.dc2.consul",))
        ours, theirs = memory_pair(peer)
        serving = asyncio.create_task(it.transport.ingest_packets(ours))
        frames = [b"one", b"", b"x" * 70000]
        data = b"".join(struct.pack(">I", len(f)) + f for f in frames)
        for start in range(0, len(data), 1000):
            await theirs.write(data[start : start + 1000])
        await until(lambda: len(it.packets) == 3)
        assert it.packets == [(f, peer.address) for f in frames]
        await theirs.write(b"\x00\x00")
        await theirs.write_eof()
        await serving

    with_transport(test)


def test_a_frame_beyond_the_limit_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def test(it: Fixture) -> None:
        ours, theirs = memory_pair(PeerInfo(("10.0.0.9", 1), ("s1.server.dc2.consul",)))
        await theirs.write(struct.pack(">I", PACKET_BYTES_MAX + 1))
        await it.transport.ingest_packets(ours)
        with pytest.raises(StreamError):
            await theirs.write(b"x")
        assert it.packets == []

    with_transport(test)
    assert "exceeds threshold" in caplog.text
    assert "s1.server.dc2.consul" in caplog.text


def test_a_sender_that_vanishes_within_tls_is_no_error() -> None:
    async def test(it: Fixture) -> None:
        ours, theirs = memory_pair()
        serving = asyncio.create_task(it.transport.ingest_packets(ours))
        theirs.abort()
        await serving

    with_transport(test)


def test_an_idle_sender_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wan_transport, "IDLE_S", 0.01)
    monkeypatch.setattr(wan_transport, "WRITE_S", 0.01)

    async def test(it: Fixture) -> None:
        ours, _theirs = memory_pair()
        await it.transport.ingest_packets(ours)

    with_transport(test)


def test_closing_ends_everything() -> None:
    async def test(it: Fixture) -> None:
        it.transport.send_packet("s1.dc2", NOWHERE, b"one")
        await until(lambda: it.dialer.far)
        await it.transport.aclose()
        assert it.transport.connections() == 0
        with pytest.raises(StreamError):
            await it.dialer.far[0].write(b"x")

    with_transport(test)


def test_a_retired_datacenter_gets_new_connections_and_loses_no_packet() -> None:
    async def test(it: Fixture) -> None:
        it.transport.send_packet("s1.dc2", NOWHERE, b"old way")
        it.transport.send_packet("s1.dc3", NOWHERE, b"stays")
        await until(lambda: len(it.dialer.far) == 2)
        assert await packet(it.dialer.far[0]) == b"old way"
        it.transport.retire("dc2")
        it.transport.send_packet("s1.dc2", NOWHERE, b"new way")
        it.transport.send_packet("s1.dc3", NOWHERE, b"stays too")
        await until(lambda: len(it.dialer.far) == 3)
        assert await packet(it.dialer.far[2]) == b"new way"
        assert await packet(it.dialer.far[1]) == b"stays"
        assert await packet(it.dialer.far[1]) == b"stays too"

    with_transport(test)
