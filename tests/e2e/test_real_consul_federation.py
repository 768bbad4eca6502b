"""A datacenter of ours and one of real Consul, federated through Envoys, each in either role."""

from __future__ import annotations

import functools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import real_consul as real
from cryptography import x509
from real_consul import OURS, THEIRS

from proconsul.app.worlds import proof
from proconsul.app.worlds.spec import Host
from proconsul.app.worlds.waiting import Missing, until
from proconsul.app.worlds.world import World
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]

WHOLE_S = 30.0
LEFT = 3
"""Serf's status of a member that said goodbye."""
ROLES = {"ours-primary": (OURS, THEIRS), "real-primary": (THEIRS, OURS)}


@pytest.fixture(scope="module", params=list(ROLES))
def world(worlds: Worlds, request: pytest.FixtureRequest) -> Iterator[World]:
    with worlds(real.spec_of(*ROLES[request.param])) as world:
        yield world


@pytest.fixture(autouse=True)
def _whole_before(world: World) -> None:
    proof.whole(world, WHOLE_S)


@pytest.fixture
def content(world: World) -> Iterator[None]:
    """Real Consul finds nothing to complain of meanwhile."""
    mark = real.LogMark.now(world)
    yield
    assert mark.complaints(world) == []


def _others(world: World) -> list[tuple[Host, Host]]:
    """(here, there), both ways."""
    one, two = world.servers()
    return [(one, two), (two, one)]


# Gossip


@pytest.mark.usefixtures("content")
def test_tags_are_right_and_the_same_on_both_sides(world: World) -> None:
    ours, theirs = real.server_of(world, OURS), real.server_of(world, THEIRS)
    at_ours, at_theirs = real.wan_members(world, ours), real.wan_members(world, theirs)
    assert (
        set(at_ours) == set(at_theirs) == {f"{s.name}.{s.datacenter.name}" for s in (ours, theirs)}
    )
    for name, member in at_theirs.items():
        assert at_ours[name]["Tags"] == member["Tags"]
        assert at_ours[name]["Addr"] == member["Addr"]
        assert at_ours[name]["Port"] == member["Port"] == 8302
        for field in ("ProtocolMin", "ProtocolMax", "ProtocolCur", "DelegateMin", "DelegateMax"):
            assert at_ours[name][field] == member[field]
    own = at_theirs[f"{ours.name}.{ours.datacenter.name}"]["Tags"]
    other = at_theirs[f"{theirs.name}.{theirs.datacenter.name}"]["Tags"]
    assert own.keys() == other.keys()
    individual = {"dc", "id", "build"}
    assert {k: v for k, v in own.items() if k not in individual} == {
        k: v for k, v in other.items() if k not in individual
    }
    assert own["dc"] == ours.datacenter.name
    assert own["build"].startswith("1.8.7:")


@pytest.mark.usefixtures("content")
def test_members_wan_of_both_commands(world: World) -> None:
    wanted = [[f"{s.name}.{s.datacenter.name}", "alive", "server"] for s in world.servers()]
    for host in world.servers():
        theirs = real.rows(real.command(world, host, THEIRS, "members", "-wan"))
        assert [[row[0], row[2], row[3]] for row in theirs] == wanted
        assert real.rows(real.command(world, host, OURS, "members", "-wan")) == theirs


def test_coordinates_cross_in_acks(world: World) -> None:
    names = [f"{s.name}.{s.datacenter.name}" for s in world.servers()]

    def check(host: Host) -> None:
        said = real.command(world, host, THEIRS, "rtt", "-wan", *names)
        if "rtt:" not in said:
            raise Missing(said)
        # Both ends have moved away from the origin, where estimates are 0.02 ms
        maps = world.api(host).get("/v1/coordinate/datacenters")
        errors = [node["Coord"]["Error"] for dc in maps for node in dc["Coordinates"]]
        if len(errors) != len(names) or 1.5 in errors:
            raise Missing(f"coordinates have errors {errors}")

    for host in world.servers():
        until(functools.partial(check, host), f"rtt -wan at {host.label}", WHOLE_S)


# State and calls


