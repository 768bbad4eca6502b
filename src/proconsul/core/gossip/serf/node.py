"""The state of one serf node and what messages and memberlist's reports do to it.

Serf 0.9.4 `serf.go`; implements `context.Context` for queries and internal queries.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from enum import Enum

from proconsul.core.gossip.memberlist import LeaveDone, Memberlist
from proconsul.core.gossip.memberlist.broadcast import BroadcastQueue
from proconsul.core.gossip.serf.config import PROTOCOL_MAX, PROTOCOL_MIN, SerfConfig, SerfError
from proconsul.core.gossip.serf.conflict import ConflictVote
from proconsul.core.gossip.serf.coordinate import Coordinate, CoordinateClient
from proconsul.core.gossip.serf.delegate import SerfDelegate
from proconsul.core.gossip.serf.events import (
    MemberEvent,
    MemberEventKind,
    QueryEvent,
    QueryReply,
    SerfOutput,
    ShutdownRequired,
    SnapshotAppend,
    UserEvent,
)
from proconsul.core.gossip.serf.internal import CONFLICT, PREFIX, InternalQueries
from proconsul.core.gossip.serf.lamport import LamportClock
from proconsul.core.gossip.serf.queries import Queries, QueryParams
from proconsul.core.gossip.serf.recent import RecentRing
from proconsul.core.gossip.serf.roster import Roster, Verdict
from proconsul.core.gossip.serf.snapshot import Snapshot
from proconsul.util.address import host_port
from proconsul.util.clock import Rng
from proconsul.wire import serf as wire

META_BYTES_MAX = 512


class SerfState(Enum):
    """Of this node."""

    ALIVE = "alive"
    LEAVING = "leaving"
    LEFT = "left"


class SerfNode:
    """One node; `machine.Serf` feeds it."""

    def __init__(self, config: SerfConfig, rng: Rng, previous: Snapshot) -> None:
        self.config, self.rng = config, rng
        self.log = logging.getLogger(f"proconsul.{config.log_name}")
        self.now = 0.0
        self.state = SerfState.ALIVE
        self.tags: Mapping[str, str] = {}
        self.set_tags(config.tags)
        self.roster = Roster(config, self.emit, self.log)
        self.clock, self.event_clock = LamportClock(1), LamportClock(1)
        self.recent_events: RecentRing[tuple[str, bytes]] = RecentRing(config.event_buffer)
        self.coordinates = CoordinateClient(rng) if config.coordinates else None
        self.positions: dict[str, Coordinate] = {}
        """Last known coordinates by node name, this node's too."""
        mult = config.memberlist.retransmit_mult
        self.intent_broadcasts = BroadcastQueue(self.roster.__len__, mult)
        self.event_broadcasts = BroadcastQueue(self.roster.__len__, mult)
        self.query_broadcasts = BroadcastQueue(self.roster.__len__, mult)
        self.joins_ignoring_old: set[int] = set()
        self.queries = Queries(self)
        self.snapshot = previous
        self._outputs: list[SerfOutput | LeaveDone] = []
        self._lines: list[str] = []
        self._durable = False
        self._vote: ConflictVote | None = None
        self._restore_clocks(previous)
        self.memberlist = Memberlist(
            dataclasses.replace(
                config.memberlist,
                name=config.node_name,
                delegate_version_min=PROTOCOL_MIN,
                delegate_version_max=PROTOCOL_MAX,
                delegate_version=config.protocol_version,
            ),
            SerfDelegate(self),
            rng,
        )
        self._internal = InternalQueries(self, self.queries, self.memberlist.keyring)

    def _restore_clocks(self, previous: Snapshot) -> None:
        self.queries.clock.increment()
        self.clock.witness(previous.clock)
        self.event_clock.witness(previous.event_clock)
        self.queries.clock.witness(previous.query_clock)
        self.recent_events.min_time = previous.event_clock + 1
        self.queries.recent.min_time = previous.query_clock + 1

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Raises `SerfError` if they are too long for memberlist's meta data."""
        if len(wire.encode_tags(tags, self.config.protocol_version)) > META_BYTES_MAX:
            raise SerfError(f"Encoded length of tags exceeds limit of {META_BYTES_MAX} bytes")
        self.tags = dict(tags)

    # --- outputs --------------------------------------------------------------------------------

    def emit(self, output: SerfOutput | LeaveDone) -> None:
        """Tell the owner, and note in the snapshot what has to survive."""
        if self.config.snapshot and not self.snapshot.left:
            self._record(output)
        if isinstance(output, MemberEvent) and output.kind is MemberEventKind.REAP:
            for member in output.members:
                self._forget_position(member.name)
        vote = self._vote
        if isinstance(output, QueryReply) and vote is not None and vote.query_id == output.id:
            vote.add(output)
            return
        self._outputs.append(output)

    def _record(self, output: SerfOutput | LeaveDone) -> None:
        snapshot = self.snapshot
        line: str | None = None
        match output:
            case MemberEvent(MemberEventKind.JOIN, members):
                self._lines += [
                    snapshot.joined(member.name, member.address)
                    for member in members
                    if member.name.isprintable()  # a line break would be another line's beginning
                ]
            case MemberEvent(MemberEventKind.LEAVE | MemberEventKind.FAILED, members):
                self._lines += [
                    snapshot.gone(member.name) for member in members if member.name.isprintable()
                ]
            case UserEvent():
                line = snapshot.event_seen(output.ltime)
            case QueryEvent():
                line = snapshot.query_seen(output.ltime)
            case _:
                pass
        if line is not None:
            self._lines.append(line)

    def record_leave(self) -> None:
        """The last line of this life."""
        if self.config.snapshot:
            rejoin = self.config.rejoin_after_leave
            self._lines.append(self.snapshot.leave(rejoin_after_leave=rejoin))
            self._durable = True

    def take_snapshot_lines(self) -> list[SnapshotAppend]:
        """What the file needs now."""
        if self.config.snapshot and not self.snapshot.left:
            line = self.snapshot.clock_seen(self.clock.time - 1)
            if line is not None:
                self._lines.append(line)
        if not self._lines:
            return []
        append = SnapshotAppend(tuple(self._lines), self._durable)
        self._lines, self._durable = [], False
        return [append]

    def take_outputs(self) -> list[SerfOutput | LeaveDone]:
        """Everything emitted since the last call."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def send(self, node: str, address: tuple[str, int], message: bytes) -> None:
        """One packet, best effort."""
        self.memberlist.send_user(node, message, self.now, address=address)

    # --- intents, events, queries -----------------------------------------------------------------

    def hear_leave(self, leave: wire.Leave) -> bool:
        """A leave intent; True if it has to be passed on."""
        self.clock.witness(leave.ltime)
        verdict = self.roster.leave_intent(
            leave.node,
            leave.ltime,
            self.now,
            prune=leave.prune,
            staying=self.state is SerfState.ALIVE,
        )
        if verdict is Verdict.REFUTE:
            self.log.debug("refuting an older leave intent")
            self.broadcast_join()
        return verdict is Verdict.NEWS

    def hear_join(self, join: wire.Join) -> bool:
        """A join intent; True if it has to be passed on."""
        self.clock.witness(join.ltime)
        return self.roster.join_intent(join.node, join.ltime, self.now) is Verdict.NEWS

    def broadcast_join(self) -> None:
        """Say that we joined, now: after a join, and against an older leave of ours."""
        message = wire.Join(self.clock.time, self.config.node_name)
        self.hear_join(message)
        self.intent_broadcasts.queue(wire.encode_join(message))

    @property
    def ignoring_old_events(self) -> bool:
        """A join that does not want the cluster's past events is under way."""
        return bool(self.joins_ignoring_old)

    def hear_user_event(self, message: wire.UserEventMessage) -> bool:
        """A user event; True if it has to be passed on."""
        self.event_clock.witness(message.ltime)
        item = (message.name, message.payload)
        if not self.recent_events.add(message.ltime, item, self.event_clock.time):
            return False
        self.emit(UserEvent(message.ltime, message.name, message.payload, message.coalesce))
        return True

    def query_heard(self, event: QueryEvent) -> None:
        """Answer it here if it is serf's own, else ask the application."""
        if event.name.startswith(PREFIX):
            if self.config.snapshot and not self.snapshot.left:
                self._record(event)
            self._internal.handle(event)
        else:
            self.emit(event)

    def handle_queries(self) -> None:
        """Close queries whose time is up; decide a name conflict if that was one."""
        for query_id in self.queries.handle_timer():
            vote = self._vote
            if vote is None or vote.query_id != query_id:
                continue
            self._vote = None
            if vote.lost:
                self.emit(ShutdownRequired(vote.summary()))
            else:
                self.log.info("%s", vote.summary())

    def trim_broadcasts(self) -> None:
        """Bound the queues."""
        depth = max(self.config.queue_depth_min, 2 * len(self.roster))
        queues = (self.intent_broadcasts, self.event_broadcasts, self.query_broadcasts)
        for queue in queues:
            if len(queue) > depth:
                self.log.warning("broadcast queue holds %d messages, kept %d", len(queue), depth)
                queue.prune(depth)

    def name_conflict(self, name: str, existing: tuple[str, int], other: tuple[str, int]) -> None:
        """Somebody at `other` claims `name`, which lives at `existing`."""
        resolve = self.config.name_conflict_resolution
        if name != self.config.node_name:
            claims = host_port(existing), host_port(other)
            self.log.warning("name conflict: %r is claimed by %s and %s", name, *claims)
            return
        self.log.error(
            "node name conflicts with another node at %s. Names must be unique! "
            "(Resolution enabled: %s)",
            host_port(other),
            resolve,
        )
        if resolve and self._vote is None:
            try:
                query = self.queries.ask(CONFLICT, name.encode(), QueryParams())
            except SerfError as error:
                self.log.error("failed to start name resolution query: %s", error)
                return
            self._vote = ConflictVote(query.id, self.local_address())

    # --- coordinates ------------------------------------------------------------------------------

    def observe(self, name: str, other: Coordinate, rtt_s: float) -> None:
        """A ping of `name`, at `other`, took `rtt_s`. Raises `CoordinateError`."""
        if self.coordinates is not None:
            here = self.coordinates.update(name, other, rtt_s)
            self.positions[name] = other
            self.positions[self.config.node_name] = here

    def _forget_position(self, name: str) -> None:
        self.positions.pop(name, None)
        if self.coordinates is not None:
            self.coordinates.forget(name)

    # --- the rest of Context ----------------------------------------------------------------

    def alive_count(self) -> int:
        """Nodes that memberlist believes alive, this one included."""
        return len(self.memberlist.members())

    def local_address(self) -> tuple[str, int]:
        """Where this node's gossip is reached."""
        return self.memberlist.local.address
