"""One conformance suite for sockets and their in-memory twin."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest
import uvloop

from proconsul.drivers.gossip.memory import MemoryNetwork, MemoryTransport
from proconsul.drivers.gossip.transport import GossipTransport, SocketTransport, TransportError
from proconsul.drivers.stream import Stream
from proconsul.util.errors import ProconsulError


class Kind:
    def __init__(self, name: str) -> None:
        self.name = name
        self._network = MemoryNetwork()

    def make(self, port: int = 0) -> GossipTransport:
        if self.name == "socket":
            return SocketTransport("127.0.0.1", port)
        return MemoryTransport(self._network, "127.0.0.1", port)


@pytest.fixture(params=["socket", "memory"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)


class Inbox:
    def __init__(self) -> None:
        self.packets: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()

    def packet(self, data: bytes, source: tuple[str, int]) -> None:
        self.packets.put_nowait((data, source))

    async def stream(self, stream: Stream) -> None:
        while data := await stream.read():
            await stream.write(data.upper())


def test_packets_arrive_with_their_source(kind: Kind):
    async def scenario() -> None:
        one, two, inbox = kind.make(), kind.make(), Inbox()
        await one.start(Inbox().packet, Inbox().stream)
        await two.start(inbox.packet, inbox.stream)
        one.send_packet("two", two.address, b"hello")
        async with asyncio.timeout(5):
            assert await inbox.packets.get() == (b"hello", one.address)
        one.send_packet("nobody", ("127.0.0.1", 1), b"lost")  # silently
        one.send_packet("v6", ("::1", 1), b"lost as well")
        await one.aclose()
        one.send_packet("two", two.address, b"after the end")
        await two.aclose()
        assert inbox.packets.empty()

    uvloop.run(scenario())


def test_streams_are_served_and_ended_with_the_transport(kind: Kind):
    async def scenario() -> None:
        one, two, inbox = kind.make(), kind.make(), Inbox()
        await one.start(inbox.packet, inbox.stream)
        await two.start(inbox.packet, inbox.stream)
        deadline = asyncio.get_running_loop().time() + 5
        stream = await one.open_stream("two", two.address, deadline)
        await stream.write(b"abc")
        assert await stream.read() == b"ABC"
        assert stream.peer.address == two.address
        await two.aclose()
        await two.aclose()
        with pytest.raises(ProconsulError):  # noqa: PT012
            async with asyncio.timeout(5):
                if await stream.read() == b"":
                    raise ProconsulError("ended")
        await stream.aclose()
        with pytest.raises(ProconsulError):
            await one.open_stream("two", two.address, deadline)
        await one.aclose()

    uvloop.run(scenario())


def test_an_address_in_use_is_refused_by_name(kind: Kind):
    async def scenario() -> None:
        one, inbox = kind.make(), Inbox()
        await one.start(inbox.packet, inbox.stream)
        two = kind.make(one.address[1])
        with pytest.raises(TransportError, match=str(one.address[1])):
            await two.start(inbox.packet, inbox.stream)
        await two.aclose()
        await one.aclose()

    uvloop.run(scenario())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # uvloop leaves it to collection
@pytest.mark.parametrize("kind_of_socket", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_that_somebody_has_is_named(kind_of_socket: socket.SocketKind) -> None:
    async def scenario(port: int) -> None:
        inbox = Inbox()
        transport = SocketTransport("127.0.0.1", port)
        with pytest.raises(TransportError) as caught:
            await transport.start(inbox.packet, inbox.stream)
        assert f"127.0.0.1:{port}: Address already in use" in str(caught.value)

    with socket.socket(socket.AF_INET, kind_of_socket) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind_of_socket == socket.SOCK_STREAM:
            taken.listen()
        uvloop.run(scenario(taken.getsockname()[1]))
    gc.collect()


def test_accepted_connections_are_bounded():
    async def scenario() -> None:
        transport, inbox = SocketTransport("127.0.0.1", 0, connections_max=1), Inbox()
        await transport.start(inbox.packet, inbox.stream)
        deadline = asyncio.get_running_loop().time() + 5
        first = await transport.open_stream("", transport.address, deadline)
        await first.write(b"a")
        assert await first.read() == b"A"
        second = await transport.open_stream("", transport.address, deadline)
        with pytest.raises(ProconsulError):  # noqa: PT012
            if await second.read() == b"":
                raise ProconsulError("ended")
        await second.aclose()
        await first.aclose()
        await transport.aclose()

    uvloop.run(scenario())
