"""ACLs in one quorum of both kinds: whoever leads, both hold the same rows. Default deny.

Costs two agents of each kind, about 10 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from acl_support import MASTER, acl_ready, acls, answer, call
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, until

pytestmark = needs_consul

Pair = tuple[AgentProcess, AgentProcess]
RULES = 'key_prefix "a/" { policy = "write" }'


@pytest.fixture(scope="module", params=["ours-leads", "theirs-leads"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """The leader and a follower, one of each kind."""
    first, second = (OURS, THEIRS) if request.param == "ours-leads" else (THEIRS, OURS)
    agents = Agents(tmp_path_factory.mktemp("acl"))
    try:
        leader = acl_ready(agents.server(first, "l1", **acls(agent=MASTER)))
        follower = agents.server(
            second, "f1", bootstrap=False, retry_join=[leader.address], retry_interval="1s",
            **acls(agent=MASTER),
        )  # fmt: skip
        yield leader, acl_ready(follower)
    finally:
        agents.close()


def _same(pair: Pair) -> bool:
    """All rows with their indexes, hashes and times, each server by its own state."""
    for noun in ("policies", "roles", "tokens", "list"):
        leader, follower = (
            answer(agent, "GET", f"/v1/acl/{noun}?stale", token=MASTER) for agent in pair
        )
        if leader != follower:
            return False
    return True


def _put(agent: AgentProcess, key: str, token: str) -> int:
    return call(agent, "PUT", f"/v1/kv/{key}", "1", token)[0]


def test_both_hold_the_same(pair: Pair) -> None:
    leader, follower = pair
    until(lambda: _same(pair))
    before = len(answer(follower, "GET", "/v1/acl/tokens?stale"))
    for agent, name in ((leader, "one"), (follower, "two")):
        policy = answer(agent, "PUT", "/v1/acl/policy", {"Name": name, "Rules": RULES})
        role = answer(
            agent, "PUT", "/v1/acl/role",
            {"Name": name, "Policies": [{"ID": policy["ID"]}],
             "ServiceIdentities": [{"ServiceName": "web", "Datacenters": ["dc1"]}],
             "NodeIdentities": [{"NodeName": "n", "Datacenter": "dc1"}]},
        )  # fmt: skip
        token = answer(
            agent, "PUT", "/v1/acl/token",
            {"Description": name, "Roles": [{"Name": name}], "ExpirationTTL": "1h", "Local": True},
        )  # fmt: skip
        answer(agent, "PUT", f"/v1/acl/token/{token['AccessorID']}/clone", {"Description": "c"})
        answer(agent, "PUT", f"/v1/acl/token/{token['AccessorID']}", {"Local": True})
        answer(agent, "PUT", f"/v1/acl/role/{role['ID']}", {"Name": name + "x"})
        answer(agent, "PUT", "/v1/acl/create", {"ID": f"leg-{name}", "Rules": RULES})
        until(lambda: _same(pair))
        # Who gets the right by a role's policy, whichever server is asked.
        other = answer(agent, "PUT", "/v1/acl/token", {"Policies": [{"Name": name}]})
        for server in pair:
            secret = other["SecretID"]
            until(lambda at=server, secret=secret: _put(at, "a/b", secret) == 200)
            assert _put(server, "b", secret) == 403
        answer(agent, "DELETE", f"/v1/acl/policy/{policy['ID']}")
        answer(agent, "DELETE", f"/v1/acl/token/{other['AccessorID']}")
        until(lambda: _same(pair))
    assert len(answer(follower, "GET", "/v1/acl/tokens?stale")) == before + 3 * 2


def test_tokens_of_old_get_accessors(pair: Pair) -> None:
    leader, follower = pair
    answer(follower, "PUT", "/v1/acl/create", {"ID": "m", "Type": "management"})

    def upgraded() -> bool:
        token = answer(follower, "GET", "/v1/acl/token/self?stale", token="m")
        return bool(token["AccessorID"] and token["Policies"])

    until(upgraded)
    until(lambda: _same(pair))
    assert call(leader, "GET", "/v1/acl/policies", token="m")[0] == 200


def test_another_bootstrap_by_the_file(pair: Pair) -> None:
    leader, follower = pair
    status, _, text = call(follower, "PUT", "/v1/acl/bootstrap", token="")
    assert status == 403
    index = text.rpartition(": ")[2].rstrip(")")
    file = Path(leader.config["data_dir"]) / "acl-bootstrap-reset"
    file.write_text("1")
    wrong = f"Invalid bootstrap reset index (specified 1, reset index: {index})"
    assert wrong in call(follower, "PUT", "/v1/acl/bootstrap", token="")[2]
    file.write_text(f"{index}\n")
    token = answer(follower, "PUT", "/v1/acl/bootstrap", token="")
    assert token["ID"] == token["SecretID"]
    assert not file.exists()
    assert call(leader, "GET", "/v1/acl/tokens", token=token["ID"])[0] == 200
    until(lambda: _same(pair))
