"""The receiving half that every stream is composed with, and the errors streams raise.

A layer feeds bytes in synchronously; one reader takes them out. Chunks are kept as they came, so
that the usual message (one chunk, read whole) is never copied.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from proconsul.util.errors import ProconsulError

if TYPE_CHECKING:
    from proconsul.drivers.stream import Receiver

_MERGE_BELOW = 512
"""Chunks smaller than this are merged, so that a trickle of bytes does not cost an object each."""


class StreamError(ProconsulError):
    """The stream broke: reset, closed locally, or its transport failed."""


class EndOfStream(StreamError):
    """The peer closed before all the bytes that were asked for had come."""


def again(error: StreamError) -> StreamError:
    """A copy of `error`, to be raised for the next caller.

    Were the stored one raised, its traceback would hold the frames of all who read, and they the
    stream with its buffers: a cycle, which an idle process does not collect for hours.
    """
    kind = type(error)
    copy = kind.__new__(kind, *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    return copy


class WaiterSet:
    """Tasks that wait for one thing to change; `wake` lets all of them look again."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return after the next `wake`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def wake(self) -> None:
        """Resume everyone who waits now."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)


class ReceiveBuffer:
    """Bytes received and not yet read. One reader at a time.

    `on_consumed(count)` is called after every read, for flow control. `on_end` is called once, when
    the peer's side has ended or the stream has broken.
    """

    __slots__ = ("_chunks", "_eof", "_error", "_on_consumed", "_waiter", "on_end", "size")

    def __init__(self, on_consumed: Callable[[int], None] | None = None) -> None:
        self._chunks: deque[bytes] = deque()
        self.size = 0
        self._eof = False
        self._error: StreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._on_consumed = on_consumed
        self.on_end: Callable[[], None] | None = None

    def feed(self, data: bytes) -> None:
        """Append what the peer sent."""
        chunks = self._chunks
        if chunks and len(chunks[-1]) < _MERGE_BELOW:
            chunks[-1] += data
        else:
            chunks.append(data)
        self.size += len(data)
        self._wake()

    def feed_eof(self) -> None:
        """The peer has closed its side."""
        if not self._eof and self._error is None:
            self._eof = True
            self._ended()

    def fail(self, error: StreamError, *, discard: bool) -> None:
        """Reads raise `error`, once what is buffered has been read unless `discard`."""
        if discard:
            self._chunks.clear()
            self.size = 0
            self._eof = False
        if self._error is None or discard:
            self._error = error
            self._ended()

    @property
    def ended(self) -> bool:
        """True once the peer's side has ended or the stream has broken."""
        return self._eof or self._error is not None

    def hand_over(self, receiver: Receiver) -> None:
        """Give everything buffered, and the end if it came, to `receiver`."""
        while self._chunks:
            chunk = self._chunks.popleft()
            self._took(len(chunk))
            receiver.data_received(chunk)
        if self._error is not None:
            receiver.connection_lost(self._error)
        elif self._eof:
            receiver.eof_received()

    async def peek(self) -> int | None:
        """The first byte, left in the buffer; None at the end of the peer's side."""
        while not self._chunks:
            if self._at_end():
                return None
            await self._wait()
        return self._chunks[0][0]

    async def read(self, limit: int = 65536) -> bytes:
        """At least one byte and at most `limit`; b"" at the end of the peer's side."""
        while not self._chunks:
            if self._at_end():
                return b""
            await self._wait()
        chunk = self._chunks.popleft()
        if len(chunk) > limit:
            self._chunks.appendleft(chunk[limit:])
            chunk = chunk[:limit]
        self._took(len(chunk))
        return chunk

    async def read_exactly(self, count: int) -> bytes:
        """Exactly `count` bytes; raises `EndOfStream` if the peer ends before."""
        parts: list[bytes] = []
        missing = count
        while missing:
            chunk = await self.read(missing)
            if not chunk:
                raise EndOfStream(f"peer closed after {count - missing} of {count} bytes")
            parts.append(chunk)
            missing -= len(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _at_end(self) -> bool:
        if self._eof:
            return True
        if self._error is not None:
            raise again(self._error)
        return False

    def _took(self, count: int) -> None:
        self.size -= count
        if self._on_consumed is not None:
            self._on_consumed(count)

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("two tasks read from one stream")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ended(self) -> None:
        self._wake()
        if (callback := self.on_end) is not None:
            self.on_end = None
            callback()
