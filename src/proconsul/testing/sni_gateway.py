"""A mesh gateway without Envoy: takes TLS connections and passes them on by the name asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

Address = tuple[str, int]


class SniGateway:
    """What a gateway's Envoy does: looks at the ClientHello, then passes bytes on both ways."""

    def __init__(self, routes: Mapping[str, Address] | None = None) -> None:
        self.routes = dict(routes or {})
        self.asked: list[str] = []
        self.swallow = False
        """Take connections and never answer."""
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Address]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield ("127.0.0.1", server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            hello = await reader.read(65536)
            name = sni_of(hello)
            self.asked.append(name)
            if self.swallow:
                await reader.read()
                return
            target = self.routes.get(name)
            if target is None:
                return
            try:
                up_reader, up_writer = await asyncio.open_connection(*target)
            except OSError:
                return
            self._writers.add(up_writer)
            up_writer.write(hello)
            forth = asyncio.create_task(_copy(reader, up_writer))
            await _copy(up_reader, writer)
            forth.cancel()
            await asyncio.wait([forth])
            up_writer.close()
        except ConnectionError:
            return
        finally:
            writer.close()
            self._writers.discard(writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except (ConnectionError, OSError):
        return


def sni_of(hello: bytes) -> str:
    """The server name in a ClientHello."""
    found: list[str] = []

    def remember(_socket: object, name: str | None, _context: object) -> int:
        found.append(name or "")
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = remember
    incoming = ssl.MemoryBIO()
    incoming.write(hello)
    try:
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    except ssl.SSLError:
        pass
    return found[0] if found else ""
