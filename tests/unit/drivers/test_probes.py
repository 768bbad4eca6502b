from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from proconsul.drivers import probes
from proconsul.drivers.probes import HttpAnswer, ProbeError, http_probe, tcp_probe

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Answers = Callable[[bytes], bytes]


@asynccontextmanager
async def _serving(handler: Handler) -> AsyncIterator[tuple[str, int]]:
    """A server whose connections are gone at the end."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError):
            await handler(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)


async def _hangs(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


def _ask(answer: Answers, path: str = "/", **options: object) -> tuple[HttpAnswer, list[bytes]]:
    """One probe of a server that answers each request with `answer(request)`."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        requests.append(head + await reader.readexactly(size))
        writer.write(answer(requests[-1]))
        writer.write_eof()

    async def run() -> HttpAnswer:
        async with _serving(serve) as (host, port):
            return await http_probe(f"http://{host}:{port}{path}", **options)  # type: ignore[arg-type]

    return asyncio.run(run()), requests


def test_request_and_answer() -> None:
    answer, (request,) = _ask(
        lambda _: b"HTTP/1.1 503 Not Now\r\nContent-Length: 4\r\n\r\nbusy",
        "/a?b=1",
        method="PUT",
        headers={"X-A": ["1", "2"], "User-Agent": ["mine"]},
        body="hé",
    )
    assert (answer.status, answer.reason, answer.body) == (503, "Not Now", b"busy")
    lines = request.decode().split("\r\n")
    assert lines[0] == "PUT /a?b=1 HTTP/1.1"
    assert {"X-A: 1", "X-A: 2", "User-Agent: mine", "Content-Length: 3"} <= set(lines)
    assert lines[-1] == "hé"
    assert not any("Health Check" in line for line in lines)


def test_only_the_end_of_a_body_is_kept() -> None:
    answer, _ = _ask(lambda _: b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 5000 + b"end", output_max=10)
    assert answer.body == b"x" * 7 + b"end"


@pytest.mark.parametrize(("status", "second"), [(302, b"GET"), (307, b"POST")])
def test_redirects_are_followed_as_go_does(status: int, second: bytes) -> None:
    def answer(request: bytes) -> bytes:
        if b" /old " in request:
            return b"HTTP/1.1 %d Moved\r\nLocation: /new\r\nContent-Length: 0\r\n\r\n" % status
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    found, requests = _ask(answer, "/old", method="POST", body="data")
    assert found.status == 200
    assert requests[1].startswith(second + b" /new ")
    assert requests[1].endswith(b"data") is (second == b"POST")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "stopped after 10"),
        (b"", "closed without an answer"),
        (b"SSH-2.0-x\r\n", "Get"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nyy",
            "Get",
        ),
        (b"HTTP/1.1 302 Found\r\nLocation: ftp://x/\r\nContent-Length: 0\r\n\r\n", "ftp://x/"),
    ],
)
def test_answers_that_are_none(answer: bytes, reason: str) -> None:
    with pytest.raises(ProbeError, match=reason):
        _ask(lambda _: answer)


def test_endless_heads_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "ANSWER_BYTES_MAX", 100_000)
    with pytest.raises(ProbeError, match="closed without an answer"):
        _ask(lambda _: b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000)


def test_line_breaks_cannot_be_smuggled_in() -> None:
    with pytest.raises(ProbeError, match="line break"):
        _ask(lambda _: b"", headers={"X": ["a\r\nHost: b"]})


def test_timeouts_name_the_target() -> None:
    async def run() -> None:
        async with _serving(_hangs) as (host, port):
            with pytest.raises(
                ProbeError, match=f'Get "http://{host}:{port}/": context deadline exceeded'
            ):
                await http_probe(f"http://{host}:{port}/", timeout_s=0.05)

    asyncio.run(run())


def test_tcp() -> None:
    async def run() -> None:
        async with _serving(_hangs) as (host, port):
            await tcp_probe(host, port, 1.0)
        with pytest.raises(ProbeError, match=f"dial tcp {host}:{port}: "):
            await tcp_probe(host, port, 1.0)

    asyncio.run(run())
