"""Tokens, policies and roles from a primary of one kind to a secondary of the other, default deny.

Plain WAN federation on the loopback. Costs two agents of each kind, about 12 s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from acl_support import MASTER, acl_ready, acls, answer, call
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, until

pytestmark = needs_consul

Pair = tuple[AgentProcess, AgentProcess]
ZERO_TIME = "0001-01-01T00:00:00Z"


@pytest.fixture(scope="module", params=["ours-from-theirs", "theirs-from-ours"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """A primary and its secondary, one of each kind."""
    first, second = (THEIRS, OURS) if request.param == "ours-from-theirs" else (OURS, THEIRS)
    agents = Agents(tmp_path_factory.mktemp("acl"))
    try:
        primary = agents.server(first, "p1", datacenter="dc1", **acls())
        secondary = agents.server(
            second, "s1", datacenter="dc2", retry_join_wan=[primary.address],
            retry_interval_wan="1s", **acls(secondary=True),
        )  # fmt: skip
        yield acl_ready(primary), acl_ready(secondary)
    finally:
        agents.close()


def _rows(agent: AgentProcess, noun: str) -> list[str]:
    """What is replicated, without what each datacenter counts for itself."""
    rows = answer(agent, "GET", f"/v1/acl/{noun}")
    return sorted(
        json.dumps({k: v for k, v in row.items() if not k.endswith("Index")}, sort_keys=True)
        for row in rows
        if not row.get("Local")
    )


def _same(primary: AgentProcess, secondary: AgentProcess) -> bool:
    return all(
        _rows(primary, noun) == _rows(secondary, noun) for noun in ("policies", "roles", "tokens")
    )


def _status(agent: AgentProcess, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = answer(agent, "GET", f"/v1/acl/replication{query}", token="")
    return found


def test_what_the_secondary_writes_comes_back_from_the_primary(pair: Pair) -> None:
    primary, secondary = pair
    until(lambda: _same(primary, secondary))
    before = len(_rows(secondary, "tokens"))
    policy = answer(
        secondary, "PUT", "/v1/acl/policy",
        {"Name": "kv", "Rules": 'key_prefix "a/" { policy = "write" }'},
    )  # fmt: skip
    role = answer(
        secondary, "PUT", "/v1/acl/role", {"Name": "r", "Policies": [{"ID": policy["ID"]}]}
    )
    token = answer(
        secondary, "PUT", "/v1/acl/token", {"Description": "g", "Roles": [{"Name": "r"}]}
    )
    until(lambda: _same(primary, secondary))
    assert len(_rows(secondary, "tokens")) == before + 1
    secret, accessor = token["SecretID"], token["AccessorID"]
    for agent in pair:
        put = lambda key, agent=agent: call(agent, "PUT", f"/v1/kv/{key}", "1", secret)  # noqa: E731
        until(lambda put=put: put("a/b")[0] == 200)
        assert put("c")[::2] == (403, "Permission denied")
        assert call(agent, "PUT", "/v1/kv/a/b", "1", "")[0] == 403
    clone = answer(secondary, "PUT", f"/v1/acl/token/{accessor}/clone", {"Description": "c"})
    answer(secondary, "PUT", f"/v1/acl/token/{accessor}", {"Description": "h"})
    until(lambda: _same(primary, secondary))
    own = answer(secondary, "GET", "/v1/acl/token/self", token=clone["SecretID"])
    assert own["Roles"] == [{"ID": role["ID"], "Name": "r"}]
    assert answer(secondary, "DELETE", f"/v1/acl/token/{accessor}") is True
    assert answer(secondary, "DELETE", f"/v1/acl/role/{role['ID']}") is True
    until(lambda: _same(primary, secondary))
    until(lambda: call(secondary, "PUT", "/v1/kv/a/b", "1", secret)[2] == "ACL not found")
    assert len(_rows(secondary, "tokens")) == before + 1
    assert _rows(secondary, "roles") == []


def test_local_tokens_stay_where_they_are(pair: Pair) -> None:
    primary, secondary = pair
    local = answer(secondary, "PUT", "/v1/acl/token", {"Description": "l", "Local": True})
    accessor, secret = local["AccessorID"], local["SecretID"]
    assert answer(secondary, "GET", "/v1/acl/token/self", token=secret)["AccessorID"] == accessor
    assert call(primary, "GET", f"/v1/acl/token/{accessor}")[::2] == (403, "ACL not found")
    assert call(primary, "GET", "/v1/acl/token/self", token=secret)[::2] == (403, "ACL not found")
    assert len(answer(secondary, "GET", "/v1/acl/tokens")) == 1 + len(
        answer(secondary, "GET", "/v1/acl/tokens?dc=dc1")
    )
    assert call(secondary, "PUT", "/v1/acl/bootstrap")[::2] == (500, "ACL support disabled")
    assert answer(secondary, "DELETE", f"/v1/acl/token/{accessor}") is True
    assert call(secondary, "GET", "/v1/acl/token/self", token=secret)[0] == 403


def test_the_status_tells_the_truth(pair: Pair) -> None:
    primary, secondary = pair
    until(lambda: _same(primary, secondary))
    status = _status(secondary)
    assert status["Enabled"]
    assert status["Running"]
    assert (status["SourceDatacenter"], status["ReplicationType"]) == ("dc1", "tokens")
    for field, noun in (
        ("ReplicatedIndex", "policies"),
        ("ReplicatedRoleIndex", "roles"),
        ("ReplicatedTokenIndex", "tokens"),
    ):
        index = primary.index(f"/v1/acl/{noun}?token={MASTER}")
        until(lambda field=field, index=index: _status(secondary)[field] == index)
    assert status["LastSuccess"] != ZERO_TIME
    assert _status(secondary, "?dc=dc1") == {
        "Enabled": False, "Running": False, "SourceDatacenter": "", "ReplicationType": "",
        "ReplicatedIndex": 0, "ReplicatedRoleIndex": 0, "ReplicatedTokenIndex": 0,
        "LastSuccess": ZERO_TIME, "LastError": ZERO_TIME,
    }  # fmt: skip


def test_a_token_that_may_not_write_acls_replicates_no_tokens(pair: Pair) -> None:
    primary, secondary = pair
    answer(primary, "PUT", "/v1/acl/policy", {"Name": "reads", "Rules": 'acl = "read"'})
    reader = answer(primary, "PUT", "/v1/acl/token", {"Policies": [{"Name": "reads"}]})["SecretID"]
    until(lambda: _same(primary, secondary))
    before = _status(secondary)["LastError"]
    answer(secondary, "PUT", "/v1/agent/token/replication", {"Token": reader})
    answer(primary, "PUT", "/v1/acl/policy", {"Name": "later"})
    answer(primary, "PUT", "/v1/acl/token", {"Policies": [{"Name": "later"}]})
    until(lambda: _rows(primary, "policies") == _rows(secondary, "policies"))
    until(lambda: _status(secondary)["LastError"] > before)
    assert len(_rows(secondary, "tokens")) == len(_rows(primary, "tokens")) - 1
    assert "replication token in use does not grant acl:write" in secondary.log()
    answer(
        secondary, "PUT", "/v1/agent/token/replication",
        {"Token": MASTER},
    )  # fmt: skip
    until(lambda: _same(primary, secondary))
