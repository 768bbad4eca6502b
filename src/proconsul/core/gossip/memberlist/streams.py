"""Everything that memberlist does over streams, as sessions of one message each way."""

from __future__ import annotations

import logging
from collections.abc import Callable

from proconsul.core.gossip.memberlist.config import MemberlistConfig
from proconsul.core.gossip.memberlist.membership import Membership
from proconsul.core.gossip.memberlist.packets import Sealer
from proconsul.core.gossip.memberlist.timers import Timer, TimerHeap
from proconsul.core.gossip.memberlist.types import (
    Address,
    CloseStream,
    Delegate,
    Node,
    OpenStream,
    Output,
    WriteStream,
)
from proconsul.util.address import host_port
from proconsul.util.errors import WireError
from proconsul.wire.memberlist import Ack, Ping, encode_ack, encode_ping
from proconsul.wire.memberlist_stream import (
    ErrorReply,
    PushPull,
    StreamMessage,
    StreamReader,
    UserMessage,
    encode_error,
    encode_push_pull,
    encode_user_stream,
    wrap_stream,
)

ACCEPTED_MAX = 128
"""Streams that peers may have open at a time, as memberlist's `maxPushPullRequests`."""
_BUFFERED_BYTES_MAX = 64 << 20
"""Of all accepted streams together."""
_NAMES_REQUIRED = "memberlist: node names are required by configuration but one was not provided"

Done = Callable[[str | None], None]
OnMessage = Callable[[StreamMessage, float], str | None]


class _Session:
    """One open stream."""

    __slots__ = ("done", "on_message", "peer", "reader", "request", "timer")

    def __init__(
        self,
        peer: str,
        reader: StreamReader,
        timer: Timer,
        request: Callable[[], bytes] | None = None,
        on_message: OnMessage | None = None,
        done: Done | None = None,
    ) -> None:
        self.peer = peer
        self.reader = reader
        self.timer = timer
        self.request = request
        """Makes what is written once connected; None for an accepted stream."""
        self.on_message = on_message
        """Takes the answer, returns what is wrong with it; None if no answer is awaited."""
        self.done = done


