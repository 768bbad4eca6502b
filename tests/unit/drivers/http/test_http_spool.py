"""Bodies that the HTTP server keeps in temporary files."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proconsul.drivers import disk_space
from proconsul.drivers.http import HttpLimits, HttpServer, Request, Response, spool
from proconsul.testing.waiting import until

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Client]]


async def handle(request: Request) -> Response:
    if request.spool is None:
        return Response(200, b"in memory %d" % len(request.body))
    content = b"".join([chunk async for chunk in request.spool])
    return Response(200, b"spooled %d, %d" % (len(content), sum(content)))


def serve(body: Callable[[HttpServer, Connect], Awaitable[None]], **limits: Any) -> None:
    async def run() -> None:
        server = HttpServer(
            handle,
            admit=lambda request: Response(405) if request.method == "POST" else None,
            spools=lambda request: request.target == b"/spool",
            limits=HttpLimits(**limits),
        )
        host, port = await server.listen_tcp("127.0.0.1", 0)
        writers = []

        async def connect() -> Client:
            reader, writer = await asyncio.open_connection(host, port)
            writers.append(writer)
            return reader, writer

        try:
            async with asyncio.timeout(20):
                await body(server, connect)
        finally:
            for writer in writers:
                writer.transport.abort()
            await server.aclose(0.1)

    uvloop.run(run())


async def response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


def announce(size: int) -> bytes:
    return b"PUT /spool HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size


def files() -> int:
    """Files of spools that this process has open."""
    found = 0
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found += "proconsul-body-" in os.readlink(fd) or "(deleted)" in os.readlink(fd)
        except OSError:
            pass
    return found


def test_a_spooled_body_is_bounded_by_a_limit_of_its_own() -> None:
    async def body(server: HttpServer, connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(announce(3_000_000) + b"\x01" * 3_000_000)
        assert await response(reader) == (200, b"spooled 3000000, 3000000")
        chunk = b"186a0\r\n" + b"\x02" * 100_000 + b"\r\n"
        writer.write(b"PUT /spool HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            writer.write(chunk)
        writer.write(b"0\r\n\r\n")
        assert await response(reader) == (200, b"spooled 2000000, 4000000")
        writer.write(announce(3) + b"\x01" * 3)
        assert await response(reader) == (200, b"spooled 3, 3")
        writer.write(b"PUT /other HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
        assert await response(reader) == (200, b"in memory 3")
        writer.write(announce(3_000_001))
        assert (await response(reader))[0] == 413
        reader, writer = await connect()
        writer.write(b"PUT /spool HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 31)
        assert (await response(reader))[0] == 413

    serve(body, body_bytes_max=1000, spooled_bytes_max=3_000_000)


def test_what_is_not_admitted_is_not_kept_however_large() -> None:
    async def body(server: HttpServer, connect: Connect) -> None:
        for target in (b"/spool", b"/other"):
            reader, writer = await connect()
            writer.write(b"POST %b HTTP/1.1\r\nContent-Length: 10000000000000\r\n\r\n" % target)
            writer.write(bytes(2_000_000))
            assert await response(reader) == (405, b"")
            assert server.kept._open == 0

    serve(body)


def test_only_a_few_are_received_at_once() -> None:
    async def body(server: HttpServer, connect: Connect) -> None:
        before = files()
        held = [await connect() for _ in range(2)]
        for _, writer in held:
            writer.write(announce(10_000_000) + bytes(2_000_000))
        await until(lambda: files() == before + 2)
        reader, writer = await connect()
        writer.write(announce(5) + b"12345")
        status, text = await response(reader)
        assert (status, b"try again later" in text) == (429, True)
        held[0][1].transport.abort()  # one gives up: its file and its place are free
        await until(lambda: files() == before + 1)
        reader, writer = await connect()
        writer.write(announce(5) + b"\x01" * 5)
        assert await response(reader) == (200, b"spooled 5, 5")

    serve(body)


def test_a_body_for_which_there_is_no_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(server: HttpServer, connect: Connect) -> None:
        for request in (
            announce(5_000_001),
            b"PUT /spool HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5b8d80\r\n"
            + bytes(6_000_000),
        ):
            reader, writer = await connect()
            writer.write(request)
            status, text = await response(reader)
            assert status == 507
            assert b"do not fit on the disk" in text
            await until(lambda: server.kept._open == 0)

    def room(where: str | int) -> int:
        return 5_000_000 - (os.fstat(where).st_size if isinstance(where, int) else 0)

    monkeypatch.setattr(spool, "room", room)
    serve(body)


def test_a_slow_disk_stops_the_client_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = threading.Event()

    def slow(where: str | int) -> int:
        if isinstance(where, int):
            assert disk.wait(20)
        return disk_space.room(where)

    monkeypatch.setattr(spool, "room", slow)
    size = 64 << 20

    async def body(server: HttpServer, connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(announce(size) + b"\x01" * size)
        (connection,) = server._connections
        await until(lambda: connection._paused_reading)
        other, to_other = await connect()
        to_other.write(b"PUT /other HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
        assert await response(other) == (200, b"in memory 3")
        assert writer.transport.get_write_buffer_size() > size // 2
        disk.set()
        assert await response(reader) == (200, b"spooled %d, %d" % (size, size))

    try:
        serve(body)
    finally:
        disk.set()
