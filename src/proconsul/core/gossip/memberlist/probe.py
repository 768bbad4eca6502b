"""Failure detection: direct probe, indirect probes through peers, fallback ping over a stream.

Follows memberlist 0.2.2 `state.go` (`probeNode`) and Lifeguard: the probe interval grows with our
own ill health, and missing nacks from helpers count against ourselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from proconsul.core.gossip.memberlist.config import MemberlistConfig
from proconsul.core.gossip.memberlist.membership import Membership
from proconsul.core.gossip.memberlist.packets import PacketSender
from proconsul.core.gossip.memberlist.timers import Timer, TimerHeap
from proconsul.core.gossip.memberlist.types import Address, Delegate, Node, host_of, packed
from proconsul.util.address import host_port
from proconsul.wire.memberlist import (
    Ack,
    IndirectPing,
    Nack,
    NodeState,
    Ping,
    Suspect,
    encode_ack,
    encode_indirect_ping,
    encode_nack,
    encode_ping,
    encode_suspect,
)
from proconsul.wire.memberlist_packet import make_compound

_NACK_VERSION = 4
_STREAM_PING_VERSION = 3
_WAITING_MAX = 4096
"""Pings we have out for ourselves and for others; beyond it requests for others are dropped."""

StreamPing = Callable[[Node, Ping, float, Callable[[], None]], None]


class _Waiting(Protocol):
    """Someone waits for the answer to a sequence number."""

    def on_ack(self, payload: bytes, now: float) -> None: ...
    def on_nack(self) -> None: ...


class _Relay:
    """We ping for a peer that cannot reach the target itself."""

    __slots__ = ("_origin", "_prober", "_request", "_seq_no", "_timer")

    def __init__(self, prober: Prober, seq_no: int, request: IndirectPing, origin: Address) -> None:
        self._prober = prober
        self._seq_no = seq_no
        self._request = request
        self._origin = origin
        self._timer: Timer | None = None

    def start(self, now: float) -> None:
        prober, request = self._prober, self._request
        self._timer = prober.timers.add(now + prober.config.probe_timeout_s, self._timed_out)
        target = host_of(request.target), request.port
        prober.packets.send(request.node, target, prober.ping(self._seq_no, request.node))

    def on_ack(self, payload: bytes, now: float) -> None:
        self._prober.forget(self._seq_no)
        if self._timer is not None:
            self._timer.cancel()
        self._answer(encode_ack(Ack(self._request.seq_no)))

    def on_nack(self) -> None:
        """We asked directly: nobody sends us one."""

    def _timed_out(self, now: float) -> None:
        self._prober.forget(self._seq_no)
        if self._request.nack:
            self._answer(encode_nack(Nack(self._request.seq_no)))

    def _answer(self, message: bytes) -> None:
        self._prober.packets.send(self._request.source_node, self._origin, message)


class _Probe:
    """One round with one node."""

    __slots__ = (
        "_deadline", "_direct", "_expected_nacks", "_incarnation", "_nacks", "_node", "_prober",
        "_sent", "_seq_no", "_streamed", "_timers",
    )  # fmt: skip

    def __init__(self, prober: Prober, seq_no: int, node: Node) -> None:
        self._prober = prober
        self._seq_no = seq_no
        self._node = node
        self._incarnation = node.incarnation
        self._direct = True
        self._streamed = False
        self._expected_nacks = self._nacks = 0
        self._sent = self._deadline = 0.0
        self._timers: list[Timer] = []

    def start(self, now: float) -> None:
        prober, node = self._prober, self._node
        config = prober.config
        self._sent = now
        self._deadline = now + prober.membership.awareness.scale(config.probe_interval_s)
        timers = prober.timers
        self._timers = [
            timers.add(min(now + config.probe_timeout_s, self._deadline), self._go_indirect),
            timers.add(self._deadline, self._give_up),
        ]
        ping = prober.ping(self._seq_no, node.name)
        if node.state is NodeState.ALIVE:
            prober.packets.send(node.name, node.address, ping)
        else:
            # Let it know what is said of it, so that it can refute at once.
            accusation = Suspect(node.incarnation, node.name, config.name)
            message = make_compound([ping, encode_suspect(accusation)])
            prober.packets.send_alone(node.name, node.address, message)

    def on_ack(self, payload: bytes, now: float) -> None:
        if self._direct:
            self._prober.delegate.notify_ping_complete(self._node, now - self._sent, payload)
        self._end(-1, now)

    def on_nack(self) -> None:
        self._nacks += 1

    def _go_indirect(self, now: float) -> None:
        prober, node = self._prober, self._node
        config = prober.config
        self._direct = False
        prober.log.debug("failed ping: %s (timeout reached)", node.name)
        helpers = prober.membership.random_nodes(
            config.indirect_checks,
            lambda n: n.state is NodeState.ALIVE and n.name not in {config.name, node.name},
        )
        own_host, own_port = config.advertise
        for helper in helpers:
            nack = helper.protocol_max >= _NACK_VERSION
            self._expected_nacks += nack
            request = IndirectPing(
                self._seq_no, node.addr, node.port, node.name, nack,
                packed(own_host), own_port, config.name,
            )  # fmt: skip
            prober.packets.send(helper.name, helper.address, encode_indirect_ping(request))
        disabled = config.disable_tcp_pings
        if node.protocol_max >= _STREAM_PING_VERSION and not (disabled and disabled(node.name)):
            ping = Ping(self._seq_no, node.name, packed(own_host), own_port, config.name)
            prober.stream_ping(node, ping, self._deadline, self._on_stream_ack)

    def _on_stream_ack(self) -> None:
        self._streamed = True

    def _give_up(self, now: float) -> None:
        prober, node = self._prober, self._node
        if self._streamed:
            # Decided only now, to give the datagrams a chance: streams alone deserve a warning.
            prober.log.warning(
                "was able to connect to %s but other probes failed, network may be misconfigured",
                node.name,
            )
            self._end(-1, now)
            return
        # Helpers that sent neither ack nor nack make us doubt our own links.
        delta = max(0, self._expected_nacks - self._nacks) if self._expected_nacks else 1
        prober.log.info("suspect %s has failed, no acks received", node.name)
        prober.membership.suspect(Suspect(self._incarnation, node.name, prober.config.name), now)
        self._end(delta, now)

    def _end(self, health_delta: int, now: float) -> None:
        for timer in self._timers:
            timer.cancel()
        self._prober.forget(self._seq_no)
        self._prober.membership.awareness.apply(health_delta)
        self._prober.probe_ended(now)


class Prober:
    """Probes one node of the ring per interval, and pings on behalf of peers."""

    def __init__(
        self,
        config: MemberlistConfig,
        delegate: Delegate,
        membership: Membership,
        packets: PacketSender,
        timers: TimerHeap,
        stream_ping: StreamPing,
        log: logging.Logger,
    ) -> None:
        self.config = config
        self.delegate = delegate
        self.membership = membership
        self.packets = packets
        self.timers = timers
        self.stream_ping = stream_ping
        self.log = log
        self._waiting: dict[int, _Waiting] = {}
        self._seq_no = 0
        self._probing = False
        self._tick_missed = False

    def tick(self, now: float) -> None:
        """One probe interval has passed. A probe that still runs takes the place of the next."""
        if self._probing:
            self._tick_missed = True
            return
        node = self.membership.next_probe(now)
        if node is not None:
            self._probing = True
            probe = _Probe(self, self._next_seq_no(), node)
            self._waiting[self._seq_no] = probe
            probe.start(now)

    def probe_ended(self, now: float) -> None:
        """Called by a probe; makes up for a tick that it swallowed."""
        self._probing = False
        if self._tick_missed:
            self._tick_missed = False
            self.timers.add(now, self.tick)

    def ping(self, seq_no: int, node: str) -> bytes:
        """An encoded ping that is to be answered to us."""
        host, port = self.config.advertise
        return encode_ping(Ping(seq_no, node, packed(host), port, self.config.name))

    def forget(self, seq_no: int) -> None:
        """Nobody waits for this any more."""
        self._waiting.pop(seq_no, None)

    def on_ping(self, m: Ping, source: Address) -> None:
        """Answer; to whom the ping says, since `source` may be a gateway."""
        if m.node and m.node != self.config.name:
            self.log.warning("got ping for unexpected node %r from %s", m.node, host_port(source))
            return
        ack = encode_ack(Ack(m.seq_no, self.delegate.ack_payload()))
        self.packets.send(m.source_node, _origin(m, source), ack)

    def on_indirect_ping(self, m: IndirectPing, source: Address, now: float) -> None:
        """Ping someone for a peer."""
        if len(self._waiting) >= _WAITING_MAX or not m.target:
            self.log.warning("dropped an indirect ping from %s", host_port(source))
            return
        seq_no = self._next_seq_no()
        relay = _Relay(self, seq_no, m, _origin(m, source))
        self._waiting[seq_no] = relay
        relay.start(now)

    def on_ack(self, m: Ack, now: float) -> None:
        """Someone answered; late answers are ignored."""
        waiting = self._waiting.get(m.seq_no)
        if waiting is not None:
            waiting.on_ack(m.payload, now)

    def on_nack(self, m: Nack) -> None:
        """A helper got no answer."""
        waiting = self._waiting.get(m.seq_no)
        if waiting is not None:
            waiting.on_nack()

    def _next_seq_no(self) -> int:
        self._seq_no = (self._seq_no + 1) & 0xFFFFFFFF
        return self._seq_no


def _origin(m: Ping | IndirectPing, source: Address) -> Address:
    if m.source_addr and m.source_port:
        return host_of(m.source_addr), m.source_port
    return source
