"""The HTTP server on real sockets of the loopback."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proconsul.drivers.http import HttpLimits, HttpServer, Request, Response
from proconsul.drivers.http.protocol import HttpConnection
from proconsul.testing.waiting import until

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_OK = b"HTTP/1.1 200 OK\r\n"


class World:
    """A server that echoes, with a few special paths, and clients of it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.waiting = 0

    def handle(self, request: Request) -> Any:
        self.requests.append(request)
        target = request.target
        if target == b"/wait":
            return self._wait()
        if target == b"/crash":
            raise ValueError("no")
        if target == b"/late-crash":
            return self._crash()
        if target == b"/stream":
            return Response(200, stream=self._stream())
        if target == b"/big":
            return Response(200, b"x" * (8 << 20))
        return Response(200, target + b"|" + request.body)

    async def _wait(self) -> Response:
        self.waiting += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Response(200, b"waited")

    async def _crash(self) -> Response:
        raise ValueError("no")

    async def _stream(self) -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    def admit(self, request: Request) -> Response | None:
        return Response(413, b"no", b"X: y\r\n") if request.target == b"/refuse" else None


def serve(
    body: Callable[[World, HttpServer, Callable[[], Awaitable[Client]]], Awaitable[None]],
    **limits: Any,
) -> World:
    async def run() -> World:
        world = World()
        server = HttpServer(
            world.handle,
            admit=world.admit,
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
                await body(world, server, connect)
        finally:
            world.gate.set()
            await server.aclose(0.1)
            for writer in writers:
                writer.transport.abort()
        return world

    return uvloop.run(run())


async def response(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


def test_keep_alive_and_close() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        reader, writer = await connect()
        for target in (b"/a", b"/b"):
            writer.write(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            head, content = await response(reader)
            assert head.startswith(_OK)
            assert b"Date: " in head
            assert content == target + b"|"
        writer.write(b"GET /c HTTP/1.1\r\nConnection: close\r\n\r\n")
        head, _ = await response(reader)
        assert b"Connection: close\r\n" in head
        assert await reader.read() == b""
        await until(lambda: server.connections == 0)

    serve(body)


def test_http_1_0_closes() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"GET /a HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b"/a|")

    serve(body)


def test_pipelining_keeps_order_though_the_first_waits() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n" + b"".join(
            b"GET /%d HTTP/1.1\r\n\r\n" % n for n in range(40)
        ))  # fmt: skip
        await until(lambda: world.waiting == 1)
        assert len(world.requests) == 1
        world.gate.set()
        assert (await response(reader))[1] == b"waited"
        for n in range(40):
            assert (await response(reader))[1] == b"/%d|" % n

    serve(body, pipeline_max=4)


def test_chunked_request_split_at_every_byte() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        reader, writer = await connect()
        raw = (
            b"PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\n\r\n"
        )
        for at in range(len(raw)):
            writer.write(raw[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await response(reader))[1] == b"/c|abcdefg"
        assert world.requests[0].content_length == -1

    serve(body)


def test_streamed_response_is_chunked() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"GET /stream HTTP/1.1\r\n\r\nGET /after HTTP/1.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert await reader.readexactly(21) == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
        assert (await response(reader))[1] == b"/after|"

    serve(body)


def test_head_has_length_but_no_body() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"HEAD /x HTTP/1.1\r\n\r\nGET /y HTTP/1.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: 3\r\n" in head
        assert (await response(reader))[1] == b"/y|"

    serve(body)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/9.9\r\n\r\n", b"400 Bad Request"),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", b"431 "),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 5000, b"431 "),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 30 + b"\r\n", b"431 "),
        (b"PUT / HTTP/1.1\r\nContent-Length: 101\r\n\r\n", b"413 Request Entity Too Large"),
        (
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101,
            b"413 Request Entity Too Large",
        ),
        (b"PUT /refuse HTTP/1.1\r\nContent-Length: 5\r\n\r\n", b"413 Request Entity Too Large"),
        (
            b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"400 Bad Request",
        ),
        (b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", b"400 Bad Request"),
    ],
)
def test_what_is_refused(raw: bytes, status: bytes) -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(raw)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"Connection: close\r\n" in answer
        assert not world.requests

    serve(body, header_bytes_max=4096, headers_max=20, body_bytes_max=100)


def test_expect_continue() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"PUT /x HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert (await response(reader))[1] == b"/x|hi"

    serve(body)


