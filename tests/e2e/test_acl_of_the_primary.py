"""The primary is a real Consul with ACLs that deny by default: a secondary of ours whose replication
token is missing, unknown or too weak says so, and federates as soon as it is right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from e2e_support import measured, proven, status_command, status_row

from proconsul.app.worlds import proof
from proconsul.app.worlds.api import Api
from proconsul.app.worlds.spec import DatacenterSpec, Software, WorldSpec
from proconsul.app.worlds.waiting import Missing
from proconsul.app.worlds.world import World
from proconsul.testing.worlds import Worlds

pytestmark = [pytest.mark.netns, pytest.mark.peer]

MASTER = str(uuid4())
OURS: dict[str, object] = {}
"""The secondary's settings, as a test has them now."""


@pytest.fixture(scope="module")
def world(worlds: Worlds) -> Iterator[World]:
    tokens = {"master": MASTER, "agent": MASTER, "default": MASTER}
    acl = {"enabled": True, "default_policy": "deny", "tokens": tokens}
    primary = DatacenterSpec("dc1", software=Software.CONSUL, agent_config={"acl": acl})
    spec = WorldSpec(
        (primary, DatacenterSpec("dc2", agent_config=OURS)),
        agent_config={"retry_interval_wan": "1s", "performance": {"raft_multiplier": 1}},
    )
    with worlds(spec) as world:
        yield world
        proof.isolated(world)


def _restart_with(world: World, token: str) -> None:
    OURS["acl"] = {"tokens": {"replication": token}}
    server = world.host("dc2-s1")
    world.agent(server).kill()
    world.start_agent(server)


def _denied(world: World, *words: str) -> dict[str, Any]:
    """The row of dc1 as the secondary's server sees it, once it tells of all these words."""
    code, text = status_command(world, world.host("dc2-s1"), "-json")
    if code != 1:
        raise Missing(f"exit status {code}: {text[:300]}")
    row = status_row(json.loads(text), "dc1")
    if row.get("Hop") != "ACL" or row["Cause"] != "acl":
        raise Missing(f"{row.get('Hop')}: {row.get('Cause')}: {row.get('Reason')}")
    told = f"{row['Reason']} | {row['Remedy']}"
    if missing := [word for word in words if word not in told]:
        raise Missing(f"{missing} in {told}")
    print(f"[reason] {told}")
    return row


def _token(api: Api, right: str) -> str:
    """A new token of the primary with `operator = "<right>"`."""
    name = f"operator-{right}"
    api.put("/v1/acl/policy", {"Name": name, "Rules": f'operator = "{right}"'})
    made = json.loads(api.put("/v1/acl/token", {"Policies": [{"Name": name}]}))
    return str(made["SecretID"])


def test_the_missing_right_is_named_until_there_is_none(world: World) -> None:
    measured(
        "without a token",
        lambda: _denied(
            world, "Permission denied", "no replication token is set", 'operator = "write"'
        ),
        60.0,
    )
    code, shown = status_command(world, world.host("dc2-s1"))
    assert code == 1
    assert "ACL fails (acl)" in shown

    _restart_with(world, str(uuid4()))
    measured("with an unknown token", lambda: _denied(world, "does not know the replication token"))

    primary = world.api(world.host("dc1-s1"))
    _restart_with(world, _token(primary, "read"))
    measured("with one that may only read", lambda: _denied(world, 'lacks `operator = "write"`'))

    _restart_with(world, _token(primary, "write"))
    proven("with the right one", proof.federation_states, world)
    proven("servers alive", proof.wan_alive, world)

    def content() -> None:
        code, text = status_command(world, world.host("dc2-s1"))
        if code:
            raise Missing(text)

    measured("federation status is content", content)
