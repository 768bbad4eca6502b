"""A yamux session without I/O: bytes in, events and bytes out.

Follows hashicorp/yamux as Consul configures it (its defaults: window 256 KB, backlog 256,
keepalive ping every 30 s which must be answered in 10 s). Everything that changes the state of
the session's streams lives in this file.

A stream's life, by who has sent SYN, FIN, RST:

    open() -> opening --ACK--> open --FIN sent--> half closed --FIN received--> gone
    SYN    -> offered -accept()-> open --FIN received--> half closed --FIN sent--> gone
    any    --RST--> gone
"""

from __future__ import annotations

from msgspec import Struct

from proconsul.util.errors import ProconsulError, WireError
from proconsul.wire import yamux as wire

BUFFER_COMPACT_BYTES = 65536


class SessionClosedError(ProconsulError):
    """The session cannot carry (new) streams any more."""


class YamuxConfig(Struct, frozen=True):
    """Times in seconds."""

    accept_backlog: int = 256
    """Streams the peer may have opened and we not accepted; also ours that are not acknowledged."""
    streams_max: int = 4096
    """Streams of the peer that may be open; more are reset."""
    window: int = wire.INITIAL_WINDOW
    keepalive_interval_s: float = 30.0
    keepalive_timeout_s: float = 10.0


class StreamOffered(Struct, frozen=True):
    """The peer opened a stream: `accept` or `reset` it."""

    stream_id: int


class StreamData(Struct, frozen=True):
    """Bytes for a stream. Report them to `consumed` once read, to reopen the window."""

    stream_id: int
    data: bytes


class StreamEnded(Struct, frozen=True):
    """The peer will send no more on the stream."""

    stream_id: int


class StreamReset(Struct, frozen=True):
    """The peer dropped the stream."""

    stream_id: int


class WindowOpened(Struct, frozen=True):
    """More may be sent on the stream, or (`acknowledged`) one more stream may be opened."""

    stream_id: int
    acknowledged: bool = False


class RemoteGoAway(Struct, frozen=True):
    """The peer takes no new streams; those that are open go on."""


class SessionFailed(Struct, frozen=True):
    """The session is over; everything on it is lost."""

    reason: str


Event = (
    StreamOffered
    | StreamData
    | StreamEnded
    | StreamReset
    | WindowOpened
    | RemoteGoAway
    | SessionFailed
)


class _Stream(Struct):
    send_window: int = wire.INITIAL_WINDOW
    receive_window: int = wire.INITIAL_WINDOW
    """What the peer may still send."""
    unreported: int = 0
    """Bytes consumed that the window has not been opened by yet."""
    acknowledged: bool = False
    fin_sent: bool = False
    fin_received: bool = False
    abandoned: bool = False
    """Closed here for reading too. What comes on a stream of the peer's is answered with a reset; on
    one of ours it is the answer that nobody waits for, and dropped: Consul's servers log resets."""
    dropped: int = 0
    """Bytes, of which `DROPPED_BYTES_MAX` are suffered."""


DROPPED_BYTES_MAX = 64 << 20


