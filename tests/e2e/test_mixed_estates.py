"""Three datacenters, one run by real Consul and two by us, with either as the primary, ACLs in
default deny. Each test looks at both estates. Beside them stands one of real Consul alone: what its
logs do not complain of, those of the mixed ones must not either.

PROCONSUL_HEALTHY_S says for how many seconds the logs are compared (120 unless set).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from e2e_support import first_servers, measured, pairs, status_command
from estate_checks import CHECKS, active_id, everywhere, leaf_chains, replicated
from estates import OURS, THEIRS, LogMark, estate, run_by
from typing_extensions import override

from proconsul.app.worlds import proof
from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.spec import Host, WorldSpec
from proconsul.app.worlds.waiting import Missing, until
from proconsul.app.worlds.world import World
from proconsul.drivers import certs
from proconsul.testing.worlds import Worlds, running_world

KINDS = {"real primary": (THEIRS, OURS, OURS), "our primary": (OURS, THEIRS, OURS)}
HEALTHY_S = float(os.environ.get("PROCONSUL_HEALTHY_S", "120"))
pytestmark = [pytest.mark.netns, pytest.mark.peer, pytest.mark.timeout(300 + HEALTHY_S)]

WHOLE_S = 60.0
FORGOTTEN_S = 150.0
FORGETFUL: Mapping[str, object] = {
    # Consul's manual says that eight hours are the least, but its agents take anything. What failed
    # is looked through every 15 s
    "reconnect_timeout_wan": "5s",
    "gossip_wan": {"probe_interval": "1s", "probe_timeout": "500ms", "suspicion_mult": 3},
}


@dataclass(frozen=True, slots=True)
class Estates:
    """The mixed worlds by who is the primary, since when they are whole, and the yardstick."""

    worlds: Mapping[str, World]
    marks: Mapping[str, LogMark]
    since: float
    pure: Pure

    def __iter__(self) -> Iterator[World]:
        return iter(self.worlds.values())


class Pure(threading.Thread):
    """An estate of real Consul alone, which takes its time: it stands in a thread of its own, since
    programs of a world end with the thread that started them."""

    def __init__(self, spec: WorldSpec) -> None:
        super().__init__(name="pure estate", daemon=True)
        self._spec = spec
        self._ready, self._done = threading.Event(), threading.Event()
        self._world: World | None = None
        self._mark: LogMark | None = None
        self.failure: BaseException | None = None

    @override
    def run(self) -> None:
        try:
            with running_world(self._spec) as world:
                proof.whole(world, 120.0)
                self._mark = LogMark.now(world)
                for check in CHECKS:
                    check(world)
                self._world = world
                self._ready.set()
                self._done.wait()
        except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
            self.failure = error
            self._ready.set()

    def complaints(self) -> set[str]:
        """Of its agents, since it was whole, while it was asked for the same as the mixed ones."""
        assert self._ready.wait(180.0)
        if self.failure is not None:
            raise self.failure
        assert self._world is not None
        assert self._mark is not None
        return set(self._mark.complaints(self._world, self._world.hosts))

    def close(self) -> None:
        self._done.set()
        self.join(30.0)


@pytest.fixture(scope="module")
def estates(worlds: Worlds) -> Iterator[Estates]:
    with contextlib.ExitStack() as stack:
        pure = Pure(estate(THEIRS, THEIRS))
        pure.start()
        stack.callback(pure.close)
        found = {
            name: stack.enter_context(worlds(estate(*software, servers=3, more=FORGETFUL)))
            for name, software in KINDS.items()
        }
        for name, world in found.items():
            measured(f"{name}: whole", partial(proof.whole, world, WHOLE_S), WHOLE_S)
        for world in found.values():
            # Gateways that were registered before they answered have passed their checks
            until(partial(_gateways_pass, world), "gateways pass", WHOLE_S)
        marks = {name: LogMark.now(world) for name, world in found.items()}
        yield Estates(found, marks, time.monotonic(), pure)


def _gateways_pass(world: World) -> None:
    for server in first_servers(world):
        for one in world.spec.datacenters:
            found = world.api(server).get("/v1/health/service/mesh-gateway", dc=one.name, passing=1)
            if len(found) != one.gateways:
                raise Missing(f"{server.label} sees {len(found)} gateways of {one.name}")


# What a healthy federation does


@pytest.fixture(params=KINDS)
def world(estates: Estates, request: pytest.FixtureRequest) -> World:
    """Each of the mixed estates."""
    return estates.worlds[request.param]


def test_datacenters_and_members_agree(world: World) -> None:
    names = sorted(d.name for d in world.spec.datacenters)

    def agreed(server: Host) -> bool:
        found = world.api(server).get("/v1/catalog/datacenters")
        members = world.api(server).get("/v1/agent/members", wan=1)
        seen = (
            sorted(found),
            found[0],  # the nearest one is its own
            len(members),
            {m["Tags"].get("acls") for m in members},  # nobody is in the mode of old
            {m["Tags"].get("ft_fs") for m in members},
        )
        if seen != (names, server.datacenter.name, len(world.servers()), {"1"}, {"1"}):
            raise Missing(f"{server.name} sees {seen}")
        return True

    for server in world.servers():
        until(lambda server=server: agreed(server), f"{server.name} agrees", WHOLE_S)


def test_service_and_federation_status(world: World) -> None:
    proof.service(world, WHOLE_S)
    for server in run_by(world, OURS):
        if server.is_server:
            code, text = status_command(
                world, server, f"-token={world.spec.acl.master if world.spec.acl else ''}"
            )
            assert code == 0, text


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_all_share(world: World, check: Callable[[World], None]) -> None:
    check(world)


# Rotations, with nothing refused on the way


@contextlib.contextmanager
def _nothing_refused(world: World) -> Iterator[None]:
    """Writes and reads from everywhere to everywhere go on meanwhile, and no log complains."""
    mark, stopped = LogMark.now(world), threading.Event()
    failures: list[str] = []
    done = 0

    def work() -> None:
        nonlocal done
        for number in range(1 << 30):
            for here, there in pairs(world):
                try:
                    value = f"{number}"
                    dc = there.datacenter.name
                    world.api(here).kv_put(f"rotation/{here.label}", value, dc=dc)
                    assert world.api(there).kv_get(f"rotation/{here.label}") == value
                except (OSError, AssertionError) as error:
                    failures.append(f"{here.label} to {there.label}: {error!r}")
                done += 1
                if stopped.wait(0.02):
                    return

    thread = threading.Thread(target=work, name="rotation", daemon=True)
    thread.start()
    try:
        yield
        time.sleep(1.0)
    finally:
        stopped.set()
        thread.join()
    assert done > 10
    assert failures == []
    assert not mark.complaints(world, world.hosts)


def test_gossip_key_is_rotated(world: World) -> None:
    new = base64.b64encode(os.urandom(32)).decode()
    old = world.pki.gossip_key
    steps = (("POST", new), ("PUT", new), ("DELETE", old))
    with _nothing_refused(world):
        for step, (method, key) in enumerate(steps):
            # Each by another datacenter, ours or theirs
            api = world.api(first_servers(world)[step], 30.0)
            body = json.dumps({"Key": key}).encode()
            status, _, answer = api.request(method, "/v1/operator/keyring", body)
            assert status == 200, answer
        keys = {
            (row["Datacenter"], row["WAN"], key, count == row["NumNodes"])
            for server in first_servers(world)
            for row in world.api(server, 30.0).get("/v1/operator/keyring")
            for key, count in row["Keys"].items()
        }
        assert keys == {
            (d.name, wan, new, True) for d in world.spec.datacenters for wan in (False, True)
        }
        time.sleep(3.0)  # gossip goes on
        proof.wan_alive(world, 1.0)


def test_root_of_the_ca_is_rotated(world: World) -> None:
    primary = world.api(first_servers(world)[0], 30.0)
    before = active_id(primary)
    config = primary.get("/v1/connect/ca/configuration")
    ca = certs.create_ca()
    config["Config"] |= {"PrivateKey": ca.key.decode(), "RootCert": ""}
    with _nothing_refused(world):
        primary.put("/v1/connect/ca/configuration", config)
        after = active_id(primary)
        assert after != before
        everywhere(world, active_id, after, "the new root")
        for server in first_servers(world):
            roots = world.api(server).get("/v1/connect/ca/roots")["Roots"]
            assert before in {root["ID"] for root in roots}, "leaves of the old one still hold"
            until(partial(leaf_chains, world, server, "new"), "a leaf of the new", WHOLE_S)


# The logs


def test_logs_complain_of_nothing_that_consul_alone_does_not(estates: Estates) -> None:
    time.sleep(max(0.0, estates.since + HEALTHY_S - time.monotonic()))
    known = estates.pure.complaints()
    for name, world in estates.worlds.items():
        found = estates.marks[name].complaints(world, world.hosts)
        more = {line: count for line, count in found.items() if line not in known}
        print(f"[measured] {name}: {sum(found.values())} complaints, {more} not of Consul's own")
        assert not more, f"{name}: {json.dumps(more, indent=1)}"


# Losses


@pytest.mark.parametrize("role", ["server", "gateway"])
@pytest.mark.parametrize("software", [OURS, THEIRS], ids=["ours", "theirs"])
def test_killed_and_restarted(estates: Estates, software: Any, role: str) -> None:
    killed = []
    for world in estates:
        hosts = world.servers() if role == "server" else world.gateways()
        host = next(h for h in hosts if h.software is software)
        world.kill_host(host)
        killed.append((world, host))
    time.sleep(3.0)
    for world, host in killed:
        world.start_host(host)
    for world in estates:
        measured("whole again", partial(proof.whole, world, WHOLE_S), WHOLE_S)


def test_leader_of_three_killed(estates: Estates) -> None:
    """What remains goes on for the other datacenters, too."""
    killed = []
    for world in estates:
        address = world.api(world.servers("dc2")[0]).get("/v1/status/leader")
        leader = next(s for s in world.servers("dc2") if address == f"{s.lan}:8300")
        world.kill_host(leader)
        killed.append((world, leader))
    for world, leader in killed:
        other = world.servers("dc3")[0]
        key = f"without/{leader.label}"
        write = partial(world.api(other).kv_put, key, "x", dc="dc2")
        measured(f"{leader.label} is succeeded", write, WHOLE_S)
        world.start_host(leader)
    for world in estates:
        measured("whole again", partial(proof.whole, world, WHOLE_S), WHOLE_S)


def test_envoy_killed_and_restarted(estates: Estates) -> None:
    for world in estates:
        for gateway in world.gateways():
            world.envoy(gateway).signal(signal.SIGKILL)
            world.envoy(gateway).wait(5.0)
    for world in estates:
        for gateway in world.gateways():
            world.envoy(gateway).start()
    for world in estates:
        measured("whole again", partial(proof.whole, world, WHOLE_S), WHOLE_S)


def test_partition_beyond_the_time_to_forget(estates: Estates) -> None:
    for world in estates:
        _partition(world, on=True)
    try:
        for world in estates:
            measured("everybody forgot", partial(_forgotten, world), FORGOTTEN_S)
            for server in first_servers(world):
                if not server.is_primary:
                    told = f"{server.label} tells that it cannot replicate"
                    measured(told, partial(_replication_fails, world, server), FORGOTTEN_S)
    finally:
        for world in estates:
            _partition(world, on=False)
    for world in estates:
        measured("healed", partial(proof.whole, world, FORGOTTEN_S), FORGOTTEN_S)
        for server in first_servers(world):
            until(partial(replicated, world, server), f"{server.label} replicates", WHOLE_S)


def _replication_fails(world: World, server: Host) -> None:
    status = world.api(server).get("/v1/acl/replication")
    assert status["Enabled"]
    if status["LastError"] <= status["LastSuccess"]:
        raise Missing(f"{status}")


def _partition(world: World, *, on: bool) -> None:
    """Nothing crosses the WAN."""
    assert isinstance(world.network, NetnsNetwork)
    world.network.cut_wan(on=on)


def _forgotten(world: World) -> None:
    for server in world.servers():
        others = [
            name
            for name in proof.wan_members(world, server)
            if name.rpartition(".")[2] != server.datacenter.name
        ]
        if others:
            raise Missing(f"{server.label} knows {sorted(others)}")


def test_servers_exchanged_nothing_directly(estates: Estates) -> None:
    for world in estates:
        proof.isolated(world)
