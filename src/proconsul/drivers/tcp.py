"""Plain TCP streams on the event loop's transports, and a server with bounds on connections."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import cast

from proconsul.drivers.buffer import ReceiveBuffer, StreamError, WaiterSet
from proconsul.drivers.scope import TaskScope
from proconsul.drivers.stream import PeerInfo, Receiver
from proconsul.util.address import host_port

log = logging.getLogger("proconsul.tcp")

READ_HIGH_WATER = 256 * 1024
"""Bytes buffered for a slow reader before the kernel is left to push back."""
READ_LOW_WATER = 64 * 1024
CLOSE_TIMEOUT_S = 5.0
"""How long `aclose` waits for queued bytes to leave."""
UNACKED_S_MAX = 20.0
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 15, 15, 4


class ConnectError(StreamError):
    """No connection could be made. `refused` tells an answer (nobody listens) from silence."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class TcpStream:
    """A TCP connection as `PushStream`. Made by `connect` and `Server`.

    The first group of methods is `asyncio.Protocol`, which the event loop calls.
    """

    def __init__(self, on_connect: Callable[[TcpStream], None] | None = None) -> None:
        self._on_connect = on_connect
        self._transport: asyncio.Transport | None = None
        self._peer = PeerInfo(("", 0))
        self._buffer = ReceiveBuffer(self._consumed)
        self._receiver: Receiver | None = None
        self._drained = WaiterSet()
        self._gone = WaiterSet()
        self._write_paused = self._read_paused = False
        self._eof_sent = self._closing = self._lost = False
        self.on_lost: Callable[[], None] | None = None
        """Called once when the connection is gone."""
        self.bytes_received = 0
        self.bytes_sent = 0

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self._peer = PeerInfo((str(name[0]), int(name[1])) if name else ("", 0))
        if (sock := transport.get_extra_info("socket")) is not None:
            _tune(sock)
        if self._on_connect is not None:
            self._on_connect(self)

    def data_received(self, data: bytes) -> None:
        self.bytes_received += len(data)
        if self._receiver is not None:
            self._receiver.data_received(data)
            return
        self._buffer.feed(data)
        if self._buffer.size > READ_HIGH_WATER:
            self.pause_reading()

    def eof_received(self) -> bool:
        if self._receiver is not None:
            self._receiver.eof_received()
        else:
            self._buffer.feed_eof()
        return True  # the other direction stays open until we close it

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        error = StreamError(
            f"connection to {self._name} lost: {exc}" if exc else "stream is closed"
        )
        self._buffer.fail(error, discard=self._closing)
        self._write_paused = False
        self._drained.wake()
        self._gone.wake()
        if self._receiver is not None:
            self._receiver.connection_lost(error)
        if self.on_lost is not None:
            self.on_lost()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._drained.wake()

    # -- Stream

    @property
    def peer(self) -> PeerInfo:
        return self._peer

    @property
    def local_address(self) -> tuple[str, int]:
        """(host, port) of our end."""
        assert self._transport is not None
        name = self._transport.get_extra_info("sockname")
        return (str(name[0]), int(name[1]))

    async def peek(self) -> int | None:
        """The first byte, which stays to be read; None if the peer has closed."""
        return await self._buffer.peek()

    async def read(self, limit: int = 65536) -> bytes:
        return await self._buffer.read(limit)

    async def read_exactly(self, count: int) -> bytes:
        return await self._buffer.read_exactly(count)

    async def write(self, data: bytes) -> None:
        self.write_nowait(data)
        if self._write_paused:
            await self.drain()

    async def write_eof(self) -> None:
        if self._transport is None or self._lost or self._closing:
            raise StreamError("stream is closed")
        if not self._eof_sent:
            self._eof_sent = True
            self._transport.write_eof()

    async def aclose(self) -> None:
        if self._transport is None or self._lost:
            return
        if not self._closing:
            self._closing = True
            self._buffer.fail(StreamError("stream is closed"), discard=True)
            self._transport.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while not self._lost:
                    await self._gone.wait()
        except TimeoutError:
            self._transport.abort()

    def abort(self) -> None:
        self._closing = True
        self._buffer.fail(StreamError("stream is closed"), discard=True)
        if self._transport is not None and not self._lost:
            self._transport.abort()

    # -- PushStream

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer.hand_over(receiver)
        self.resume_reading()

    def write_nowait(self, data: bytes) -> None:
        if self._transport is None or self._lost or self._closing or self._eof_sent:
            raise StreamError("stream is closed")
        self.bytes_sent += len(data)
        self._transport.write(data)

    @property
    def write_paused(self) -> bool:
        return self._write_paused

    @property
    def write_buffer_size(self) -> int:
        if self._transport is None or self._lost:
            return 0
        return self._transport.get_write_buffer_size()

    async def drain(self) -> None:
        while self._write_paused:
            await self._drained.wait()
        if self._lost:
            raise StreamError("stream is closed")

    def pause_reading(self) -> None:
        if not self._read_paused and self._transport is not None and not self._lost:
            self._read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._read_paused and self._transport is not None and not self._lost:
            self._read_paused = False
            self._transport.resume_reading()

    def on_end(self, callback: Callable[[], None] | None) -> None:
        self._buffer.on_end = callback

    @property
    def _name(self) -> str:
        return f"{self._peer.address[0]}:{self._peer.address[1]}"

    def _consumed(self, _count: int) -> None:
        if self._read_paused and self._receiver is None and self._buffer.size < READ_LOW_WATER:
            self.resume_reading()


