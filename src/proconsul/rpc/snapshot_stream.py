"""The snapshot RPC: a header, a stream of bytes of unknown length, and the same back.

Follows agent/consul/snapshot_endpoint.go. The end of the request's bytes is a half-close; those of
the answer end with the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

from proconsul.domain.base import decode, encode
from proconsul.domain.errors import DomainError
from proconsul.domain.snapshot import SnapshotRequest, SnapshotResponse
from proconsul.drivers.stream import Stream, StreamError
from proconsul.rpc.dialer import Destination, Dialer, Purpose
from proconsul.rpc.errors import TransportError
from proconsul.util.errors import ProconsulError, WireError
from proconsul.wire.msgpack import StreamSplitter

HEADER_BYTES_MAX = 64 * 1024
HEADER_S = 30.0
"""In which a peer has to say what it wants."""
IDLE_S = 60.0
"""In which a peer has to send or take something: it must not hold files, or a place, for ever."""
READ_BYTES = 64 * 1024


class Answer:
    """Bytes that are still to come, and what is to be released whether they are read or not."""

    def __init__(self, read: Callable[[], Awaitable[bytes]], close: Callable[[], None]) -> None:
        """`read` gives b"" at the end; `close` never raises and may be called twice."""
        self._read, self._close = read, close

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        data = await self._read()
        if not data:
            self._close()
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        """Release everything: by whoever does not read to the end."""
        self._close()


class SnapshotCaller(Protocol):
    """Whoever saves or restores: this server, or one that it asks."""

    async def snapshot(
        self, request: SnapshotRequest, body: AsyncIterator[bytes]
    ) -> tuple[SnapshotResponse, Answer]:
        """Answer and bytes, which the caller has to read to the end or close. Raises."""
        ...


class SnapshotFailed(DomainError):
    """The other server's refusal, in its words."""


async def serve(stream: Stream, caller: SnapshotCaller) -> None:
    """Answer one request and close. Raises `StreamError` if the peer goes away or takes nothing."""
    try:
        async with asyncio.timeout(HEADER_S):
            header, rest = await _header(stream)
        request = decode(header, SnapshotRequest)
    except (WireError, TimeoutError) as error:
        response = SnapshotResponse(error=f"failed to decode request: {error}")
        await stream.write(encode(response))
        await stream.aclose()
        return
    try:
        response, answer = await caller.snapshot(request, _body(stream, rest))
    except (ProconsulError, OSError, TimeoutError) as error:
        await stream.write(encode(SnapshotResponse(error=str(error) or "timeout")))
        await stream.aclose()
        return
    async with aclosing(answer):
        await _write(stream, encode(response))
        async for chunk in answer:
            await _write(stream, chunk)
    await stream.aclose()


async def call(
    dialer: Dialer,
    to: Destination,
    request: SnapshotRequest,
    body: AsyncIterator[bytes],
    deadline: float,
) -> tuple[SnapshotResponse, Answer]:
    """Ask another server; `deadline` is for dialling it.

    Raises `HopError` (nothing was sent), `TransportError` and `SnapshotFailed`.
    """
    stream = await dialer.dial(to, Purpose.RPC_SNAPSHOT, deadline)
    try:
        await stream.write(encode(request))
        async for chunk in body:
            await stream.write(chunk)
        await stream.write_eof()
        header, rest = await _header(stream)
        response = decode(header, SnapshotResponse)
    except (StreamError, WireError) as error:
        stream.abort()
        raise TransportError(f"failed to decode response: {error}", safe_to_retry=False) from error
    except BaseException:
        stream.abort()
        raise
    if response.error:
        await stream.aclose()
        raise SnapshotFailed(response.error)
    held = [rest] if rest else []

    async def read() -> bytes:
        return held.pop() if held else await stream.read(READ_BYTES)

    return response, Answer(read, stream.abort)


async def _header(stream: Stream) -> tuple[bytes, bytes]:
    """The first msgpack value, and what came behind it."""
    splitter = StreamSplitter(READ_BYTES + HEADER_BYTES_MAX)
    while (header := splitter.next()) is None:
        if splitter.buffered > HEADER_BYTES_MAX:
            raise WireError("header of a snapshot request is too large")
        data = await stream.read(READ_BYTES)
        if not data:
            raise WireError("EOF")
        splitter.feed(data)
    return header, splitter.next_raw(splitter.buffered) or b""


async def _write(stream: Stream, data: bytes) -> None:
    try:
        async with asyncio.timeout(IDLE_S):
            await stream.write(data)
    except TimeoutError:
        stream.abort()
        raise StreamError(f"peer took no bytes of a snapshot for {IDLE_S:g}s") from None


async def _body(stream: Stream, first: bytes) -> AsyncIterator[bytes]:
    data = first or await _read(stream)
    while data:
        yield data
        data = await _read(stream)


async def _read(stream: Stream) -> bytes:
    try:
        async with asyncio.timeout(IDLE_S):
            return await stream.read(READ_BYTES)
    except TimeoutError:
        raise StreamError(f"peer sent no bytes of a snapshot for {IDLE_S:g}s") from None


async def nothing() -> AsyncIterator[bytes]:  # noqa: ASYNC124 - a body is waited for
    """No bytes."""
    chunks: tuple[bytes, ...] = ()
    for chunk in chunks:
        yield chunk