class Session:
    """One side of a session. `client` is the side that dialled (odd stream ids)."""

    def __init__(self, config: YamuxConfig, *, client: bool, now: float) -> None:
        self.config = config
        self._next_id = 1 if client else 2
        self._peer_parity = 0 if client else 1
        self._streams: dict[int, _Stream] = {}
        self._unacknowledged = 0
        self._offered = 0
        self._peers_streams = 0
        self._input = bytearray()
        self._data_left = 0
        """Bytes still to come of the data frame that is being received."""
        self._data_stream = 0
        self._out: list[bytes] = []
        self._events: list[Event] = []
        self._ping_value = 0
        self._ping_sent_at: float | None = None
        self._ping_deadline: float | None = None
        self._next_keepalive = now + config.keepalive_interval_s
        self.round_trip_s: float | None = None
        """As the last answered ping measured it."""
        self.local_go_away = self.remote_go_away = False
        self.failure: str | None = None

    def __len__(self) -> int:
        return len(self._streams)

    # -- what the application does

    @property
    def can_open(self) -> bool:
        """False while too many of our streams wait for the peer's acknowledgement."""
        return self._unacknowledged < self.config.accept_backlog

    def open(self) -> int:
        """A new stream's id. Raises `SessionClosedError`."""
        if self.failure is not None:
            raise SessionClosedError(f"session shutdown: {self.failure}")
        if self.remote_go_away:
            raise SessionClosedError("remote end is not accepting connections")
        if self._next_id >= 0xFFFFFFFE:
            raise SessionClosedError("streams exhausted")
        if not self.can_open:
            raise SessionClosedError("too many streams wait for the peer")
        stream_id, self._next_id = self._next_id, self._next_id + 2
        stream = _Stream(receive_window=self.config.window)
        self._streams[stream_id] = stream
        self._unacknowledged += 1
        self._frame(wire.WINDOW_UPDATE, wire.SYN, stream_id, self._extra_window())
        return stream_id

    def accept(self, stream_id: int) -> None:
        """Take a stream that the peer offered."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.acknowledged:
            stream.acknowledged = True
            self._offered -= 1
            self._frame(wire.WINDOW_UPDATE, wire.ACK, stream_id, self._extra_window())

    def send(self, stream_id: int, data: bytes | memoryview) -> int:
        """Send as much of `data` as the peer's window allows: the number of bytes taken."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.fin_sent or self.failure is not None:
            raise SessionClosedError("stream closed")
        count = min(stream.send_window, len(data))
        if count:
            stream.send_window -= count
            self._frame(wire.DATA, 0, stream_id, count)
            self._out.append(bytes(data) if count == len(data) else bytes(data[:count]))
        return count

    def consumed(self, stream_id: int, count: int) -> None:
        """The application has read `count` bytes: reopen the window when half of it is used."""
        stream = self._streams.get(stream_id)
        if stream is None or self.failure is not None:
            return
        stream.unreported += count
        if stream.unreported >= self.config.window // 2 and not stream.fin_received:
            stream.receive_window += stream.unreported
            self._frame(wire.WINDOW_UPDATE, 0, stream_id, stream.unreported)
            stream.unreported = 0

    def end(self, stream_id: int) -> None:
        """Half-close: nothing more will be sent on the stream."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.fin_sent or self.failure is not None:
            return
        stream.fin_sent = True
        self._frame(wire.WINDOW_UPDATE, wire.FIN, stream_id, 0)
        if stream.fin_received:
            self._forget(stream_id)

    def abandon(self, stream_id: int) -> None:
        """Close both directions: FIN now, and no interest in what the peer still sends."""
        self.end(stream_id)
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.abandoned = True

    def reset(self, stream_id: int) -> None:
        """Drop the stream at once."""
        if stream_id in self._streams and self.failure is None:
            self._frame(wire.WINDOW_UPDATE, wire.RST, stream_id, 0)
            self._forget(stream_id)

    @property
    def pinging(self) -> bool:
        """Whether the peer has yet to answer a ping."""
        return self._ping_deadline is not None

    def go_away(self) -> None:
        """Take no new streams from the peer."""
        if not self.local_go_away and self.failure is None:
            self.local_go_away = True
            self._frame(wire.GO_AWAY, 0, 0, wire.GO_AWAY_NORMAL)

    def ping(self, now: float, timeout_s: float | None = None) -> None:
        """Ask for a sign of life; without one within `timeout_s` the session fails."""
        deadline = now + (self.config.keepalive_timeout_s if timeout_s is None else timeout_s)
        if self._ping_deadline is not None:
            self._ping_deadline = min(self._ping_deadline, deadline)
            return
        if self.failure is not None:
            return
        self._ping_value = (self._ping_value + 1) & 0xFFFFFFFF
        self._ping_sent_at, self._ping_deadline = now, deadline
        self._frame(wire.PING, wire.SYN, 0, self._ping_value)

    # -- what the driver does

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the connection; what they mean."""
        if self.failure is not None:
            return []
        try:
            self._parse(data, now)
        except WireError as error:
            self._frame(wire.GO_AWAY, 0, 0, wire.GO_AWAY_PROTOCOL_ERROR)
            self._fail(str(error))
        return self._take_events()

    def connection_lost(self, reason: str) -> list[Event]:
        """The connection below has ended."""
        self._fail(reason)
        return self._take_events()

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        if self._ping_deadline is not None:
            return self._ping_deadline
        return self._next_keepalive

    def handle_timer(self, now: float) -> list[Event]:
        """Ping, or give the peer up."""
        if self.failure is None:
            if self._ping_deadline is not None and now >= self._ping_deadline:
                self._fail("keepalive timeout")
            elif self._ping_deadline is None and now >= self._next_keepalive:
                self.ping(now)
        return self._take_events()

    @property
    def has_output(self) -> bool:
        return bool(self._out)

    def take_output(self) -> bytes:
        """What is to be written to the connection, in order."""
        out, self._out = self._out, []
        return out[0] if len(out) == 1 else b"".join(out)

    # -- frames

    def _parse(self, data: bytes, now: float) -> None:
        buffer: bytes | bytearray = data
        if self._input:
            self._input += data
            buffer, self._input = self._input, bytearray()
        offset, size = 0, len(buffer)
        while offset < size:
            if self._data_left:
                chunk = bytes(buffer[offset : offset + self._data_left])
                offset += len(chunk)
                self._data_left -= len(chunk)
                self._deliver(self._data_stream, chunk)
                continue
            if size - offset < wire.HEADER_BYTES:
                break
            header = wire.decode_header(buffer, offset)
            offset += wire.HEADER_BYTES
            self._handle(header, now)
        if offset < size:
            self._input += buffer[offset:]

    def _handle(self, header: wire.Header, now: float) -> None:
        if header.kind == wire.DATA:
            self._flags(header)
            stream = self._streams.get(header.stream_id)
            if stream is not None and header.length:
                if header.length > stream.receive_window:
                    raise WireError("yamux: recv window exceeded")
                stream.receive_window -= header.length
            elif header.length > self.config.window:
                raise WireError("yamux: recv window exceeded")
            self._data_left, self._data_stream = header.length, header.stream_id
        elif header.kind == wire.WINDOW_UPDATE:
            self._flags(header)
            stream = self._streams.get(header.stream_id)
            if stream is not None and header.length:
                stream.send_window += header.length
                if stream.send_window > 0xFFFFFFFF:
                    raise WireError("yamux: send window overflow")
                self._events.append(WindowOpened(header.stream_id))
        elif header.kind == wire.PING:
            self._handle_ping(header, now)
        else:
            self._handle_go_away(header.length)

    def _flags(self, header: wire.Header) -> None:
        flags, stream_id = header.flags, header.stream_id
        if not flags:
            return
        if flags & wire.SYN:
            self._offer(stream_id)
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if flags & wire.ACK and not stream.acknowledged and stream_id % 2 != self._peer_parity:
            stream.acknowledged = True
            self._unacknowledged -= 1
            self._events.append(WindowOpened(stream_id, acknowledged=True))
        if flags & wire.FIN:
            if stream.fin_received:
                raise WireError("yamux: unexpected flag")
            stream.fin_received = True
            if header.length == 0 or header.kind != wire.DATA:
                self._finish(stream_id, stream)
        if flags & wire.RST:
            self._forget(stream_id)
            self._events.append(StreamReset(stream_id))

    def _finish(self, stream_id: int, stream: _Stream) -> None:
        """The peer's FIN and all data before it have come."""
        if not stream.abandoned:
            self._events.append(StreamEnded(stream_id))
        if stream.fin_sent:
            self._forget(stream_id)

    def _offer(self, stream_id: int) -> None:
        if stream_id in self._streams:
            raise WireError("yamux: duplicate stream initiated")
        if stream_id == 0 or stream_id % 2 != self._peer_parity:
            raise WireError(f"yamux: stream id {stream_id} is not the peer's to open")
        full = (
            self.local_go_away
            or self._offered >= self.config.accept_backlog
            or self._peers_streams >= self.config.streams_max
        )
        if full:
            self._frame(wire.WINDOW_UPDATE, wire.RST, stream_id, 0)
            return
        self._streams[stream_id] = _Stream(receive_window=self.config.window)
        self._offered += 1
        self._peers_streams += 1
        self._events.append(StreamOffered(stream_id))

    def _deliver(self, stream_id: int, chunk: bytes) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return  # reset here while the peer was sending
        if stream.abandoned:
            self._drop(stream_id, stream, len(chunk))
            return
        self._events.append(StreamData(stream_id, chunk))
        if stream.fin_received and not self._data_left:
            self._finish(stream_id, stream)

    def _drop(self, stream_id: int, stream: _Stream, count: int) -> None:
        stream.dropped += count
        if stream_id % 2 == self._peer_parity or stream.dropped > DROPPED_BYTES_MAX:
            self.reset(stream_id)
            return
        self.consumed(stream_id, count)
        if stream.fin_received and not self._data_left:
            self._finish(stream_id, stream)

    def _handle_ping(self, header: wire.Header, now: float) -> None:
        if header.flags & wire.SYN:
            self._frame(wire.PING, wire.ACK, 0, header.length)
        elif self._ping_sent_at is not None and header.length == self._ping_value:
            self.round_trip_s = now - self._ping_sent_at
            self._ping_sent_at = self._ping_deadline = None
            self._next_keepalive = now + self.config.keepalive_interval_s

    def _handle_go_away(self, reason: int) -> None:
        if reason == wire.GO_AWAY_NORMAL:
            self.remote_go_away = True
            self._events.append(RemoteGoAway())
        elif reason == wire.GO_AWAY_PROTOCOL_ERROR:
            self._fail("yamux protocol error")
        elif reason == wire.GO_AWAY_INTERNAL_ERROR:
            self._fail("remote yamux internal error")
        else:
            self._fail("unexpected go away received")

    def _extra_window(self) -> int:
        return self.config.window - wire.INITIAL_WINDOW

    def _frame(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        self._out.append(wire.encode_header(kind, flags, stream_id, length))

    def _forget(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id)
        if stream_id % 2 == self._peer_parity:
            self._peers_streams -= 1
            if not stream.acknowledged:
                self._offered -= 1
        elif not stream.acknowledged:
            self._unacknowledged -= 1
            self._events.append(WindowOpened(stream_id, acknowledged=True))

    def _fail(self, reason: str) -> None:
        if self.failure is None:
            self.failure = reason
            self._streams.clear()
            self._events.append(SessionFailed(reason))

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events
