"""Raft under faults: safety always, progress once the faults end."""

from __future__ import annotations

import os

import pytest
from raft_world import World

from proconsul.core.raft.membership import Change
from proconsul.core.raft.types import RaftError

NAMES = ["a", "b", "c", "d", "e"]
BASE_SEED = int(os.environ.get("PROCONSUL_SIM_SEED", "20260"))


def _chaos(world: World, step: int, *, membership: bool) -> None:
    rng = world.rng
    action = rng.random()
    name = rng.choice(NAMES)
    node = world.nodes[name]
    if action < 0.08 and node.alive and sum(n.alive for n in world.nodes.values()) > 2:
        world.crash(name)
    elif action < 0.25 and not node.alive:
        world.boot(name)
    elif action < 0.30:
        group = set(rng.sample(NAMES, rng.randint(1, 2)))
        world.cut = {(x, y) for x in NAMES for y in NAMES if (x in group) != (y in group)}
        if rng.random() < 0.3:  # one direction only
            world.cut = {(x, y) for x, y in world.cut if x in group}
    elif action < 0.40:
        world.cut = set()
    elif action < 0.44 and node.alive:
        node.take_snapshot()
    elif action < 0.50:
        world.loss = rng.choice([0.0, 0.0, 0.05, 0.3])
    leaders = [n for n in world.nodes.values() if n.alive and n.core.state.role.value == "Leader"]
    for leader in leaders:
        try:
            for k in range(rng.randint(0, 12)):
                world.propose(leader, b"%d-%d-%s" % (step, k, leader.name.encode()))
            world.read(leader)
            if membership and action > 0.9:
                change = rng.choice(list(Change))
                target = rng.choice(NAMES)
                leader.core.change(change, target, target, 0, world.now)
                leader.pump()
            if action > 0.97:
                leader.core.transfer(None, None, world.now)
                leader.pump()
        except RaftError:
            pass


def _heal(world: World) -> None:
    world.cut, world.loss = set(), 0.0
    for name in NAMES:
        if not world.nodes[name].alive:
            world.boot(name)
    world.run(30)
    leader = world.leader()
    assert leader is not None, "no leader after the faults ended"
    world.propose(leader, b"after all")
    world.run(5)
    assert b"after all" in world.acknowledged
    members = {server.id for server in leader.core.state.members.latest.servers}
    for name in members:
        assert world.nodes[name].applied_index == leader.applied_index, f"{name} lags behind"


@pytest.mark.parametrize("membership", [False, True])
@pytest.mark.parametrize("offset", range(6))
def test_safety_under_faults(offset: int, membership: bool) -> None:
    seed = BASE_SEED + offset
    print(f"seed {seed}")
    world = World(seed, NAMES, voters=5 if not membership else 3)
    for step in range(250):
        _chaos(world, step, membership=membership)
        world.run(world.rng.uniform(0.01, 0.5))
    world.check_logs()
    _heal(world)
    world.check_logs()
    assert len(world.acknowledged) > 50
    assert world.reads > 20


def test_an_idle_cluster_keeps_its_leader_and_is_quiet() -> None:
    world = World(BASE_SEED, NAMES, voters=5)
    world.run(5)
    leader = world.leader()
    assert leader is not None
    terms = len(world.leaders)
    before = world._count
    world.run(60)
    assert world.leader() is leader
    assert len(world.leaders) == terms
    per_second = (world._count - before) / 60
    print(f"{per_second:.0f} simulated events/s")
    assert per_second < 400
