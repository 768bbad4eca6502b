"""Prepared queries in one quorum of both programs: every log entry has the same effect on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_support import OURS, THEIRS, Agents, needs_consul, ready, until

pytestmark = needs_consul
TEMPLATE = {"Type": "name_prefix_match", "Regexp": "^t-(.*)$"}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Any]]:
    """Our server, which leads, and a real one that follows."""
    agents = Agents(tmp_path)
    try:
        ours = ready(agents.server(OURS, "a"))
        join = {"retry_join": [ours.address], "retry_interval": "1s"}
        theirs = agents.make(THEIRS, "b", server=True, **join).start()
        until(lambda: len(ours.get("/v1/operator/raft/configuration")["Servers"]) == 2)
        until(theirs.leader)
        yield [ours, theirs]
    finally:
        agents.close()


def _same(pair: list[Any], count: int) -> bool:
    one, two = (agent.get("/v1/query?stale") for agent in pair)
    assert one == two
    return len(one) == count


def test_both_keep_the_same_queries(pair: list[Any]) -> None:
    ours, theirs = pair
    session = until(lambda: ours.put("/v1/session/create", {}))["ID"]
    service = {"Service": "web", "Tags": ["a"], "NodeMeta": {"a": "b"}, "IgnoreCheckIDs": ["c"],
               "Failover": {"NearestN": 1, "Datacenters": ["d"]}}  # fmt: skip
    bodies = (
        {"Name": "x", "Service": service, "DNS": {"TTL": "5s"}, "Token": "t"},
        {"Name": "t-", "Template": TEMPLATE, "Service": {"Service": "${match(1)}"}},
        {"Session": session, "Service": {"Service": "web"}},
    )
    for agent, body in zip((ours, theirs, ours), bodies, strict=True):
        assert agent.ask("POST", "/v1/query", body)[0] == 200
    until(lambda: _same(pair, 3))
    explained = theirs.get("/v1/query/t-zz/explain?stale")["Query"]["Service"]["Service"]
    assert explained == "zz"
    by_name = {query["Name"]: query["ID"] for query in ours.get("/v1/query")}
    theirs.put(f"/v1/query/{by_name['x']}", {"Name": "y", "Service": {"Service": "db"}})
    ours.put(f"/v1/session/destroy/{session}")
    until(lambda: _same(pair, 2))
    assert theirs.ask("DELETE", f"/v1/query/{by_name['t-']}")[0] == 200
    until(lambda: _same(pair, 1))
