"""Ports of this machine that lead to agents inside of namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable

_CHUNK = 256 * 1024


class Publisher:
    """One thread with an event loop that carries bytes; 127.0.0.1 only."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._servers: list[asyncio.Server] = []

    def publish(self, connect: Callable[[], socket.socket]) -> int:
        """A free port, whose connections `connect` continues. It is called in another thread."""
        loop = self._started()

        async def listen() -> int:
            async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await _carry(reader, writer, connect)

            server = await asyncio.start_server(carry, "127.0.0.1", 0)
            self._servers.append(server)
            return int(server.sockets[0].getsockname()[1])

        return asyncio.run_coroutine_threadsafe(listen(), loop).result()

    def close(self) -> None:
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return

        async def stop() -> None:
            for server in self._servers:
                server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=2.0)

        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        self._loop = self._thread = None
        self._servers.clear()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="published-ports", daemon=True
            )
            self._thread.start()
        return self._loop


async def _carry(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    connect: Callable[[], socket.socket],
) -> None:
    try:
        # Within one machine this is a matter of microseconds, or refused
        there = connect()
    except OSError:
        writer.transport.abort()
        return
    there.setblocking(False)
    far_reader, far_writer = await asyncio.open_connection(sock=there)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(reader, far_writer))
            group.create_task(_pump(far_reader, writer))
    except* OSError:
        pass
    finally:
        writer.transport.abort()
        far_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
