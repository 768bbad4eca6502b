"""Config entries and intentions from a primary of one kind to a secondary of the other.

Plain WAN federation on the loopback. Costs two agents of each kind, about 12 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, ready, until

pytestmark = needs_consul

CONFIG, IXN = "/v1/config", "/v1/connect/intentions"
KINDS = ("service-defaults", "proxy-defaults", "service-router", "service-splitter", "service-resolver",
         "ingress-gateway", "terminating-gateway")  # fmt: skip
ENTRIES: tuple[dict[str, Any], ...] = (
    {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http", "n": 1.5, "l": [1, "x"]}},
    {"Kind": "service-defaults", "Name": "web", "Protocol": "http", "Meta": {"a": "b"}},
    {"Kind": "service-resolver", "Name": "web", "Subsets": {"v1": {"Filter": "x == y"}},
     "ConnectTimeout": "3s"},
    {"Kind": "service-splitter", "Name": "web", "Splits": [{"Weight": 33.33, "ServiceSubset": "v1"},
     {"Weight": 66.67}]},
    {"Kind": "service-router", "Name": "web", "Routes": [{"Match": {"HTTP": {"PathPrefix": "/x"}},
     "Destination": {"ServiceSubset": "v1", "RequestTimeout": "5s", "NumRetries": 2}}]},
    {"Kind": "ingress-gateway", "Name": "in", "Listeners": [{"Port": 8080, "Protocol": "http",
     "Services": [{"Name": "web", "Hosts": ["a.b"]}]}]},
    {"Kind": "terminating-gateway", "Name": "out", "Services": [{"Name": "db", "CAFile": "ca.pem"}]},
)  # fmt: skip


@pytest.fixture(scope="module", params=["ours-from-theirs", "theirs-from-ours"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    """A primary and its secondary, one of each kind."""
    first, second = (THEIRS, OURS) if request.param == "ours-from-theirs" else (OURS, THEIRS)
    agents = Agents(tmp_path_factory.mktemp("replication"))
    try:
        common: dict[str, Any] = {
            "primary_datacenter": "dc1",
            "connect": {"enabled": True},
        }
        primary = agents.server(first, "p1", datacenter="dc1", **common)
        ready(primary)
        secondary = agents.server(
            second, "s1", datacenter="dc2", retry_join_wan=[primary.address],
            retry_interval_wan="1s", **common,
        )  # fmt: skip
        ready(secondary)
        until(lambda: sorted(secondary.get("/v1/catalog/datacenters")) == ["dc1", "dc2"])
        until(lambda: sorted(primary.get("/v1/catalog/datacenters")) == ["dc1", "dc2"])
        yield primary, secondary
    finally:
        agents.close()


def contents(agent: AgentProcess, path: str) -> Any:
    """Rows without what differs from datacenter to datacenter."""
    rows = agent.get(path)
    return [
        {k: v for k, v in row.items() if k not in ("CreateIndex", "ModifyIndex")} for row in rows
    ]


def all_entries(agent: AgentProcess) -> Any:
    return {kind: contents(agent, f"{CONFIG}/{kind}") for kind in KINDS}


def test_entries_follow_the_primary(pair: tuple[AgentProcess, AgentProcess]) -> None:
    primary, secondary = pair
    for entry in ENTRIES[:4]:
        assert primary.put(CONFIG, entry) is True
    for entry in ENTRIES[4:]:  # a secondary sends writes to the primary
        assert secondary.put(CONFIG, entry) is True
    until(lambda: all_entries(secondary) == all_entries(primary))
    assert sum(map(len, all_entries(secondary).values())) >= len(ENTRIES)
    assert primary.put(CONFIG, ENTRIES[1] | {"Meta": {"a": "c"}}) is True
    assert secondary.ask("DELETE", f"{CONFIG}/terminating-gateway/out")[0] == 200
    until(lambda: all_entries(secondary) == all_entries(primary))
    assert secondary.get(f"{CONFIG}/service-defaults/web")["Meta"] == {"a": "c"}
    assert secondary.get(f"{CONFIG}/service-defaults/web?dc=dc1")["Meta"] == {"a": "c"}
    assert contents(secondary, f"{CONFIG}/terminating-gateway") == []


def test_intentions_follow_the_primary(pair: tuple[AgentProcess, AgentProcess]) -> None:
    primary, secondary = pair
    for agent, names in ((primary, ("a", "b")), (secondary, ("*", "c")), (secondary, ("d", "*"))):
        body = {
            "SourceName": names[0],
            "DestinationName": names[1],
            "Action": "deny",
            "Meta": {"k": "v"},
        }
        status, _, answer = agent.ask("POST", IXN, body)
        assert status == 200, answer
    until(lambda: len(secondary.get(IXN)) == 3)
    assert contents(secondary, IXN) == contents(primary, IXN)
    one = next(row for row in primary.get(IXN) if row["SourceName"] == "a")
    change = {"SourceName": "a", "DestinationName": "z", "Action": "allow"}
    assert secondary.put(f"{IXN}/{one['ID']}", change) == {"ID": one["ID"]}
    other = next(row for row in primary.get(IXN) if row["SourceName"] == "d")
    assert primary.ask("DELETE", f"{IXN}/{other['ID']}")[0] == 200
    until(
        lambda: len(secondary.get(IXN)) == 2 and contents(secondary, IXN) == contents(primary, IXN)
    )
    assert secondary.get(f"{IXN}/check?source=a&destination=z") == {"Allowed": True}
    assert secondary.get(f"{IXN}/check?source=q&destination=c") == {"Allowed": False}


def complaints(agent: AgentProcess) -> list[str]:
    return [line for line in agent.complaints() if "replicat" in line.lower()]


def test_nobody_complains_once_they_know_each_other(
    pair: tuple[AgentProcess, AgentProcess],
) -> None:
    primary, secondary = pair
    until(lambda: all_entries(secondary) == all_entries(primary))
    before = [complaints(agent) for agent in pair]
    assert primary.put(CONFIG, {"Kind": "service-defaults", "Name": "last"}) is True
    until(lambda: "last" in str(all_entries(secondary)))
    assert [complaints(agent) for agent in pair] == before
