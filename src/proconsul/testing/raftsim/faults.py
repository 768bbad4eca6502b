"""What goes wrong, and when. Each world draws which kinds of faults it has, and how often.

Few kinds at a time find more than all at once ("swarm testing", Groce et al.). The swizzled
partition is FoundationDB's: servers are cut off one by one, and healed in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from proconsul.core.raft.membership import Change
from proconsul.core.raft.types import RaftError

if TYPE_CHECKING:
    from proconsul.testing.raftsim.server import SimServer
    from proconsul.testing.raftsim.world import World


class Faults:
    """Causes faults in a world until `stop`, which also repairs everything."""

    def __init__(self, world: World, focus: Sequence[str], *, stopped: bool) -> None:
        self._world, rng = world, world.rng
        kinds: dict[str, Callable[[], None]] = {
            "crash": self._crash,
            "crash leader": self._crash_leader,
            "power off": self._power_off,
            "pause": self._pause,
            "pause leader": self._pause_leader,
            "split": self._split,
            "isolate leader": self._isolate_leader,
            "usurp": self._usurp,
            "one way": self._one_way,
            "swizzle": self._swizzle,
            "weather": self._weather,
            "mute candidates": self._mute_candidates,
            "slow link": self._slow_link,
            "slow leader": self._slow_leader,
            "slow disk": self._slow_disk,
            "failing disk": self._failing_disk,
            "full disk": self._full_disk,
            "burst": self._burst,
            "rumour": self._rumour,
            "needless snapshot": self._needless_snapshot,
            "restore": self._restore,
        }
        duties: list[Callable[[], None]] = [self._snapshot, self._transfer]
        if world.membership:
            duties += [self._change, self._change, self._remove_leader]
        names = focus or rng.sample(list(kinds), rng.randint(2, 7))
        self._kinds = [kinds[name] for name in names] + duties
        self._muting = False
        self._gap_s = rng.choice([0.15, 0.4, 1.0])
        self.stopped = stopped
        self._next()

    def _next(self) -> None:
        self._world.time.after(self._world.rng.expovariate(1 / self._gap_s), self._strike)

    def _strike(self) -> None:
        if not self.stopped:
            self._world.rng.choice(self._kinds)()
            self._next()

    def stop(self) -> None:
        """No more faults; what is broken is repaired, who is down starts."""
        self.stopped = True
        world = self._world
        network = world.network
        network.cut.clear()
        network.slow_links.clear()
        network.loss = network.duplication = network.stragglers = 0.0
        for server in world.servers.values():
            disk = server.disk
            disk.full = disk.failing = False
            disk.slowness = 1.0
            server.life.paused_until = 0.0
            if not server.life.alive:
                server.boot()

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        def act() -> None:
            if not self.stopped:
                action()

        self._world.time.after(delay_s, act)

    def _any(self) -> SimServer:
        return self._world.rng.choice(list(self._world.servers.values()))

    def _lasting_s(self) -> float:
        return self._world.rng.choice([0.1, 0.5, 1.5, 4.0]) * self._world.rng.uniform(0.5, 1.5)

    # -- processes

    def _crash(self) -> None:
        self._down(self._any(), self._lasting_s())

    def _crash_leader(self) -> None:
        leader = self._world.leader()
        if leader is not None:
            self._down(leader, self._lasting_s())

    def _down(self, server: SimServer, duration_s: float) -> None:
        if server.life.alive:
            self._world.note(f"{server.name} crashes")
            server.crash()
            self._later(duration_s, partial(self._up, server))
            self._announce_death(server, 0.3)

    def _up(self, server: SimServer) -> None:
        if not server.life.alive:
            self._world.note(f"{server.name} starts")
            server.boot()

    def _power_off(self) -> None:
        for server in self._world.servers.values():
            self._down(server, self._world.rng.uniform(0.1, 1.0))

    def _pause(self) -> None:
        server, duration_s = self._any(), self._lasting_s()
        self._world.note(f"{server.name} is paused for {duration_s:.2f} s")
        server.pause(duration_s)

    def _pause_leader(self) -> None:
        leader, duration_s = self._world.leader(), self._lasting_s()
        if leader is not None:
            self._world.note(f"leader {leader.name} is paused for {duration_s:.2f} s")
            leader.pause(duration_s)

    def _rumour(self) -> None:
        """Somebody believes to know that the leader's process is gone, whether it is or not."""
        server = self._any()
        leader = server.core.state.leader
        if server.life.alive and leader is not None:
            self._world.note(f"{server.name} believes that {leader[0]} died")
            server.core.leader_died(leader[1], server.now())
            server.pump()

    # -- network

    def _cut(self, pairs: list[tuple[str, str]], duration_s: float, what: str) -> None:
        cut = self._world.network.cut
        cut.update(pairs)
        self._world.note(what)

        def heal() -> None:
            cut.difference_update(pairs)
            self._world.note(f"end of: {what}")

        self._later(duration_s, heal)

    def _around(self, group: set[str]) -> list[tuple[str, str]]:
        """Both directions across the group's border; clients stay outside."""
        names = self._world.names
        return [(a, b) for a in names for b in names if (a in group) != (b in group)]

    def _split(self) -> None:
        names = self._world.names
        group = self._world.rng.sample(names, self._world.rng.randint(1, len(names) - 1))
        self._cut(self._around(set(group)), self._lasting_s(), f"cut off: {group}")

    def _isolate_leader(self) -> None:
        leader = self._world.leader()
        if leader is not None:
            self._cut(self._around({leader.name}), self._lasting_s(), f"cut off: {leader.name}")

    def _usurp(self) -> None:
        """The leader is cut off, and the others take that for its death: for a while two lead."""
        leader = self._world.leader()
        if leader is not None:
            self._isolate_leader()
            self._announce_death(leader, 0.7)

    def _announce_death(self, leader: SimServer, share: float) -> None:
        for other in self._world.servers.values():
            if other.life.alive and self._world.rng.random() < share:
                other.core.leader_died(leader.name, other.now())
                other.pump()

    def _mute_candidates(self) -> None:
        """From now on some are elected whom nobody hears: terms of one server's entries."""
        self._muting = True

    def on_candidate(self, server: SimServer) -> None:
        """Somebody asks for votes."""
        if self._muting and self._world.rng.random() < 0.3:
            pairs = [(a, b) for a, b in self._around({server.name}) if a == server.name]
            cut = partial(self._cut, pairs, self._lasting_s(), f"mute: {server.name}")
            self._later(self._world.rng.uniform(0.01, 0.03), cut)

    def _one_way(self) -> None:
        name = self._any().name
        outwards = self._world.rng.random() < 0.5
        pairs = [(a, b) for a, b in self._around({name}) if (a == name) is outwards]
        keep = self._world.rng.randint(1, len(pairs))
        pairs = self._world.rng.sample(pairs, keep)
        self._cut(pairs, self._lasting_s(), f"one way: {pairs}")

    def _swizzle(self) -> None:
        rng, names = self._world.rng, self._world.names
        group = rng.sample(names, rng.randint(2, len(names)))
        step = rng.uniform(0.05, 0.8)
        healing = rng.sample(group, len(group))
        for i, name in enumerate(group):
            total = (len(group) - i + healing.index(name)) * step
            cut = partial(self._cut, self._around({name}), total, f"swizzled: {name}")
            self._later(i * step, cut)

    def _weather(self) -> None:
        network, rng = self._world.network, self._world.rng
        network.loss = rng.choice([0.0, 0.02, 0.1, 0.3])
        network.duplication = rng.choice([0.0, 0.05, 0.3])
        self._world.note(f"loss {network.loss}, duplication {network.duplication}")

        def clear() -> None:
            network.loss = network.duplication = 0.0

        self._later(self._lasting_s(), clear)

    def _slow_link(self) -> None:
        links, rng = self._world.network.slow_links, self._world.rng
        pair = self._any().name, self._any().name
        links[pair] = rng.uniform(0.05, 0.6)

        def recover() -> None:
            links.pop(pair, None)

        self._later(self._lasting_s(), recover)

    def _slow_leader(self) -> None:
        """The leader hears old news; the others may have moved on."""
        links, rng, leader = self._world.network.slow_links, self._world.rng, self._world.leader()
        if leader is None:
            return
        pairs = [(name, leader.name) for name in self._world.names]
        delay_s = rng.uniform(0.3, 0.9) * self._world.config.leader_lease_s
        links.update((pair, delay_s) for pair in pairs)
        self._world.note(f"what {leader.name} hears is {delay_s:.2f} s old")
        if rng.random() < 0.5:
            self._later(delay_s * rng.random(), partial(self._announce_death, leader, 0.7))

        def recover() -> None:
            for pair in pairs:
                links.pop(pair, None)

        self._later(self._lasting_s(), recover)

    # -- disks

    def _slow_disk(self) -> None:
        disk = self._any().disk
        disk.slowness = self._world.rng.choice([10.0, 50.0, 200.0])

        def recover() -> None:
            disk.slowness = 1.0

        self._later(self._lasting_s(), recover)

    def _failing_disk(self) -> None:
        self._any().disk.failing = True

    def _full_disk(self) -> None:
        server = self._any()
        server.disk.full = True
        self._world.note(f"{server.name}: disk full")

        def room() -> None:
            server.disk.full = False

        self._later(self._lasting_s(), room)

    # -- what operators do

    def _snapshot(self) -> None:
        server = self._any()
        if server.life.alive:
            server.take_snapshot()

    def _needless_snapshot(self) -> None:
        leader = self._a_leader()
        if leader is not None:
            self._world.network.push_snapshot(leader, self._any().name)

    def _restore(self) -> None:
        leader = self._a_leader()
        if leader is not None:
            leader.restore_outside()

    def _transfer(self) -> None:
        leader = self._world.leader()
        if leader is not None and self._world.rng.random() < 0.3:
            self._attempt(leader, lambda: leader.core.transfer(None, None, leader.now()))

    def _change(self) -> None:
        leader = self._a_leader()
        if leader is not None:
            target = self._any().name
            self._reconfigure(leader, self._world.rng.choice(list(Change)), target)

    def on_leader(self, leader: SimServer) -> None:
        """Somebody won an election: operators may not wait for its first commit."""
        if self._world.membership and not self.stopped and self._world.rng.random() < 0.3:
            self._later(0.0, partial(self._change_at, leader))

    def _change_at(self, leader: SimServer) -> None:
        if leader.life.alive:
            change = self._world.rng.choice(list(Change))
            self._reconfigure(leader, change, self._any().name)

    def _burst(self) -> None:
        """Many writes at once, also to a leader that nobody follows any more."""
        leader = self._a_leader()
        if leader is not None:
            for i in range(self._world.rng.randint(2, 40)):
                leader.propose(f"set burst  {i}".encode(), lambda _: None)

    def _a_leader(self) -> SimServer | None:
        """Any server that believes to lead."""
        leaders = self._world.leaders()
        return self._world.rng.choice(leaders) if leaders else None

    def _remove_leader(self) -> None:
        leader = self._world.leader()
        if leader is not None and self._world.rng.random() < 0.3:
            change = self._world.rng.choice([Change.REMOVE_SERVER, Change.DEMOTE_VOTER])
            self._reconfigure(leader, change, leader.name)

    def _reconfigure(self, leader: SimServer, change: Change, target: str) -> None:
        self._attempt(leader, lambda: leader.core.change(change, target, target, 0, leader.now()))
        self._world.note(f"{leader.name}: {change.name} {target}")

    @staticmethod
    def _attempt(leader: SimServer, action: Callable[[], object]) -> None:
        try:
            action()
        except RaftError:
            return
        leader.pump()
