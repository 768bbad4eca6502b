"""Servers are killed, paused and cut off while clients write and read: nothing is lost, and writes
are accepted again no later than real Consul's, which suffers the same beside it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from quorum_load import Load

from proconsul.app.worlds.quorum import ELECTION_TIMEOUT_S, Fault, Faults, quorum_spec
from proconsul.app.worlds.spec import Software
from proconsul.testing.linearizability import assert_linearizable
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer, pytest.mark.timeout(240)]

GAP_S_MAX = 4 * ELECTION_TIMEOUT_S
PRESENT_S = 4.5
"""How long a fault stays: longer than writes may be without a leader."""
CALM_S = 1.5
"""Between healing and the next fault, at least."""
HANDED_OVER_S = ELECTION_TIMEOUT_S / 2
"""A leader that says that it goes: nobody may have to notice its silence."""
SLACK_S = 0.25
"""Elections are drawn by lot: a few of them cannot tell smaller differences of medians."""


@dataclass(frozen=True, slots=True)
class Step:
    """What happens at once: a fault of the leader, of a follower, or of both."""

    leader: Fault | None = None
    follower: Fault | None = None


_ONE = (
    Step(leader=Fault.KILL),
    Step(leader=Fault.PAUSE),
    Step(leader=Fault.CUT),
    Step(leader=Fault.CUT_IN),
    Step(leader=Fault.CUT_OUT),
    Step(follower=Fault.PAUSE),
    Step(follower=Fault.CUT),
)
_TWO = (
    Step(leader=Fault.KILL, follower=Fault.PAUSE),
    Step(leader=Fault.PAUSE, follower=Fault.KILL),
    Step(leader=Fault.CUT, follower=Fault.CUT_OUT),
    Step(leader=Fault.CUT_IN, follower=Fault.KILL),
    Step(leader=Fault.CUT_OUT, follower=Fault.CUT),
)


class Quorum:
    """One program's servers and clients, and the gaps they had."""

    def __init__(self, load: Load) -> None:
        self.load, self._faults = load, Faults(load.world)
        self.gaps: list[tuple[Step, float, float]] = []
        """(what happened, the longest gap until it was healed, and after that)."""

    async def suffer(self, step: Step) -> None:
        """Let it happen, heal it, and measure both."""
        clock = asyncio.get_running_loop().time
        self.load.epoch += 1
        leader = await self.load.settled()
        follower = next(host for host in self.load.world.servers() if host is not leader)
        start = clock()
        for fault, host in ((step.leader, leader), (step.follower, follower)):
            if fault is not None:
                self._faults.inject(fault, host)
        await asyncio.sleep(PRESENT_S)
        healing = clock()
        self._faults.heal()
        await asyncio.sleep(CALM_S)
        await self.load.settled()
        gaps = self.load.longest_gap(start, healing), self.load.longest_gap(healing, clock())
        self.gaps.append((step, *gaps))

    def of_leaders(self) -> list[float]:
        return [gap for step, gap, _ in self.gaps if step.leader is not None]

    def show(self, name: str) -> None:
        """What was measured goes to the test's output."""
        load = self.load
        print(
            f"[measured] {name}: {len(load.acknowledged)} acknowledged, {len(load.refused)} refused,"
            f" {load.undecided} undecided, {len(load.history)} operations on registers"
        )
        for step, gap, after in self.gaps:
            who = {"leader": step.leader, "follower": step.follower}
            text = ", ".join(f"{role} {fault.value}" for role, fault in who.items() if fault)
            print(f"[measured] {name}: {text}: {gap:.2f} s, healed: {after:.2f} s")
        for text, count in sorted(load.errors.items()):
            print(f"[measured] {name}: {count} x {text}")


async def _suffer(quorums: Sequence[Quorum], steps: Sequence[Step]) -> None:
    for quorum in quorums:
        await quorum.load.settled()
    for step in steps:
        await asyncio.gather(*(quorum.suffer(step) for quorum in quorums))


async def _run(quorums: Sequence[Quorum], steps: Sequence[Step]) -> None:
    ours, theirs = quorums
    async with ours.load.running(), theirs.load.running():
        await _suffer(quorums, steps)
    lost, there = await ours.load.kept()
    assert not lost, f"acknowledged, but lost: {sorted(lost)}"
    assert not there, f"refused, but carried out: {sorted(there)}"


@pytest.mark.parametrize(("servers", "steps"), [(3, _ONE), (5, _TWO)])
def test_nothing_is_lost_and_writes_go_on(
    worlds: Worlds, servers: int, steps: Sequence[Step]
) -> None:
    seed = int(os.environ.get("QUORUM_SEED", "0")) or random.randrange(1, 1 << 32)
    print(f"QUORUM_SEED={seed}")
    rng = random.Random(seed)
    order = rng.sample(steps, len(steps))
    with (
        worlds(quorum_spec(servers)) as ours,
        worlds(quorum_spec(servers, Software.CONSUL)) as theirs,
    ):
        quorums = [Quorum(Load(world, rng)) for world in (ours, theirs)]
        try:
            asyncio.run(_run(quorums, order))
        finally:
            for quorum, name in zip(quorums, ("ours", "Consul"), strict=True):
                quorum.show(name)
    mine, real = quorums
    assert_linearizable(mine.load.history)
    worst = max(max(gap, after) for _, gap, after in mine.gaps)
    assert worst <= GAP_S_MAX, f"no write was accepted for {worst:.2f} s"
    medians = statistics.median(mine.of_leaders()), statistics.median(real.of_leaders())
    print(f"[measured] median without a write: ours {medians[0]:.2f} s, Consul {medians[1]:.2f} s")
    assert medians[0] <= medians[1] + SLACK_S


@pytest.mark.parametrize("how", ["leave", "SIGTERM"])
def test_a_leader_that_goes_costs_no_election(worlds: Worlds, how: str) -> None:
    with worlds(quorum_spec(3)) as world:
        load = Load(world, random.Random(0))

        async def main() -> float:
            clock = asyncio.get_running_loop().time
            async with load.running():
                leader = await load.settled()
                start = clock()
                if how == "leave":
                    await load.ask(leader, "PUT", "/v1/agent/leave", timeout_s=30.0)
                else:
                    world.agent(leader).signal(signal.SIGTERM)
                await asyncio.sleep(GAP_S_MAX)
                return load.longest_gap(start, clock())

        gap = asyncio.run(main())
        print(f"[measured] {how} of the leader: no write for {gap:.3f} s")
        assert gap < HANDED_OVER_S
        lost, there = asyncio.run(load.kept())
        assert not lost
        assert not there
        assert_linearizable(load.history)
