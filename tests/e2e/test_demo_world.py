"""The world of `make demo`: every one of its proofs as a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proconsul.app.worlds import proof
from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.programs import Programs
from proconsul.app.worlds.spec import world_spec
from proconsul.app.worlds.world import World
from proconsul.testing import peers
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]


@pytest.fixture(scope="module")
def world(worlds: Worlds) -> Iterator[World]:
    with worlds(world_spec(2)) as world:
        proof.whole(world)
        yield world


def test_servers_see_each_other_alive(world: World) -> None:
    proof.wan_alive(world, 10)


def test_federation_states_of_both_on_both_sides(world: World) -> None:
    proof.federation_states(world, 10)


def test_kv_both_ways(world: World) -> None:
    proof.kv(world, 10)


def test_service_is_found_from_the_other_datacenter(world: World) -> None:
    proof.service(world, 10)


def test_kernel_counted_nothing_direct(world: World) -> None:
    assert isinstance(world.network, NetnsNetwork)
    proof.isolated(world)
    counters = world.network.counters()
    # The secondary's way to the primary's gateways was used, so the counters do count
    assert counters["dc2"]["server-to-primary-gateway"] > 0
    assert counters["dc1"]["server-to-primary-gateway"] == 0


def test_the_counters_notice_a_direct_attempt() -> None:
    peers.namespaces()
    with World(world_spec(2), NetnsNetwork(), Programs(envoy=peers.envoy())) as world:
        world.build()
        assert world.network.evidence().isolated
        here, there = world.servers("dc1")[0], world.servers("dc2")[0]
        with pytest.raises(OSError, match="timed out"):
            world.network.connect(here, (there.wan, 8300), 0.3)
        assert not world.network.evidence().isolated


def test_secondary_servers_reach_the_primarys_gateways(world: World) -> None:
    gateway = world.gateways("dc1")[0]
    world.network.connect(world.servers("dc2")[0], (gateway.wan, 8443), 2.0).close()
