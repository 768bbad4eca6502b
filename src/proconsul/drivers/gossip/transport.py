"""How gossip gets out and in: datagrams and streams, addressed by node name *and* address.

`SocketTransport` is UDP and TCP on one port, as memberlist's `net_transport.go`. It ignores names;
a transport that wraps it (the WAN's) sends packets for other datacenters elsewhere. The in-memory
twin is `drivers.gossip.memory`; one conformance suite holds for both.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

from typing_extensions import override

from proconsul.drivers import tcp
from proconsul.drivers.stream import Stream
from proconsul.util.address import host_port
from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.memberlist")

Address = tuple[str, int]
OnPacket = Callable[[bytes, Address], None]
OnStream = Callable[[Stream], Awaitable[None]]

CONNECTIONS_MAX = 512
"""Accepted gossip streams at once: each is one push/pull or one ping, gone within seconds."""
SEND_BUFFER_BYTES_MAX = 4 * 1024 * 1024
"""Datagrams the kernel does not take at once; beyond this they are lost, as datagrams are."""
BIND_ATTEMPTS = 10
"""Free ports to try until UDP and TCP are both free on one."""


class TransportError(ProconsulError):
    """The sockets cannot be opened."""


class GossipTransport(Protocol):
    """The seam below `GossipPool`."""

    @property
    def address(self) -> Address:
        """What is bound, with the real port. Valid once started."""
        ...

    async def start(self, on_packet: OnPacket, on_stream: OnStream) -> None:
        """Begin to receive. `on_stream` owns its stream until it returns.

        Raises `TransportError`.
        """
        ...

    def send_packet(self, node: str, address: Address, data: bytes) -> None:
        """Send one datagram, best effort. Never blocks, never raises."""
        ...

    async def open_stream(self, node: str, address: Address, deadline: float) -> Stream:
        """Dial before `deadline` (loop's clock). Raises a `ProconsulError`."""
        ...

    async def aclose(self) -> None:
        """Close all sockets and end all handlers. Idempotent."""
        ...


class _DatagramTransport(Protocol):
    """What both event loops have; typeshed leaves out the buffer's size."""

    def sendto(self, data: bytes, addr: Address) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def is_closing(self) -> bool: ...
    def close(self) -> None: ...


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, on_packet: OnPacket) -> None:
        self._on_packet = on_packet

    @override
    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._on_packet(data, (addr[0], addr[1]))

    @override
    def error_received(self, exc: Exception) -> None:
        log.debug("datagram socket: %s", exc)


class SocketTransport:
    """UDP and TCP on `(host, port)`; port 0 takes a free one."""

    def __init__(self, host: str, port: int, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self._host, self._port = host, port
        self._connections_max = connections_max
        self._address: Address = (host, port)
        self._server: tcp.Server | None = None
        self._datagrams: _DatagramTransport | None = None
        self.dropped = 0
        """Datagrams given up because the socket's buffer was full."""

    @property
    def address(self) -> Address:
        return self._address

    async def start(self, on_packet: OnPacket, on_stream: OnStream) -> None:
        attempts = 1 if self._port else BIND_ATTEMPTS
        for attempt in range(attempts):
            try:
                await self._bind(on_packet, on_stream)
                return
            except OSError as error:
                await self.aclose()
                # uvloop tells of UDP's number in the cause alone
                cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
                if cause.errno != errno.EADDRINUSE or attempt + 1 == attempts:
                    reason = os.strerror(cause.errno) if cause.errno else str(error)
                    raise TransportError(
                        f"cannot bind gossip to {self._host}:{self._port}: {reason}; is another "
                        "agent running here? See bind_addr, ports.serf_lan and ports.serf_wan"
                    ) from error

    async def _bind(self, on_packet: OnPacket, on_stream: OnStream) -> None:
        self._server = tcp.Server(on_stream, name="gossip", max_connections=self._connections_max)
        await self._server.start(self._host, self._port)
        self._address = self._server.address
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(on_packet), local_addr=(self._host, self._address[1])
        )
        self._datagrams = cast("_DatagramTransport", transport)

    def send_packet(self, node: str, address: Address, data: bytes) -> None:
        transport = self._datagrams
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() > SEND_BUFFER_BYTES_MAX:
            self.dropped += 1
            return
        try:
            transport.sendto(data, address)
        except (OSError, ValueError) as error:  # no route, another address family
            log.debug("packet to %s at %s lost: %s", node, host_port(address), error)

    async def open_stream(self, node: str, address: Address, deadline: float) -> Stream:
        return await tcp.connect(address, deadline)

    async def aclose(self) -> None:
        if self._datagrams is not None:
            self._datagrams.close()
            self._datagrams = None
        if self._server is not None:
            server, self._server = self._server, None
            await server.aclose()
