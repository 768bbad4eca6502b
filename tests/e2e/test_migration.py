"""A live estate of real Consul becomes ours, one process at a time, and real Consul again.

Beside it, as the yardstick, the same is done to another one in which real Consul replaces itself:
applications must see no error of ours that Consul does not give there.
"""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pytest
from estates import OURS, THEIRS
from migration_load import DNS_PORT, SERVICE, Applications, Seen

from proconsul.app.worlds.spec import (
    HTTP_PORT,
    AclSpec,
    DatacenterSpec,
    Host,
    Software,
    WorldSpec,
)
from proconsul.app.worlds.waiting import Missing, until
from proconsul.app.worlds.world import World
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer, pytest.mark.timeout(300)]

STEP_S = 60.0
CONFIG = {
    "performance": {"raft_multiplier": 1, "leave_drain_time": "1s"},
    "autopilot": {"server_stabilization_time": "1s"},
    "leave_on_terminate": False,
    "ports": {"http": HTTP_PORT, "grpc": -1, "dns": DNS_PORT},
}
CONSULS_OWN = {
    # What Consul gave in runs of the yardstick, though not in each: which of them a request gets is
    # a matter of the moment at which its server or leader goes
    "N: EOF",
    "N: stream closed",
    "N: leadership lost while committing log",
    "N: No cluster leader",
    "N: node is not the leader",
    "connection refused by the agent",
    # Of a client that has not found a server yet since it was started
    "N: No known Consul servers",
    "DNS answers SERVFAIL, N records",
}
OUR_WORDS = {"N: agent is shutting down": "N: EOF"}
"""Where Consul answers 500 with the second, of a request that its end cut short, ours says the first."""
GAP_MORE_S = 2.0
"""How much longer than in the yardstick an application may be without an answer, on a loaded
machine."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the applications of one estate saw."""

    seen: dict[str, Seen]
    software: Sequence[Software]

    def errors(self) -> Counter[str]:
        """By their text."""
        found: Counter[str] = Counter()
        for one in self.seen.values():
            for text, count in one.errors.items():
                found[OUR_WORDS.get(text, text)] += count
        return found

    def gap_s_max(self) -> float:
        return max(one.gap_s_max for one in self.seen.values())


def _estate() -> WorldSpec:
    servers = DatacenterSpec("dc1", servers=3, gateways=0, software=THEIRS, clients=2)
    acl = AclSpec(open_reads=True)
    return WorldSpec((servers,), log_level="INFO", acl=acl, agent_config=CONFIG)


def _leaves(world: World, host: Host) -> None:
    """As an operator: `leave` takes a server out of the quorum; a client is just ended."""
    agent = world.agent(host)
    if host.is_server:
        world.api(host, STEP_S).put("/v1/agent/leave")
    else:
        agent.signal(15)
    assert agent.wait(STEP_S), f"{host.name} does not end:\n{agent.tail()}"


def _replace(name: str, world: World, host: Host, software: Software) -> None:
    """The procedure of docs/operations.md for one host."""
    begun = time.monotonic()
    _leaves(world, host)
    left_s = time.monotonic() - begun
    world.become(host, software)
    world.start_agent(host)
    until(lambda: _settled(world, host), f"{host.name} is back as {software.value}", STEP_S)
    took = f"left in {left_s:.1f} s, whole after {time.monotonic() - begun:.1f} s"
    print(f"[measured] {name}: {host.name} to {software.value}: {took}", flush=True)


def _settled(world: World, host: Host) -> None:
    """Everybody has its node alive, all servers vote, and one of them leads."""
    if not world.agent(host).running:
        raise AssertionError(f"{host.name} has ended:\n{world.agent(host).tail()}")
    names = {one.name for one in world.hosts}
    for one in world.hosts:
        api = world.api(one, 2.0)
        alive = {m["Name"] for m in api.get("/v1/agent/members") if m["Status"] == 1}
        if alive != names:
            raise Missing(f"{one.name} has alive {sorted(alive)}")
        if not api.get("/v1/status/leader"):
            raise Missing(f"{one.name} knows no leader")
    raft = world.api(host).get("/v1/operator/raft/configuration")["Servers"]
    voters = {server["Node"] for server in raft if server["Voter"]}
    if voters != {server.name for server in world.servers()}:
        raise Missing(f"voters are {sorted(voters)}")
    passing = world.api(host).get("/v1/health/state/passing")
    serf = {check["Node"] for check in passing if check["CheckID"] == "serfHealth"}
    if serf != names:
        raise Missing(f"healthy are {sorted(serf)}")


def _migrate(name: str, worlds: Worlds, ways: Sequence[Software]) -> Outcome:
    """Every agent becomes each of `ways` in turn."""
    with worlds(_estate()) as world:
        for host in world.hosts:
            until(partial(_settled, world, host), f"{host.name} is up", STEP_S)
        for client in world.clients():
            # Known to the client's agent alone, which must remember it and its state
            service = {"Name": SERVICE, "Port": 5432, "Check": {"TTL": "1h"}}
            world.api(client).put("/v1/agent/service/register", service)
            world.api(client).put(f"/v1/agent/check/pass/service:{SERVICE}")
        until(partial(_registered, world), "the service is registered", STEP_S)
        applications = Applications(world)
        applications.start()
        try:
            for software in ways:
                # Servers first: a client of a newer kind may ask for what old servers lack
                for host in [*world.servers(), *world.clients()]:
                    _replace(name, world, host, software)
        finally:
            applications.close()
        assert applications.wrong == []
        _registered(world)
        _nothing_lost(world, applications.acknowledged)
        return Outcome(applications.seen, ways)


def _registered(world: World) -> None:
    """Each client's instance of the service passes. Raises Missing."""
    found = world.api(world.servers()[0]).get(f"/v1/health/service/{SERVICE}", passing=1)
    if {one["Node"]["Node"] for one in found} != {client.name for client in world.clients()}:
        raise Missing(f"{SERVICE} passes at {[one['Node']['Node'] for one in found]}")


def _nothing_lost(world: World, acknowledged: dict[str, str]) -> None:
    assert len(acknowledged) > 100
    for host in world.hosts:
        rows = world.api(host).get("/v1/kv/app/", recurse=1, consistent=1)
        found = {row["Key"]: base64.b64decode(row["Value"]).decode() for row in rows}
        lost = {key for key, value in acknowledged.items() if found.get(key) != value}
        assert not lost, f"at {host.name}: {sorted(lost)}"


def test_consul_becomes_ours_and_consul_again(worlds: Worlds) -> None:
    # The programs of a world die with the thread that started them: each world has its own
    with ThreadPoolExecutor(2) as pool:
        ours = pool.submit(_migrate, "ours", worlds, (OURS, THEIRS))
        yardstick = pool.submit(_migrate, "yardstick", worlds, (THEIRS,))
        seen, theirs = ours.result(), yardstick.result()
    for name, outcome in (("ours", seen), ("yardstick", theirs)):
        print(f"[measured] {name}: {json.dumps(outcome.errors(), indent=1)}")
        for kind, one in outcome.seen.items():
            print(f"[measured] {name}: {kind}: {one.answered} answers, gap {one.gap_s_max:.1f} s")
    assert set(seen.errors()) <= set(theirs.errors()) | CONSULS_OWN
    assert seen.gap_s_max() <= theirs.gap_s_max() + GAP_MORE_S
