"""Memberlist's callbacks, turned into serf's terms (serf 0.9.4 `*delegate.go`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from proconsul.core.gossip.memberlist.types import Node
from proconsul.core.gossip.serf.coordinate import Coordinate, CoordinateError
from proconsul.core.gossip.serf.member import Member, MemberStatus
from proconsul.core.gossip.serf.roster import Seen
from proconsul.util.errors import ProconsulError, WireError
from proconsul.wire import serf as wire
from proconsul.wire import serf_decode as decode
from proconsul.wire.memberlist import NodeState

if TYPE_CHECKING:
    from proconsul.core.gossip.memberlist.broadcast import BroadcastQueue
    from proconsul.core.gossip.serf.node import SerfNode


def member_of(node: Node, status: MemberStatus) -> Member:
    """`node` as a member; unreadable tags are none, as in serf."""
    try:
        tags = decode.decode_tags(node.meta)
    except WireError:
        tags = {}
    return Member(
        name=node.name,
        address=node.address,
        tags=tags,
        status=status,
        protocol_min=node.versions[0],
        protocol_max=node.versions[1],
        protocol_cur=node.versions[2],
        delegate_min=node.versions[3],
        delegate_max=node.versions[4],
        delegate_cur=node.versions[5],
    )


def _seen(node: Node) -> Seen:
    return lambda status: member_of(node, status)


class SerfDelegate:
    """`memberlist.Delegate` of one `SerfNode`."""

    def __init__(self, serf: SerfNode) -> None:
        self._serf = serf

    # --- state that memberlist carries for us ---------------------------------------------------

    def node_meta(self, limit: int) -> bytes:
        """The tags. `SerfNode.set_tags` has made sure that they fit."""
        meta = wire.encode_tags(self._serf.tags, self._serf.config.protocol_version)
        return meta if len(meta) <= limit else b""

    def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
        """Intents first, then queries, then events."""
        serf = self._serf
        messages: list[bytes] = []
        for queue in (serf.intent_broadcasts, serf.query_broadcasts, serf.event_broadcasts):
            taken = queue.get(overhead, limit)
            limit -= sum(overhead + len(message) for message in taken)
            messages += taken
        return messages

    def local_state(self, join: bool) -> bytes:
        """Clocks, status times, tombstones and recent events."""
        serf = self._serf
        return wire.encode_push_pull(
            wire.PushPull(
                ltime=serf.clock.time,
                status_ltimes=serf.roster.status_ltimes(),
                left_members=serf.roster.left_names(),
                event_ltime=serf.event_clock.time,
                events=[
                    wire.RecentEvents(ltime, tuple(events))
                    for ltime, events in serf.recent_events.entries()
                ],
                query_ltime=serf.queries.clock.time,
            )
        )

    def merge_remote_state(self, data: bytes, join: bool) -> None:
        """The reverse of the other side's `local_state`."""
        serf = self._serf
        try:
            state = decode.decode_push_pull(data)
        except WireError as error:
            serf.log.error("remote state: %s", error)
            return
        # Less one, since no message with that time has been sent yet.
        serf.clock.witness(state.ltime - 1)
        serf.event_clock.witness(state.event_ltime - 1)
        serf.queries.clock.witness(state.query_ltime - 1)
        left = set(state.left_members)
        for name in left:
            # The time of the leave is not known, only that it was after the last known status.
            serf.hear_leave(wire.Leave(state.status_ltimes.get(name, 0) + 1, name))
        for name, ltime in state.status_ltimes.items():
            if name not in left:
                serf.hear_join(wire.Join(ltime, name))
        if join and serf.ignoring_old_events:
            recent = serf.recent_events
            recent.min_time = max(recent.min_time, state.event_ltime)
        for at in state.events:
            for name, payload in at.events:
                serf.hear_user_event(wire.UserEventMessage(at.ltime, name, payload))

    # --- messages -------------------------------------------------------------------------------

    def notify_message(self, data: bytes) -> None:
        """One serf message; passed on if it is news."""
        try:
            self._dispatch(data)
        except ProconsulError as error:
            self._serf.log.warning("serf message dropped: %s", error)

    def _dispatch(self, data: bytes) -> None:
        serf = self._serf
        queue: BroadcastQueue = serf.intent_broadcasts
        news = False
        match decode.message_type(data):
            case wire.MessageType.LEAVE:
                news = serf.hear_leave(decode.decode_leave(data))
            case wire.MessageType.JOIN:
                news = serf.hear_join(decode.decode_join(data))
            case wire.MessageType.USER_EVENT:
                news, queue = (
                    serf.hear_user_event(decode.decode_user_event(data)),
                    (serf.event_broadcasts),
                )
            case wire.MessageType.QUERY:
                news, queue = serf.queries.hear(decode.decode_query(data)), serf.query_broadcasts
            case wire.MessageType.QUERY_RESPONSE:
                serf.queries.hear_response(decode.decode_query_response(data))
            case wire.MessageType.RELAY:
                relay = decode.decode_relay(data)
                serf.send(relay.node, relay.address, relay.message)
            case other:
                raise WireError(f"unexpected serf message {other.name}")
        if news:
            queue.queue(bytes(data))

    # --- members --------------------------------------------------------------------------------

    def notify_join(self, node: Node) -> None:
        """Reachable."""
        self._serf.roster.joined(node.name, _seen(node), self._serf.now)

    def notify_leave(self, node: Node) -> None:
        """Unreachable, on purpose or not."""
        self._serf.roster.left(node.name, self._serf.now)

    def notify_update(self, node: Node) -> None:
        """New tags, address or versions."""
        self._serf.roster.updated(node.name, _seen(node))

    def notify_conflict(self, existing: Node, other: Node) -> None:
        """Two nodes claim one name."""
        self._serf.name_conflict(existing.name, existing.address, other.address)

    def notify_merge(self, peers: Sequence[Node]) -> str | None:
        """May these join us, or we them? A reason refuses."""
        return self._ask_merge_hook(peers)

    def notify_alive(self, peer: Node) -> str | None:
        """May this one be alive among us? A reason refuses."""
        return self._ask_merge_hook([peer])

    def _ask_merge_hook(self, peers: Sequence[Node]) -> str | None:
        hook: Callable[[Sequence[Member]], str | None] | None = self._serf.config.merge
        if hook is None:
            return None
        return hook(
            [
                member_of(
                    peer,
                    MemberStatus.LEFT if peer.state is NodeState.LEFT else MemberStatus.NONE,
                )
                for peer in peers
            ]
        )

    # --- coordinates ----------------------------------------------------------------------------

    def ack_payload(self) -> bytes:
        """Our coordinate."""
        client = self._serf.coordinates
        if client is None:
            return b""
        here = client.coordinate
        return wire.encode_coordinate(here.vec, here.error, here.adjustment, here.height)

    def notify_ping_complete(self, node: Node, rtt_s: float, payload: bytes) -> None:
        """A direct ping of `node` took `rtt_s`; the payload says where it believes to be."""
        if self._serf.coordinates is None or not payload:
            return
        try:
            vec, error, adjustment, height = decode.decode_coordinate(payload)
            other = Coordinate(tuple(vec), error, adjustment, height)
            self._serf.observe(node.name, other, rtt_s)
        except (WireError, CoordinateError) as error_:
            self._serf.log.debug("rejected coordinate from %s: %s", node.name, error_)
