"""Listeners for DNS: datagrams and streams in, a handler's answers out.

Datagrams are read from the socket in batches, which is several times faster than a transport of the
loop. Where the socket is bound to all addresses, an answer leaves from the one that was asked
(`IP_PKTINFO`), since resolvers drop others. Limits of streams are those of miekg/dns.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, cast

from typing_extensions import override

from proconsul.drivers.scope import TaskScope

log = logging.getLogger("proconsul.dns")

Handler = Callable[[bytes, str, bool], "bytes | Coroutine[Any, Any, bytes | None] | None"]
"""(message, the asker's address, over TCP) -> the answer, nothing, or what gives it in a task."""

BATCH = 64
"""Datagrams that are answered before other work of the loop has its turn."""
TASKS_MAX = 2048
"""Questions that wait for others' answers; further ones are dropped."""
MESSAGE_BYTES_MAX = 65535
RECEIVE_BUFFER_BYTES = 1 << 20
FIRST_S, IDLE_S = 2.0, 8.0
"""How long a stream may take for its first question, and be silent between questions."""
STREAM_QUERIES_MAX = 128
STREAMS_MAX = 1024
STREAMS_PER_CLIENT_MAX = 256
_PKTINFO, _RECVPKTINFO6, _PKTINFO6 = 8, 49, 50
_ANCILLARY_BYTES = 64


class DnsListener:
    """UDP and TCP on one address and port. Create it within a running loop."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.scope = TaskScope("dns")
        self.streams: Counter[str] = Counter()
        """Open streams by client."""
        self.dropped = 0
        """Datagrams that were not answered because too many wait."""
        self._loop = asyncio.get_running_loop()
        self._udp: list[_Datagrams] = []
        self._tcp: list[asyncio.Server] = []
        self.open: set[_Stream] = set()

    async def listen(self, host: str, port: int) -> int:
        """Listen on an address (port 0: any that is free for both); the port. Raises `OSError`."""
        server = await self._loop.create_server(lambda: _Stream(self), host, port)
        bound: int = server.sockets[0].getsockname()[1]
        try:
            self._udp.append(_Datagrams(self, host, bound))
        except OSError:
            server.close()
            raise
        self._tcp.append(server)
        return bound

    async def aclose(self) -> None:
        """Stop, and end what runs."""
        for datagrams in self._udp:
            datagrams.close()
        for server in self._tcp:
            server.close()
        for stream in list(self.open):
            stream.end()
        await self.scope.aclose()


class _Datagrams:
    """One UDP socket."""

    def __init__(self, owner: DnsListener, host: str, port: int) -> None:
        self._owner, self._loop = owner, asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            self._by_address = _wants_pktinfo(sock, host)
            sock.bind((host, port))
        except OSError:
            sock.close()
            raise
        self._buffer = bytearray(MESSAGE_BYTES_MAX)
        self._view = memoryview(self._buffer)
        self._loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        for _ in range(BATCH):
            try:
                if self._by_address:
                    size, ancillary, _, peer = self._socket.recvmsg_into(
                        [self._buffer], _ANCILLARY_BYTES
                    )
                else:
                    size, peer = self._socket.recvfrom_into(self._buffer)
                    ancillary = []
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # an earlier answer's failure, told late
                log.debug("receiving datagrams: %s", error)
                return
            self._answer(bytes(self._view[:size]), peer, ancillary)

    def _answer(self, data: bytes, peer: Any, ancillary: list[tuple[int, int, bytes]]) -> None:
        outcome = self._owner.handler(data, plain_address(peer[0]), False)
        if outcome is None:
            return
        if isinstance(outcome, bytes):
            self._send(outcome, peer, ancillary)
        elif len(self._owner.scope) < TASKS_MAX:
            _ = self._owner.scope.spawn("datagram", self._later(outcome, peer, ancillary))
        else:
            self._owner.dropped += 1
            outcome.close()

    async def _later(
        self,
        work: Coroutine[Any, Any, bytes | None],
        peer: Any,
        ancillary: list[tuple[int, int, bytes]],
    ) -> None:
        answer = await work
        if answer is not None:
            self._send(answer, peer, ancillary)

    def _send(self, data: bytes, peer: Any, ancillary: list[tuple[int, int, bytes]]) -> None:
        try:
            if ancillary:
                self._socket.sendmsg([data], _from_same(ancillary), 0, peer)
            else:
                self._socket.sendto(data, peer)
        except OSError as error:  # full buffers too: who asked will ask again
            log.debug("failed to respond: client=%s error=%s", peer[0], error)


def _wants_pktinfo(sock: socket.socket, host: str) -> bool:
    if sys.platform != "linux" or host not in {"0.0.0.0", "::"}:
        return False
    if host == "::":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.IPPROTO_IPV6, _RECVPKTINFO6, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _PKTINFO, 1)
    return True


def _from_same(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """What makes an answer leave from the address that the question came to."""
    found = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _PKTINFO) and len(data) >= 12:
            # struct in_pktinfo: interface, local address, destination of the header
            found.append((level, kind, struct.pack("=I4s4s", 0, data[4:8], data[8:12])))
        elif (level, kind) == (socket.IPPROTO_IPV6, _PKTINFO6) and len(data) >= 20:
            found.append((level, kind, data[:20]))
    return found


def plain_address(host: str) -> str:
    """Without the interface of a link-local address, and IPv4 as such."""
    return host.partition("%")[0].removeprefix("::ffff:")


class _Stream(asyncio.Protocol):
    """One TCP connection: questions one after the other."""

    def __init__(self, owner: DnsListener) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._client = ""
        self._busy = False
        self._queries = 0
        self._timer: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._client = plain_address(peer[0]) if peer else ""
        owner = self._owner
        owner.open.add(self)
        owner.streams[self._client] += 1
        if owner.streams[self._client] > STREAMS_PER_CLIENT_MAX or len(owner.open) > STREAMS_MAX:
            transport.abort()
            return
        self._wait(FIRST_S)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.open.discard(self)
        self._owner.streams[self._client] -= 1
        if self._owner.streams[self._client] <= 0:
            del self._owner.streams[self._client]
        self._stop_waiting()
        self._transport = None

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._busy:
            self._next()

    @override
    def pause_writing(self) -> None:
        # Who does not read answers gets no more questions answered, and no more time either.
        if self._transport is not None:
            self._transport.abort()

    def end(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> None:
        while self._transport is not None and not self._busy:
            if len(self._buffer) < 2:
                return
            size = int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < 2 + size:
                return
            message = bytes(self._buffer[2 : 2 + size])
            del self._buffer[: 2 + size]
            self._queries += 1
            outcome = self._owner.handler(message, self._client, True)
            if outcome is None or isinstance(outcome, bytes):
                self._answered(outcome)
            else:
                self._busy = True
                self._stop_waiting()
                self._transport.pause_reading()
                _ = self._owner.scope.spawn("stream", self._later(outcome))

    async def _later(self, work: Coroutine[Any, Any, bytes | None]) -> None:
        answer: bytes | None = None
        try:
            answer = await work
        finally:
            self._busy = False
            if self._transport is not None:
                self._transport.resume_reading()
                self._answered(answer)
                self._next()

    def _answered(self, answer: bytes | None) -> None:
        if self._transport is None:
            return
        if answer is not None:
            self._transport.write(len(answer).to_bytes(2, "big") + answer)
        if self._queries >= STREAM_QUERIES_MAX:
            self._transport.close()
            self._transport = None
            return
        self._wait(IDLE_S)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self._loop.call_later(seconds, self.end)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def exchange(data: bytes, server: tuple[str, int], tcp: bool, timeout_s: float) -> bytes:
    """A message to a name server, and the first answer with its id. Raises `OSError`, `TimeoutError`."""
    async with asyncio.timeout(timeout_s):
        return await (_over_tcp if tcp else _over_udp)(data, server)


class _Answer(asyncio.DatagramProtocol):
    """Waits for the datagram that has the question's id."""

    def __init__(self, message_id: bytes) -> None:
        self._id = message_id
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @override
    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data[:2] == self._id and len(data) >= 12 and not self.answer.done():
            self.answer.set_result(data)

    @override
    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _over_udp(data: bytes, server: tuple[str, int]) -> bytes:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Answer(data[:2]), remote_addr=server
    )
    try:
        transport.sendto(data)
        return await protocol.answer
    finally:
        transport.close()


async def _over_tcp(data: bytes, server: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(data).to_bytes(2, "big") + data)
        size = int.from_bytes(await reader.readexactly(2), "big")
        answer = await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        raise ConnectionResetError("connection ended within the answer") from None
    finally:
        writer.close()
    if size < 12 or answer[:2] != data[:2]:
        raise ConnectionResetError("answer to another question")
    return answer
