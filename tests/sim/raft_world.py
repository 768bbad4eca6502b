"""A deterministic world of Raft machines: virtual time, faulty network, disks that lose writes."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from proconsul.core.raft.log import Compacted, Log
from proconsul.core.raft.machine import Raft
from proconsul.core.raft.membership import of_entry
from proconsul.core.raft.types import (
    Channel,
    Config,
    Output,
    Reply,
    Role,
    RoleChanged,
    Send,
    SnapshotMeta,
    Verified,
)
from proconsul.drivers.raft.store import MemoryStore
from proconsul.wire.raft import (
    Configuration,
    Entry,
    InstallSnapshotRequest,
    LogType,
    Response,
    Server,
    Suffrage,
    encode_configuration,
)

CONFIG = Config(trailing_logs=10, append_entries_max=8, inflight_max=8)
RPC_TIMEOUT_S = 0.8


@dataclass
class Disk:
    """What survives a crash."""

    store: MemoryStore = field(default_factory=MemoryStore)
    snapshot: SnapshotMeta | None = None
    state: tuple[Entry, ...] = ()


class Node:
    """One server: machine, disk, applied entries."""

    def __init__(self, world: World, name: str, disk: Disk) -> None:
        self.world, self.name, self.disk = world, name, disk
        self.life = world.lives = world.lives + 1
        self.alive = True
        snapshot = disk.snapshot
        self.applied = list(disk.state)
        self.applied_index = snapshot.index if snapshot else 0
        self.applied_term = snapshot.term if snapshot else 0
        self.members = snapshot.configuration if snapshot else Configuration()
        self.members_index = snapshot.configuration_index if snapshot else 0
        log = Log(disk.store, self.applied_index, self.applied_term)
        self.core = Raft(CONFIG, name, name, log, disk.store.hard_state(), snapshot, world.rng)
        self.unwritten: list[Output] = []
        self.writing = False
        self.armed: float | None = None
        self.core.start(world.now)

    def pump(self) -> None:
        """Carry out what the machine wants."""
        world = self.world
        while self.alive and (out := self.core.take_output()) is not None:
            world.send(self, out.send)
            if out.writes or out.send_durable:
                self.unwritten.append(out)
                self.write()
            if out.commit_index:
                self.apply(out.commit_index)
            for event in out.events:
                if isinstance(event, RoleChanged) and event.role is Role.LEADER:
                    world.elected(self, event.term)
                if isinstance(event, Verified):
                    world.verified(self, event)
        at = self.core.get_timer() if self.alive else None
        if at is not None and (self.armed is None or at < self.armed):
            self.armed = at
            world.at(max(at, world.now), self.life, lambda: self.tick(at))

    def tick(self, armed: float) -> None:
        if armed != self.armed:
            return
        self.armed = None
        at = self.core.get_timer()
        if at is not None and self.world.now >= at:
            self.core.handle_timer(self.world.now)
            after = self.core.get_timer()
            assert after is None or after > self.world.now, "the timer spins"
        self.pump()

    def write(self) -> None:
        """Start the disk on all that waits, unless it is at work."""
        if self.writing or not self.unwritten:
            return
        self.writing = True
        batch, self.unwritten = self.unwritten, []

        def done() -> None:
            self.writing = False
            self.disk.store.write(batch)
            for out in batch:
                self.world.send(self, out.send_durable)
            self.core.persisted(batch[-1].seq, self.world.now)
            self.write()
            self.pump()

        self.world.at(self.world.now + self.world.rng.uniform(0.0001, 0.02), self.life, done)

    def apply(self, commit: int) -> None:
        while self.applied_index < commit:
            entry = self.core.state.log.get(self.applied_index + 1)
            self.applied_index, self.applied_term = entry.index, entry.term
            self.applied.append(entry)
            if (configuration := of_entry(entry)) is not None:
                self.members, self.members_index = configuration, entry.index
            self.world.applied(self, entry)

    def take_snapshot(self) -> None:
        meta = SnapshotMeta(self.applied_index, self.applied_term, self.members, self.members_index)
        if meta.index > self.core.state.log.snapshot_index:
            self.disk.snapshot, self.disk.state = meta, tuple(self.applied)
            self.core.compact(meta.index, meta.term)
            self.pump()

    def install(self, meta: SnapshotMeta, state: tuple[Entry, ...], term: int) -> bool:
        core = self.core
        if not core.snapshot_wanted(meta.index):
            core.snapshot_aborted(self.world.now)
        elif core.state.term != term or core.state.role is Role.LEADER:
            core.snapshot_aborted(self.world.now)
            return False
        else:
            self.disk.snapshot, self.disk.state = meta, state
            self.applied = list(state)
            self.applied_index, self.applied_term = meta.index, meta.term
            self.members, self.members_index = meta.configuration, meta.configuration_index
            core.snapshot_installed(meta, self.world.now)
        return True


class World:
    """The network and the checks. `seed` decides everything."""

    def __init__(self, seed: int, names: list[str], voters: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.lives = 0
        self._events: list[tuple[float, int, int, Callable[[], None]]] = []
        self._count = 0
        self.loss = 0.0
        self.cut: set[tuple[str, str]] = set()
        self.leaders: dict[int, str] = {}
        self.history: dict[int, Entry] = {}
        self.committed_in: dict[int, int] = {}
        """A term that is not earlier than the one an entry was committed in."""
        self.acknowledged: dict[bytes, int] = {}
        self.proposed: dict[tuple[str, int, int], bytes] = {}
        self.reads = 0
        self.nodes: dict[str, Node] = {}
        self.disks = {name: Disk() for name in names}
        for name in names:
            self.boot(name)
        servers = tuple(Server(Suffrage.VOTER, name, name) for name in names[:voters])
        for name in names[:voters]:
            self.nodes[name].core.bootstrap(Configuration(servers), 0.0)
            self.nodes[name].pump()

    def at(self, when: float, life: int, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, life, action))

    def run(self, duration_s: float) -> None:
        until = self.now + duration_s
        while self._events and self._events[0][0] <= until:
            when, _, life, action = heapq.heappop(self._events)
            self.now = max(self.now, when)
            if life == 0 or any(n.life == life and n.alive for n in self.nodes.values()):
                action()
        self.now = until

    def boot(self, name: str) -> None:
        self.nodes[name] = Node(self, name, self.disks[name])
        self.nodes[name].pump()

    def crash(self, name: str) -> None:
        """Power off: what the disk had not finished is gone."""
        self.nodes[name].alive = False

    # -- network

    def _lost(self, source: str, target: str) -> bool:
        return (source, target) in self.cut or self.rng.random() < self.loss

    def _delay(self) -> float:
        return self.rng.uniform(0.0005, 0.02) * (10 if self.rng.random() < 0.02 else 1)

    def send(self, node: Node, items: list[Send | Reply]) -> None:
        for item in items:
            if isinstance(item, Reply):
                token = item.token
                assert callable(token)
                token(item.response)
            else:
                self._request(node, item)

    def _request(self, node: Node, send: Send) -> None:
        answered = False

        def answer(response: Response | None) -> None:
            """Runs at the target; brings the answer back."""
            if self._lost(send.server_id, node.name):
                return
            self.at(self.now + self._delay(), node.life, lambda: deliver(response))

        def deliver(response: Response | None) -> None:
            nonlocal answered
            if answered:
                return
            answered = True
            if send.channel is Channel.SNAPSHOT and response is not None:
                ok = getattr(response, "success")  # noqa: B009
                node.core.snapshot_sent(
                    send.rid,
                    response.term,
                    ok,
                    snapshot_index,
                    self.now,  # type: ignore[union-attr]
                )
            elif response is None:
                node.core.failed(send.rid, self.now)
            else:
                node.core.response(send.rid, response, self.now)
            node.pump()

        self.at(self.now + RPC_TIMEOUT_S, node.life, lambda: deliver(None))
        request, state = send.request, node.disk.state
        snapshot_index = 0
        meta = node.disk.snapshot
        if send.channel is Channel.SNAPSHOT:
            assert meta is not None
            snapshot_index = meta.index
            request = InstallSnapshotRequest(
                node.core.state.term, node.core.state.candidate_name, meta.index, meta.term,
                encode_configuration(meta.configuration), meta.configuration_index, 0,
            )  # fmt: skip
        if self._lost(node.name, send.server_id):
            return
        assert request is not None

        def arrive() -> None:
            target = self.nodes[send.server_id]
            if not target.alive:
                return
            refused = False

            def token(response: Response | None) -> None:
                nonlocal refused
                refused = True
                answer(response)

            target.core.request(token, request, self.now)
            target.pump()
            if isinstance(request, InstallSnapshotRequest) and not refused:
                assert meta is not None
                life = target.life

                def received() -> None:
                    from proconsul.wire.raft import InstallSnapshotResponse

                    assert meta is not None
                    ok = target.install(meta, state, request.term)
                    target.pump()
                    answer(InstallSnapshotResponse(target.core.state.term, ok))

                self.at(self.now + self._delay() * 3, life, received)

        self.at(self.now + self._delay(), 0, arrive)

    # -- clients and checks

    def leader(self) -> Node | None:
        leaders = [n for n in self.nodes.values() if n.alive and n.core.state.role is Role.LEADER]
        return max(leaders, key=lambda n: n.core.state.term, default=None)

    def propose(self, node: Node, data: bytes) -> None:
        index = node.core.propose([(LogType.COMMAND, data)], self.now)
        self.proposed[(node.name, node.core.state.term, index)] = data
        node.pump()

    def read(self, node: Node) -> None:
        """A consistent read: what was acknowledged before must be seen after `verify`."""
        state = node.core.state
        own_term = state.log.term(state.commit_index) == state.term
        seen = max(self.acknowledged.values(), default=0) if own_term else 0
        node.core.verify((seen, state.commit_index, state.term), self.now)
        node.pump()

    def verified(self, node: Node, event: Verified) -> None:
        assert isinstance(event.token, tuple)
        seen, commit, term = event.token
        if event.ok:
            self.reads += 1
            assert commit >= seen, f"{node.name} (term {term}) read stale data"

    def elected(self, node: Node, term: int) -> None:
        assert self.leaders.setdefault(term, node.name) == node.name, "two leaders in one term"
        log = node.core.state.log
        for index, entry in self.history.items():
            if self.committed_in[index] > term:
                continue  # an election of an earlier term that was decided late
            assert index <= log.last_index, f"leader {node.name} lacks committed entry {index}"
            if index > log.snapshot_index:
                try:
                    assert log.get(index).term == entry.term, "leader lacks a committed entry"
                except Compacted:
                    continue

    def applied(self, node: Node, entry: Entry) -> None:
        known = self.history.setdefault(entry.index, entry)
        self.committed_in.setdefault(entry.index, max(self.leaders))
        assert known == entry, f"{node.name} applied something else at {entry.index}"
        data = self.proposed.get((node.name, entry.term, entry.index))
        if data is not None and node.core.state.role is Role.LEADER:
            assert data == entry.data
            self.acknowledged.setdefault(data, entry.index)

    def check_logs(self) -> None:
        """Log matching, and every server's applied entries are the one history."""
        by_key: dict[tuple[int, int], Entry] = {}
        for node in self.nodes.values():
            for entry in node.applied:
                assert self.history[entry.index] == entry
            indexes = [entry.index for entry in node.applied]
            assert indexes == list(range(1, len(indexes) + 1))
            log = node.core.state.log
            for index in range(log.first_index, log.last_index + 1):
                entry = log.get(index)
                assert by_key.setdefault((index, entry.term), entry) == entry
        for data, index in self.acknowledged.items():
            assert self.history[index].data == data, "an acknowledged write is lost"
