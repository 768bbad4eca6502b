"""`GossipTransport` without sockets, for tests: a network that is a dictionary."""

from __future__ import annotations

import asyncio

from proconsul.drivers.gossip.transport import Address, OnPacket, OnStream, TransportError
from proconsul.drivers.scope import TaskScope
from proconsul.drivers.stream import PeerInfo, Stream, StreamError, memory_pair


class MemoryNetwork:
    """Where `MemoryTransport`s find each other. `cut` addresses neither send nor receive."""

    def __init__(self) -> None:
        self.transports: dict[Address, MemoryTransport] = {}
        self.cut: set[Address] = set()
        self._next_port = 10000

    def free_port(self) -> int:
        """A port that nobody has."""
        self._next_port += 1
        return self._next_port

    def route(self, source: Address, to: Address) -> MemoryTransport | None:
        """The transport at `to`, if it is there and reachable."""
        return None if {source, to} & self.cut else self.transports.get(to)


class MemoryTransport:
    """One address in a `MemoryNetwork`; port 0 takes a free one."""

    def __init__(self, network: MemoryNetwork, host: str = "10.0.0.1", port: int = 0) -> None:
        self._network = network
        self._address = (host, port or network.free_port())
        self._scope = TaskScope("memory-transport")
        self._on_packet: OnPacket | None = None
        self._on_stream: OnStream | None = None

    @property
    def address(self) -> Address:
        return self._address

    async def start(self, on_packet: OnPacket, on_stream: OnStream) -> None:
        if self._address in self._network.transports:
            raise TransportError(f"cannot bind gossip to {self._address}: address already in use")
        self._on_packet, self._on_stream = on_packet, on_stream
        self._network.transports[self._address] = self

    def send_packet(self, node: str, address: Address, data: bytes) -> None:
        if self._on_packet is None:
            return
        peer = self._network.route(self._address, address)
        if peer is not None:
            asyncio.get_running_loop().call_soon(peer.receive, data, self._address)

    def receive(self, data: bytes, source: Address) -> None:
        """A datagram from `source` arrives."""
        if self._on_packet is not None:
            self._on_packet(data, source)

    async def open_stream(self, node: str, address: Address, deadline: float) -> Stream:
        peer = self._network.route(self._address, address)
        if peer is None:
            raise StreamError(f"dial {address}: connection refused")
        ours, theirs = memory_pair(PeerInfo(address), PeerInfo(self._address))
        peer.accept(theirs)
        return ours

    def accept(self, stream: Stream) -> None:
        """A stream from elsewhere arrives."""
        _ = self._scope.spawn("stream", self._serve(stream))

    async def _serve(self, stream: Stream) -> None:
        assert self._on_stream is not None
        try:
            await self._on_stream(stream)
        finally:
            stream.abort()

    async def aclose(self) -> None:
        self._on_packet = None
        if self._network.transports.get(self._address) is self:
            del self._network.transports[self._address]
        await self._scope.aclose()
