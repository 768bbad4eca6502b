"""A federation of real Consul behind gateways of real Consul becomes ours while it is used: first the
servers and the gateway of the secondary, then the primary's.

Each datacenter has a single server, so that ours is started beside it, and it leaves when ours votes.
Whoever asks meanwhile is answered, but for the moment at which a datacenter's only gateway is exchanged.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import partial

import pytest
from e2e_support import measured, proven
from estates import CONFIG, OURS, THEIRS, normal
from typing_extensions import override

from proconsul.app.worlds import proof
from proconsul.app.worlds.spec import DatacenterSpec, Host, WorldSpec
from proconsul.app.worlds.waiting import Missing
from proconsul.app.worlds.world import World
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer, pytest.mark.timeout(240)]

STEP_S = 60.0
BEAT_S = 0.1
GAP_S_MAX = 15.0
SERVICE = "db"
SETTINGS = {**CONFIG, "autopilot": {"server_stabilization_time": "1s"}, "leave_on_terminate": False}


class Application(threading.Thread):
    """Asks its agent for the other datacenter's key and service, and writes keys there."""

    def __init__(self, world: World, host: Host, elsewhere: str) -> None:
        super().__init__(name=f"application at {host.label}", daemon=True)
        self._world, self._host, self._elsewhere = world, host, elsewhere
        self._stopped = threading.Event()
        self.exchanging = threading.Event()
        """A gateway is away: what happens now is not an error."""
        self.errors: Counter[str] = Counter()
        self.acknowledged: list[str] = []
        self.gap_s_max = 0.0

    @override
    def run(self) -> None:
        api, there, number, last = self._world.api(self._host), self._elsewhere, 0, time.monotonic()
        while not self._stopped.wait(BEAT_S):
            number += 1
            excused = self.exchanging.is_set()
            key = f"app/{self._host.label}/{number}"
            try:
                if api.kv_get("known", dc=there) != there:
                    raise OSError("another value")
                if not api.get(f"/v1/health/service/{SERVICE}", dc=there, passing=1):
                    raise OSError("no instance")
                api.kv_put(key, there, dc=there)
            except OSError as error:
                if not (excused or self.exchanging.is_set()):
                    self.errors[normal(str(error))] += 1
            else:
                self.acknowledged.append(key)
                now = time.monotonic()
                self.gap_s_max, last = max(self.gap_s_max, now - last), now

    def close(self) -> None:
        self._stopped.set()
        self.join(30.0)
        assert not self.is_alive()


def _votes(world: World, server: Host) -> None:
    """Raises Missing."""
    raft = world.api(server, 2.0).get("/v1/operator/raft/configuration")["Servers"]
    voters = {one["Node"] for one in raft if one["Voter"]}
    here = {host.name for host in world.servers(server.datacenter.name)}
    if voters != here:
        raise Missing(f"of {sorted(here)} vote {sorted(voters)}")


def _restart_envoy(world: World, gateway: Host) -> None:
    """It is told of servers by its file alone."""
    world.envoy(gateway).kill()
    world.start_envoy(gateway)


def _add_ours(world: World, datacenter: str) -> Host:
    server = world.add_server(datacenter, start=False)
    world.become(server, OURS)
    world.start_agent(server)
    return server


def _leaves(world: World, host: Host) -> None:
    world.api(host, STEP_S).put("/v1/agent/leave")
    assert world.agent(host).wait(STEP_S), f"{host.label} does not end:\n{world.agent(host).tail()}"
    world.retire(host)


def _exchange(world: World, gateway: Host) -> None:
    world.agent(gateway).signal(15)
    assert world.agent(gateway).wait(STEP_S)
    world.envoy(gateway).kill()
    world.become(gateway, OURS)
    world.start_host(gateway)


def test_a_used_federation_becomes_ours(worlds: Worlds) -> None:
    parts = tuple(DatacenterSpec(name, software=THEIRS, clients=1) for name in ("dc1", "dc2"))
    with worlds(WorldSpec(parts, log_level="INFO", agent_config=SETTINGS)) as world:
        proof.whole(world, STEP_S)
        for client in world.clients():
            world.api(client).put("/v1/agent/service/register", {"Name": SERVICE, "Port": 5432})
            world.api(client).kv_put("known", client.datacenter.name)
        one, two = world.clients()
        applications = [Application(world, one, "dc2"), Application(world, two, "dc1")]
        excused = [application.exchanging for application in applications]
        # Both at once: real Consul's autopilot looks every 10 s
        for server in [_add_ours(world, "dc2"), _add_ours(world, "dc1")]:
            measured(f"{server.label} votes", partial(_votes, world, server), STEP_S)
        for gateway in world.gateways():
            _restart_envoy(world, gateway)
        proven("ours stand beside the real ones", proof.whole, world)
        for application in applications:
            application.start()
        try:
            for name in ("dc2", "dc1"):
                _leaves(world, world.servers(name)[0])
                proven(f"{name} has our servers behind its real gateway", proof.whole, world)
                for event in excused:
                    event.set()
                _exchange(world, world.gateways(name)[0])
                proven(f"{name} has our gateway", proof.whole, world)
                for event in excused:
                    event.clear()
        finally:
            for application in applications:
                application.close()
        for application, there in zip(applications, ("dc2", "dc1"), strict=True):
            print(f"[measured] gap {application.gap_s_max:.1f} s, errors {application.errors}")
            assert application.errors == Counter()
            assert application.gap_s_max < GAP_S_MAX
            keys = world.api(world.servers(there)[0]).get("/v1/kv/app/", keys=1, consistent=1)
            assert len(application.acknowledged) > 10
            assert set(application.acknowledged) <= set(keys)
