"""A gateway that swallows packets in one direction: with others beside it the federation heals
although it stays so, alone as soon as it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from e2e_support import HEALED_S, proven

from proconsul.app.worlds import proof
from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.spec import DatacenterSpec, WorldSpec
from proconsul.app.worlds.world import World
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]

STAYS_S = 12.0
"""Long enough that the lone gateway's connections are given up."""


@pytest.fixture(scope="module")
def world(worlds: Worlds) -> Iterator[World]:
    """The primary has one gateway, the secondary three."""
    spec = WorldSpec((DatacenterSpec("dc1"), DatacenterSpec("dc2", gateways=3)))
    with worlds(spec) as world:
        proven("one primary gateway, three secondary ones: whole", proof.whole, world)
        yield world
        proof.isolated(world)


@pytest.fixture(autouse=True)
def _whole_before(world: World) -> None:
    proof.whole(world, HEALED_S)


def _healed(world: World, _limit: float) -> None:
    proof.whole(world, HEALED_S)
    # A federation that only seems whole, until old connections are given up, is not healed
    time.sleep(3.0)
    proof.whole(world, HEALED_S)


@pytest.mark.parametrize("side", ["LAN", "WAN"])
@pytest.mark.parametrize("direction", ["in", "out"])
def test_one_of_three_blackholes(world: World, direction: str, side: str) -> None:
    network = world.network
    assert isinstance(network, NetnsNetwork)
    gateway = world.gateways("dc2")[1]
    act = network.cut if side == "LAN" else network.blackhole
    act(gateway, direction, on=True)
    try:
        started = time.monotonic()
        proven(f"healed, {side} {direction} dropped at one of three", _healed, world)
        assert time.monotonic() - started <= HEALED_S
    finally:
        act(gateway, direction, on=False)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_the_only_one_blackholes_for_a_while(world: World, direction: str) -> None:
    network = world.network
    assert isinstance(network, NetnsNetwork)
    gateway = world.gateways("dc1")[0]
    network.blackhole(gateway, direction, on=True)
    time.sleep(STAYS_S)
    network.blackhole(gateway, direction, on=False)
    proven(f"whole after the only gateway dropped {direction}", proof.whole, world)