@pytest.mark.usefixtures("content")
def test_federation_states_are_equal_on_both_sides(world: World) -> None:
    here, there = world.servers()

    def states(host: Host) -> list[dict[str, Any]]:
        found = world.api(host).get("/v1/internal/federation-states")
        local = {"CreateIndex", "ModifyIndex", "PrimaryModifyIndex"}
        return [{k: v for k, v in state.items() if k not in local} for state in found]

    def check() -> None:
        if states(here) != states(there):
            raise Missing(f"{states(here)} is not {states(there)}")

    until(check, "federation states are equal", WHOLE_S)


@pytest.mark.usefixtures("content")
def test_kv_by_both_commands_both_ways(world: World) -> None:
    for here, there in _others(world):
        away = f"-datacenter={there.datacenter.name}"
        for software in (OURS, THEIRS):
            key, value = f"cli/{uuid.uuid4().hex}", uuid.uuid4().hex
            real.command(world, here, software, "kv", "put", away, key, value)
            assert world.api(there).kv_get(key) == value
            assert real.command(world, here, software, "kv", "get", away, key).strip() == value


@pytest.mark.usefixtures("content")
def test_catalog_and_health_of_the_other_datacenter(world: World) -> None:
    for here, there in _others(world):
        name = f"web-{uuid.uuid4().hex[:8]}"
        definition = {"Name": name, "Port": 80, "Tags": ["v1"], "Meta": {"a": "b"}}
        world.api(there).put("/v1/agent/service/register", definition)
        paths = (
            f"/v1/catalog/service/{name}",
            f"/v1/health/service/{name}",
            "/v1/catalog/nodes",
            "/v1/catalog/services",
            f"/v1/catalog/node/{there.name}",
            f"/v1/health/node/{there.name}",
            "/v1/health/state/passing",
            "/v1/coordinate/nodes",
        )

        def check(here: Host = here, there: Host = there, name: str = name) -> None:
            if not world.api(there).get(f"/v1/catalog/service/{name}"):
                raise Missing(f"{name} is not in its own catalog yet")
            for path in paths:  # noqa: B023 - called within this round
                local, remote = (
                    world.api(host).get(path, dc=there.datacenter.name) for host in (there, here)
                )
                if _plain(local) != _plain(remote):
                    raise Missing(f"{path}: {remote} is not {local}")

        until(check, f"{here.label} reads the catalog of {there.label}", WHOLE_S)
        dcs = real.command(world, here, THEIRS, "catalog", "datacenters").split()
        assert sorted(dcs) == ["dc1", "dc2"]
        world.api(there).put(f"/v1/agent/service/deregister/{name}")


def _plain(value: Any) -> Any:
    """What is equal whoever answers: each writes empty lists and maps its own way."""
    if isinstance(value, dict):
        return {k: plain for k, v in value.items() if (plain := _plain(v)) not in ({}, [], None)}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value


@pytest.mark.usefixtures("content")
def test_blocking_queries_across(world: World) -> None:
    for here, there in _others(world):
        dc, key = there.datacenter.name, f"blocking/{uuid.uuid4().hex}"
        world.api(there).kv_put(key, "1")

        def write(there: Host = there, key: str = key) -> None:
            world.api(there).kv_put(key, "2")

        assert _after(world, here, f"/v1/kv/{key}?raw&dc={dc}", write) == b"2"

        service = f"b-{uuid.uuid4().hex[:8]}"

        def register(there: Host = there, service: str = service) -> None:
            world.api(there).put("/v1/agent/service/register", {"Name": service})

        path = f"/v1/health/service/{service}?dc={dc}"
        assert service.encode() in _after(world, here, path, register)


def _after(world: World, host: Host, path: str, change: Callable[[], None]) -> bytes:
    """The answer of a blocking query that `change` ends; it must be prompt, and not early."""
    _, headers, _ = world.api(host).request("GET", path)
    index = headers["X-Consul-Index"]
    timer = threading.Timer(0.5, change)
    timer.start()
    begun = time.monotonic()
    _, headers, body = world.api(host, 30.0).request("GET", f"{path}&index={index}&wait=20s")
    took = time.monotonic() - begun
    timer.join()
    assert 0.4 < took < 5.0
    assert int(headers["X-Consul-Index"]) > int(index)
    return body