def test_an_offered_upgrade_is_ignored() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(
            b"GET /x HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
        )
        assert (await response(reader))[1] == b"/x|"

    serve(body)


@pytest.mark.parametrize("sent", [b"GET / HT", b"PUT / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"])
def test_slow_senders_are_cut_off(sent: bytes) -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(sent)
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")

    serve(body, header_timeout_s=0.2, body_timeout_s=0.2)


def test_idle_connections_are_closed_silently() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        reader, _ = await connect()
        assert await reader.read() == b""

    serve(body, idle_timeout_s=0.2)


def test_a_client_that_does_not_read_is_dropped() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        _, writer = await connect()
        writer.transport.pause_reading()
        writer.write(b"GET /big HTTP/1.1\r\n\r\n" * 3)
        await until(lambda: len(world.requests) >= 1)
        await until(lambda: server.connections == 0)
        assert len(world.requests) < 3

    serve(body, write_timeout_s=0.3)


def test_disconnect_cancels_the_waiting_request() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        _, writer = await connect()
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        await until(lambda: world.waiting == 1)
        writer.close()
        await until(lambda: world.cancelled == 1)

    serve(body, half_close_grace_s=0.1)


def test_half_close_still_gets_the_answer() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        writer.write_eof()
        await until(lambda: world.waiting == 1)
        world.gate.set()
        assert (await reader.read()).endswith(b"waited")
        again, writer = await connect()
        writer.write(b"GET /now HTTP/1.1\r\n\r\n")
        writer.write_eof()
        assert (await again.read()).endswith(b"/now|")

    serve(body)


def test_failing_handlers_answer_500(caplog: pytest.LogCaptureFixture) -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        for target in (b"/crash", b"/late-crash"):
            reader, writer = await connect()
            writer.write(b"GET " + target + b" HTTP/1.1\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 500 ")

    serve(body)
    assert "handler of GET failed" in caplog.text


def test_too_many_connections_of_one_client() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        kept = [await connect() for _ in range(2)]
        reader, _ = await connect()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert answer.endswith(
            b"Your IP is issuing too many concurrent connections, please rate limit your calls\n"
        )
        kept[0][1].close()
        await until(lambda: server.connections == 1)
        reader, writer = await connect()
        writer.write(b"GET /x HTTP/1.1\r\n\r\n")
        assert (await response(reader))[1] == b"/x|"

    serve(body, connections_per_client_max=2)


def test_shutdown_ends_waiting_requests_with_an_answer() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        idle, _ = await connect()
        reader, writer = await connect()
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        await until(lambda: world.waiting == 1)
        await server.aclose(0.05)
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        assert await idle.read() == b""
        assert world.cancelled == 1

    serve(body)


def test_shutdown_lets_requests_finish() -> None:
    async def body(world: World, server: HttpServer, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        await until(lambda: world.waiting == 1)
        asyncio.get_running_loop().call_later(0.05, world.gate.set)
        await server.aclose(5)
        assert (await reader.read()).endswith(b"waited")

    serve(body)


def test_unix_socket_replaces_a_stale_one_only(tmp_path: Path) -> None:
    path = tmp_path / "s"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()

    async def run() -> None:
        world = World()
        server = HttpServer(world.handle)
        await server.listen_unix(str(path), mode=0o600)
        assert os.stat(path).st_mode & 0o777 == 0o600
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"/x|")
        writer.close()
        await server.aclose(0.1)
        assert not path.exists()
        path.write_text("precious")
        other = HttpServer(world.handle)
        with pytest.raises(OSError, match="in use"):
            await other.listen_unix(str(path))
        await other.aclose(0)
        assert path.read_text() == "precious"

    uvloop.run(run())


def test_a_client_that_is_gone_at_once_leaves_no_coroutine_behind() -> None:
    """What a handler returned begins before it is cancelled, or Python would complain of it."""
    begun: list[bool] = []

    async def inner() -> Response:
        begun.append(True)
        await asyncio.Event().wait()
        return Response(200, b"")

    async def outer(answer: Coroutine[Any, Any, Response]) -> Response:
        return await answer

    async def run() -> None:
        server = HttpServer(lambda _request: outer(inner()))
        connection = HttpConnection(server)
        connection.connection_made(asyncio.Transport({"peername": ("127.0.0.1", 1)}))
        connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
        connection.connection_lost(None)
        await until(lambda: begun == [True] and len(server.scope) == 0)
        await server.aclose(0)

    asyncio.run(run())
