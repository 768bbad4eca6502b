"""A yamux session on a stream: the driver of `core.yamux`, giving its streams as `PushStream`s.

It stands directly on the stream below (`attach`), without a task of its own: bytes are parsed in
the socket's callback, timers are the loop's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from proconsul.core.yamux.session import (
    RemoteGoAway,
    Session,
    SessionClosedError,
    SessionFailed,
    StreamData,
    StreamEnded,
    StreamOffered,
    StreamReset,
    WindowOpened,
    YamuxConfig,
)
from proconsul.drivers.buffer import ReceiveBuffer, StreamError, WaiterSet, again
from proconsul.drivers.stream import PeerInfo, PushStream, Receiver
from proconsul.util.address import host_port

log = logging.getLogger("proconsul.rpc")

CONTROL_BACKLOG_BYTES = 4 * 1024 * 1024
"""A peer that reads nothing, yet makes us answer (pings, resets), is cut off beyond this."""


class Budget(NamedTuple):
    """How many bytes of its peer's one connection may keep in memory, over all its streams.

    Every stream has a window of its own, and a message that has begun may be long: without a common
    bound thousands of streams together could fill any memory.
    """

    unfinished: int
    """Not read yet, or of messages that have not ended: more of it ends the connection."""
    busy: int
    """Of messages that are being worked on: while there is more, nothing is read."""


class YamuxSession:
    """One multiplexed connection. `on_stream` gets the streams that the peer opens.

    Without `on_stream`, or when it raises `StreamError`, they are reset. `on_closed` is called
    once, when the session is over.
    """

    def __init__(
        self,
        stream: PushStream,
        *,
        client: bool,
        on_stream: Callable[[YamuxStream], None] | None = None,
        on_closed: Callable[[], None] | None = None,
        config: YamuxConfig | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._budget = budget
        self._unfinished = self._busy = 0
        self._reading_paused = False
        self._loop = asyncio.get_running_loop()
        self.lower = stream
        self.core = Session(config or YamuxConfig(), client=client, now=self._loop.time())
        self._streams: dict[int, YamuxStream] = {}
        self._on_stream, self._on_closed = on_stream, on_closed
        self._can_open = WaiterSet()
        self._over = WaiterSet()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._flush_scheduled = False
        self._arm()
        stream.attach(self)

    @property
    def peer(self) -> PeerInfo:
        return self.lower.peer

    @property
    def closed(self) -> bool:
        """True once nothing works on this session any more."""
        return self.core.failure is not None

    @property
    def usable(self) -> bool:
        """True if a stream can be opened."""
        return self.core.failure is None and not self.core.remote_go_away

    def __len__(self) -> int:
        return len(self._streams)

    async def open_stream(self) -> YamuxStream:
        """A new stream. Waits while the peer has too many to acknowledge. Raises `StreamError`."""
        while self.usable and not self.core.can_open:
            await self._can_open.wait()
        try:
            stream_id = self.core.open()
        except SessionClosedError as error:
            raise StreamError(str(error)) from error
        stream = YamuxStream(self, stream_id)
        self._streams[stream_id] = stream
        self.flush_soon()
        return stream

    def probe(self, timeout_s: float) -> None:
        """Close the session unless the peer shows a sign of life within `timeout_s`."""
        self.core.ping(self._loop.time(), timeout_s)
        self.flush()
        self._arm()

    def go_away(self) -> None:
        """Tell the peer to open no more streams."""
        self.core.go_away()
        self.flush()

    async def aclose(self) -> None:
        """End the session and the connection below."""
        self.core.go_away()
        self.flush()
        self._handle(self.core.connection_lost("session shutdown"))
        await self.lower.aclose()

    def abort(self) -> None:
        """Drop the session at once."""
        self._handle(self.core.connection_lost("session shutdown"))
        self.lower.abort()

    async def wait_closed(self) -> None:
        """Return when the session is over."""
        while not self.closed:
            await self._over.wait()

    # -- Receiver, called by the stream below

    def data_received(self, data: bytes) -> None:
        events = self.core.receive(data, self._loop.time())
        if events:
            self._handle(events)
        if self._budget is not None and self._unfinished > self._budget.unfinished:
            log.error(
                "closing an RPC connection that holds %d bytes of unfinished messages: from=%s",
                self._unfinished, host_port(self.peer.address),
            )  # fmt: skip
            self.abort()
            return
        if self.core.has_output:
            self.flush()

    def eof_received(self) -> None:
        self._handle(self.core.connection_lost("EOF"))

    def connection_lost(self, error: StreamError) -> None:
        self._handle(self.core.connection_lost(str(error)))

    # -- used by the streams

    def flush(self) -> None:
        """Write what the core has to say."""
        if not self.core.has_output:
            return
        try:
            self.lower.write_nowait(self.core.take_output())
        except StreamError as error:
            self._handle(self.core.connection_lost(str(error)))
            return
        if self.lower.write_buffer_size > CONTROL_BACKLOG_BYTES:
            self.abort()

    def flush_soon(self) -> None:
        """Flush in this turn of the loop, together with what else it brings."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_now)

    def account(self, unfinished: int, busy: int) -> None:
        """A stream holds so many bytes more (less, if negative) of its peer's."""
        self._unfinished += unfinished
        self._busy += busy
        if self._budget is None or self.closed:
            return
        if self._busy > self._budget.busy and not self._reading_paused:
            self._reading_paused = True
            self.lower.pause_reading()
        elif self._reading_paused and self._busy <= self._budget.busy // 2:
            self._reading_paused = False
            self.lower.resume_reading()

    def forget(self, stream_id: int) -> None:
        """A stream has been closed on our side."""
        self._streams.pop(stream_id, None)
        self._can_open.wake()

    # -- inner workings

    def _flush_now(self) -> None:
        self._flush_scheduled = False
        self.flush()

    def _handle(
        self,
        events: list[
            StreamOffered
            | StreamData
            | StreamEnded
            | StreamReset
            | WindowOpened
            | RemoteGoAway
            | SessionFailed
        ],
    ) -> None:
        streams = self._streams
        for event in events:
            match event:
                case StreamData(stream_id, data):
                    if (stream := streams.get(stream_id)) is not None:
                        stream.feed(data)
                case WindowOpened(stream_id, acknowledged):
                    if acknowledged:
                        self._can_open.wake()
                    elif (stream := streams.get(stream_id)) is not None:
                        stream.window_opened()
                case StreamOffered(stream_id):
                    self._offer(stream_id)
                case StreamEnded(stream_id):
                    if (stream := streams.get(stream_id)) is not None:
                        stream.feed_eof()
                case StreamReset(stream_id):
                    if (stream := streams.pop(stream_id, None)) is not None:
                        stream.lose(StreamError("connection reset"))
                case RemoteGoAway():
                    self._can_open.wake()
                case SessionFailed(reason):
                    self._failed(reason)

    def _offer(self, stream_id: int) -> None:
        if self._on_stream is None:
            self.core.reset(stream_id)
            return
        stream = YamuxStream(self, stream_id)
        self._streams[stream_id] = stream
        self.core.accept(stream_id)
        try:
            self._on_stream(stream)
        except StreamError:
            stream.abort()

    def _failed(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.core.has_output:
            try:  # a go-away with the reason, if the connection still takes it
                self.lower.write_nowait(self.core.take_output())
            except StreamError:
                pass
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.lose(StreamError(f"session shutdown: {reason}"))
        self._can_open.wake()
        self._over.wake()
        if reason == "keepalive timeout":
            self.lower.abort()
        if self._on_closed is not None:
            callback, self._on_closed = self._on_closed, None
            callback()

    def _arm(self) -> None:
        """Have `handle_timer` called in time. A timer that is early only looks again."""
        when = self.core.get_timer()
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._handle(self.core.handle_timer(self._loop.time()))
        if not self.closed:
            self.flush()
            self._arm()


class YamuxStream:
    """One stream of a session, as `PushStream`."""

    def __init__(self, session: YamuxSession, stream_id: int) -> None:
        self._session, self.stream_id = session, stream_id
        self._buffer = ReceiveBuffer(self._consumed)
        self._receiver: Receiver | None = None
        self._window = WaiterSet()
        self._backlog: list[memoryview] = []
        """Written and not yet allowed by the peer's window."""
        self._eof_pending = self._closed = self._eof_sent = False
        self._error: StreamError | None = None
        self._unread = 0
        """Bytes given to a receiver that has paused us: their window is not reopened yet."""
        self._paused = False
        self._received = self._kept = self._busy = 0
        """Bytes not read yet; read, of an unfinished message; of one that is being worked on."""

    # -- called by the session

    def feed(self, data: bytes) -> None:
        self._received += len(data)
        self._session.account(len(data), 0)
        if self._receiver is None:
            self._buffer.feed(data)
            return
        self._receiver.data_received(data)
        if self._paused:
            self._unread += len(data)
        else:
            self._consumed(len(data))

    def feed_eof(self) -> None:
        if self._receiver is not None:
            self._receiver.eof_received()
        self._buffer.feed_eof()

    def window_opened(self) -> None:
        self._push()
        self._session.flush()
        self._window.wake()

    def lose(self, error: StreamError) -> None:
        if self._error is None:
            self._error = error
        self._backlog.clear()
        self._buffer.fail(error, discard=False)
        self._window.wake()
        if self._receiver is not None:
            self._receiver.connection_lost(error)

    # -- Stream

    @property
    def peer(self) -> PeerInfo:
        return self._session.peer

    @property
    def session(self) -> YamuxSession:
        return self._session

    def hold(self, unfinished: int, busy: int) -> None:
        """Tell how many bytes that were read are kept: of a message to come, of one under way."""
        self._session.account(unfinished - self._kept, busy - self._busy)
        self._kept, self._busy = unfinished, busy

    @property
    def broken(self) -> bool:
        """True if the stream is of no more use: ended, reset or closed."""
        return self._closed or self._buffer.ended

    async def peek(self) -> int | None:
        """The first byte, which stays to be read; None if the peer has closed."""
        return await self._buffer.peek()

    async def read(self, limit: int = 65536) -> bytes:
        return await self._buffer.read(limit)

    async def read_exactly(self, count: int) -> bytes:
        return await self._buffer.read_exactly(count)

    async def write(self, data: bytes) -> None:
        self.write_nowait(data)
        if self._backlog or self._session.lower.write_paused:
            await self.drain()

    async def write_eof(self) -> None:
        self._check()
        if self._backlog:
            self._eof_pending = True
            return
        self._eof_sent = True
        self._session.core.end(self.stream_id)
        self._session.flush()

    async def aclose(self) -> None:
        self.close_nowait()

    def close_nowait(self) -> None:
        """`aclose`, which never waits here: it writes a header at most."""
        if self._closed:
            return
        self._closed = True
        self._release()
        self._buffer.fail(StreamError("stream closed"), discard=True)
        if self._error is None:
            if self._backlog:
                # Closing with data that the peer's window holds back is giving up on that data.
                self._session.core.reset(self.stream_id)
            else:
                self._session.core.abandon(self.stream_id)
            self._session.flush_soon()
        self._session.forget(self.stream_id)
        self._window.wake()

    def abort(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._release()
        self._buffer.fail(StreamError("stream closed"), discard=True)
        if self._error is None:
            self._session.core.reset(self.stream_id)
            self._session.flush_soon()
        self._session.forget(self.stream_id)
        self._window.wake()

    # -- PushStream

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer.hand_over(receiver)

    def write_nowait(self, data: bytes) -> None:
        self._check()
        if not data:
            return
        if self._backlog:
            self._backlog.append(memoryview(data))
            return
        try:
            sent = self._session.core.send(self.stream_id, data)
        except SessionClosedError as error:
            raise StreamError(str(error)) from error
        if sent < len(data):
            self._backlog.append(memoryview(data)[sent:])
        self._session.flush_soon()

    @property
    def write_paused(self) -> bool:
        return bool(self._backlog) or self._session.lower.write_paused

    @property
    def write_buffer_size(self) -> int:
        return sum(map(len, self._backlog)) + self._session.lower.write_buffer_size

    async def drain(self) -> None:
        while self._backlog and self._error is None and not self._closed:
            await self._window.wait()
        if self._error is not None:
            raise again(self._error)
        if self._closed:
            raise StreamError("stream closed")
        await self._session.lower.drain()

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        if self._unread:
            unread, self._unread = self._unread, 0
            self._consumed(unread)

    def on_end(self, callback: Callable[[], None] | None) -> None:
        self._buffer.on_end = callback

    # -- inner workings

    def _check(self) -> None:
        if self._error is not None:
            raise again(self._error)
        if self._closed or self._eof_sent or self._eof_pending:
            raise StreamError("stream closed")

    def _push(self) -> None:
        """Send what the window now allows."""
        while self._backlog:
            data = self._backlog[0]
            sent = self._session.core.send(self.stream_id, data)
            if sent < len(data):
                self._backlog[0] = data[sent:]
                return
            del self._backlog[0]
        if self._eof_pending:
            self._eof_pending, self._eof_sent = False, True
            self._session.core.end(self.stream_id)

    def _release(self) -> None:
        """Nothing of the stream is kept any more."""
        self.hold(0, 0)
        self._session.account(-self._received, 0)
        self._received = 0

    def _consumed(self, count: int) -> None:
        if not self._closed:
            self._received -= count
            self._session.account(-count, 0)
        self._session.core.consumed(self.stream_id, count)
        if self._session.core.has_output:
            self._session.flush_soon()
