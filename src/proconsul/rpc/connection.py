"""One pooled connection to a server: a yamux session and its idle streams.

As in Consul's `agent/pool`, one call at a time uses a stream, and streams are kept for the next.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from proconsul.drivers.buffer import StreamError
from proconsul.drivers.stream import PushStream
from proconsul.rpc.errors import RemoteError, TransportError
from proconsul.rpc.yamux_session import YamuxSession, YamuxStream
from proconsul.util.errors import WireError
from proconsul.wire.netrpc import encode_request, response_decoder

RESPONSE_BYTES_MAX = 256 * 1024 * 1024
"""An answer may be a whole catalog."""

S = TypeVar("S", bound=PushStream)


class RpcClientStream(Generic[S]):
    """A stream that carries one call after another."""

    def __init__(self, stream: S, response_bytes_max: int = RESPONSE_BYTES_MAX) -> None:
        self.stream = stream
        self._decoder = response_decoder(response_bytes_max)
        self._seq = 0

    async def call(self, method: str, body: bytes) -> bytes:
        """The answer's body.

        Raises `RemoteError` or `TransportError`. After either, and when cancelled, the stream is
        of no more use: Consul's server closes it after errors of net/rpc itself, and its client
        after every error.
        """
        self._seq += 1
        sent = False
        try:
            self.stream.write_nowait(encode_request(method, self._seq, body))
            sent = True
            if self.stream.write_paused:
                # A peer that has closed its side will never open the window again.
                self.stream.on_end(self.stream.abort)
                await self.stream.drain()
                self.stream.on_end(None)
            decoder = self._decoder
            while (response := decoder.next()) is None:
                data = await self.stream.read()
                if not data:
                    raise StreamError("EOF")
                decoder.feed(data)
        except (StreamError, WireError) as error:
            raise TransportError(
                f"rpc error making call: {error}", safe_to_retry=not sent
            ) from error
        if response.seq != self._seq:
            raise TransportError("rpc error making call: answer out of order", safe_to_retry=False)
        if response.error:
            raise RemoteError(response.error)
        return response.body


class PooledConnection:
    """A session with one server, its idle streams, and what the pool needs for reaping it."""

    def __init__(self, stream: PushStream, now: float, idle_streams_max: int) -> None:
        self.session = YamuxSession(stream, client=True)
        self._idle: list[RpcClientStream[YamuxStream]] = []
        self._idle_streams_max = idle_streams_max
        self.calls = 0
        """Calls that are under way."""
        self.last_used = now

    @property
    def usable(self) -> bool:
        """True if a call can be started on it."""
        return self.session.usable

    @property
    def spare(self) -> bool:
        """True if it may be closed and nobody misses it.

        Consul's servers warn of a session that ends before they could answer a ping on it.
        """
        return self.session.closed or (self.calls == 0 and not self.session.core.pinging)

    async def call(self, method: str, body: bytes, deadline: float) -> bytes:
        """See `RpcClientStream.call`; raises `TimeoutError` at `deadline`."""
        self.calls += 1
        client: RpcClientStream[YamuxStream] | None = None
        healthy = False
        try:
            async with asyncio.timeout_at(deadline):
                client = await self._take()
                answer = await client.call(method, body)
                healthy = True
                return answer
        finally:
            self.calls -= 1
            if client is not None:
                self._give_back(client, healthy=healthy)

    async def aclose(self) -> None:
        """End the session."""
        await self.session.aclose()

    async def _take(self) -> RpcClientStream[YamuxStream]:
        while self._idle:
            client = self._idle.pop()
            if not client.stream.broken:
                return client
            client.stream.close_nowait()
        try:
            return RpcClientStream(await self.session.open_stream())
        except StreamError as error:
            raise TransportError(
                f"rpc error getting client: failed to start stream: {error}", safe_to_retry=True
            ) from error

    def _give_back(self, client: RpcClientStream[YamuxStream], *, healthy: bool) -> None:
        room = len(self._idle) < self._idle_streams_max
        if healthy and room and not client.stream.broken:
            self._idle.append(client)
        else:
            # In order, also when nobody waits for the answer any more: Consul's servers log a
            # stream that is reset as an error
            client.stream.close_nowait()
