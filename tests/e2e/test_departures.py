"""Three datacenters, a secondary with three gateways: they come and go, and a whole datacenter leaves
for good, gracefully or because it was given up; everything about it goes, and returns with it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
from e2e_support import (
    HEALED_S,
    LEAVE_S,
    breaks_connections,
    command,
    counter,
    envoys_agree,
    federation_status,
    measured,
    proven,
    status_row,
)

from proconsul.app.worlds import netns, proof
from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.spec import GATEWAY_PORT, DatacenterSpec, Host, WorldSpec
from proconsul.app.worlds.waiting import Missing
from proconsul.app.worlds.world import World
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]

PRUNE_S = 2.0
LEFT, FAILED = 3, 4
DIALS = "consul.federation.gateway.dial"
QUICK_GOSSIP = {"probe_interval": "2s", "probe_timeout": "1s", "suspicion_mult": 3}
"""A dead server is noticed in ten seconds instead of forty."""


@pytest.fixture(scope="module")
def world(worlds: Worlds) -> Iterator[World]:
    spec = WorldSpec(
        (DatacenterSpec("dc1"), DatacenterSpec("dc2", gateways=3), DatacenterSpec("dc3")),
        same_node_names=True,
        agent_config={
            "federation_state_prune_interval": f"{PRUNE_S:.0f}s",
            "gossip_wan": QUICK_GOSSIP,
            "telemetry": {"prometheus_retention_time": "10m"},
        },
    )
    with worlds(spec) as world:
        proven("three datacenters, one with three gateways: whole", proof.whole, world)
        yield world
        proof.isolated(world)


@pytest.fixture(autouse=True)
def _whole_before(world: World) -> None:
    proof.whole(world, HEALED_S)
    measured("every Envoy agrees", lambda: envoys_agree(world))


# -- three gateways of a secondary ---------------------------------------------------------


def test_all_three_are_known_everywhere(world: World) -> None:
    wanted = {f"{g.lan}:{GATEWAY_PORT}" for g in world.gateways("dc2")}
    report = federation_status(world, world.servers("dc2")[0])
    for there in ("dc1", "dc3"):
        row = status_row(report, there)
        local = {g["Address"] for g in row["Gateways"] if g["Source"] == "catalog"}
        assert local == wanted
        assert all(g["Reachable"] for g in row["Gateways"]), row


def test_loss_of_one_is_noticed_everywhere_and_its_return(world: World) -> None:
    lost = world.gateways("dc2")[1]
    address = f"{lost.lan}:{GATEWAY_PORT}"
    world.kill_host(lost)
    world.hosts.remove(lost)

    def locator_dropped_it() -> None:
        report = federation_status(world, world.servers("dc2")[0])
        for there in ("dc1", "dc3"):
            if address in {g["Address"] for g in status_row(report, there)["Gateways"]}:
                raise Missing(f"{address} is still used towards {there}")
        unusable = status_row(report, "dc2")["UnusableGateways"]
        if address not in {g["Address"] for g in unusable}:
            raise Missing(f"{address} is not among {unusable}")

    try:
        proven("KV in all directions without it", proof.kv, world)
        measured("the locator leaves it out, and status says so", locator_dropped_it)
        measured("it is critical in all federation states", lambda: _critical(world, lost))
        measured("no Envoy uses it", lambda: envoys_agree(world))
    finally:
        world.hosts.append(lost)
        world.hosts.sort(key=lambda host: (host.dc_number, not host.is_server, host.number))
    world.start_host(lost)
    measured("its return is in every Envoy", lambda: envoys_agree(world))


def _critical(world: World, gateway: Host) -> None:
    for server in world.servers():
        state = world.api(server).get("/v1/internal/federation-state/dc2")["State"]
        for entry in state["MeshGateways"] or ():
            if entry["Node"]["Node"] != gateway.name:
                continue
            if "critical" not in {check["Status"] for check in entry["Checks"]}:
                raise Missing(f"{gateway.name} is well in the federation state at {server.label}")


@pytest.mark.parametrize(("which", "how"), [(0, "REJECT"), (2, "DROP")])
def test_a_failed_gateway_is_tried_last(world: World, which: int, how: str) -> None:
    """Its own check passes, only this server cannot reach it: every third dial would try it."""
    server, failed = world.servers("dc2")[0], world.gateways("dc2")[which]
    network = world.network
    assert isinstance(network, NetnsNetwork)
    rule = ["OUTPUT", "-p", "tcp", "-d", failed.lan, "--dport", str(GATEWAY_PORT), "-j", how]
    netns.run(network.command(server, ["iptables", "-I", *rule]))
    try:
        measured("a dial through it failed", lambda: _fails(world, server, failed), 60.0)
        _, failures = _dials(world, server, failed)
        beside = counter(world, server, DIALS) - _dials(world, server, failed)[0]
        for _ in range(6):
            breaks_connections(world, server)
            proven("whole with new connections", proof.kv, world)
        failures = _dials(world, server, failed)[1] - failures
        beside = counter(world, server, DIALS) - _dials(world, server, failed)[0] - beside
        print(f"[measured] dials: {failures:.0f} failed through it, {beside:.0f} beside it")
        # Drawn at random it were half as many; one for each datacenter may be on its way already
        assert beside >= 12
        assert failures <= 2
    finally:
        netns.run(network.command(server, ["iptables", "-D", *rule]))


def _fails(world: World, server: Host, gateway: Host) -> None:
    if not _dials(world, server, gateway)[1]:
        breaks_connections(world, server)
        proof.kv(world, HEALED_S)
        raise Missing("no dial has failed")


def _dials(world: World, server: Host, gateway: Host) -> tuple[float, float]:
    """Dials through a gateway, and those that failed."""
    labels = {"gateway": f"{gateway.lan}:{GATEWAY_PORT}"}
    return counter(world, server, DIALS, labels), counter(world, server, f"{DIALS}_failed", labels)


# -- a datacenter leaves -------------------------------------------------------------------


def _gracefully(world: World, server: Host) -> None:
    world.api(server, LEAVE_S).put("/v1/agent/leave")
    assert world.agent(server).wait(20), "it did not end"


def _given_up(world: World, server: Host) -> None:
    """Dead servers are kept, whatever happens, until somebody says that they will not return."""
    world.kill_host(server)
    name, primary = f"{server.name}.dc3", world.servers("dc1")[0]
    measured("the dead server is failed everywhere", lambda: _status(world, name, FAILED), 60.0)
    time.sleep(2 * PRUNE_S)
    states = world.api(primary).get("/v1/internal/federation-states")
    assert "dc3" in {state["Datacenter"] for state in states}, "pruned although it may return"
    code, output = command(world, primary, "force-leave", name)
    assert code == 0, output


@pytest.mark.parametrize("leave", [_gracefully, _given_up])
def test_a_datacenter_leaves_for_good_and_returns(
    world: World, leave: Callable[[World, Host], None]
) -> None:
    server, gateway = world.servers("dc3")[0], world.gateways("dc3")[0]
    leave(world, server)
    world.kill_host(gateway)
    gone = [server, gateway]
    for host in gone:
        world.hosts.remove(host)
    try:
        measured("it has left everywhere", lambda: _status(world, f"{server.name}.dc3", LEFT))
        measured("its federation state is gone everywhere", lambda: _forgotten(world))
        measured("and it is gone from every Envoy", lambda: _not_in_envoys(world))
        for here, there in (("dc1", "dc2"), ("dc2", "dc1")):
            api = world.api(world.servers(here)[0])
            measured(f"{here} reads from {there}", lambda api=api, there=there: api.get(  # type: ignore[misc]
                "/v1/catalog/nodes", dc=there))  # fmt: skip
            assert api.request("GET", "/v1/catalog/nodes?dc=dc3")[0] == 500
    finally:
        world.hosts.extend(gone)
        world.hosts.sort(key=lambda host: (host.dc_number, not host.is_server, host.number))
    for host in gone:
        world.start_host(host)
    proven("all is whole with it back", proof.whole, world)
    measured("and it is in every Envoy", lambda: envoys_agree(world))


def _status(world: World, name: str, wanted: int) -> None:
    for server in world.servers():
        if server.datacenter.name == name.rpartition(".")[2]:
            continue
        found = proof.wan_members(world, server).get(name)
        if found != wanted:
            raise Missing(f"{name} has status {found} at {server.label}")


def _forgotten(world: World) -> None:
    for server in world.servers():
        api = world.api(server)
        if api.request("GET", "/v1/internal/federation-state/dc3")[0] != 404:
            raise Missing(f"{server.label} has a federation state of dc3")
        if "dc3" in api.get("/v1/internal/federation-states/mesh-gateways"):
            raise Missing(f"{server.label} has gateways of dc3")
        if "dc3" in (known := api.get("/v1/catalog/datacenters")):
            raise Missing(f"{server.label} knows the datacenters {known}")
        if "dc3" in {row["Datacenter"] for row in federation_status(world, server)["Datacenters"]}:
            raise Missing(f"federation status of {server.label} has dc3")


def _not_in_envoys(world: World) -> None:
    for gateway in world.gateways():
        dump = json.dumps(world.envoy_admin(gateway).get("/config_dump", include_eds="on"))
        if "dc3" in dump:
            at = dump.index("dc3")
            raise Missing(f"{gateway.label} still has ...{dump[max(0, at - 60) : at + 20]}...")
