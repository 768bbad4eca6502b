"""A deterministic network for gossip machines: latency, loss, partitions and a clock of its own.

Works with anything that has `Memberlist`'s inputs (`Serf` too). Outputs that the network does not
carry go to the host's `on_output`. One seed decides everything, so print it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from proconsul.core.gossip.memberlist import (
    CloseStream,
    Node,
    OpenStream,
    SendPacket,
    WriteStream,
)

Address = tuple[str, int]


class GossipMachine(Protocol):
    """The inputs that the network feeds; see `core.gossip.memberlist.Memberlist`."""

    def start(self, now: float) -> None: ...
    def handle_packet(self, data: bytes, source: Address, now: float) -> None: ...
    def stream_accepted(self, sid: int, source: Address, now: float) -> None: ...
    def stream_connected(self, sid: int, now: float) -> None: ...
    def stream_data(self, sid: int, data: bytes, now: float) -> None: ...
    def stream_eof(self, sid: int, now: float) -> None: ...
    def stream_failed(self, sid: int, reason: str, now: float) -> None: ...
    def handle_timer(self, now: float) -> None: ...
    def get_timer(self) -> float | None: ...
    def take_outputs(self) -> list[Any]: ...


class RecordingDelegate:
    """A `memberlist.Delegate` that adds nothing, allows everything and remembers what it was told.

    `events` holds (kind, node name) of joins, leaves and updates. Set `refuse_merge` or
    `refuse_alive` to a reason to refuse.
    """

    def __init__(self, meta: bytes = b"", state: bytes = b"") -> None:
        self.meta = meta
        self.state = state
        self.events: list[tuple[str, str]] = []
        self.messages: list[bytes] = []
        self.states: list[bytes] = []
        self.conflicts: list[tuple[Node, Node]] = []
        self.rtts_s: list[tuple[str, float, bytes]] = []
        self.broadcasts: list[bytes] = []
        self.refuse_merge: str | None = None
        self.refuse_alive: str | None = None

    def node_meta(self, limit: int) -> bytes:
        """`meta`."""
        return self.meta[:limit]

    def notify_message(self, data: bytes) -> None:
        """Remembered in `messages`."""
        self.messages.append(data)

    def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
        """`broadcasts`, once."""
        taken, self.broadcasts = self.broadcasts, []
        return taken

    def local_state(self, join: bool) -> bytes:
        """`state`."""
        return self.state

    def merge_remote_state(self, data: bytes, join: bool) -> None:
        """Remembered in `states`."""
        self.states.append(data)

    def notify_join(self, node: Node) -> None:
        """Remembered in `events`."""
        self.events.append(("join", node.name))

    def notify_leave(self, node: Node) -> None:
        """Remembered in `events`."""
        self.events.append(("leave", node.name))

    def notify_update(self, node: Node) -> None:
        """Remembered in `events`."""
        self.events.append(("update", node.name))

    def notify_conflict(self, existing: Node, other: Node) -> None:
        """Remembered in `conflicts`."""
        self.conflicts.append((existing, other))

    def notify_merge(self, peers: Sequence[Node]) -> str | None:
        """`refuse_merge`."""
        return self.refuse_merge

    def notify_alive(self, peer: Node) -> str | None:
        """`refuse_alive`."""
        return self.refuse_alive

    def ack_payload(self) -> bytes:
        """A constant."""
        return b"payload"

    def notify_ping_complete(self, node: Node, rtt_s: float, payload: bytes) -> None:
        """Remembered in `rtts_s`."""
        self.rtts_s.append((node.name, rtt_s, payload))


class SimHost:
    """A machine at an address."""

    __slots__ = ("address", "alive", "group", "machine", "on_output", "peers", "sids", "wake")

    def __init__(
        self, machine: GossipMachine, address: Address, on_output: Callable[[Any], None]
    ) -> None:
        self.machine = machine
        self.address = address
        self.on_output = on_output
        self.alive = True
        self.group = 0
        """Hosts of different groups do not reach each other."""
        self.wake = float("inf")
        self.peers: dict[int, tuple[SimHost, int]] = {}
        """Our stream id -> the other end and its id there."""
        self.sids = 1


class SimNet:
    """The network and its clock. `latency_s` is a range; `loss` is the chance to lose a packet."""

    def __init__(
        self, seed: int, latency_s: tuple[float, float] = (0.0005, 0.005), loss: float = 0.0
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.latency_s = latency_s
        self.loss = loss
        self.packets_sent = 0
        self.bytes_sent = 0
        self.hosts: dict[Address, SimHost] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._carry: dict[type, Callable[[SimHost, Any], None]] = {
            SendPacket: self._send,
            OpenStream: self._open,
            WriteStream: self._write,
            CloseStream: self._close,
        }

    def add(
        self,
        machine: GossipMachine,
        address: Address,
        on_output: Callable[[Any], None] = lambda _: None,
    ) -> SimHost:
        """Put a machine on the net and start it."""
        host = SimHost(machine, address, on_output)
        self.hosts[address] = host
        machine.start(self.now)
        self.pump(host)
        return host

    def kill(self, host: SimHost) -> None:
        """The host vanishes, like by kill -9: its peers' streams break."""
        host.alive = False
        self.hosts.pop(host.address, None)
        for sid, (peer, peer_sid) in list(host.peers.items()):
            del host.peers[sid]
            self._later(partial(self._broken, peer, peer_sid, "connection reset"))

    def partition(self, hosts: Iterable[SimHost], group: int = 1) -> None:
        """Move `hosts` into `group`, apart from all other groups."""
        for host in hosts:
            host.group = group

    def heal(self) -> None:
        """End all partitions."""
        for host in self.hosts.values():
            host.group = 0

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Run `action` at `when`."""
        self._serial += 1
        heapq.heappush(self._events, (when, self._serial, action))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self._run(self.now + seconds)

    def run_until(self, reached: Callable[[], bool], seconds: float, step_s: float = 0.5) -> bool:
        """Let time pass until `reached`, asked every `step_s`; False if it is not in `seconds`."""
        end = self.now + seconds
        while not reached():
            if self.now >= end:
                return False
            self._run(min(self.now + step_s, end))
        return True

    def pump(self, host: SimHost) -> None:
        """Do what the machine wants done. To be called after every input from outside the net."""
        for output in host.machine.take_outputs():
            carry = self._carry.get(type(output))
            if carry is None:
                host.on_output(output)
            else:
                carry(host, output)
        when = host.machine.get_timer()
        if when is not None and when < host.wake:
            host.wake = when
            self.at(max(when, self.now), lambda: self._wake(host, when))

    # --- events --------------------------------------------------------------------------------

    def _run(self, end: float) -> None:
        events = self._events
        while events and events[0][0] <= end:
            self.now, _serial, action = heapq.heappop(events)
            action()
        self.now = end

    def _wake(self, host: SimHost, when: float) -> None:
        if not host.alive or host.wake != when:
            return
        host.wake = float("inf")
        host.machine.handle_timer(self.now)
        self.pump(host)

    def _later(self, action: Callable[[], None]) -> None:
        low, high = self.latency_s
        self.at(self.now + low + (high - low) * self.rng.random(), action)

    def _reachable(self, a: SimHost, b: SimHost | None) -> bool:
        return b is not None and a.alive and b.alive and a.group == b.group

    def _send(self, host: SimHost, packet: SendPacket) -> None:
        self.packets_sent += 1
        self.bytes_sent += len(packet.data)
        target = self.hosts.get(packet.address)
        if target is None or target.group != host.group or self.rng.random() < self.loss:
            return
        data, source = packet.data, host.address

        def deliver() -> None:
            if target.alive:
                target.machine.handle_packet(data, source, self.now)
                self.pump(target)

        self._later(deliver)

    def _open(self, host: SimHost, request: OpenStream) -> None:
        target = self.hosts.get(request.address)

        def arrive() -> None:
            if not host.alive:
                return
            if target is None or not target.alive:
                host.machine.stream_failed(request.sid, "connection refused", self.now)
                self.pump(host)
            elif target.group == host.group:
                target.sids += 2
                sid = target.sids
                host.peers[request.sid] = target, sid
                target.peers[sid] = host, request.sid
                target.machine.stream_accepted(sid, host.address, self.now)
                self.pump(target)
                host.machine.stream_connected(request.sid, self.now)
                self.pump(host)
            # Across a partition nothing comes back: the machine's own deadline ends it.

        self._later(arrive)

    def _write(self, host: SimHost, output: WriteStream) -> None:
        peer, peer_sid = host.peers.get(output.sid, (None, 0))
        if peer is None or not self._reachable(host, peer):
            return
        data = output.data
        self.bytes_sent += len(data)
        self._in_order(lambda: self._data(peer, peer_sid, data))

    def _close(self, host: SimHost, output: CloseStream) -> None:
        peer, peer_sid = host.peers.pop(output.sid, (None, 0))
        if peer is None or not self._reachable(host, peer):
            return
        self._in_order(lambda: self._eof(peer, peer_sid))

    def _in_order(self, action: Callable[[], None]) -> None:
        # Streams do not reorder: their pieces all take the longest latency.
        self.at(self.now + self.latency_s[1], action)

    def _data(self, host: SimHost, sid: int, data: bytes) -> None:
        if host.alive and sid in host.peers:
            host.machine.stream_data(sid, data, self.now)
            self.pump(host)

    def _eof(self, host: SimHost, sid: int) -> None:
        if host.alive and host.peers.pop(sid, None) is not None:
            host.machine.stream_eof(sid, self.now)
            self.pump(host)

    def _broken(self, host: SimHost, sid: int, reason: str) -> None:
        if host.alive and host.peers.pop(sid, None) is not None:
            host.machine.stream_failed(sid, reason, self.now)
            self.pump(host)
