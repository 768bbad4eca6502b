"""What has to be true of a federation, step by step; each step waits, and returns what it saw."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proconsul.app.worlds.spec import Host, WorldError
from proconsul.app.worlds.waiting import Missing, until
from proconsul.app.worlds.world import World

ALIVE = 1
"""Serf's status of a member, as /v1/agent/members has it."""
_STATUS = ("none", "alive", "leaving", "left", "failed")


@dataclass(frozen=True, slots=True)
class Step:
    """`run(timeout_s)` returns what was seen, or raises WorldError with what is missing."""

    title: str
    run: Callable[[float], str]


def steps(world: World) -> Iterator[Step]:
    """All of the proof, in an order in which each rests on those before."""
    yield Step("every datacenter has a leader", lambda limit: leaders(world, limit))
    if len(world.spec.datacenters) > 1:
        yield Step(
            "servers see each other alive in the WAN pool", lambda limit: wan_alive(world, limit)
        )
        yield Step(
            "federation states of all datacenters are in each",
            lambda limit: federation_states(world, limit),
        )
    yield Step(
        "a KV write in each datacenter is read from every other", lambda limit: kv(world, limit)
    )
    yield Step(
        "a service registered in one datacenter is found from the others",
        lambda limit: service(world, limit),
    )
    yield Step(
        "servers of different datacenters exchanged nothing directly", lambda _: isolated(world)
    )


def whole(world: World, timeout_s: float = 30.0) -> None:
    """The federation works in every direction. Raises WorldError."""
    for prove in (leaders, wan_alive, federation_states, kv):
        prove(world, timeout_s)


def leaders(world: World, timeout_s: float) -> str:
    def check() -> str:
        seen = []
        for server in _first_servers(world):
            if not world.agent(server).running:  # waiting will not bring it back
                raise WorldError(f"the agent of {server.name} has ended")
            leader = world.api(server).get("/v1/status/leader")
            if not leader:
                raise Missing(f"{server.name} knows no leader")
            seen.append(f"{server.datacenter.name} {leader}")
        return ", ".join(seen)

    return until(check, "leaders", timeout_s)


def wan_alive(world: World, timeout_s: float) -> str:
    """Every server has every server alive, and nobody else, in its WAN pool."""
    wanted = {f"{s.name}.{s.datacenter.name}" for s in world.servers()}

    def check() -> str:
        for server in world.servers():
            members = wan_members(world, server)
            wrong = sorted(
                f"{name} {_STATUS[members[name]] if name in members else 'unknown'}"
                for name in wanted
                if members.get(name) != ALIVE
            )
            if wrong:
                raise Missing(f"at {server.label}: {', '.join(wrong)}")
        return ", ".join(sorted(wanted))

    return until(check, "servers alive in the WAN pools", timeout_s)


def wan_members(world: World, server: Host) -> dict[str, int]:
    """Name -> status. Raises OSError."""
    members = world.api(server).get("/v1/agent/members", wan=1)
    return {member["Name"]: member["Status"] for member in members}


def federation_states(world: World, timeout_s: float) -> str:
    """Every server knows the gateways of every datacenter."""
    wanted = {d.name: sorted(g.wan for g in world.gateways(d.name)) for d in world.spec.datacenters}

    def check() -> str:
        for server in world.servers():
            states = world.api(server).get("/v1/internal/federation-states") or []
            found = {
                state["Datacenter"]: sorted(map(_wan_address, state.get("MeshGateways") or []))
                for state in states
            }
            for name, gateways in wanted.items():
                if found.get(name) != gateways:
                    raise Missing(
                        f"at {server.label}: {name} has {found.get(name, 'no federation state')},"
                        f" not {gateways}"
                    )
        return ", ".join(f"{name}: {' '.join(gateways)}" for name, gateways in wanted.items())

    return until(check, "federation states", timeout_s)


def kv(world: World, timeout_s: float) -> str:
    """What is written in each datacenter is read through every other."""
    value = uuid.uuid4().hex[:12]
    servers = _first_servers(world)
    done = []
    for there, here in (
        itertools.permutations(servers, 2) if len(servers) > 1 else [(servers[0],) * 2]
    ):
        name = there.datacenter.name
        key = f"proof/{name}"

        def check(there: Host = there, here: Host = here, key: str = key) -> None:
            name = there.datacenter.name
            world.api(there).kv_put(key, value)
            if world.api(here).kv_get(key, dc=name) != value:
                raise Missing(f"{here.label} reads another value of {key} in {name}")

        until(check, f"{key} written in {name}, read from {here.datacenter.name}", timeout_s)
        done.append(f"{name} -> {here.datacenter.name}")
    return ", ".join(done)


def service(world: World, timeout_s: float) -> str:
    """A service of the primary is found, passing, from every other datacenter."""
    owner = (world.gateways(world.spec.primary.name) or world.servers(world.spec.primary.name))[0]
    definition = {
        "Name": "demo-web",
        "Port": 8080,
        "Tags": ["demo"],
        "Check": {"TTL": "24h", "Status": "passing"},
    }
    until(
        lambda: world.api(owner).put("/v1/agent/service/register", definition),
        f"demo-web registered at {owner.name}",
        timeout_s,
    )
    name = owner.datacenter.name
    for server in _first_servers(world):

        def check(server: Host = server) -> None:
            found = world.api(server).get("/v1/health/service/demo-web", dc=name, passing=1)
            nodes = [entry["Node"]["Node"] for entry in found]
            if nodes != [owner.name]:
                raise Missing(f"{server.label} finds it on {nodes or 'no node'}")

        until(check, f"demo-web of {name} found from {server.datacenter.name}", timeout_s)
    return f"demo-web on {owner.name} of {name}, found by {len(_first_servers(world))} servers"


def isolated(world: World) -> str:
    """Raises WorldError if anything went from server to server directly."""
    evidence = world.network.evidence()
    text = "\n".join(evidence.lines)
    if not evidence.isolated:
        raise WorldError(f"not isolated:\n{text}")
    return text


def _wan_address(gateway: Mapping[str, Any]) -> str:
    """Of a CheckServiceNode; what is not there yet is an empty string."""
    addresses = gateway["Service"].get("TaggedAddresses") or {}
    return str((addresses.get("wan") or {}).get("Address", ""))


def _first_servers(world: World) -> list[Host]:
    return [world.servers(d.name)[0] for d in world.spec.datacenters]
