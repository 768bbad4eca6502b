"""What an idle federation costs: no new connections for gossip packets, few bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from e2e_support import cluster_stat, counter, proven

from proconsul.app.worlds import proof
from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.spec import world_spec
from proconsul.app.worlds.world import World
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]

IDLE_S = 60.0
SETTLE_S = 8.0
"""Every server has probed every other by then, and reconnected what a start made it give up."""
BYTES_PER_S_MAX = 373
"""Real Consul 1.8.7 in the same world: 208 to 373 B/s."""


@pytest.fixture(scope="module")
def world(worlds: Worlds) -> Iterator[World]:
    telemetry = {"telemetry": {"prometheus_retention_time": "10m"}}
    with worlds(world_spec(2, log_level="INFO", agent_config=telemetry)) as world:
        proven("whole", proof.whole, world)
        yield world
        proof.isolated(world)


def _seen(world: World) -> dict[str, float]:
    seen: dict[str, float] = {}
    for server in world.servers():
        name = "consul.federation.packet_conn"
        seen[f"{server.label} packet connections opened"] = counter(world, server, f"{name}.opened")
        seen[f"{server.label} packet connections reused"] = counter(world, server, f"{name}.reused")
    for gateway in world.gateways():
        seen[f"{gateway.label} connections accepted"] = cluster_stat(
            world, gateway, r"^tcp\.mesh_gateway\..*downstream_cx_total$"
        )
    network = world.network
    assert isinstance(network, NetnsNetwork)
    for gateway in world.gateways():
        seen[f"{gateway.datacenter.name} WAN bytes"] = network.wan_bytes(gateway)
    return seen


def test_sixty_idle_seconds(world: World) -> None:
    time.sleep(SETTLE_S)
    before = _seen(world)
    time.sleep(IDLE_S)
    after = _seen(world)
    grown = {name: after[name] - before[name] for name in before}
    for name, value in grown.items():
        print(f"[measured] {name} in {IDLE_S:g} idle seconds: {value:g}")
    for server in world.servers():
        assert before[f"{server.label} packet connections opened"] >= 1
        assert grown[f"{server.label} packet connections opened"] == 0
        assert grown[f"{server.label} packet connections reused"] > 0
    for gateway in world.gateways():
        assert before[f"{gateway.label} connections accepted"] > 0
        rate = grown[f"{gateway.datacenter.name} WAN bytes"] / IDLE_S
        print(f"[measured] WAN traffic of {gateway.datacenter.name}: {rate:.0f} B/s")
        # Streams are opened by push/pulls and coordinate updates, not by packets: 0-1 a minute
        # each way in the reference, and each is seen by both gateways
        assert grown[f"{gateway.label} connections accepted"] <= 4
        assert rate <= BYTES_PER_S_MAX
