"""DNS listeners: datagrams and streams, their limits, and the address that answers leave from."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from proconsul.drivers import dns_server
from proconsul.drivers.dns_server import DnsListener, exchange
from proconsul.testing.waiting import until

QUESTION = b"\x12\x34" + bytes(10) + b"question"


def echo(data: bytes, source: str, tcp: bool) -> bytes:
    return data[:12] + f"{source} {tcp}".encode()


def serve(
    handler: Callable[..., Any],
    client: Callable[[int, DnsListener], Awaitable[None]],
    host: str = "127.0.0.1",
) -> None:
    """Run `client(port, listener)` beside a listener."""

    async def run() -> None:
        listener = DnsListener(handler)
        port = await listener.listen(host, 0)
        try:
            async with asyncio.timeout(20):
                await client(port, listener)
        finally:
            await listener.aclose()

    uvloop.run(run())


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_questions_are_answered(tcp: bool, waits: bool) -> None:
    def later(data: bytes, source: str, over_tcp: bool) -> Any:
        async def answer() -> bytes:
            await asyncio.sleep(0)
            return echo(data, source, over_tcp)

        return answer() if waits else echo(data, source, over_tcp)

    async def client(port: int, _listener: DnsListener) -> None:
        answer = await exchange(QUESTION, ("127.0.0.1", port), tcp, 5.0)
        assert answer == QUESTION[:12] + f"127.0.0.1 {tcp}".encode()

    serve(later, client)


def test_a_stream_has_its_questions_answered_in_order_and_not_without_end() -> None:
    def handler(data: bytes, _source: str, _tcp: bool) -> Any:
        async def slow() -> bytes:
            await asyncio.sleep(0.005)
            return data

        return slow() if data[13] % 2 else data

    async def client(port: int, _listener: DnsListener) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = [bytes(12) + bytes((0, n)) for n in range(140)]
        writer.write(b"".join(len(one).to_bytes(2, "big") + one for one in sent))
        answers = []
        while head := await reader.read(2):
            answers.append(await reader.readexactly(int.from_bytes(head, "big")))
        assert answers == sent[: dns_server.STREAM_QUERIES_MAX]
        writer.close()

    serve(handler, client)


def test_streams_that_say_nothing_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "FIRST_S", 0.05)
    monkeypatch.setattr(dns_server, "IDLE_S", 0.05)

    async def client(port: int, listener: DnsListener) -> None:
        for first in (b"", b"\0", len(QUESTION).to_bytes(2, "big") + QUESTION):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first)
            try:
                await reader.read()
            except ConnectionResetError:
                pass
            writer.close()
        assert not listener.open
        assert not listener.streams

    serve(echo, client)


def test_one_client_opens_only_so_many_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "STREAMS_PER_CLIENT_MAX", 2)

    async def client(port: int, listener: DnsListener) -> None:
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await until(lambda: len(listener.open) == 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        for _, one in (*kept, (reader, writer)):
            one.close()

    serve(echo, client)


def test_datagrams_beyond_what_may_wait_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "TASKS_MAX", 1)
    hold = asyncio.Event()

    def handler(data: bytes, _source: str, _tcp: bool) -> Any:
        async def wait() -> bytes:
            await hold.wait()
            return data

        return wait()

    async def client(port: int, listener: DnsListener) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", port))
            for _ in range(3):
                sock.send(QUESTION)
            await until(lambda: listener.dropped == 2)
            hold.set()
            assert await asyncio.get_running_loop().sock_recv(sock, 100) == QUESTION

    serve(handler, client)


@pytest.mark.skipif(sys.platform != "linux", reason="IP_PKTINFO, 127.0.0.0/8")
def test_answers_leave_from_the_address_that_was_asked() -> None:
    async def client(port: int, _listener: DnsListener) -> None:
        # A connected socket drops what comes from elsewhere: by route it would be 127.0.0.1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
            sock.connect(("127.3.2.1", port))
            sock.send(QUESTION)
            answer = await asyncio.get_running_loop().sock_recv(sock, 100)
            assert answer.endswith(b"127.0.0.1 False")

    serve(echo, client, "0.0.0.0")


def test_a_taken_port_is_refused_for_both() -> None:
    async def run() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            listener = DnsListener(echo)
            with pytest.raises(OSError, match="in use"):
                await listener.listen("127.0.0.1", taken.getsockname()[1])
            await listener.aclose()

    uvloop.run(run())


def test_exchanges_that_fail() -> None:
    async def client(port: int, _listener: DnsListener) -> None:
        for tcp in (False, True):
            with pytest.raises((TimeoutError, ConnectionResetError)):
                await exchange(QUESTION, ("127.0.0.1", port), tcp, 0.1)

    serve(lambda data, *_: b"\0\0" + data[2:], client)


def test_addresses_in_short() -> None:
    assert dns_server.plain_address("::ffff:10.0.0.1") == "10.0.0.1"
    assert dns_server.plain_address("fe80::1%eth0") == "fe80::1"
