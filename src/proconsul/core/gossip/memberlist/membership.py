"""Who is in the cluster. Everything that changes a node's state lives in this file.

The rules are those of SWIM with Lifeguard as in memberlist 0.2.2 `state.go`: a higher incarnation
wins; at the same incarnation dead beats suspect beats alive; only the node itself raises its
incarnation, to refute.

    (unknown) --alive--> ALIVE --suspect--> SUSPECT --timeout, dead--> DEAD --alive--> ALIVE
    ALIVE, SUSPECT --dead from itself--> LEFT --alive--> ALIVE
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from proconsul.core.gossip.memberlist.awareness import Awareness
from proconsul.core.gossip.memberlist.broadcast import BroadcastQueue
from proconsul.core.gossip.memberlist.config import MemberlistConfig
from proconsul.core.gossip.memberlist.suspicion import Suspicion, suspicion_timeout_s
from proconsul.core.gossip.memberlist.timers import Timer, TimerHeap
from proconsul.core.gossip.memberlist.types import Address, Delegate, Node, host_of, packed
from proconsul.util.address import host_port
from proconsul.util.clock import Rng
from proconsul.wire.memberlist import (
    Alive,
    Dead,
    NodeRow,
    NodeState,
    Suspect,
    encode_alive,
    encode_dead,
    encode_suspect,
)

NODES_MAX = 200_000
"""Members and remembered dead; beyond it new names are ignored."""
META_BYTES_MAX = 512
_OUTLIVE_S = 5.0
_CLAIM_S = 60.0
_ALIVE, _SUSPECT, _DEAD, _LEFT = NodeState


class Membership:
    """The table of nodes and the rumours about them."""

    def __init__(
        self,
        config: MemberlistConfig,
        delegate: Delegate,
        rng: Rng,
        timers: TimerHeap,
        log: logging.Logger,
    ) -> None:
        self._config = config
        self._delegate = delegate
        self._rng = rng
        self._timers = timers
        self._log = log
        self.nodes: dict[str, Node] = {}
        self._ring: list[Node] = []
        """The same nodes in the order in which they are probed."""
        self._ring_index = 0
        self._suspicions: dict[str, tuple[Suspicion, Timer]] = {}
        self._incarnation = 0
        self._outlive_at = float("-inf")
        self._claims: dict[str, tuple[Alive, float]] = {}
        """Newer incarnations at other addresses that were refused since the node seemed alive."""
        self.leaving = False
        self.on_left: Callable[[Node, bytes], None] = lambda node, rumour: None
        """Called with another node that is said to have left, and with the rumour that says so."""
        self.awareness = Awareness(config.awareness_max_multiplier)
        self.broadcasts = BroadcastQueue(lambda: len(self.nodes), config.retransmit_mult)

    # --- the local node ------------------------------------------------------------------------

    def announce(self, now: float) -> None:
        """Enter ourselves, or tell all about our new meta."""
        meta = self._delegate.node_meta(META_BYTES_MAX)
        if len(meta) > META_BYTES_MAX:
            raise ValueError("node meta is longer than the limit")
        host, port = self._config.advertise
        self._incarnation += 1
        alive = Alive(
            self._incarnation, self._config.name, packed(host), port, meta, self._config.versions
        )
        self.alive(alive, now, bootstrap=True)

    def leave(self, now: float, finished: Callable[[], None]) -> None:
        """Declare ourselves gone; `finished` is called once the rumour has been spread."""
        self.leaving = True
        me = self.nodes[self._config.name]
        self.dead(Dead(me.incarnation, me.name, me.name), now, finished)

    def anyone_else(self) -> bool:
        """Whether another node is alive or suspect."""
        me = self._config.name
        return any(not node.gone and node.name != me for node in self._ring)

    def _refute(self, me: Node, accused_incarnation: int) -> None:
        """Outbid the accusation, and trust ourselves less."""
        self._incarnation = max(self._incarnation, accused_incarnation) + 1
        me.incarnation = self._incarnation
        self.awareness.apply(1)
        alive = Alive(me.incarnation, me.name, me.addr, me.port, me.meta, me.versions)
        self.broadcasts.queue(encode_alive(alive), me.name)

    def name_at(self, address: Address) -> str:
        """The name of the node at `address`, or "". Peers older than Consul 1.8 do not tell it."""
        return next((node.name for node in self._ring if node.address == address), "")

    # --- rumours -------------------------------------------------------------------------------

    def alive(self, m: Alive, now: float, bootstrap: bool = False) -> None:
        """`m.node` is said to be alive; `bootstrap` marks what we say of ourselves."""
        me = m.node == self._config.name
        if self.leaving and me:
            return
        node = self.nodes.get(m.node)
        if (
            node is not None
            and not me
            and m.incarnation <= node.incarnation
            and m.addr == node.addr
            and m.port == node.port
        ):
            return  # the usual case: old news
        if not bootstrap and not self._acceptable(m):
            return
        reclaimed = False
        if node is None:
            node = self._insert(m, now)
            if node is None:
                return
        elif not _same_place(node, m):
            if not self._may_move(node, m, now):
                return
            reclaimed = True
        if me:
            if m.incarnation < node.incarnation:
                return
        elif m.incarnation <= node.incarnation and not reclaimed:
            return
        self._end_suspicion(m.node)
        if me and not bootstrap:
            # A restart with other settings meets its own older self at the same incarnation.
            if (m.incarnation, m.meta, m.versions) == (node.incarnation, node.meta, node.versions):
                return
            self._log.warning("refuting an alive message for %r", m.node)
            self._refute(node, m.incarnation)
            return
        self.broadcasts.queue(encode_alive(m), m.node)
        old_state, old_meta = node.state, node.meta
        node.incarnation, node.meta = m.incarnation, m.meta
        if m.versions:
            node.versions = m.versions
        node.set_address(m.addr, m.port)
        if old_state is not _ALIVE:
            node.state, node.state_change = _ALIVE, now
        if old_state >= _DEAD:
            self._delegate.notify_join(node)
        elif old_meta != m.meta or reclaimed:
            self._delegate.notify_update(node)

    def suspect(self, m: Suspect, now: float) -> None:
        """`m.source` got no answer from `m.node`."""
        node = self.nodes.get(m.node)
        if node is None or m.incarnation < node.incarnation:
            return
        running = self._suspicions.get(m.node)
        if running is not None:
            suspicion, timer = running
            if suspicion.confirm(m.source, now):
                timer.cancel()
                timer = self._timers.add(suspicion.deadline, lambda at: self._expire(node, at))
                self._suspicions[m.node] = suspicion, timer
                self.broadcasts.queue(encode_suspect(m), m.node)
            return
        if node.state is not _ALIVE:
            return
        if m.node == self._config.name:
            self._log.warning("refuting a suspect message (from: %s)", m.source)
            self._refute(node, m.incarnation)
            return
        self.broadcasts.queue(encode_suspect(m), m.node)
        node.incarnation, node.state, node.state_change = m.incarnation, _SUSPECT, now
        config, count = self._config, len(self.nodes)
        # Two probe intervals short of the nominal timeout; none if too few could confirm.
        wanted = config.suspicion_mult - 2
        if count - 2 < wanted:
            wanted = 0
        min_s = suspicion_timeout_s(config.suspicion_mult, count, config.probe_interval_s)
        max_s = config.suspicion_max_timeout_mult * min_s
        suspicion = Suspicion(m.source, wanted, min_s, max_s, now)
        timer = self._timers.add(suspicion.deadline, lambda at: self._expire(node, at))
        self._suspicions[m.node] = suspicion, timer
        claim, at = self._claims.pop(m.node, (None, now))
        if claim is not None and now - at < _CLAIM_S:
            self.alive(claim, now)

    def dead(self, m: Dead, now: float, finished: Callable[[], None] | None = None) -> None:
        """`m.node` is declared dead, or, if by itself, has left."""
        node = self.nodes.get(m.node)
        if node is None or m.incarnation < node.incarnation:
            return
        self._end_suspicion(m.node)
        if node.gone:
            return
        if m.node == self._config.name and not self.leaving:
            self._log.warning("refuting a dead message (from: %s)", m.source)
            self._refute(node, m.incarnation)
            return
        rumour = encode_dead(m)
        self.broadcasts.queue(rumour, m.node, finished)
        node.incarnation, node.state_change = m.incarnation, now
        node.state = _LEFT if m.node == m.source else _DEAD
        self._delegate.notify_leave(node)
        if node.state is _LEFT and m.node != self._config.name:
            self.on_left(node, rumour)

    def merge(self, rows: Iterable[NodeRow], now: float) -> None:
        """Take over a peer's view. Whom it holds for dead we only suspect."""
        me, nodes = self._config.name, self.nodes
        for row in rows:
            if row.state is _ALIVE:
                known = nodes.get(row.name)
                # Nearly all rows of nearly all push/pulls tell nothing new.
                if (
                    known is not None
                    and row.incarnation <= known.incarnation
                    and row.addr == known.addr
                    and row.port == known.port
                    and row.name != me
                ):
                    continue
                self.alive(
                    Alive(row.incarnation, row.name, row.addr, row.port, row.meta, row.versions),
                    now,
                )
            elif row.state is _LEFT:
                self.dead(Dead(row.incarnation, row.name, row.name), now)
            else:
                self.suspect(Suspect(row.incarnation, row.name, me), now)

    def _acceptable(self, m: Alive) -> bool:
        versions = m.versions
        if versions:
            low, high, _ = versions[:3]
            if low == 0 or high == 0 or low > high:
                self._log.warning("ignoring alive message for %r: bad protocol versions", m.node)
                return False
        else:
            self._log.warning("ignoring alive message for %r: no versions", m.node)
            return False
        reason = self._delegate.notify_alive(
            Node(m.node, m.addr, m.port, m.meta, versions, _ALIVE, m.incarnation)
        )
        if reason is not None:
            self._log.warning("ignoring alive message for %r: %s", m.node, reason)
        return reason is None

    def _allowed(self, m: Alive) -> bool:
        allowed = self._config.address_allowed
        if allowed is None or m.node == self._config.name or allowed(host_of(m.addr)):
            return True
        self._log.warning("rejected node %r: %s is not allowed", m.node, host_of(m.addr))
        return False

    def _insert(self, m: Alive, now: float) -> Node | None:
        if not self._allowed(m):
            return None
        if len(self.nodes) >= NODES_MAX:
            self._log.error("more than %d nodes, ignoring %r", NODES_MAX, m.node)
            return None
        node = Node(m.node, m.addr, m.port, m.meta, m.versions, _DEAD, 0, now)
        self.nodes[m.node] = node
        ring = self._ring
        # At a random place, which keeps the time to detect a failure low on average.
        ring.append(node)
        place = self._rng.randrange(len(ring))
        ring[place], ring[-1] = ring[-1], ring[place]
        return node

    def _may_move(self, node: Node, m: Alive, now: float) -> bool:
        """Whether another address may take a name.

        That of a node that left, or died long ago; and where the configuration allows it, that of
        a node which its own, newer incarnation says to be elsewhere.
        """
        if not self._allowed(m):
            return False
        if m.node == self._config.name:
            self._outlive(node, m, now)
        reclaim_s = self._config.dead_node_reclaim_s
        dead_long = reclaim_s > 0 and now - node.state_change > reclaim_s
        if (
            node.state is _LEFT
            or (node.state is _DEAD and dead_long)
            or (m.incarnation > node.incarnation and self._moves_freely(node))
        ):
            self._log.info(
                "updating address for left or failed node %s from %s to %s",
                node.name, host_port(node.address), host_port((host_of(m.addr), m.port)),
            )  # fmt: skip
            return True
        self._log.error(
            "conflicting address for %s. Mine: %s Theirs: %s Old state: %s",
            node.name, host_port(node.address), host_port((host_of(m.addr), m.port)),
            node.state.name,
        )  # fmt: skip
        if self._config.suspects_may_move and m.incarnation > node.incarnation:
            self._claims[m.node] = m, now
        other = Node(m.node, m.addr, m.port, m.meta, m.versions, _ALIVE, m.incarnation)
        self._delegate.notify_conflict(node, other)
        return False

    def _moves_freely(self, node: Node) -> bool:
        by_name = self._config.addressed_by_name
        if by_name is not None and by_name(node.name):
            return True
        return self._config.suspects_may_move and node.state in {_SUSPECT, _DEAD}

    def _outlive(self, me: Node, m: Alive, now: float) -> None:
        """Someone remembers us at an address that we had before a restart: be newer than that.

        Seldom, so that two living nodes of one name do not outbid each other all the time.
        """
        moves = self._config.suspects_may_move or self._config.addressed_by_name is not None
        if moves and m.incarnation >= me.incarnation and now >= self._outlive_at:
            self._outlive_at = now + _OUTLIVE_S
            self._log.warning(
                "we are remembered at %s, we are at %s",
                host_port((host_of(m.addr), m.port)),
                host_port(me.address),
            )
            self._refute(me, m.incarnation)

    def _end_suspicion(self, name: str) -> None:
        running = self._suspicions.pop(name, None)
        if running is not None:
            running[1].cancel()

    def _expire(self, node: Node, now: float) -> None:
        """Nobody refuted in time."""
        running = self._suspicions.pop(node.name, None)
        if running is None or node.state is not _SUSPECT:
            return
        self._log.info(
            "marking %s as failed, suspect timeout reached (%d peer confirmations)",
            node.name,
            running[0].confirmations,
        )
        self.dead(Dead(node.incarnation, node.name, self._config.name), now)

    # --- choosing nodes ------------------------------------------------------------------------

    def next_probe(self, now: float) -> Node | None:
        """The next node of the ring worth probing. Each full turn forgets the old dead."""
        checked = 0
        while checked < len(self._ring) + 1:
            if self._ring_index >= len(self._ring):
                self._reset_ring(now)
                self._ring_index = 0
                checked += 1
                if not self._ring:
                    return None
                continue
            node = self._ring[self._ring_index]
            self._ring_index += 1
            if node.name != self._config.name and not node.gone:
                return node
            checked += 1
        return None

    def _reset_ring(self, now: float) -> None:
        keep_s = self._config.gossip_to_the_dead_s
        kept = []
        for node in self._ring:
            # Those who left go too, as in later memberlists: 0.2.2 keeps them for ever.
            aged = node.gone and now - node.state_change > keep_s
            if aged and node.name != self._config.name:
                del self.nodes[node.name]
                self._claims.pop(node.name, None)
            else:
                kept.append(node)
        self._rng.shuffle(kept)
        self._ring = kept

    def random_nodes(self, count: int, wanted: Callable[[Node], bool]) -> list[Node]:
        """Up to `count` different nodes that are `wanted`, found in at most 3n draws."""
        ring, draw = self._ring, self._rng.random
        size = len(ring)
        found: list[Node] = []
        for _ in range(3 * size):
            node = ring[int(draw() * size)]
            if wanted(node) and node not in found:
                found.append(node)
                if len(found) >= count:
                    break
        return found

    def rows(self) -> list[NodeRow]:
        """Everything we know, for a push/pull."""
        return [
            NodeRow(n.name, n.addr, n.port, n.meta, n.incarnation, n.state, n.versions)
            for n in self._ring
        ]

    def incompatible(self, rows: Sequence[NodeRow]) -> str | None:
        """Why `rows` cannot be merged: a node that speaks a version not all understand.

        The common ground is the highest minimum and lowest maximum of all alive nodes, for the
        protocol and for the delegate's.
        """
        spans = [r.versions for r in rows if r.state is _ALIVE and r.versions]
        spans += {n.versions for n in self._ring if n.state is _ALIVE}
        if not spans:
            return None
        speakers = {r.versions or bytes(6): r.name for r in rows}
        speakers.update((n.versions, n.name) for n in self._ring)
        for offset, label in ((0, "protocol"), (3, "delegate protocol")):
            low = max(v[offset] for v in spans)
            high = min(v[offset + 1] for v in spans)
            for versions, name in speakers.items():
                if not low <= versions[offset + 2] <= high:
                    return (
                        f"Node '{name}' {label} version ({versions[offset + 2]}) "
                        f"is incompatible: [{low}, {high}]"
                    )
        return None


def _same_place(node: Node, m: Alive) -> bool:
    return node.port == m.port and (node.addr == m.addr or node.address[0] == host_of(m.addr))