def _tune(sock: socket.socket) -> None:
    """No Nagle delay, and probes that notice a peer that vanished."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)


async def connect(
    address: tuple[str, int],
    deadline: float,
    local_address: tuple[str, int] | None = None,
    unacked_s_max: float = UNACKED_S_MAX,
) -> TcpStream:
    """Connect to (host, port) before `deadline` (loop's clock). Raises `ConnectError`.

    The connection is given up when sent data stays unacknowledged for `unacked_s_max` (RFC 5482).
    """
    loop = asyncio.get_running_loop()
    host, port = address
    try:
        async with asyncio.timeout_at(deadline):
            stream = TcpStream()
            transport, _ = await loop.create_connection(
                lambda: cast("asyncio.Protocol", stream), host, port, local_addr=local_address
            )
            if (sock := transport.get_extra_info("socket")) is not None:
                limit_ms = int(unacked_s_max * 1000)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
    except TimeoutError:
        raise ConnectError(f"dial tcp {host}:{port}: i/o timeout") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConnectError(
            f"dial tcp {host}:{port}: connect: {reason.lower()}",
            refused=isinstance(error, ConnectionRefusedError),
        ) from error
    return stream


class Server:
    """A listening socket. Every accepted stream gets a task that runs `handler(stream)`.

    The stream is closed when the handler returns. Beyond `max_connections`, and where `admit`
    says no, new connections are dropped at once: refusing costs less than queueing.
    """

    def __init__(
        self,
        handler: Callable[[TcpStream], Awaitable[None]],
        *,
        name: str = "tcp",
        max_connections: int = 16384,
        admit: Callable[[TcpStream], bool] | None = None,
    ) -> None:
        self._handler, self._admit = handler, admit
        self._max_connections = max_connections
        self._scope = TaskScope(name)
        self._server: asyncio.AbstractServer | None = None
        self._streams: set[TcpStream] = set()
        self.refused = 0

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._streams)

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) that is listened on, with the real port if 0 was asked for."""
        if self._server is None:
            raise RuntimeError("the server is not started")
        sockets = cast("asyncio.base_events.Server", self._server).sockets
        name = sockets[0].getsockname()
        return (str(name[0]), int(name[1]))

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises `OSError` naming the address if it cannot be bound."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: cast("asyncio.Protocol", TcpStream(self._accepted)), host, port, backlog=1024
        )

    async def aclose(self) -> None:
        """Stop listening, cancel the handlers and drop their connections."""
        if self._server is not None:
            self._server.close()
        await self._scope.aclose()
        for stream in list(self._streams):
            stream.abort()

    def _accepted(self, stream: TcpStream) -> None:
        if len(self._streams) >= self._max_connections or (
            self._admit is not None and not self._admit(stream)
        ):
            self.refused += 1
            stream.abort()
            return
        self._streams.add(stream)
        stream.on_lost = lambda: self._streams.discard(stream)
        _ = self._scope.spawn("connection", self._serve(stream))

    async def _serve(self, stream: TcpStream) -> None:
        try:
            await self._handler(stream)
        except StreamError as error:
            log.debug("connection from %s ended: %s", host_port(stream.peer.address), error)
        except asyncio.CancelledError:
            stream.abort()
            raise
        finally:
            await stream.aclose()
