"""Serves net/rpc on one stream: requests in, answers out, in order, as Consul's `handleConsulConn`.

One request at a time runs per stream, so a session's concurrency is bounded by its streams. When
the peer goes away, what runs for it is cancelled: a blocking query must not outlive its asker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from proconsul.drivers.buffer import StreamError
from proconsul.drivers.stream import PeerInfo, PushStream
from proconsul.rpc.yamux_session import YamuxStream
from proconsul.util.address import host_port
from proconsul.util.errors import ProconsulError, WireError
from proconsul.util.metrics import Metrics
from proconsul.wire.netrpc import encode_response, request_decoder

log = logging.getLogger("proconsul.rpc")

REQUEST_BYTES_MAX = 64 * 1024 * 1024

Dispatch: TypeAlias = Callable[[str, bytes, PeerInfo], Awaitable[bytes]]
"""(method, body, who asks) -> body of the answer. The text of a `ProconsulError` is the answer's
error; anything else it raises is a fault of ours, logged and answered without details."""


class RpcServerSession:
    """The calls of one stream. `await serve()` returns when the stream ends."""

    def __init__(
        self,
        stream: PushStream,
        dispatch: Dispatch,
        metrics: Metrics,
        request_bytes_max: int = REQUEST_BYTES_MAX,
    ) -> None:
        self._stream, self._dispatch, self._metrics = stream, dispatch, metrics
        self._decoder = request_decoder(request_bytes_max)
        self._task: asyncio.Task[object] | None = None
        self._abandoned = False

    async def serve(self) -> None:
        """Answer until the peer closes. Never raises but for cancellation from outside."""
        stream, decoder = self._stream, self._decoder
        self._task = asyncio.current_task()
        try:
            while data := await stream.read():
                decoder.feed(data)
                stream.on_end(self._peer_gone)
                while (request := decoder.next()) is not None:
                    self._hold(decoder.pending_bytes, len(request.body))
                    answer = await self._answer(request.method, request.seq, request.body)
                    await stream.write(answer)
                stream.on_end(None)
                request = None  # its body is not kept until the next one comes
                self._hold(decoder.pending_bytes, 0)
        except WireError as error:
            self._metrics.incr("consul.rpc.request_error")
            log.error("RPC error: conn=%s error=%s", _from(stream.peer), error)
        except StreamError as error:
            log.debug("RPC stream ended: conn=%s error=%s", _from(stream.peer), error)
        except asyncio.CancelledError:  # noqa: ASYNC103 - our own, to end an abandoned call
            if not self._abandoned or self._task is None or self._task.uncancel() > 0:
                raise
        finally:
            stream.on_end(None)
        await stream.aclose()

    def _hold(self, unfinished: int, busy: int) -> None:
        """Streams of one connection share its budget; a connection of its own is bounded anyway."""
        if isinstance(self._stream, YamuxStream):
            self._stream.hold(unfinished, busy)

    async def _answer(self, method: str, seq: int, body: bytes) -> bytes:
        try:
            return encode_response(
                method, seq, await self._dispatch(method, body, self._stream.peer)
            )
        except ProconsulError as error:
            return encode_response(method, seq, b"", str(error) or type(error).__name__)
        except Exception:
            self._metrics.incr("consul.rpc.request_error")
            log.exception("RPC %s failed for %s", method, _from(self._stream.peer))
            return encode_response(method, seq, b"", "internal error, see the server's log")

    def _peer_gone(self) -> None:
        """Called by the stream while a request runs."""
        if self._task is not None and not self._task.done():
            self._abandoned = True
            self._task.cancel()


def _from(peer: PeerInfo) -> str:
    return f"from={host_port(peer.address)}"
