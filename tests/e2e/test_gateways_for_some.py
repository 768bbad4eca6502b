"""Two datacenters of ours federate through gateways; a third one, of real Consul, has none, but its
servers are routed. Consul itself cannot do that: with gateways it reaches nobody who has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from e2e_support import counter, measured, status_command
from estate_checks import CHECKS, WHOLE_S
from estates import CONFIG, OURS, THEIRS

from proconsul.app.worlds import proof
from proconsul.app.worlds.spec import AclSpec, DatacenterSpec, WorldSpec
from proconsul.app.worlds.world import World
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]


@pytest.fixture(scope="module")
def world(worlds: Worlds) -> Iterator[World]:
    datacenters = (
        DatacenterSpec("dc1", software=OURS, routed=True),
        DatacenterSpec("dc2", software=OURS, routed=True),
        DatacenterSpec("dc3", software=THEIRS, routed=True, gateways=0),
    )
    telemetry = {"telemetry": {"prometheus_retention_time": "10m"}}
    spec = WorldSpec(
        datacenters, log_level="INFO", acl=AclSpec(), agent_config={**CONFIG, **telemetry}
    )
    with worlds(spec) as world:
        measured("whole", partial(proof.whole, world, WHOLE_S), WHOLE_S)
        yield world


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_all_share(world: World, check: Callable[[World], None]) -> None:
    check(world)


def test_gateways_carry_what_is_for_those_who_have_them(world: World) -> None:
    for here, there in (("dc1", "dc2"), ("dc2", "dc1")):
        server, dial = world.servers(here)[0], "consul.federation.gateway.dial"
        assert counter(world, server, dial, {"datacenter": there}) > 0
        failed = counter(world, server, f"{dial}_failed", {"datacenter": "dc3"})
        assert counter(world, server, dial, {"datacenter": "dc3"}) == failed, "before it had joined"


def test_federation_status_is_content(world: World) -> None:
    assert world.spec.acl is not None
    for server in (*world.servers("dc1"), *world.servers("dc2")):
        code, text = status_command(world, server, f"-token={world.spec.acl.master}")
        assert code == 0, text


def test_killed_and_restarted(world: World) -> None:
    for server in world.servers():
        world.kill_host(server)
        world.start_host(server)
        measured("whole again", partial(proof.whole, world, WHOLE_S), WHOLE_S)
