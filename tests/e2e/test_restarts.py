"""Every process in turn is killed and comes back after 5 s: the federation is whole within 30 s."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from proconsul.app.worlds import proof
from proconsul.app.worlds.spec import Host, Role, world_spec
from proconsul.app.worlds.waiting import Missing, until
from proconsul.app.worlds.world import World
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]

ABSENT_S = 5.0
WHOLE_S = 30.0


@pytest.fixture(scope="module")
def world(worlds: Worlds) -> Iterator[World]:
    with worlds(world_spec(2)) as world:
        yield world


@pytest.fixture(autouse=True)
def _whole_before(world: World) -> None:
    proof.whole(world, WHOLE_S)


@pytest.mark.parametrize("label", ["dc1-s1", "dc2-s1", "dc1-g1", "dc2-g1"])
def test_agent_is_killed_and_comes_back(world: World, label: str) -> None:
    host = world.host(label)
    world.agent(host).kill()
    time.sleep(ABSENT_S)
    world.start_agent(host)
    proof.whole(world, WHOLE_S)
    proof.isolated(world)


@pytest.mark.parametrize("label", ["dc1-g1", "dc2-g1"])
def test_envoy_is_killed_and_comes_back(world: World, label: str) -> None:
    host = world.host(label)
    world.envoy(host).kill()
    time.sleep(ABSENT_S)
    world.start_envoy(host)
    proof.whole(world, WHOLE_S)
    proof.isolated(world)


@pytest.mark.parametrize("datacenter", ["dc1", "dc2"])
def test_all_hosts_of_a_datacenter_are_killed_and_come_back(world: World, datacenter: str) -> None:
    hosts = [h for h in world.hosts if h.datacenter.name == datacenter]
    for host in hosts:
        world.kill_host(host)
    time.sleep(ABSENT_S)
    for host in hosts:
        world.start_host(host)
    proof.whole(world, WHOLE_S)


@pytest.mark.parametrize("role", [Role.SERVER, Role.GATEWAY])
def test_host_comes_back_with_another_address(world: World, role: Role) -> None:
    host = next(h for h in world.hosts if h.datacenter.name == "dc2" and h.role is role)
    world.move(host)
    world.start_host(host)
    proof.whole(world, WHOLE_S)
    _known_at(world, host)
    proof.isolated(world)


def _known_at(world: World, host: Host) -> None:
    """The catalog of its datacenter has the host's address."""
    server = world.servers(host.datacenter.name)[0]

    def check() -> None:
        found = world.api(server).get(f"/v1/catalog/node/{host.name}")
        if found["Node"]["Address"] != host.lan:
            raise Missing(f"the catalog has {found['Node']['Address']}, not {host.lan}")

    until(check, f"{host.name} is known at its new address", WHOLE_S)
