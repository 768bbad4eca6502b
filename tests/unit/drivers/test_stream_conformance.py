"""What every `Stream` promises: memory, TCP, TLS and yamux are held to the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from proconsul.drivers.stream import (
    EndOfStream,
    PushStream,
    Receiver,
    Stream,
    StreamError,
    memory_pair,
)
from proconsul.drivers.tcp import Server, TcpStream, connect
from proconsul.drivers.tls import client_handshake, server_handshake
from proconsul.drivers.tls_config import TlsConfig, TlsContexts
from proconsul.rpc.yamux_session import YamuxSession, YamuxStream
from proconsul.testing.certs import TestAuthority

Pair = tuple[PushStream, PushStream]


@asynccontextmanager
async def memory(_directory: Path) -> AsyncIterator[Pair]:
    yield memory_pair()


@asynccontextmanager
async def tcp(_directory: Path) -> AsyncIterator[Pair]:
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[TcpStream] = loop.create_future()
    done = asyncio.Event()

    async def handle(stream: TcpStream) -> None:
        accepted.set_result(stream)
        await done.wait()

    server = Server(handle)
    await server.start("127.0.0.1", 0)
    near = await connect(server.address, loop.time() + 5)
    try:
        yield near, await accepted
    finally:
        near.abort()
        done.set()
        await server.aclose()


@asynccontextmanager
async def tls(directory: Path) -> AsyncIterator[Pair]:
    files = TestAuthority(directory).server("s1", "dc1")
    contexts = TlsContexts(
        TlsConfig(ca_file=files.ca, cert_file=files.certificate, key_file=files.key)
    )
    deadline = asyncio.get_running_loop().time() + 5
    async with tcp(directory) as (near, far):
        async with asyncio.TaskGroup() as group:
            server = group.create_task(
                server_handshake(far, contexts.server(client_certificate=True), deadline=deadline)
            )
            client = group.create_task(client_handshake(near, contexts.client(), deadline=deadline))
        yield client.result(), server.result()


async def _yamux(stack: AsyncExitStack, lower: Pair) -> Pair:
    accepted: asyncio.Future[YamuxStream] = asyncio.get_running_loop().create_future()
    near = YamuxSession(lower[0], client=True)
    far = YamuxSession(lower[1], client=False, on_stream=accepted.set_result)
    stack.callback(near.abort)
    stack.callback(far.abort)
    return await near.open_stream(), await accepted


@asynccontextmanager
async def yamux(_directory: Path) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        yield await _yamux(stack, memory_pair())


@asynccontextmanager
async def yamux_over_tls(directory: Path) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        lower = await stack.enter_async_context(tls(directory))
        yield await _yamux(stack, lower)


KINDS = [memory, tcp, tls, yamux, yamux_over_tls]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def check(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[Callable[[PushStream, PushStream], Awaitable[None]]], None]:
    """Run a test with a pair of the kind."""

    def run(test: Callable[[PushStream, PushStream], Awaitable[None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(20), request.param(tmp_path) as (left, right):
                await test(left, right)

        uvloop.run(main())

    return run


def test_is_a_stream(check) -> None:
    async def test(left: PushStream, right: PushStream) -> None:
        assert isinstance(left, Stream)
        assert isinstance(right, PushStream)
        assert left.peer.address[0] != ""

    check(test)


def test_bytes_arrive_in_order_both_ways(check) -> None:
    async def test(left: PushStream, right: PushStream) -> None:
        await left.write(b"abc")
        await left.write(b"def")
        assert await right.read_exactly(6) == b"abcdef"
        await right.write(b"xyz")
        assert await left.read_exactly(2) == b"xy"
        assert await left.read(100) == b"z"

    check(test)


def test_read_gives_no_more_than_its_limit(check) -> None:
    async def test(left: PushStream, right: PushStream) -> None:
        await left.write(b"0123456789")
        assert len(await right.read(1)) == 1
        assert len(await right.read_exactly(3)) == 3
        assert await right.read_exactly(6) == b"456789"

    check(test)


def test_half_close_lets_the_other_direction_go_on(check) -> None:
    async def test(left: PushStream, right: PushStream) -> None:
        await left.write(b"question")
        await left.write_eof()
        assert await right.read_exactly(8) == b"question"
        assert await right.read() == b""
        assert await right.read() == b""
        await right.write(b"answer" * 10000)
        assert await left.read_exactly(60000) == b"answer" * 10000
        await right.write_eof()
        assert await left.read() == b""

    check(test)


def test_writing_after_eof_is_an_error(check) -> None:
    async def test(left: PushStream, _right: PushStream) -> None:
        await left.write_eof()
        with pytest.raises(StreamError):
            await left.write(b"more")

    check(test)


def test_read_exactly_notices_an_early_end(check) -> None:
    async def test(left: PushStream, right: PushStream) -> None:
        await left.write(b"ab")
        await left.write_eof()
        with pytest.raises(EndOfStream):
            await right.read_exactly(3)

    check(test)


def test_a_writer_waits_for_a_slow_reader_and_nothing_is_lost(check) -> None:
    async def test(left: PushStream, right: PushStream) -> None:
        block = bytes(range(256)) * 256
        count = 200
        written = 0

        async def write() -> None:
            nonlocal written
            for _ in range(count):
                await left.write(block)
                written += 1
            await left.write_eof()

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            await asyncio.sleep(0.05)
            assert written < count
            received = bytearray()
            while chunk := await right.read():
                received += chunk
        assert bytes(received) == block * count

    check(test)


def test_close_is_seen_by_the_peer_and_idempotent(check) -> None:
    async def test(left: PushStream, right: PushStream) -> None:
        await left.write(b"last words")
        await left.aclose()
        await left.aclose()
        left.abort()
        assert await right.read_exactly(10) == b"last words"
        assert await right.read() == b""
        with pytest.raises(StreamError):
            await left.read()
        with pytest.raises(StreamError):
            await left.write(b"x")

    check(test)


def test_close_wakes_a_local_reader(check) -> None:
    async def test(left: PushStream, _right: PushStream) -> None:
        reader = asyncio.ensure_future(left.read())
        await asyncio.sleep(0)
        await left.aclose()
        with pytest.raises(StreamError):
            await reader

    check(test)


def test_abort_breaks_the_peer(check) -> None:
    async def test(left: PushStream, right: PushStream) -> None:
        left.abort()
        left.abort()
        try:
            assert await right.read() == b""  # TCP may end quietly where nothing was unread
        except StreamError:
            pass

    check(test)


def test_a_cancelled_read_loses_nothing(check) -> None:
    async def test(left: PushStream, right: PushStream) -> None:
        reader = asyncio.ensure_future(right.read())
        await asyncio.sleep(0.01)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await left.write(b"kept")
        assert await right.read_exactly(4) == b"kept"

    check(test)


def test_end_is_reported_without_a_reader(check) -> None:
    async def test(left: PushStream, right: PushStream) -> None:
        ended = asyncio.Event()
        right.on_end(ended.set)
        await left.aclose()
        await ended.wait()

    check(test)


class Recorder(Receiver):
    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.ended.set()

    def connection_lost(self, error: StreamError) -> None:
        self.ended.set()


def test_a_receiver_gets_what_was_buffered_and_what_follows(check) -> None:
    async def test(left: PushStream, right: PushStream) -> None:
        await left.write(b"early")
        assert await right.read_exactly(1) == b"e"
        recorder = Recorder()
        right.attach(recorder)
        await left.write(b"late")
        await left.write_eof()
        await recorder.ended.wait()
        assert bytes(recorder.data) == b"arlylate"

    check(test)
