"""Raft's requests and answers over `Stream`s, after hashicorp/raft's NetworkTransport.

A connection carries one request at a time, except a pipeline, on which AppendEntries follow each
other and answers come back in order. A snapshot has a connection of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from proconsul.drivers.scope import TaskScope
from proconsul.drivers.stream import EndOfStream, Stream, StreamError
from proconsul.util.address import host_port
from proconsul.util.errors import ProconsulError, WireError
from proconsul.wire.msgpack import StreamDecoder, as_text
from proconsul.wire.raft import (
    ENTRIES_MAX,
    MESSAGE_BYTES_MAX,
    AppendEntriesRequest,
    InstallSnapshotRequest,
    Request,
    Response,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

log = logging.getLogger("proconsul.raft")

OpenStream = Callable[[str, str, float], Awaitable[Stream]]
"""`open_stream(server_id, "ip:port", deadline)`: a stream to that server's Raft."""

TIMEOUT_S = 10.0
"""For one request and its answer, as Consul sets it."""
SNAPSHOT_BYTES_PER_TIMEOUT = 256 << 10
POOL_MAX = 3
"""Idle connections kept per server."""
REFUSAL_S = 1.0
"""How long a dead server's host may take to say so."""
UNANSWERED_MAX = 128
"""Requests of one connection that may wait for their answers."""


class RemoteError(ProconsulError):
    """The other server answered with an error."""


class Handler(Protocol):
    """Serves the requests that come in. A future holds (answer, error text)."""

    def handle(self, request: Request) -> asyncio.Future[tuple[Response | None, str]]: ...

    async def install(
        self, request: InstallSnapshotRequest, chunks: AsyncIterator[bytes]
    ) -> tuple[Response | None, str]: ...

    def connection_lost(self, leader: str) -> None:
        """A connection ended on which the leader with this address had sent entries."""
        ...


