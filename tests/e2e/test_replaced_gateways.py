"""All gateways of the primary are replaced by new addresses at once; the DNS name that secondaries
know them by answers with the new ones then."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e_support import HEALED_S, envoys_agree, measured, proven

from proconsul.app.worlds import proof
from proconsul.app.worlds.spec import DatacenterSpec, WorldSpec
from proconsul.app.worlds.world import World
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]


@pytest.fixture(scope="module")
def world(worlds: Worlds) -> Iterator[World]:
    spec = WorldSpec(
        (DatacenterSpec("dc1", gateways=2), DatacenterSpec("dc2"), DatacenterSpec("dc3")),
        primary_gateway_name="gateways.dc1.example",
    )
    with worlds(spec) as world:
        proven("primary known by a DNS name: whole", proof.whole, world)
        yield world
        proof.isolated(world)


@pytest.fixture(autouse=True)
def _whole_before(world: World) -> None:
    proof.whole(world, HEALED_S)


def _replace(world: World) -> None:
    old = world.gateways("dc1")
    for gateway in old:
        world.kill_host(gateway)
    for gateway in old:
        world.retire(gateway)
    for _ in old:
        world.add_gateway("dc1", start=False)
    for gateway in world.gateways("dc1"):
        world.start_host(gateway)
    assert not {g.wan for g in old} & {g.wan for g in world.gateways("dc1")}


def _usable_again(world: World, limit: float) -> None:
    """The old gateways stay registered, as critical, until they are reaped."""
    for prove in (proof.leaders, proof.wan_alive, proof.kv):
        prove(world, limit)


def test_while_secondaries_run(world: World) -> None:
    _replace(world)
    proven("healed with new gateways", _usable_again, world)
    measured("every Envoy has just the new ones", lambda: envoys_agree(world))
    _forget_old(world)


def test_while_secondaries_are_down(world: World) -> None:
    secondaries = [host for host in world.hosts if not host.is_primary]
    for host in secondaries:
        world.kill_host(host)
    _replace(world)
    for host in secondaries:
        world.start_agent(host)
    for host in secondaries:
        world.start_host(host)
    proven("healed with new gateways after a start", _usable_again, world)
    measured("every Envoy has just the new ones", lambda: envoys_agree(world))
    _forget_old(world)


def _forget_old(world: World) -> None:
    """What an operator does with hosts that are gone for good."""
    here = {host.name for host in world.hosts if host.is_primary}
    api = world.api(world.servers("dc1")[0])
    for node in api.get("/v1/catalog/nodes"):
        if node["Node"] not in here:
            api.put(f"/v1/agent/force-leave/{node['Node']}", prune=1)
    proven("the old ones are forgotten everywhere", proof.federation_states, world)