# The mesh CA


@pytest.mark.usefixtures("content")
def test_the_secondary_adopts_the_trust_domain_and_roots(world: World) -> None:
    def check() -> None:
        seen = []
        for host in world.servers():
            for dc in ("dc1", "dc2"):
                roots = world.api(host).get("/v1/connect/ca/roots", dc=dc)
                active = [r for r in roots["Roots"] or () if r["ID"] == roots["ActiveRootID"]]
                seen.append((roots["TrustDomain"], [r["RootCert"].strip() for r in active]))
        if any(one != seen[0] or not one[1] for one in seen):
            raise Missing(f"roots differ: {seen}")

    until(check, "one trust domain", WHOLE_S)


def test_leaves_of_either_datacenter_chain_to_the_primarys_root(world: World) -> None:
    """Ours signs none yet; where real Consul is secondary, our primary has signed its CA."""
    host = real.server_of(world, THEIRS)

    def check() -> None:
        roots = world.api(host).get("/v1/connect/ca/roots")["Roots"]
        leaf = world.api(host).get("/v1/agent/connect/ca/leaf/web")
        # 1.8.7 adds the intermediate twice in a secondary
        chain = [*dict.fromkeys(x509.load_pem_x509_certificates(leaf["CertPEM"].encode()))]
        root = x509.load_pem_x509_certificate(
            next(r for r in roots if r["Active"])["RootCert"].encode()
        )
        for certificate, issuer in zip(chain, [*chain[1:], root], strict=True):
            certificate.verify_directly_issued_by(issuer)
        if len(chain) != (1 if host.is_primary else 2):
            raise Missing(f"a chain of {len(chain)}")

    until(check, "a leaf certificate", WHOLE_S)


# Losses


@pytest.mark.parametrize("role", ["server", "gateway"])
@pytest.mark.parametrize("software", [OURS, THEIRS], ids=["ours", "theirs"])
def test_killed_and_restarted(world: World, software: Any, role: str) -> None:
    hosts = world.servers() if role == "server" else world.gateways()
    host = next(h for h in hosts if h.software is software)
    world.kill_host(host)
    time.sleep(1.0)
    world.start_host(host)
    proof.whole(world, WHOLE_S)
    assert real.misunderstandings(world) == []


def test_secondary_reaches_the_primary_without_its_own_gateway(world: World) -> None:
    primary, secondary = world.servers()
    gateway = world.gateways("dc2")[0]
    world.kill_host(gateway)
    try:
        key = f"alone/{uuid.uuid4().hex}"

        def check() -> None:
            world.api(secondary).kv_put(key, "x", dc="dc1")

        until(check, "the secondary writes in the primary", WHOLE_S)
        assert world.api(primary).kv_get(key) == "x"
    finally:
        world.start_host(gateway)
    proof.whole(world, WHOLE_S)


@pytest.mark.parametrize("datacenter", ["dc1", "dc2"])
def test_leaves_and_comes_back(world: World, datacenter: str) -> None:
    leaver = world.servers(datacenter)[0]
    other = next(s for s in world.servers() if s is not leaver)
    real.command(world, leaver, THEIRS, "leave")
    assert world.agent(leaver).wait(20.0)

    def gone() -> None:
        member = real.wan_members(world, other)[f"{leaver.name}.{datacenter}"]
        if member["Status"] != LEFT:
            raise Missing(f"{leaver.name} has status {member['Status']}")

    until(gone, f"{leaver.name} has left", 10.0)
    world.start_agent(leaver)

    def again() -> None:
        # To the client of its own datacenter it has left, so nobody there looks for it
        real.command(world, leaver, THEIRS, "join", world.gateways(datacenter)[0].lan)

    until(again, f"{leaver.name} is up", WHOLE_S)
    proof.whole(world, WHOLE_S)


def test_servers_exchanged_nothing_directly(world: World) -> None:
    proof.isolated(world)
    assert real.misunderstandings(world) == []
