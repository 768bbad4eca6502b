"""The byte-stream seam: plain TCP, TLS and yamux streams all look like `Stream`.

Every reader and writer above `drivers` takes a `Stream`; `memory_pair` is the in-memory twin that
unit tests use. One conformance suite (`tests/unit/drivers/test_stream_conformance.py`) holds for all.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from proconsul.util.errors import ProconsulError


class StreamError(ProconsulError):
    """The stream broke: reset, closed locally, or its transport failed."""


class EndOfStream(StreamError):
    """The peer closed before all the bytes that were asked for had come."""


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """Who is at the other end.

    `address` is (host, port) of the transport's peer: behind a mesh gateway that is the gateway.
    `dns_names` are the SANs of the certificate that was verified, empty without TLS or certificate.
    `alpn` is the negotiated protocol name, None without.
    """

    address: tuple[str, int]
    dns_names: tuple[str, ...] = ()
    alpn: str | None = None
    server_name: str | None = None
    tls: bool = False
    certificate_id: str = ""
    """SHA-256 of the verified certificate (hex): the key that connection limits count native TLS by."""


@runtime_checkable
class Stream(Protocol):
    """A reliable byte stream. All methods may raise `StreamError`; none blocks the loop."""

    @property
    def peer(self) -> PeerInfo: ...

    async def read(self, limit: int = 65536) -> bytes:
        """At least one byte and at most `limit`; b"" once the peer has closed its side."""
        ...

    async def read_exactly(self, count: int) -> bytes:
        """Exactly `count` bytes, or `EndOfStream`."""
        ...

    async def write(self, data: bytes) -> None:
        """Queue `data`, and wait while the peer does not keep up."""
        ...

    async def write_eof(self) -> None:
        """Half-close: the peer reads b"" after all that was written; reading goes on."""
        ...

    async def aclose(self) -> None:
        """Close both sides, flushing what was written, within a bounded time. Idempotent."""
        ...

    def abort(self) -> None:
        """Drop the stream at once. Idempotent, never raises."""
        ...


@dataclass
class _Pipe:
    """One direction of `memory_pair`."""

    limit: int = 256 * 1024
    data: bytearray = field(default_factory=bytearray)
    eof: bool = False
    broken: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()


class MemoryStream:
    """One end of `memory_pair`."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe, peer: PeerInfo) -> None:
        self._in, self._out, self._peer = incoming, outgoing, peer
        self._closed = False

    @property
    def peer(self) -> PeerInfo:
        return self._peer

    async def read(self, limit: int = 65536) -> bytes:
        pipe = self._in
        async with pipe.changed:
            await pipe.changed.wait_for(lambda: pipe.data or pipe.eof or pipe.broken or self._closed)
            if pipe.broken or self._closed:
                raise StreamError("stream is closed")
            chunk = bytes(pipe.data[:limit])
            del pipe.data[:limit]
            pipe.changed.notify_all()
            return chunk

    async def read_exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            chunk = await self.read(count - len(parts))
            if not chunk:
                raise EndOfStream(f"peer closed after {len(parts)} of {count} bytes")
            parts += chunk
        return bytes(parts)

    async def write(self, data: bytes) -> None:
        pipe = self._out
        async with pipe.changed:
            await pipe.changed.wait_for(
                lambda: len(pipe.data) < pipe.limit or pipe.broken or self._closed
            )
            if pipe.broken or pipe.eof or self._closed:
                raise StreamError("stream is closed")
            pipe.data += data
            pipe.changed.notify_all()

    async def write_eof(self) -> None:
        self._out.eof = True
        await self._out.notify()

    async def aclose(self) -> None:
        self._closed = True
        self._out.eof = True
        await self._out.notify()
        await self._in.notify()

    def abort(self) -> None:
        self._closed = True
        for pipe in (self._in, self._out):
            pipe.broken = True
            for waiter in getattr(pipe.changed, "_waiters", ()):
                if not waiter.done():
                    waiter.set_result(False)


def memory_pair(
    left: PeerInfo | None = None, right: PeerInfo | None = None
) -> tuple[MemoryStream, MemoryStream]:
    """Two streams joined back to back; `left` describes the second end as the first one sees it."""
    one, two = _Pipe(), _Pipe()
    return (
        MemoryStream(one, two, left or PeerInfo(("memory", 1))),
        MemoryStream(two, one, right or PeerInfo(("memory", 0))),
    )
