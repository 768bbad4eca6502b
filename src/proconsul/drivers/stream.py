"""The byte-stream seam: plain TCP, TLS and yamux streams all look like `Stream`.

Every reader and writer above `drivers` takes a `Stream`; `memory_pair` is the in-memory twin that
unit tests use. One conformance suite holds for all
(`tests/unit/drivers/test_stream_conformance.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from proconsul.drivers.buffer import EndOfStream, ReceiveBuffer, StreamError, WaiterSet

__all__ = [
    "EndOfStream",
    "MemoryStream",
    "PeerInfo",
    "PushStream",
    "Receiver",
    "Stream",
    "StreamError",
    "memory_pair",
]


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
    """SHA-256 of the verified certificate (hex): connection limits count native TLS by it."""


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


class Receiver(Protocol):
    """What stands on a `PushStream` and is fed synchronously: TLS, a yamux session."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> None:
        """The peer has closed its side; writing goes on."""
        ...

    def connection_lost(self, error: StreamError) -> None:
        """Nothing more will come or can be sent."""
        ...


@runtime_checkable
class PushStream(Stream, Protocol):
    """A stream that another protocol can be stacked on without a task in between.

    Layers built so (TCP, TLS, yamux) hand a record from the socket to its reader in one call chain:
    no task switch per layer. Every stream in this package and every yamux stream is one.
    """

    def attach(self, receiver: Receiver) -> None:
        """Feed `receiver` from now on, first with what is buffered; `read` is not used after."""
        ...

    def write_nowait(self, data: bytes) -> None:
        """Queue `data` without waiting. Raises `StreamError` once closed; pair it with `drain`."""
        ...

    @property
    def write_paused(self) -> bool:
        """True while the peer does not keep up: `drain` would wait."""
        ...

    @property
    def write_buffer_size(self) -> int:
        """Bytes queued and not yet sent."""
        ...

    async def drain(self) -> None:
        """Wait until the peer keeps up again."""
        ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def on_end(self, callback: Callable[[], None] | None) -> None:
        """Call back once when the peer closes its side or the stream breaks; None forgets it."""
        ...


_MEMORY_LIMIT = 256 * 1024


class MemoryStream:
    """One end of `memory_pair`."""

    def __init__(self, peer: PeerInfo) -> None:
        self._peer = peer
        self._buffer = ReceiveBuffer(self._consumed)
        self._receiver: Receiver | None = None
        self._other: MemoryStream | None = None
        self.drained = WaiterSet()
        self._paused = self._eof_sent = self._closed = False
        self._held: list[bytes | None] = []

    def join(self, other: MemoryStream) -> None:
        """Make `other` the far end."""
        self._other = other

    @property
    def peer(self) -> PeerInfo:
        return self._peer

    async def read(self, limit: int = 65536) -> bytes:
        return await self._buffer.read(limit)

    async def read_exactly(self, count: int) -> bytes:
        return await self._buffer.read_exactly(count)

    async def write(self, data: bytes) -> None:
        self.write_nowait(data)
        await self.drain()

    def write_nowait(self, data: bytes) -> None:
        if self._closed or self._eof_sent or self._other is None:
            raise StreamError("stream is closed")
        if data:
            self._other.deliver(bytes(data))

    @property
    def write_paused(self) -> bool:
        return not self._closed and self.write_buffer_size > _MEMORY_LIMIT

    @property
    def write_buffer_size(self) -> int:
        return 0 if self._other is None else self._other.backlog()

    async def drain(self) -> None:
        while self.write_paused:
            await self.drained.wait()
        if self._closed:
            raise StreamError("stream is closed")

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer.hand_over(receiver)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        held, self._held = self._held, []
        for item in held:
            self.deliver(item)

    def on_end(self, callback: Callable[[], None] | None) -> None:
        self._buffer.on_end = callback

    async def write_eof(self) -> None:
        if not self._eof_sent and not self._closed and self._other is not None:
            self._eof_sent = True
            self._other.deliver(None)

    async def aclose(self) -> None:
        await self.write_eof()
        self.lose(StreamError("stream is closed"), discard=True)

    def abort(self) -> None:
        other, self._other = self._other, None
        self.lose(StreamError("stream is closed"), discard=True)
        if other is not None:
            other.lose(StreamError("connection reset by peer"), discard=False)

    def backlog(self) -> int:
        """Bytes delivered to this end and not yet read."""
        return self._buffer.size + sum(len(item) for item in self._held if item)

    def _consumed(self, _count: int) -> None:
        if self._other is not None:
            self._other.drained.wake()

    def deliver(self, item: bytes | None) -> None:
        """Take bytes, or None for the end of the peer's side."""
        if self._closed:
            return
        if self._paused:
            self._held.append(item)
        elif self._receiver is None:
            if item is None:
                self._buffer.feed_eof()
            else:
                self._buffer.feed(item)
        elif item is None:
            self._receiver.eof_received()
        else:
            self._receiver.data_received(item)

    def lose(self, error: StreamError, *, discard: bool) -> None:
        """Break this end with `error`."""
        if self._closed:
            return
        self._closed = True
        self._buffer.fail(error, discard=discard)
        self.drained.wake()
        if self._receiver is not None:
            self._receiver.connection_lost(error)


def memory_pair(
    left: PeerInfo | None = None, right: PeerInfo | None = None
) -> tuple[MemoryStream, MemoryStream]:
    """Two streams joined back to back; `left` describes the second end as the first one sees it."""
    one = MemoryStream(left or PeerInfo(("memory", 1)))
    two = MemoryStream(right or PeerInfo(("memory", 0)))
    one.join(two)
    two.join(one)
    return one, two
