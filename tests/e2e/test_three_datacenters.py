"""Three datacenters on the same private subnet, with the same node names, the primary with three
gateways: every row of what federation has to do."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from e2e_support import (
    HEALED_S,
    LEAVE_S,
    apply_federation_state,
    envoys_agree,
    first_servers,
    measured,
    pairs,
    proven,
    status_command,
)

from proconsul.app.worlds import proof
from proconsul.app.worlds.spec import DatacenterSpec, Host, WanAddress, WorldSpec
from proconsul.app.worlds.waiting import Missing
from proconsul.app.worlds.world import World
from proconsul.domain.federation import FEDERATION_DELETE, FEDERATION_UPSERT
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]


@pytest.fixture(scope="module")
def world(worlds: Worlds) -> Iterator[World]:
    spec = WorldSpec(
        (DatacenterSpec("dc1", gateways=3), DatacenterSpec("dc2"), DatacenterSpec("dc3")),
        same_node_names=True,
        wan_address=WanAddress.LAN,
    )
    with worlds(spec) as world:
        servers = first_servers(world)
        assert {(s.name, s.lan, s.wan) for s in servers} == {("s1", "10.10.0.11", "10.10.0.11")}
        proven("three datacenters whole", proof.whole, world)
        yield world
        proof.isolated(world)


@pytest.fixture(autouse=True)
def _whole_before(world: World) -> None:
    proof.whole(world, HEALED_S)


def test_every_envoy_has_all_gateways_of_every_other_datacenter(world: World) -> None:
    measured("Envoys have all gateways", lambda: envoys_agree(world))


def test_catalog_and_health_across_all_pairs(world: World) -> None:
    for there in first_servers(world):
        name = there.datacenter.name
        definition = {
            "Name": f"web-{name}",
            "Port": 8080,
            "Check": {"TTL": "24h", "Status": "passing"},
        }
        world.api(there).put("/v1/agent/service/register", definition)
    for there, here in pairs(world):
        measured(
            f"web of {there.datacenter.name} found from {here.datacenter.name}",
            lambda there=there, here=here: _finds(world, here, there),  # type: ignore[misc]
        )
    for there in first_servers(world):
        world.api(there).put(f"/v1/agent/service/deregister/web-{there.datacenter.name}")
    for there, here in pairs(world):
        measured(
            f"web of {there.datacenter.name} gone for {here.datacenter.name}",
            lambda there=there, here=here: _finds_not(world, here, there),  # type: ignore[misc]
        )


def _finds(world: World, here: Host, there: Host) -> None:
    name, api = there.datacenter.name, world.api(here)
    if name not in api.get("/v1/catalog/datacenters"):
        raise Missing(f"{here.label} does not know {name}")
    nodes = {node["Node"] for node in api.get("/v1/catalog/nodes", dc=name)}
    if there.name not in nodes:
        raise Missing(f"nodes of {name} at {here.label}: {sorted(nodes)}")
    found = api.get(f"/v1/health/service/web-{name}", dc=name, passing=1)
    if [(e["Node"]["Node"], e["Node"]["Datacenter"]) for e in found] != [(there.name, name)]:
        raise Missing(f"web-{name} at {here.label}: {found}")
    checks = api.get(f"/v1/health/node/{there.name}", dc=name)
    if {c["CheckID"]: c["Status"] for c in checks}.get("serfHealth") != "passing":
        raise Missing(f"checks of {there.label} at {here.label}: {checks}")


def _finds_not(world: World, here: Host, there: Host) -> None:
    name = there.datacenter.name
    if world.api(here).get(f"/v1/health/service/web-{name}", dc=name):
        raise Missing("it is still there")


def test_kv_deletions_across_all_pairs(world: World) -> None:
    for there, here in pairs(world):
        api, name = world.api(here), there.datacenter.name
        key = f"from/{here.datacenter.name}"
        api.kv_put(key, "x", dc=name)
        assert world.api(there).kv_get(key) == "x"
        assert api.request("DELETE", f"/v1/kv/{key}?dc={name}")[2].strip() == b"true"
        assert world.api(there).request("GET", f"/v1/kv/{key}")[0] == 404


def test_federation_states_are_replicated_and_their_deletion_too(world: World) -> None:
    primary = world.servers("dc1")[0]

    def known(wanted: bool) -> None:
        for server in world.servers():
            states = world.api(server).get("/v1/internal/federation-states")
            if ("dc9" in {s["Datacenter"] for s in states}) != wanted:
                raise Missing(f"dc9 at {server.label}, wanted: {wanted}")

    apply_federation_state(world, primary, FEDERATION_UPSERT, "dc9")
    measured("a federation state is everywhere", lambda: known(True))
    apply_federation_state(world, world.servers("dc2")[0], FEDERATION_DELETE, "dc9")
    measured("its deletion, asked of a secondary, is everywhere", lambda: known(False))


def test_status_command_is_content_everywhere(world: World) -> None:
    for server in first_servers(world):
        code, output = status_command(world, server)
        assert code == 0, output


def test_a_server_that_appears_later_is_found(world: World) -> None:
    """Its leave is noticed everywhere, too, and so is its return."""
    late = world.add_server("dc2")
    proven("a later server of dc2 is alive everywhere", proof.wan_alive, world)
    measured("two voters in dc2", lambda: _raft_peers(world, world.servers("dc2")[0], 2))
    world.api(late, LEAVE_S).put("/v1/agent/leave")
    assert world.agent(late).wait(20), "it did not end"
    world.hosts.remove(late)

    def left() -> None:
        for server in world.servers():
            status = proof.wan_members(world, server).get(f"{late.name}.dc2", 3)
            if status != 3:
                raise Missing(f"{late.name}.dc2 has status {status} at {server.label}")

    measured("its leave is known everywhere", left)
    measured("one voter in dc2", lambda: _raft_peers(world, world.servers("dc2")[0], 1))
    world.hosts.append(late)
    world.start_agent(late)
    proven("it is back everywhere", proof.whole, world)


def _raft_peers(world: World, server: Host, count: int) -> None:
    peers = world.api(server).get("/v1/status/peers")
    if len(peers) != count:
        raise Missing(f"peers: {peers}")


@pytest.mark.parametrize("datacenter", ["dc1", "dc3"])
def test_a_server_restarts_with_another_address(world: World, datacenter: str) -> None:
    server = world.servers(datacenter)[0]
    world.move(server)
    world.start_host(server)
    proven(f"whole after {server.label} moved to {server.lan}", proof.whole, world)

    def followed() -> None:
        for other in world.servers():
            for member in world.api(other).get("/v1/agent/members", wan=1):
                if member["Name"] == f"{server.name}.{datacenter}" and member["Addr"] != server.wan:
                    raise Missing(f"{other.label} has {member['Addr']}")

    measured("its new address is known everywhere", followed)


def test_one_of_three_gateways_is_lost_and_returns(world: World) -> None:
    gateway = world.gateways("dc1")[1]
    world.kill_host(gateway)
    started = time.monotonic()
    world.hosts.remove(gateway)
    try:
        proven("RPC and gossip whole without it", proof.kv, world)
        proven("WAN pool whole without it", proof.wan_alive, world)
        measured("every Envoy has dropped it", lambda: envoys_agree(world))
        print(f"[measured] loss noticed everywhere: {time.monotonic() - started:.2f} s")
    finally:
        world.hosts.append(gateway)
    world.start_host(gateway)
    measured("every Envoy has it again", lambda: envoys_agree(world))
