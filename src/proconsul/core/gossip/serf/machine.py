"""Serf without I/O: membership with intent, events, queries and coordinates over a memberlist.

Follows serf 0.9.4 `serf.go`. Inputs are memberlist's and carry `now`; after any of them, and after
`handle_timer`, the owner takes the outputs and asks `get_timer` anew. `SnapshotAppend` comes before
everything else of its step. What messages and members do to the node is in `node`, this module has
the inputs, the timers and the order of leaving.
"""

from __future__ import annotations

from collections.abc import Mapping

from proconsul.core.gossip.memberlist import JoinDone, LeaveDone
from proconsul.core.gossip.memberlist import Output as MemberlistOutput
from proconsul.core.gossip.serf.config import USER_EVENT_BYTES_MAX, SerfConfig, SerfError
from proconsul.core.gossip.serf.events import QueryEvent, SerfOutput
from proconsul.core.gossip.serf.node import SerfNode, SerfState
from proconsul.core.gossip.serf.queries import QueryParams
from proconsul.core.gossip.serf.rejoin import Rejoiner
from proconsul.core.gossip.serf.snapshot import Snapshot
from proconsul.util.clock import Rng
from proconsul.wire import serf as wire

Output = MemberlistOutput | SerfOutput


class Serf:
    """One node of one pool."""

    def __init__(self, config: SerfConfig, rng: Rng, previous: Snapshot | None = None) -> None:
        self.config = config
        self.node = SerfNode(config, rng, previous or Snapshot())
        self.memberlist = self.node.memberlist
        self.roster = self.node.roster
        self._rejoiner = Rejoiner(self.node)
        self._joins: set[int] = set()
        self._timers: dict[str, float] = {}
        self._leave_sent = False

    # --- inputs from the net --------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Become a cluster of one, and try to get back to the nodes of the snapshot."""
        self.node.now = now
        self.memberlist.start(now)
        self._timers["reap"] = now + self.config.reap_interval_s
        self._timers["reconnect"] = now + self.config.reconnect_interval_s
        self._timers["queues"] = now + self.config.queue_check_interval_s
        self._rejoiner.start()

    def handle_packet(self, data: bytes, source: tuple[str, int], now: float) -> None:
        """A datagram."""
        self.node.now = now
        self.memberlist.handle_packet(data, source, now)

    def stream_accepted(self, sid: int, source: tuple[str, int], now: float) -> None:
        """A peer opened a stream."""
        self.node.now = now
        self.memberlist.stream_accepted(sid, source, now)

    def stream_connected(self, sid: int, now: float) -> None:
        """`OpenStream` succeeded."""
        self.node.now = now
        self.memberlist.stream_connected(sid, now)

    def stream_data(self, sid: int, data: bytes, now: float) -> None:
        """Bytes from a stream."""
        self.node.now = now
        self.memberlist.stream_data(sid, data, now)

    def stream_eof(self, sid: int, now: float) -> None:
        """The peer has no more to say."""
        self.node.now = now
        self.memberlist.stream_eof(sid, now)

    def stream_failed(self, sid: int, reason: str, now: float) -> None:
        """The stream could not be opened, or broke."""
        self.node.now = now
        self.memberlist.stream_failed(sid, reason, now)

    # --- requests of the owner --------------------------------------------------------------------

    def join(
        self, node: str, address: tuple[str, int], now: float, *, ignore_old: bool = False
    ) -> int:
        """Join through the node at `address` (named `node`, or ""); `JoinDone` carries the sid.

        `ignore_old`: user events from before are not delivered. Raises `SerfError` after a leave.
        """
        self.node.now = now
        if self.node.state is not SerfState.ALIVE:
            raise SerfError("Serf can't Join after Leave or Shutdown")
        sid = self.memberlist.join(node, address, now)
        self._joins.add(sid)
        if ignore_old:
            self.node.joins_ignoring_old.add(sid)
        return sid

    def leave(self, now: float) -> None:
        """Leave gracefully; `LeaveDone` follows. A second call changes nothing."""
        node = self.node
        node.now = now
        if node.state is not SerfState.ALIVE:
            if node.state is SerfState.LEFT:
                node.emit(LeaveDone())
            return
        node.state = SerfState.LEAVING
        node.record_leave()
        message = wire.Leave(node.clock.time, self.config.node_name)
        node.clock.increment()
        node.hear_leave(message)
        if self.roster.others_alive():
            self._timers["leave-broadcast"] = now + self.config.broadcast_timeout_s
            # Not from within the callback: it comes in the midst of memberlist's gossip step.
            sent = wire.encode_leave(message)
            node.intent_broadcasts.queue(
                sent, finished=lambda: self._timers.update({"leave-sent": now})
            )
        else:
            self._leave_memberlist()

    def stats(self) -> dict[str, str]:
        """As `serf info` and `consul info` print them."""
        node = self.node
        stats = {
            "members": len(self.roster),
            "failed": self.roster.failed_count,
            "left": self.roster.left_count,
            "health_score": self.memberlist.health_score,
            "member_time": node.clock.time,
            "event_time": node.event_clock.time,
            "query_time": node.queries.clock.time,
            "intent_queue": len(node.intent_broadcasts),
            "event_queue": len(node.event_broadcasts),
            "query_queue": len(node.query_broadcasts),
        }
        if node.coordinates is not None:
            stats["coordinate_resets"] = node.coordinates.resets
        encrypted = str(self.memberlist.keyring is not None).lower()
        return {name: str(value) for name, value in stats.items()} | {"encrypted": encrypted}

    def force_leave(self, name: str, now: float, *, prune: bool = False) -> None:
        """Turn a failed member into one that left; `prune` forgets it. Raises `SerfError`."""
        node = self.node
        node.now = now
        if self.roster.get(name) is None:
            raise SerfError(f"No node found with name '{name}'")
        message = wire.Leave(node.clock.time, name, prune)
        node.clock.increment()
        node.hear_leave(message)
        if self.roster.others_alive():
            node.intent_broadcasts.queue(wire.encode_leave(message))

    def set_tags(self, tags: Mapping[str, str], now: float) -> None:
        """Replace this node's tags. Raises `SerfError` if they do not fit into 512 bytes."""
        self.node.now = now
        self.node.set_tags(tags)
        self.memberlist.update_node(now)

    def user_event(self, name: str, payload: bytes, now: float, *, coalesce: bool = False) -> None:
        """Tell everyone, this node included. Raises `SerfError` if it is too large."""
        node = self.node
        node.now = now
        limit = min(self.config.user_event_size_limit, USER_EVENT_BYTES_MAX)
        if len(name.encode()) + len(payload) > limit:
            raise SerfError(f"user event exceeds configured limit of {limit} bytes before encoding")
        message = wire.UserEventMessage(node.event_clock.time, name, payload, coalesce)
        raw = wire.encode_user_event(message)
        if len(raw) > limit:
            raise SerfError(
                f"encoded user event exceeds configured limit of {limit} bytes after encoding"
            )
        node.hear_user_event(message)
        node.event_broadcasts.queue(raw)

    def query(
        self, name: str, payload: bytes, now: float, params: QueryParams | None = None
    ) -> tuple[int, float]:
        """Ask everyone; returns (id, deadline). `QueryReply` and `QueryDone` follow."""
        self.node.now = now
        query = self.node.queries.ask(name, payload, params or QueryParams())
        return query.id, now + query.timeout_ns / 1e9

    def respond(self, event: QueryEvent, payload: bytes, now: float) -> None:
        """Answer a query. Raises `SerfError` if it is too late or the answer too large."""
        self.node.now = now
        self.node.queries.respond(event, payload)

    # --- time and outputs -------------------------------------------------------------------------

    def get_timer(self) -> float | None:
        """When `handle_timer` is due."""
        at = self.memberlist.get_timer()
        own = self._own_timer()
        return own if at is None or (own is not None and own < at) else at

    def _own_timer(self) -> float | None:
        candidates = [*self._timers.values()]
        if (prune := self.roster.next_prune()) is not None:
            candidates.append(prune)
        if (deadline := self.node.queries.next_deadline()) is not None:
            candidates.append(deadline)
        return min(candidates, default=None)

    def handle_timer(self, now: float) -> None:
        """Do whatever is due."""
        self.node.now = now
        self.memberlist.handle_timer(now)
        own = self._own_timer()
        if own is None or own > now:
            return
        self.roster.handle_prunes(now)
        self.node.handle_queries()
        for name in [name for name, at in self._timers.items() if at <= now]:
            del self._timers[name]
            self._handle_named_timer(name)

    def _handle_named_timer(self, name: str) -> None:
        config = self.config
        match name:
            case "reap":
                self.roster.reap(self.node.now)
                self._timers["reap"] = self.node.now + config.reap_interval_s
            case "reconnect":
                if self.node.state is SerfState.ALIVE:
                    self._rejoiner.reconnect()
                self._timers["reconnect"] = self.node.now + config.reconnect_interval_s
            case "queues":
                self.node.trim_broadcasts()
                self._timers["queues"] = self.node.now + config.queue_check_interval_s
            case "leave-broadcast":
                self.node.log.warning("timeout while waiting for graceful leave")
                self._leave_memberlist()
            case "leave-sent":
                self._leave_memberlist()
            case _:
                self.node.state = SerfState.LEFT
                self.node.emit(LeaveDone())

    def take_outputs(self) -> list[Output]:
        """What is to be done, in order. Empties the list."""
        below: list[MemberlistOutput] = []
        while batch := self.memberlist.take_outputs():
            below += [output for output in batch if self._passes(output)]
        return [*self.node.take_snapshot_lines(), *below, *self.node.take_outputs()]

    def _passes(self, output: MemberlistOutput) -> bool:
        """Handle what memberlist tells us; False if it is not for our owner."""
        node = self.node
        match output:
            case JoinDone(sid, error):
                node.joins_ignoring_old.discard(sid)
                if sid not in self._joins:
                    self._rejoiner.join_done(sid, error)
                    return False
                self._joins.discard(sid)
                if error is None and node.state is SerfState.ALIVE:
                    node.broadcast_join()
                return True
            case LeaveDone():
                if self.roster.others_alive():
                    # Long enough to answer the probes of those who have not heard of it yet.
                    delay_s = self.config.leave_propagate_delay_s
                    self._timers["leave-propagate"] = node.now + delay_s
                    return False
                node.state = SerfState.LEFT
                return True
            case _:
                return True

    def _leave_memberlist(self) -> None:
        self._timers.pop("leave-broadcast", None)
        if not self._leave_sent:
            self._leave_sent = True
            self.memberlist.leave(self.node.now)
