"""What is particular to TCP: bounds of the server, kinds of failure, peeking."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from proconsul.drivers.stream import StreamError
from proconsul.drivers.tcp import ConnectError, Server, TcpStream, connect


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await test()

    uvloop.run(main())


def soon() -> float:
    return asyncio.get_running_loop().time() + 5


async def greet(stream: TcpStream) -> None:
    await stream.write(b"hello")
    await stream.read()


def test_refused_is_told_from_other_failures() -> None:
    async def test() -> None:
        server = Server(greet)
        await server.start("127.0.0.1", 0)
        address = server.address
        await server.aclose()
        with pytest.raises(ConnectError, match="connection refused") as raised:
            await connect(address, soon())
        assert raised.value.refused
        with pytest.raises(ConnectError, match="i/o timeout") as raised:
            await connect(("192.0.2.1", 9), asyncio.get_running_loop().time())
        assert not raised.value.refused

    run(test)


def test_local_address() -> None:
    async def test() -> None:
        server = Server(greet)
        await server.start("127.0.0.1", 0)
        stream = await connect(server.address, soon(), ("127.0.0.3", 0))
        assert stream.local_address[0] == "127.0.0.3"
        assert stream.peer.address == server.address
        await stream.aclose()
        await server.aclose()

    run(test)


def test_connections_are_bounded() -> None:
    async def test() -> None:
        server = Server(greet, max_connections=1)
        await server.start("127.0.0.1", 0)
        first = await connect(server.address, soon())
        assert await first.read_exactly(5) == b"hello"
        second = await connect(server.address, soon())
        try:
            assert await second.read() == b""
        except StreamError:
            pass
        assert server.refused == 1
        await second.aclose()
        await first.aclose()
        await server.aclose()
        assert server.connections == 0

    run(test)


def test_peek_leaves_the_byte() -> None:
    async def test() -> None:
        first: list[int | None] = []

        async def peek(stream: TcpStream) -> None:
            first.append(await stream.peek())
            await stream.write(await stream.read_exactly(3))

        server = Server(peek)
        await server.start("127.0.0.1", 0)
        stream = await connect(server.address, soon())
        await stream.write(b"\x16ab")
        assert await stream.read_exactly(3) == b"\x16ab"
        assert first == [0x16]
        assert (stream.bytes_sent, stream.bytes_received) == (3, 3)
        await stream.aclose()
        await server.aclose()

    run(test)


def test_closing_the_server_ends_its_handlers() -> None:
    async def test() -> None:
        server = Server(greet)
        await server.start("127.0.0.1", 0)
        stream = await connect(server.address, soon())
        assert await stream.read_exactly(5) == b"hello"
        await server.aclose()
        try:
            assert await stream.read() == b""
        except StreamError:
            pass
        await stream.aclose()

    run(test)
