"""Connections to other servers, kept for the next call.

Follows Consul's `agent/pool`, but keyed by (datacenter, node, address): two datacenters may use the
same private addresses and node names. However a server is reached is the `Dialer`'s business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeAlias, cast

from proconsul.drivers.scope import TaskScope
from proconsul.drivers.stream import PushStream
from proconsul.rpc.connection import PooledConnection, RpcClientStream
from proconsul.rpc.dialer import Destination, Dialer, Purpose
from proconsul.rpc.errors import DeadlineError, RemoteError, TransportError
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics

log = logging.getLogger("proconsul.rpc")

IDLE_S = 120.0
"""A connection that nothing used for so long is closed."""
REAP_INTERVAL_S = 5.0
IDLE_STREAMS_MAX = 32
"""Streams kept for the next calls, per connection."""
DIAL_TIMEOUT_S = 10.0
BROKEN_MAX = 1024
"""Servers remembered as having broken their connection."""
PROBE_TIMEOUT_S = 3.0
"""After a call timed out, the session must show a sign of life within this time."""

Key: TypeAlias = Destination


class ConnectionPool:
    """`await rpc(destination, method, body, deadline)`; `aclose` ends all connections."""

    def __init__(
        self,
        dialer: Dialer,
        metrics: Metrics,
        *,
        idle_s: float = IDLE_S,
        on_reconnected: Callable[[Destination], None] | None = None,
    ) -> None:
        """`on_reconnected` is called when a server that broke its connection was dialled again."""
        self._dialer, self._metrics, self._idle_s = dialer, metrics, idle_s
        self._on_reconnected = on_reconnected
        self._connections: dict[Key, PooledConnection] = {}
        self._broken: dict[Key, None] = {}
        self._retired: list[PooledConnection] = []
        self._dials: dict[Key, asyncio.Task[PooledConnection | ProconsulError]] = {}
        self._scope = TaskScope("rpc-pool")
        self._reaper: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._connections)

    async def rpc(self, to: Destination, method: str, body: bytes, deadline: float) -> bytes:
        """The body of the answer to `method`.

        Raises `RemoteError` (the server answered with an error), `HopError` (it could not be
        dialled), `TransportError` (it did not answer; see `safe_to_retry`), of which
        `DeadlineError` is one.
        """
        try:
            return await self._rpc(to, method, body, deadline)
        except RemoteError:
            raise
        except TimeoutError:
            self._metrics.incr("consul.client.rpc.timeout")
            raise DeadlineError(
                f"rpc error making call: {method} to {to.node} in {to.datacenter}: "
                "no answer before the deadline"
            ) from None
        except ProconsulError:
            self._metrics.incr("consul.client.rpc.failed")
            raise

    async def rpc_single(self, to: Destination, method: str, body: bytes, deadline: float) -> bytes:
        """As `rpc`, on a connection made for this call alone."""
        try:
            async with asyncio.timeout_at(deadline):
                stream = await self._dialer.dial(to, Purpose.RPC_SINGLE, deadline)
                try:
                    return await RpcClientStream(cast("PushStream", stream)).call(method, body)
                finally:
                    await stream.aclose()
        except TimeoutError:
            raise DeadlineError(
                f"rpc error making call: {method} to {to.node}: timed out"
            ) from None

    async def ping(self, to: Destination, deadline: float) -> bool:
        """Whether the server answers `Status.Ping`."""
        try:
            await self.rpc(to, "Status.Ping", b"\x80", deadline)
        except ProconsulError as error:
            log.debug("pinging server failed: server=%s error=%s", to.node, error)
            return False
        return True

    def retire(self, datacenter: str) -> None:
        """Calls to a datacenter take a fresh way from now on; those under way end on the old one."""
        for key in [key for key in self._connections if key.datacenter == datacenter]:
            self._retired.append(self._connections.pop(key))

    def moved(self, to: Destination) -> None:
        """A server is at `to` from now on: end what goes to, or is dialled at, its old address.

        Nobody may be there any more, and then only a timeout would tell.
        """

        def is_old(key: Key) -> bool:
            same = (key.datacenter, key.node) == (to.datacenter, to.node)
            return same and key.address != to.address

        for key in [key for key in self._connections if is_old(key)]:
            self._connections.pop(key).session.abort()
        for key, dial in list(self._dials.items()):
            if is_old(key):
                _ = dial.cancel()

    async def aclose(self) -> None:
        """End every connection. Calls that wait fail."""
        self._closed = True
        await self._scope.aclose()
        connections = [*self._connections.values(), *self._retired]
        self._connections, self._retired = {}, []
        for connection in connections:
            connection.session.go_away()
            connection.session.abort()

    # -- inner workings

    async def _rpc(self, to: Destination, method: str, body: bytes, deadline: float) -> bytes:
        connection = self._connections.get(to)
        if connection is not None and connection.usable:
            try:
                return await self._call(connection, method, body, deadline)
            except TransportError as error:
                # The peer may have closed the session long ago without our having noticed.
                if not error.safe_to_retry:
                    raise
        connection = await self._connect(to, deadline)
        return await self._call(connection, method, body, deadline)

    async def _call(
        self, connection: PooledConnection, method: str, body: bytes, deadline: float
    ) -> bytes:
        loop = asyncio.get_running_loop()
        connection.last_used = loop.time()
        try:
            return await connection.call(method, body, deadline)
        except TimeoutError:
            # Slow call or dead path? A path that swallows packets must not keep the pool for long.
            if not connection.session.closed:
                connection.session.probe(PROBE_TIMEOUT_S)
            raise
        finally:
            connection.last_used = loop.time()

    async def _connect(self, to: Destination, deadline: float) -> PooledConnection:
        """A usable connection; however many ask at once, one of them dials."""
        connection = self._connections.get(to)
        if connection is not None and connection.usable:
            return connection
        if self._closed:
            raise TransportError("rpc error: shutdown", safe_to_retry=True)
        dial = self._dials.get(to)
        if dial is None:
            dial = self._scope.spawn(f"dial {to.node}", self._dial_shared(to))
            self._dials[to] = dial
        try:
            async with asyncio.timeout_at(deadline):
                result = await asyncio.shield(dial)
        except asyncio.CancelledError:
            if dial.cancelled():
                # The shared dial was cancelled, not we.
                reason = "shutdown" if self._closed else f"{to.node} is elsewhere now"
                raise TransportError(f"rpc error: {reason}", safe_to_retry=True) from None  # noqa: ASYNC104
            raise
        if isinstance(result, ProconsulError):
            raise result.with_traceback(None)
        return result

    async def _dial_shared(self, to: Destination) -> PooledConnection | ProconsulError:
        try:
            return await self._dial(to)
        except ProconsulError as error:
            return error  # returned, not raised: a failed dial is an answer, no task's failure
        finally:
            self._dials.pop(to, None)

    async def _dial(self, to: Destination) -> PooledConnection:
        loop = asyncio.get_running_loop()
        stream = await self._dialer.dial(to, Purpose.RPC_MULTI, loop.time() + DIAL_TIMEOUT_S)
        self._metrics.incr("consul.rpc.pool.dial", labels=(("datacenter", to.datacenter),))
        connection = PooledConnection(cast("PushStream", stream), loop.time(), IDLE_STREAMS_MAX)
        again = to in self._broken or to in self._connections
        self._broken.pop(to, None)
        self._connections[to] = connection
        if again and self._on_reconnected is not None:
            self._on_reconnected(to)
        if self._reaper is None or self._reaper.done():
            self._reaper = self._scope.supervise("reap", self._reap)
        return connection

    async def _reap(self) -> None:
        """Close what is idle or dead; ends when nothing is left."""
        loop = asyncio.get_running_loop()
        while self._connections or self._retired:
            await asyncio.sleep(min(REAP_INTERVAL_S, self._idle_s / 2))
            now = loop.time()
            ended = [c for c in self._retired if c.spare]
            self._retired = [c for c in self._retired if c not in ended]
            for connection in ended:
                await connection.aclose()
            for key, connection in list(self._connections.items()):
                idle = connection.spare and now - connection.last_used > self._idle_s
                if idle or connection.session.closed:
                    if self._connections.get(key) is connection:
                        del self._connections[key]
                        if not idle and len(self._broken) < BROKEN_MAX:
                            self._broken[key] = None
                    await connection.aclose()
