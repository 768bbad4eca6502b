"""WAN federation without gateways: servers of real Consul's and ours that are routed to each other,
ACLs in default deny, either as the primary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from e2e_support import measured
from estate_checks import CHECKS, WHOLE_S
from estates import OURS, THEIRS, estate

from proconsul.app.worlds import proof
from proconsul.app.worlds.world import World
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]

KINDS = {"real primary": (THEIRS, OURS, OURS), "our primary": (OURS, THEIRS, OURS)}


@pytest.fixture(scope="module", params=KINDS)
def world(worlds: Worlds, request: pytest.FixtureRequest) -> Iterator[World]:
    with worlds(estate(*KINDS[request.param], gateways=0)) as world:
        for prove in (proof.leaders, proof.wan_alive, proof.kv):
            measured(prove.__name__, partial(prove, world, WHOLE_S), WHOLE_S)
        yield world


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_all_share(world: World, check: Callable[[World], None]) -> None:
    check(world)


def test_service_of_the_primary_is_found(world: World) -> None:
    proof.service(world, WHOLE_S)


@pytest.mark.parametrize("software", [OURS, THEIRS], ids=["ours", "theirs"])
def test_killed_and_restarted(world: World, software: object) -> None:
    server = next(s for s in world.servers() if s.software is software)
    world.kill_host(server)
    world.start_host(server)
    for prove in (proof.leaders, proof.wan_alive, proof.kv):
        prove(world, WHOLE_S)
