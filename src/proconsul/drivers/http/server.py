"""Listeners, connection counting, time limits and the graceful end of the HTTP server."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import stat
import time
from collections import Counter
from collections.abc import Callable

from proconsul.drivers.http.limits import HttpLimits
from proconsul.drivers.http.message import Request, Response
from proconsul.drivers.http.protocol import Admit, Handler, HttpConnection
from proconsul.drivers.http.spool import Spools
from proconsul.drivers.scope import TaskScope
from proconsul.util.metrics import Metrics

log = logging.getLogger("proconsul.http")

SWEEP_INTERVAL_S = 1.0
_BACKLOG = 1024
_TOO_MANY = b"Your IP is issuing too many concurrent connections, please rate limit your calls\n"


class HttpServer:
    """Serves `handler` on any number of TCP, TLS and unix listeners.

    Create and use it within a running loop. `handler` is called for each request, in order per
    connection; see `protocol`. `admit` may refuse a body before it is read, `spools` says whose body
    goes to a temporary file (`Request.spool`).
    """

    def __init__(
        self,
        handler: Handler,
        *,
        limits: HttpLimits | None = None,
        admit: Admit | None = None,
        spools: Callable[[Request], bool] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.handler = handler
        self.admit = admit
        self.spools = spools
        self.limits = limits or HttpLimits()
        self.kept = Spools(self.limits.spools_max)
        self.scope = TaskScope("http")
        self.closing = False
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._listeners: list[asyncio.Server] = []
        self._unix_paths: list[tuple[str, int]] = []
        self._connections: set[HttpConnection] = set()
        self._per_client: Counter[str] = Counter()
        self._idle = asyncio.Event()
        self._idle.set()
        self._date_second = 0
        self._date = b""
        self._sweeper = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    async def listen_tcp(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        handshake_timeout_s: float = 5.0,
    ) -> tuple[str, int]:
        """Listen on an address (port 0: any free one); gives the bound one. Raises `OSError`."""
        server = await self._loop.create_server(
            lambda: HttpConnection(self),
            host,
            port,
            ssl=tls,
            backlog=_BACKLOG,
            ssl_handshake_timeout=handshake_timeout_s if tls is not None else None,
        )
        self._listeners.append(server)
        bound = server.sockets[0].getsockname()
        return bound[0], bound[1]

    async def listen_unix(self, path: str, *, mode: int | None = None) -> None:
        """Listen on a unix socket; one left behind by a dead process is replaced.

        `mode` are its permission bits. Raises `OSError`, also if `path` exists as anything else.
        """
        try:
            if stat.S_ISSOCK(os.stat(path).st_mode):
                os.unlink(path)
        except FileNotFoundError:
            pass
        server = await self._loop.create_unix_server(
            lambda: HttpConnection(self), path, backlog=_BACKLOG
        )
        self._listeners.append(server)
        if mode is not None:
            os.chmod(path, mode)
        self._unix_paths.append((path, os.stat(path).st_ino))

    async def aclose(self, grace_s: float = 1.0) -> None:
        """Stop listening, let running requests finish for `grace_s`, then end the rest with 503."""
        self.closing = True
        self._sweeper.cancel()
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.shut(cancel=False)
        if self._connections and grace_s > 0:
            try:
                await asyncio.wait_for(self._idle.wait(), grace_s)
            except TimeoutError:
                pass
        for connection in list(self._connections):
            connection.shut(cancel=True)
        await self.scope.aclose()
        if self._connections:
            try:
                await asyncio.wait_for(self._idle.wait(), 1.0)
            except TimeoutError:
                for connection in list(self._connections):
                    connection.expire()
        await self.kept.aclose()
        for listener in self._listeners:
            await listener.wait_closed()
        for path, inode in self._unix_paths:
            try:
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
            except FileNotFoundError:
                pass

    def connection_opened(self, connection: HttpConnection) -> Response | None:
        """Count a connection; a response says why it is refused."""
        self._connections.add(connection)
        self._idle.clear()
        self._per_client[connection.client] += 1
        if self.closing or len(self._connections) > self.limits.connections_max:
            return Response(503, b"", close=True)
        limit = self.limits.connections_per_client_max
        if connection.client and limit and self._per_client[connection.client] > limit:
            if self._metrics is not None:
                self._metrics.incr("consul.http.connections_refused")
            return Response(429, _TOO_MANY, b"Content-Type: text/plain\r\n", close=True)
        return None

    def connection_closed(self, connection: HttpConnection) -> None:
        """Undo `connection_opened`."""
        self._connections.discard(connection)
        left = self._per_client[connection.client] - 1
        if left:
            self._per_client[connection.client] = left
        else:
            del self._per_client[connection.client]
        if not self._connections:
            self._idle.set()

    def date(self) -> bytes:
        """The Date header's value, made once a second."""
        second = int(time.time())
        if second != self._date_second:
            self._date_second = second
            # Not by locale: this process never sets one.
            shown = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))
            self._date = shown.encode("ascii")
        return self._date

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in [one for one in self._connections if one.deadline < now]:
            connection.expire()
        self._sweeper = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)
