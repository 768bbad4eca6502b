"""Drives serf's machine: packets, streams and time in; packets and streams out.

Nothing polls: the machine runs when a packet, stream bytes or a request arrives, or when its one
timer is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proconsul.core.gossip.memberlist import (
    CloseStream,
    JoinDone,
    LeaveDone,
    OpenStream,
    SendPacket,
    WriteStream,
)
from proconsul.core.gossip.serf import Serf
from proconsul.core.gossip.serf.events import SerfOutput
from proconsul.core.gossip.serf.machine import Output
from proconsul.drivers.gossip.streams import GossipStream
from proconsul.drivers.gossip.transport import Address, GossipTransport
from proconsul.drivers.scope import TaskScope
from proconsul.drivers.stream import Stream, StreamError
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Labels, Metrics

STREAM_GRACE_S = 5.0
"""The machine times its streams itself; this much later the driver ends what did not flush."""


class Pump:
    """One machine on one transport. What is not for the transport goes to `on_output`."""

    def __init__(
        self,
        serf: Serf,
        transport: GossipTransport,
        scope: TaskScope,
        on_output: Callable[[SerfOutput | JoinDone | LeaveDone], None],
        metrics: Metrics,
        labels: Labels,
    ) -> None:
        self.serf = serf
        self.closed = False
        self._metrics, self._labels = metrics, labels
        self._transport, self._scope, self._on_output = transport, scope, on_output
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        """uvloop gives a timer that is due already no `when()`."""
        self._streams: dict[int, GossipStream] = {}
        self._accepted_sid = 1

    def start(self) -> None:
        """The machine's first step."""
        self.serf.start(self._loop.time())
        self.run()

    def close(self) -> None:
        """No more steps. The transport and the scope are the owner's to close."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def run(self) -> None:
        """Do what the machine wants done, and set its timer."""
        if self.closed:
            return
        for output in self.serf.take_outputs():
            self._do(output)
        at = self.serf.get_timer()
        timer = self._timer
        if at is None or self.closed or (timer is not None and self._timer_at <= at):
            return  # a timer that fires too early only sets itself anew
        if timer is not None:
            timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        if self.closed:
            return
        self.serf.handle_timer(self._loop.time())  # nothing is due if the timer was moved back
        self.run()

    def _do(self, output: Output) -> None:
        match output:
            case SendPacket(node, address, data):
                self._metrics.incr("consul.memberlist.udp.sent", len(data), self._labels)
                self._transport.send_packet(node, address, data)
            case WriteStream(sid, data):
                if (stream := self._streams.get(sid)) is not None:
                    self._metrics.incr("consul.memberlist.tcp.sent", len(data), self._labels)
                    stream.write(data)
            case CloseStream(sid):
                if (stream := self._streams.pop(sid, None)) is not None:
                    stream.close()
            case OpenStream():
                work = self._run_opened(output, self._gossip_stream(output.sid))
                _ = self._scope.spawn(f"stream/{output.sid}", work)
            case _:
                self._on_output(output)

    def packet(self, data: bytes, source: Address) -> None:
        """A datagram arrived."""
        if not self.closed:
            self._metrics.incr("consul.memberlist.udp.received", len(data), self._labels)
            self.serf.handle_packet(data, source, self._loop.time())
            self.run()

    async def accept(self, stream: Stream) -> None:
        """Serve a stream that a peer opened, until it ends."""
        if self.closed:
            return
        self._metrics.incr("consul.memberlist.tcp.accept", 1, self._labels)
        sid, self._accepted_sid = self._accepted_sid, self._accepted_sid + 2
        gossip = self._gossip_stream(sid)
        now = self._loop.time()
        self.serf.stream_accepted(sid, stream.peer.address, now)
        self.run()
        deadline = now + self.serf.config.memberlist.tcp_timeout_s
        await self._run_stream(sid, gossip, stream, deadline)

    async def _run_opened(self, order: OpenStream, gossip: GossipStream) -> None:
        self._metrics.incr("consul.memberlist.tcp.connect", 1, self._labels)
        try:
            stream = await self._transport.open_stream(order.node, order.address, order.deadline)
        except (ProconsulError, OSError, TimeoutError) as error:
            self._stream_failed(order.sid, str(error))
            return
        try:
            if order.sid in self._streams and not self.closed:
                self.serf.stream_connected(order.sid, self._loop.time())
                self.run()
            await self._run_stream(order.sid, gossip, stream, order.deadline)
        finally:
            stream.abort()

    async def _run_stream(
        self, sid: int, gossip: GossipStream, stream: Stream, deadline: float
    ) -> None:
        try:
            async with asyncio.timeout_at(deadline + STREAM_GRACE_S):
                await gossip.run(stream)
        except TimeoutError:
            self._stream_failed(sid, "i/o timeout")
        except StreamError as error:
            self._stream_failed(sid, str(error))

    def _gossip_stream(self, sid: int) -> GossipStream:
        def data(chunk: bytes) -> None:
            if not self.closed:
                self.serf.stream_data(sid, chunk, self._loop.time())
                self.run()

        def eof() -> None:
            if not self.closed:
                self.serf.stream_eof(sid, self._loop.time())
                self.run()

        stream = self._streams[sid] = GossipStream(data, eof)
        return stream

    def _stream_failed(self, sid: int, reason: str) -> None:
        if self._streams.pop(sid, None) is not None and not self.closed:
            self.serf.stream_failed(sid, reason, self._loop.time())
            self.run()