class Connection:
    """A stream with the decoder that remembers what was read too far."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._decoder = StreamDecoder(MESSAGE_BYTES_MAX, ENTRIES_MAX)

    async def _fill(self) -> None:
        data = await self.stream.read(256 * 1024)
        if not data:
            raise EndOfStream("raft connection closed by peer")
        self._decoder.feed(data)

    async def value(self) -> object:
        """The next msgpack value."""
        while True:
            found, value = self._decoder.next()
            if found:
                return value
            await self._fill()

    async def type_byte(self) -> int | None:
        """The byte before a request; None if the peer is done."""
        while (data := self._decoder.next_raw(1)) is None:
            try:
                await self._fill()
            except EndOfStream:
                return None
        return data[0]

    async def raw(self, size: int, timeout_s: float) -> AsyncIterator[bytes]:
        """Exactly `size` raw bytes, in pieces, each of which may take `timeout_s`.

        Who is silent for longer is gone, and nothing that follows could be told from the rest.
        """
        while size:
            piece = min(size, self._decoder.buffered)
            if piece:
                data = self._decoder.next_raw(piece) or b""
            else:
                try:
                    async with asyncio.timeout(timeout_s):
                        data = await self.stream.read(min(size, 256 * 1024))
                except TimeoutError:
                    self.stream.abort()
                    raise StreamError(f"no more of the snapshot came for {timeout_s:g} s") from None
                if not data:
                    raise EndOfStream("snapshot ended early")
            size -= len(data)
            yield data

    async def answer(self, request: Request) -> Response | None:
        """The answer to `request`. Raises `RemoteError` if it is an error."""
        error = as_text(await self.value())
        response = decode_response(request, await self.value())
        if error:
            raise RemoteError(error)
        return response


class Transport:
    """The way to the other servers, and from them."""

    def __init__(self, open_stream: OpenStream, timeout_s: float = TIMEOUT_S) -> None:
        self._open = open_stream
        self._timeout_s = timeout_s
        self._idle: dict[tuple[str, str], list[Connection]] = {}
        self._pipelines: dict[tuple[str, str], _Pipeline] = {}
        self._serving: set[Stream] = set()
        self._closed = False

    def _deadline(self, factor: float = 1.0) -> float:
        return asyncio.get_running_loop().time() + self._timeout_s * factor

    async def _connect(self, key: tuple[str, str], deadline: float) -> Connection:
        if self._closed:
            raise StreamError("raft transport is closed")
        return Connection(await self._open(*key, deadline))

    async def call(
        self, server_id: str, address: str, request: Request, timeout_s: float | None = None
    ) -> Response | None:
        """One request on a pooled connection. Raises `ProconsulError` or `TimeoutError`.

        A pooled connection that turns out dead is replaced once: every request may be repeated.
        After `timeout_s` (the transport's own, unless given) the next call dials anew: where packets
        were lost, TCP repeats them at ever longer intervals, long after the way is open again.
        """
        key = (server_id, address)
        deadline = asyncio.get_running_loop().time() + (timeout_s or self._timeout_s)
        try:
            async with asyncio.timeout_at(deadline):
                idle = self._idle.get(key)
                if idle:
                    connection = idle.pop()
                    try:
                        return await self._exchange(key, connection, request)
                    except StreamError:
                        self._drop_idle(key)
                        if isinstance(request, AppendEntriesRequest):
                            raise  # the peer may have restarted, which replication wants to know
                return await self._exchange(key, await self._connect(key, deadline), request)
        except TimeoutError:
            self._drop_idle(key)
            raise

    async def _exchange(
        self, key: tuple[str, str], connection: Connection, request: Request
    ) -> Response | None:
        reusable = False
        try:
            await connection.stream.write(encode_request(request))
            response = await connection.answer(request)
            reusable = True
        except RemoteError:
            reusable = True
            raise
        finally:
            idle = self._idle.setdefault(key, [])
            if reusable and not self._closed and len(idle) < POOL_MAX:
                idle.append(connection)
            else:
                connection.stream.abort()
        return response

    def _drop_idle(self, key: tuple[str, str]) -> None:
        for connection in self._idle.pop(key, ()):
            connection.stream.abort()

    def append(
        self,
        scope: TaskScope,
        server_id: str,
        address: str,
        request: AppendEntriesRequest,
        done: Callable[[Response | None], None],
    ) -> None:
        """Queue an AppendEntries behind the earlier ones; `done(None)` if it failed."""
        key = (server_id, address)
        pipeline = self._pipelines.get(key)
        if pipeline is None or pipeline.closed:
            pipeline = self._pipelines[key] = _Pipeline(self._timeout_s)
            pipeline.task = scope.spawn(f"pipeline {server_id}", self._run_pipeline(key, pipeline))
        pipeline.put(request, done)

    async def _run_pipeline(self, key: tuple[str, str], pipeline: _Pipeline) -> None:
        try:
            connection = await self._connect(key, self._deadline())
            await pipeline.run(connection)
        except (ProconsulError, OSError, TimeoutError) as error:
            log.debug("pipeline to %s at %s ended: %s", *key, str(error) or "timeout")
        finally:
            if self._pipelines.get(key) is pipeline:
                del self._pipelines[key]
            pipeline.fail()

    async def send_snapshot(
        self,
        server_id: str,
        address: str,
        request: InstallSnapshotRequest,
        chunks: AsyncIterator[bytes],
    ) -> Response | None:
        """Send a snapshot on its own connection; its deadline grows with its size."""
        factor = max(1.0, request.size / SNAPSHOT_BYTES_PER_TIMEOUT)
        async with asyncio.timeout(self._timeout_s * factor):
            connection = await self._connect((server_id, address), self._deadline())
            try:
                await connection.stream.write(encode_request(request))
                async for chunk in chunks:
                    await connection.stream.write(chunk)
                return await connection.answer(request)
            finally:
                connection.stream.abort()

    async def refuses(self, address: str) -> bool:
        """Whether the host at `address` says that nobody listens there any more."""
        loop = asyncio.get_running_loop()
        try:
            stream = await self._open("", address, loop.time() + REFUSAL_S)
        except (ProconsulError, OSError, TimeoutError) as error:
            cause: BaseException | None = error
            while cause is not None:
                if isinstance(cause, ConnectionRefusedError):
                    return True
                cause = cause.__cause__
            return False
        stream.abort()
        return False

    async def serve(self, stream: Stream, handler: Handler) -> None:
        """Serve an accepted stream until either side is done with it."""
        self._serving.add(stream)
        waiting: asyncio.Queue[asyncio.Future[tuple[Response | None, str]]]
        waiting = asyncio.Queue(UNANSWERED_MAX)
        try:
            async with TaskScope("raft connection") as scope:
                writer = scope.spawn("answers", _answer(stream, waiting))
                reader = scope.spawn(
                    "requests", _read(Connection(stream), waiting, handler, self._timeout_s)
                )
                await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._serving.discard(stream)
            stream.abort()

    async def aclose(self) -> None:
        """Close every connection."""
        self._closed = True
        for key in list(self._idle):
            self._drop_idle(key)
        for stream in list(self._serving):
            stream.abort()


class _Pipeline:
    """AppendEntries on the way to one server, oldest first."""

    def __init__(self, timeout_s: float) -> None:
        self.task: asyncio.Task[None] | None = None
        self._timeout_s = timeout_s
        self._unsent: deque[tuple[AppendEntriesRequest, Callable[[Response | None], None]]]
        self._unsent = deque()
        self._sent: deque[tuple[AppendEntriesRequest, Callable[[Response | None], None]]] = deque()
        self._wake = asyncio.Event()
        self._expect = asyncio.Event()
        self.closed = False

    def put(self, request: AppendEntriesRequest, done: Callable[[Response | None], None]) -> None:
        """Queue a request. Replication bounds how many there can be."""
        self._unsent.append((request, done))
        self._wake.set()

    async def run(self, connection: Connection) -> None:
        """Write and read until something fails."""
        try:
            async with TaskScope("raft pipeline") as scope:
                tasks = (
                    scope.spawn("writer", self._ended(self._write(connection))),
                    scope.spawn("reader", self._ended(self._read(connection))),
                )
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.stream.abort()

    async def _ended(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (ProconsulError, OSError, TimeoutError) as error:
            log.debug("raft pipeline: %s", str(error) or "timeout")

    async def _write(self, connection: Connection) -> None:
        while True:
            while not self._unsent:
                self._wake.clear()
                await self._wake.wait()
            item = self._unsent.popleft()
            self._sent.append(item)
            self._expect.set()
            await connection.stream.write(encode_request(item[0]))

    async def _read(self, connection: Connection) -> None:
        while True:
            while not self._sent:
                self._expect.clear()
                await self._expect.wait()
            async with asyncio.timeout(self._timeout_s):
                try:
                    response = await connection.answer(self._sent[0][0])
                except RemoteError as error:
                    log.warning("append entries refused: %s", error)
                    response = None
            self._sent.popleft()[1](response)

    def fail(self) -> None:
        """Tell everybody who still waits."""
        self.closed = True
        for _, done in (*self._sent, *self._unsent):
            done(None)
        self._sent.clear()
        self._unsent.clear()


async def _read(
    connection: Connection,
    waiting: asyncio.Queue[asyncio.Future[tuple[Response | None, str]]],
    handler: Handler,
    timeout_s: float,
) -> None:
    loop = asyncio.get_running_loop()
    leader = b""
    try:
        while (kind := await connection.type_byte()) is not None:
            request = decode_request(kind, await connection.value())
            if isinstance(request, AppendEntriesRequest):
                leader = request.leader
            if isinstance(request, InstallSnapshotRequest):
                result = loop.create_future()
                chunks = connection.raw(request.size, timeout_s)
                result.set_result(await handler.install(request, chunks))
                async for _ in chunks:  # what it did not want of them
                    pass
                await waiting.put(result)
            else:
                await waiting.put(handler.handle(request))
    except WireError as error:
        log.error(
            "failed to decode incoming command from %s: %s",
            host_port(connection.stream.peer.address),
            error,
        )
    except StreamError as error:
        log.debug(
            "raft connection from %s ended: %s", host_port(connection.stream.peer.address), error
        )
    finally:
        # Cancelled also, where an answer could not be written any more
        if leader:
            handler.connection_lost(leader.decode("utf-8", "replace"))


async def _answer(
    stream: Stream, waiting: asyncio.Queue[asyncio.Future[tuple[Response | None, str]]]
) -> None:
    try:
        while True:
            response, error = await (await waiting.get())
            await stream.write(encode_response(response, error))
    except StreamError as error:
        log.debug("raft connection from %s ended: %s", host_port(stream.peer.address), error)