class Streams:
    """Opens, answers and ends streams; every one has a deadline."""

    def __init__(
        self,
        config: MemberlistConfig,
        delegate: Delegate,
        membership: Membership,
        timers: TimerHeap,
        sealer: Sealer,
        emit: Callable[[Output], None],
        log: logging.Logger,
    ) -> None:
        self._config = config
        self._delegate = delegate
        self._membership = membership
        self._timers = timers
        self._sealer = sealer
        self._emit = emit
        self._log = log
        self._sessions: dict[int, _Session] = {}
        self._last_sid = 0
        self._accepted = 0
        self._buffered = 0

    # --- requests ------------------------------------------------------------------------------

    def push_pull(self, node: str, address: Address, join: bool, now: float, done: Done) -> int:
        """Exchange the whole state; `done` is told what went wrong, or None."""

        def request() -> bytes:
            return self._local_state(join)

        def merge(message: StreamMessage, at: float) -> str | None:
            if isinstance(message, ErrorReply):
                return f"remote error: {message.text}"
            if not isinstance(message, PushPull):
                return f"expected a push/pull, received {type(message).__name__}"
            return self._merge(message, join, at)

        return self._open(node, address, now + self._config.tcp_timeout_s, request, merge, done)

    def ping(self, node: Node, ping: Ping, deadline: float, ok: Callable[[], None]) -> None:
        """Ping over a stream; `ok` is called if the answer comes by `deadline`."""

        def answer(message: StreamMessage, at: float) -> str | None:
            if not isinstance(message, Ack) or message.seq_no != ping.seq_no:
                return "unexpected answer to a fallback ping"
            ok()
            return None

        self._open(node.name, node.address, deadline, lambda: encode_ping(ping), answer, _quiet)

    def user_message(self, node: str, address: Address, data: bytes, now: float, done: Done) -> int:
        """Deliver a user message of any size; `done` when it is written."""
        deadline = now + self._config.tcp_timeout_s
        return self._open(node, address, deadline, lambda: encode_user_stream(data), None, done)

    # --- inputs --------------------------------------------------------------------------------

    def accepted(self, sid: int, source: Address, now: float) -> None:
        """A peer opened `sid`."""
        if self._accepted >= ACCEPTED_MAX:
            self._log.error("too many pending streams, refusing %s", host_port(source))
            self._emit(CloseStream(sid))
            return
        self._accepted += 1
        timer = self._timers.add(
            now + self._config.tcp_timeout_s, lambda _: self._end(sid, "i/o timeout")
        )
        self._sessions[sid] = _Session(f"{source[0]}:{source[1]}", self._reader(), timer)

    def connected(self, sid: int) -> None:
        """The dial of `sid` succeeded."""
        session = self._sessions.get(sid)
        if session is None or session.request is None:
            return
        self._write(sid, session.request())
        if session.on_message is None:
            self._end(sid, None)

    def data(self, sid: int, data: bytes, now: float) -> None:
        """Bytes from `sid`; those of a forgotten stream are ignored."""
        session = self._sessions.get(sid)
        if session is None:
            return
        incoming = session.request is None
        if incoming:
            self._buffered += len(data)
        try:
            if self._buffered > _BUFFERED_BYTES_MAX:
                raise WireError("too much state is being received at once")
            message = session.reader.feed(data)
        except WireError as error:
            self._log.error("failed to receive: %s from=%s", error, session.peer)
            if incoming:
                self._write(sid, encode_error(str(error)))
            self._end(sid, str(error))
            return
        if message is None:
            return
        if incoming:
            error_text = self._answer(sid, message, now)
        else:
            error_text = session.on_message(message, now) if session.on_message else None
        self._end(sid, error_text)

    def eof(self, sid: int) -> None:
        """The peer will send no more."""
        self._end(sid, "unexpected EOF")

    def failed(self, sid: int, reason: str) -> None:
        """The dial failed or the stream broke."""
        self._end(sid, reason, close=False)

    # --- sessions ------------------------------------------------------------------------------

    def _open(
        self,
        node: str,
        address: Address,
        deadline: float,
        request: Callable[[], bytes],
        on_message: OnMessage | None,
        done: Done,
    ) -> int:
        self._last_sid += 2
        sid = self._last_sid
        if not node:
            node = self._membership.name_at(address)
        if not node and self._config.require_node_names:
            # Reported like any failure, from the timers: the caller does not know the sid yet.
            timer = self._timers.add(0.0, lambda _: self._end(sid, _NAMES_REQUIRED, close=False))
        else:
            timer = self._timers.add(deadline, lambda _: self._end(sid, "i/o timeout"))
            self._emit(OpenStream(sid, node, address, deadline))
        peer = f"{node} {address[0]}:{address[1]}"
        self._sessions[sid] = _Session(peer, self._reader(), timer, request, on_message, done)
        return sid

    def _end(self, sid: int, error: str | None, close: bool = True) -> None:
        session = self._sessions.pop(sid, None)
        if session is None:
            return
        session.timer.cancel()
        if close:
            self._emit(CloseStream(sid))
        if session.request is None:
            self._accepted -= 1
            self._buffered -= session.reader.received
            if error is not None and session.reader.received:
                self._log.error("failed push/pull or message: %s from=%s", error, session.peer)
        if session.done is not None:
            session.done(error)

    def _reader(self) -> StreamReader:
        return StreamReader(self._config.keyring, self._config.verify_incoming)

    def _write(self, sid: int, message: bytes) -> None:
        config = self._config
        data = wrap_stream(
            message,
            compress=config.compress and len(message) <= config.compress_max_bytes,
            keyring=self._sealer.keyring,
            encryption_version=config.encryption_version,
            nonce=self._sealer.nonce(),
        )
        self._emit(WriteStream(sid, data))

    # --- what is said --------------------------------------------------------------------------

    def _answer(self, sid: int, message: StreamMessage, now: float) -> str | None:
        """Deal with what a peer sent on a stream of its own; returns what was wrong."""
        if isinstance(message, PushPull):
            self._write(sid, self._local_state(message.join))
            return self._merge(message, message.join, now)
        if isinstance(message, UserMessage):
            self._delegate.notify_message(message.data)
            return None
        if isinstance(message, Ping):
            if message.node and message.node != self._config.name:
                return f"got ping for unexpected node {message.node!r}"
            self._write(sid, encode_ack(Ack(message.seq_no)))
            return None
        return f"unexpected {type(message).__name__}"

    def _local_state(self, join: bool) -> bytes:
        return encode_push_pull(join, self._membership.rows(), self._delegate.local_state(join))

    def _merge(self, message: PushPull, join: bool, now: float) -> str | None:
        error = self._membership.incompatible(message.rows)
        if error is None and join:
            error = self._delegate.notify_merge(
                [
                    Node(r.name, r.addr, r.port, r.meta, r.versions, r.state, r.incarnation)
                    for r in message.rows
                ]
            )
        if error is not None:
            return error
        self._membership.merge(message.rows, now)
        if message.user_state is not None:
            self._delegate.merge_remote_state(message.user_state, join)
        return None


def _quiet(error: str | None) -> None:
    """A failed fallback ping is no news: the probe reports."""
