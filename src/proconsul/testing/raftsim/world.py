"""Servers, clients, network and faults of one seed, from the first boot to the last check."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from proconsul.core.raft.types import Config, Role
from proconsul.testing.linearizability import Kind, Operation, assert_linearizable
from proconsul.testing.raftsim.client import Client
from proconsul.testing.raftsim.clock import Timeline
from proconsul.testing.raftsim.faults import Faults
from proconsul.testing.raftsim.invariants import Invariants
from proconsul.testing.raftsim.network import Network
from proconsul.testing.raftsim.server import Answer, SimServer
from proconsul.wire.raft import Configuration, Server, Suffrage

NOTES_MAX = 80
HEALED_S_MAX = 60.0
"""Virtual seconds after the last fault by which everything must be well again."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run was like, so that tests can tell whether anything happened in it."""

    operations: int
    unknown: int
    reads: int
    commits: int
    terms: int
    healed_s: float
    fingerprint: int


class World:
    """`seed` decides everything but what is given: how many servers, and which faults."""

    def __init__(
        self, seed: int, *, names: int = 0, peaceful: bool = False, focus: Sequence[str] = ()
    ) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.time = Timeline()
        self.checks = Invariants()
        self.history: list[Operation] = []
        self.notes: deque[str] = deque(maxlen=NOTES_MAX)
        """What happened last, for the report of a failure."""
        self.names = [f"s{i}" for i in range(1, (names or rng.randint(3, 7)) + 1)]
        self.membership = rng.random() < 0.4 and not peaceful
        heartbeat = rng.choice([0.3, 0.6, 1.0])
        self.config = Config(
            heartbeat_timeout_s=heartbeat,
            election_timeout_s=heartbeat * rng.choice([1.0, 1.0, 1.5]),
            leader_lease_s=heartbeat * rng.choice([0.5, 0.5, 1.0]),
            commit_timeout_s=rng.choice([0.01, 0.05]),
            append_entries_max=rng.choice([1, 2, 8, 64]),
            inflight_max=rng.choice([1, 4, 64]),
            trailing_logs=rng.choice([0, 3, 20]),
        )
        self.drift = 1.0 if peaceful else rng.choice([1.0, 1.2, 2.0, 2.0])
        """Clocks run up to this factor too fast or too slow."""
        self.unlucky = 0.0 if peaceful else rng.choice([0.0, 0.0, 0.002, 0.02])
        """Probability of a crash at moments where it hurts."""
        self.network = Network(self.time, rng, self.checks)
        self.servers = {name: SimServer(self, name) for name in self.names}
        self.network.servers = self.servers
        self.faults = Faults(self, focus, stopped=peaceful)
        self._bootstrap()
        count = 0 if peaceful else rng.randint(1, 4)
        keys, pause_s = rng.randint(1, 3), rng.choice([0.02, 0.1, 0.3])
        self._clients = [Client(self, f"c{i}", keys, pause_s) for i in range(count)]
        if not peaceful:
            self._clients.append(Client(self, "k", keys, 0.08, knowing=True))

    def _bootstrap(self) -> None:
        count = len(self.names)
        voters = self.names[: self.rng.randint(2, count) if self.membership else count]
        servers = tuple(Server(Suffrage.VOTER, name, name) for name in voters)
        for server in self.servers.values():
            server.boot()
        for name in voters:
            self.servers[name].core.bootstrap(Configuration(servers), self.servers[name].now())
            self.servers[name].pump()

    def note(self, text: str) -> None:
        """Remember what happened."""
        self.notes.append(f"{self.time.now:9.4f} {text}")

    def leaders(self) -> list[SimServer]:
        """All servers that believe to lead."""
        return [
            server
            for server in self.servers.values()
            if server.life.alive and server.core.state.role is Role.LEADER
        ]

    def leader(self) -> SimServer | None:
        """Who leads the latest term, as nobody inside could know."""
        return max(self.leaders(), key=lambda server: server.core.state.term, default=None)

    def run(self, duration_s: float) -> Report:
        """Faults for so long, then peace; raises `AssertionError` for whatever is wrong."""
        self.time.run(duration_s)
        self.faults.stop()
        self.unlucky = 0.0
        self.note("no more faults")
        for client in self._clients:
            client.stopped = True
        healed_at = self._heal()
        self._read_all()
        self.time.run(5)
        assert_linearizable(self.history)
        unknown = sum(op.returned is None for op in self.history)
        return Report(
            len(self.history),
            unknown,
            sum(op.kind.value == "read" for op in self.history),
            self.checks.commit_index,
            len(self.checks.leaders),
            healed_at - duration_s,
            self._fingerprint(),
        )

    def _heal(self) -> float:
        """Wait until a write is accepted and all members have everything."""
        until = self.time.now + HEALED_S_MAX
        accepted: list[Answer] = []
        while not self._is_well(accepted):
            assert self.time.now < until, "not well again after the faults ended"
            leader = self.leader()
            if leader is not None:
                if not any(answer.ok for answer in accepted):
                    leader.propose(b"set final  1", accepted.append)
                # Takes back those with a snapshot from outside that no quorum got
                leader.take_snapshot()
            self.time.run(0.5)
        return self.time.now

    def _read_all(self) -> None:
        """Whatever was acknowledged must be there in the end."""
        leader, called = self.leader(), self.time.now
        assert leader is not None

        def seen(key: str, answer: Answer) -> None:
            if answer.ok:
                value = answer.result.decode() if isinstance(answer.result, bytes) else None
                times = called, self.time.now
                self.history.append(Operation("end", key, Kind.READ, None, value, *times))

        for key in sorted({operation.key for operation in self.history}):
            leader.read(key, partial(seen, key))

    def _is_well(self, accepted: list[Answer]) -> bool:
        leader = self.leader()
        if leader is None or not any(answer.ok for answer in accepted):
            return False
        members = leader.core.state.members
        return members.latest_index == members.committed_index and all(
            # Clients go on writing, so the others may be a few entries behind
            leader.applied_index - 50
            <= self.servers[server.id].applied_index
            <= leader.applied_index
            for server in members.latest.servers
        )

    def _fingerprint(self) -> int:
        """Equal for equal runs, in other processes too."""
        terms = sum(term * int(name[1:]) for term, name in self.checks.leaders.items())
        return self.time.count * 1_000_003 + self.checks.commit_index * 1_009 + terms


def run_seed(seed: int, duration_s: float = 30.0, focus: Sequence[str] = ()) -> Report:
    """One run, with faults of any kind or of those named in `focus` (see `faults`).

    A failure's text has the seed and what happened last.
    """
    world = World(seed, focus=focus)
    try:
        return world.run(duration_s)
    except Exception as error:
        error.add_note(f"seed {seed}, virtual time {world.time.now:.4f} s; before that:")
        error.add_note("\n".join(world.notes))
        raise
