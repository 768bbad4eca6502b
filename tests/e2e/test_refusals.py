"""What does not work says which hop fails and why: datacenter, gateway, server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from e2e_support import (
    HEALED_S,
    measured,
    nothing_exchanged,
    proven,
    status_command,
    status_row,
)

from proconsul.app.worlds import proof
from proconsul.app.worlds.spec import Host, world_spec
from proconsul.app.worlds.waiting import Missing
from proconsul.app.worlds.world import World
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]


@pytest.fixture(scope="module")
def world(worlds: Worlds) -> Iterator[World]:
    with worlds(world_spec(2)) as world:
        proven("whole", proof.whole, world)
        proof.isolated(world)
        yield world
        nothing_exchanged(world)


@pytest.fixture(autouse=True)
def _whole_before(world: World) -> None:
    proof.whole(world, HEALED_S)


def _named(world: World, here: Host, datacenter: str, causes: set[str]) -> None:
    code, text = status_command(world, here, "-json")
    if code != 1:
        raise Missing(f"exit status {code}: {text[:300]}")
    row = status_row(json.loads(text), datacenter)
    if row["Reachable"] or row["Cause"] not in causes:
        raise Missing(f"{row.get('Hop')}: {row.get('Cause')}: {row.get('Reason')}")
    print(f"[reason] {row['Hop']} fails ({row['Cause']}): {row['Reason']}")
    print(f"[remedy] {row['Remedy']}")


def test_unknown_datacenter(world: World) -> None:
    api = world.api(world.host("dc1-s1"))
    status, _, body = api.request("GET", "/v1/kv/x?dc=nowhere")
    assert (status, body.decode().strip()) == (500, "No path to datacenter")


def test_no_gateway_at_home(world: World) -> None:
    here, gateway = world.host("dc1-s1"), world.host("dc1-g1")
    world.kill_host(gateway)
    measured(
        "primary without gateway: named",
        lambda: _named(world, here, "dc2", {"no-gateway"}),
    )
    world.start_host(gateway)
    proven("whole again", proof.whole, world)


def test_local_envoy_is_down(world: World) -> None:
    here, gateway = world.host("dc1-s1"), world.host("dc1-g1")
    world.envoy(gateway).kill()
    measured(
        "dead local Envoy: named",
        lambda: _named(world, here, "dc2", {"gateway-refused", "no-gateway"}),
    )
    world.start_envoy(gateway)
    proven("whole again", proof.whole, world)


def test_remote_envoy_is_down(world: World) -> None:
    here, gateway = world.host("dc1-s1"), world.host("dc2-g1")
    world.envoy(gateway).kill()
    measured(
        "dead remote Envoy: named",
        lambda: _named(world, here, "dc2", {"remote-gateway-unreachable", "gateway-lacks-route"}),
    )
    world.start_envoy(gateway)
    proven("whole again", proof.whole, world)


def test_remote_server_is_down(world: World) -> None:
    here, server = world.host("dc2-s1"), world.host("dc1-s1")
    world.agent(server).kill()
    measured(
        "dead remote server: named",
        lambda: _named(world, here, "dc1", {"remote-servers-unreachable", "server-down"}),
    )
    world.start_agent(server)
    proven("whole again", proof.whole, world)
