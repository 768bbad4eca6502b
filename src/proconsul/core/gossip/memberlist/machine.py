"""The memberlist machine: inputs and time in, outputs out (memberlist 0.2.2, sans-I/O).

After any input the owner takes the outputs, does them in order, and asks `get_timer` anew.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from proconsul.core.gossip.memberlist.config import MemberlistConfig
from proconsul.core.gossip.memberlist.membership import Membership
from proconsul.core.gossip.memberlist.packets import PacketSender, Sealer
from proconsul.core.gossip.memberlist.probe import Prober
from proconsul.core.gossip.memberlist.streams import Streams
from proconsul.core.gossip.memberlist.timers import TimerHeap
from proconsul.core.gossip.memberlist.types import (
    Address,
    Delegate,
    JoinDone,
    LeaveDone,
    Node,
    Output,
)
from proconsul.util.address import host_port
from proconsul.util.clock import Rng
from proconsul.util.errors import WireError
from proconsul.util.throttle import Throttle
from proconsul.wire.memberlist import (
    Kind,
    NodeState,
    decode_ack,
    decode_alive,
    decode_dead,
    decode_indirect_ping,
    decode_nack,
    decode_ping,
    decode_suspect,
)
from proconsul.wire.memberlist_crypto import Keyring
from proconsul.wire.memberlist_packet import unwrap_packet

_SCALE_THRESHOLD = 32


_Handler = Callable[[bytes, Address, float], None]


def push_pull_scale(nodes: int) -> int:
    """By how much push/pulls are rarer in a cluster of `nodes`: 1 up to 32, +1 per doubling."""
    if nodes <= _SCALE_THRESHOLD:
        return 1
    return math.ceil(math.log2(nodes) - math.log2(_SCALE_THRESHOLD)) + 1


@dataclass(slots=True)
class Counters:
    """What the machine has seen, for metrics."""

    packets_received: int = 0
    bytes_received: int = 0
    packets_malformed: int = 0
    messages_malformed: int = 0
    push_pulls_failed: int = 0


class Memberlist:
    """One node of one gossip pool."""

    def __init__(self, config: MemberlistConfig, delegate: Delegate, rng: Rng) -> None:
        self.config = config
        self.log = logging.getLogger(f"proconsul.{config.log_name}")
        self.counters = Counters()
        self._rng = rng
        self._delegate = delegate
        self._outputs: list[Output] = []
        self._timers = TimerHeap()
        self._now = 0.0
        self._started = False
        self._throttle = Throttle()
        self._left = False
        emit, timers = self._emit, self._timers
        self._membership = Membership(config, delegate, rng, timers, self.log)
        sealer = Sealer(config, rng)
        self._packets = PacketSender(config, delegate, self._membership, sealer, emit, self.log)
        self._membership.on_left = self._tell_who_left
        self._streams = Streams(config, delegate, self._membership, timers, sealer, emit, self.log)
        self._prober = Prober(
            config, delegate, self._membership, self._packets, timers, self._streams.ping, self.log
        )

        self._handlers = self._handlers_by_kind()

    # --- what is known ---------------------------------------------------------------------------

    @property
    def nodes(self) -> dict[str, Node]:
        """All known nodes by name, also those who died or left lately. Not to be changed."""
        return self._membership.nodes

    @property
    def local(self) -> Node:
        """This node, once started."""
        return self._membership.nodes[self.config.name]

    @property
    def keyring(self) -> Keyring | None:
        """The keys; None without encryption."""
        return self.config.keyring

    @property
    def health_score(self) -> int:
        """0 is healthy; it is the factor, less one, by which our patience grows."""
        return self._membership.awareness.score

    @property
    def queued_broadcasts(self) -> int:
        """Rumours that are still being spread."""
        return len(self._membership.broadcasts)

    def members(self) -> list[Node]:
        """Nodes that are alive or suspect."""
        return [node for node in self._membership.nodes.values() if not node.gone]

    def anyone_else(self) -> bool:
        """Whether another node is alive or suspect."""
        return self._membership.anyone_else()

    # --- requests of the owner -------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Become a cluster of one and start the periodic work."""
        self._now = now
        if self._started:
            return
        self._started = True
        self._membership.announce(now)
        config, draw = self.config, self._rng.random
        if config.probe_interval_s > 0:
            self._timers.add(now + draw() * config.probe_interval_s, self._tick_probe)
        if config.gossip_interval_s > 0 and config.gossip_nodes > 0:
            self._timers.add(now + draw() * config.gossip_interval_s, self._tick_gossip)
        if config.push_pull_interval_s > 0:
            first = (1.0 + draw()) * config.push_pull_interval_s
            self._timers.add(now + first, self._tick_push_pull)

    def join(self, node: str, address: Address, now: float) -> int:
        """Exchange states with the node at `address`; `JoinDone` with the returned sid follows.

        `node` is its name, "" if it is not known.
        """
        self._now = now
        sid = 0

        def done(error: str | None) -> None:
            self._emit(JoinDone(sid, error))

        sid = self._streams.push_pull(node, address, True, now, done)
        return sid

    def leave(self, now: float) -> None:
        """Tell the others that we go; `LeaveDone` follows. Gossip goes on until the owner stops."""
        self._now = now
        if self._membership.leaving:
            return
        self._membership.leave(now, self._leave_done)
        if self._membership.anyone_else():
            self._timers.add(now + self.config.leave_timeout_s, lambda _: self._leave_done())
        else:
            self._leave_done()

    def update_node(self, now: float) -> None:
        """Tell the others our meta, which has changed."""
        self._now = now
        self._membership.announce(now)

    def send_user(self, node: str, data: bytes, now: float, address: Address | None = None) -> bool:
        """Send a user message in a datagram, best effort.

        Without `address`, `node` must be known: False if it is not.
        """
        self._now = now
        if address is None:
            known = self._membership.nodes.get(node)
            if known is None:
                return False
            address = known.address
        self._packets.send_alone(node, address, bytes((Kind.USER,)) + data)
        return True

    def send_user_reliable(self, node: str, data: bytes, now: float) -> bool:
        """Send a user message of any size over a stream; False if `node` is not known."""
        self._now = now
        known = self._membership.nodes.get(node)
        if known is None:
            return False
        self._streams.user_message(node, known.address, data, now, self._log_failure)
        return True

    # --- inputs ----------------------------------------------------------------------------------

    def handle_packet(self, data: bytes, source: Address, now: float) -> None:
        """A datagram. Nothing in it can raise: what cannot be read is counted and dropped."""
        self._now = now
        counters = self.counters
        counters.packets_received += 1
        counters.bytes_received += len(data)
        keyring = self.config.keyring
        try:
            if keyring is not None:
                data = self._decrypt(keyring, data)
            messages = unwrap_packet(data)
        except WireError as error:
            counters.packets_malformed += 1
            self._complain(f"dropped packet: {error}", source, now)
            return
        handlers = self._handlers
        for kind, body in messages:
            try:
                handlers[kind](body, source, now)
            except WireError as error:
                counters.messages_malformed += 1
                self._complain(f"dropped message ({kind}): {error}", source, now)

    def _complain(self, what: str, source: Address, now: float) -> None:
        """Anybody can send datagrams: that must not fill a disk with our lines."""
        left_out = self._throttle.take(now)
        if left_out is not None:
            more = f" ({left_out} more were not logged)" if left_out else ""
            self.log.error("%s from=%s%s", what, host_port(source), more)

    def stream_accepted(self, sid: int, source: Address, now: float) -> None:
        """A peer opened a stream; its `sid` is odd."""
        self._now = now
        self._streams.accepted(sid, source, now)

    def stream_connected(self, sid: int, now: float) -> None:
        """`OpenStream` succeeded."""
        self._now = now
        self._streams.connected(sid)

    def stream_data(self, sid: int, data: bytes, now: float) -> None:
        """Bytes from a stream."""
        self._now = now
        self._streams.data(sid, data, now)

    def stream_eof(self, sid: int, now: float) -> None:
        """The peer has no more to say."""
        self._now = now
        self._streams.eof(sid)

    def stream_failed(self, sid: int, reason: str, now: float) -> None:
        """The stream could not be opened, or broke."""
        self._now = now
        self._streams.failed(sid, reason)

    def handle_timer(self, now: float) -> None:
        """Do whatever is due."""
        self._now = now
        self._timers.run(now)

    def get_timer(self) -> float | None:
        """When `handle_timer` wants to be called."""
        return self._timers.next_at()

    def take_outputs(self) -> list[Output]:
        """What is to be done, in order. Empties the list."""
        outputs, self._outputs = self._outputs, []
        return outputs

    # --- inside ----------------------------------------------------------------------------------

    def _emit(self, output: Output) -> None:
        self._outputs.append(output)

    def _decrypt(self, keyring: Keyring, data: bytes) -> bytes:
        try:
            return keyring.open(data)
        except WireError:
            if self.config.verify_incoming:
                raise
            return data

    def _handlers_by_kind(self) -> tuple[_Handler, ...]:
        """What to do with each type of message that a packet may carry."""
        member, prober, delegate = self._membership, self._prober, self._delegate
        handlers: list[_Handler] = [_unsupported] * 256
        handlers[Kind.ALIVE] = lambda body, _, now: member.alive(decode_alive(body), now)
        handlers[Kind.SUSPECT] = lambda body, _, now: member.suspect(decode_suspect(body), now)
        handlers[Kind.DEAD] = lambda body, _, now: member.dead(decode_dead(body), now)
        handlers[Kind.USER] = lambda body, _, now: delegate.notify_message(body)
        handlers[Kind.PING] = lambda body, source, _: prober.on_ping(decode_ping(body), source)
        handlers[Kind.ACK] = lambda body, _, now: prober.on_ack(decode_ack(body), now)
        handlers[Kind.NACK] = lambda body, _, now: prober.on_nack(decode_nack(body))
        handlers[Kind.INDIRECT_PING] = lambda body, source, now: prober.on_indirect_ping(
            decode_indirect_ping(body), source, now
        )
        return tuple(handlers)

    def _tick_probe(self, now: float) -> None:
        self._timers.add(now + self.config.probe_interval_s, self._tick_probe)
        self._prober.tick(now)

    def _tick_gossip(self, now: float) -> None:
        self._timers.add(now + self.config.gossip_interval_s, self._tick_gossip)
        if len(self._membership.nodes) > 1:
            self._packets.gossip(self._choose_listeners)

    def _choose_listeners(self) -> list[Node]:
        """Whom to gossip to: members, and those who died so lately that they may still refute."""
        dead_since = self._now - self.config.gossip_to_the_dead_s
        me = self.config.name

        def wanted(node: Node) -> bool:
            state = node.state
            if state is NodeState.DEAD:
                return node.state_change >= dead_since
            return state is not NodeState.LEFT and node.name != me

        return self._membership.random_nodes(self.config.gossip_nodes, wanted)

    def _tell_who_left(self, node: Node, rumour: bytes) -> None:
        """If another one left under its name, it is there and refutes this at once: nobody gossips
        to those who left, so that it would not hear of it before its next push/pull."""
        by_name = self.config.addressed_by_name
        if by_name is None or not by_name(node.name):
            self._packets.send_alone(node.name, node.address, rumour)

    def _tick_push_pull(self, now: float) -> None:
        scale = push_pull_scale(len(self._membership.nodes))
        interval_s = self.config.push_pull_interval_s * scale
        self._timers.add(now + interval_s, self._tick_push_pull)
        me = self.config.name
        peers = self._membership.random_nodes(
            1, lambda node: node.state is NodeState.ALIVE and node.name != me
        )
        for peer in peers:
            self._streams.push_pull(peer.name, peer.address, False, now, self._log_failure)

    def _log_failure(self, error: str | None) -> None:
        if error is not None:
            self.counters.push_pulls_failed += 1
            self.log.error("push/pull failed: %s", error)

    def _leave_done(self) -> None:
        if not self._left:
            self._left = True
            self._emit(LeaveDone())


def _unsupported(body: bytes, source: Address, now: float) -> None:
    raise WireError("message type not supported")
