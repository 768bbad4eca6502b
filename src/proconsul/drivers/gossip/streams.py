"""One gossip stream of the machine: bytes both ways until the machine closes it or time is up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from proconsul.drivers.scope import TaskScope
from proconsul.drivers.stream import Stream, StreamError

READ_BYTES = 64 * 1024
PENDING_BYTES_MAX = 64 * 1024 * 1024
"""Written by the machine and not yet taken by the peer: a push/pull of a very large cluster."""


class GossipStream:
    """What the machine wants written, and whether it is done with the stream."""

    def __init__(self, on_data: Callable[[bytes], None], on_eof: Callable[[], None]) -> None:
        self._on_data, self._on_eof = on_data, on_eof
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._wake = asyncio.Event()
        self._closing = False

    def write(self, data: bytes) -> None:
        """Queue for the peer."""
        self._pending.append(data)
        self._pending_bytes += len(data)
        self._wake.set()

    def close(self) -> None:
        """Flush, then close; nothing that arrives counts any more."""
        self._closing = True
        self._wake.set()

    async def run(self, stream: Stream) -> None:
        """Until the machine closes. Raises `StreamError` if the stream breaks before."""
        async with TaskScope("gossip-stream") as scope:
            reader = scope.spawn("reader", self._read(stream))
            try:
                await self._write(stream, reader)
            finally:
                reader.cancel()
        await stream.aclose()

    async def _read(self, stream: Stream) -> StreamError | None:
        try:
            while data := await stream.read(READ_BYTES):
                if self._closing:
                    return None
                self._on_data(data)
        except StreamError as error:
            self._wake.set()
            return error
        if not self._closing:
            self._on_eof()
        return None

    async def _write(self, stream: Stream, reader: asyncio.Task[StreamError | None]) -> None:
        while True:
            while self._pending:
                if self._pending_bytes > PENDING_BYTES_MAX:
                    raise StreamError("peer does not take what is written")
                data = self._pending.popleft()
                await stream.write(data)
                self._pending_bytes -= len(data)
            if self._closing:
                return
            if reader.done() and (error := reader.result()) is not None:
                raise error
            self._wake.clear()
            await self._wake.wait()
