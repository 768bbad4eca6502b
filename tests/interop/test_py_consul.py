"""`py-consul`, a client library that others wrote, on an agent of ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import consul
import pytest
from agent_support import OURS, Agents, ready, until

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[consul.Consul]:
    """Connected to a server of ours that is alone."""
    agents = Agents(tmp_path_factory.mktemp("py"))
    try:
        server = ready(agents.server(OURS, "srv"))
        with consul.Consul(host=server.address, port=8500) as connected:
            yield connected
    finally:
        agents.close()


def test_keys(client: consul.Consul) -> None:
    assert client.kv.get("py/none")[1] is None
    assert client.kv.put("py/a", "one", flags=7) is True
    assert client.kv.put("py/b", b"\x00two") is True
    index, entry = client.kv.get("py/a")
    assert (entry["Value"], entry["Flags"], entry["ModifyIndex"]) == (b"one", 7, int(index))
    assert [e["Key"] for e in client.kv.get("py/", recurse=True)[1]] == ["py/a", "py/b"]
    assert client.kv.get("py/", keys=True)[1] == ["py/a", "py/b"]
    assert client.kv.put("py/a", "x", cas=0) is False
    assert client.kv.put("py/a", "two", cas=entry["ModifyIndex"]) is True
    assert client.kv.delete("py/", recurse=True) is True
    assert client.kv.get("py/", recurse=True)[1] is None


def test_a_blocking_query(client: consul.Consul) -> None:
    client.kv.put("wait", "before")
    index, _ = client.kv.get("wait")
    timer = threading.Timer(0.2, lambda: client.kv.put("wait", "after"))
    timer.start()
    later, entry = client.kv.get("wait", index=index, wait="10s")
    timer.join()
    assert entry["Value"] == b"after"
    assert int(later) > int(index)


def test_the_catalog(client: consul.Consul) -> None:
    client.catalog.register("far", "10.0.0.1", service={"Service": "db", "Port": 5, "Tags": ["t"]})
    assert "far" in [n["Node"] for n in client.catalog.nodes()[1]]
    assert client.catalog.services()[1]["db"] == ["t"]
    (row,) = client.catalog.service("db")[1]
    assert (row["Node"], row["ServicePort"]) == ("far", 5)
    assert client.catalog.node("far")[1]["Services"]["db"]["Port"] == 5
    assert client.catalog.deregister("far") is True
    assert client.catalog.node("far")[1] is None
    assert client.catalog.datacenters() == ["dc1"]


def test_an_agents_services_and_checks(client: consul.Consul) -> None:
    check = consul.Check.ttl("10m")
    assert client.agent.service.register("web", "web-1", port=80, tags=["x"], check=check) is True
    assert client.agent.services()["web-1"]["Port"] == 80
    until(lambda: client.health.service("web")[1])
    assert client.health.service("web", passing=True)[1] == []
    assert client.agent.check.ttl_pass("service:web-1", "good") is True
    (found,) = until(lambda: client.health.service("web", passing=True)[1])
    assert found["Service"]["Tags"] == ["x"]
    assert client.agent.checks()["service:web-1"]["Output"] == "good"
    until(lambda: client.health.checks("web")[1][0]["Status"] == "passing")
    assert client.agent.service.maintenance("web-1", "true", "r") is True
    until(lambda: client.health.service("web", passing=True)[1] == [])
    assert client.agent.service.deregister("web-1") is True
    until(lambda: client.health.service("web")[1] == [])
    assert client.agent.check.register("own", check=consul.Check.ttl("1m"), check_id="own") is True
    assert client.agent.check.deregister("own") is True
    until(lambda: "own" not in {check["CheckID"] for check in client.health.node("srv")[1]})


def test_the_cluster(client: consul.Consul) -> None:
    assert [m["Name"] for m in client.agent.members()] == ["srv"]
    assert client.agent.self()["Config"]["NodeName"] == "srv"
    assert client.status.leader() == client.status.peers()[0]
    assert client.operator.raft_config()["Servers"][0]["Leader"] is True
    assert isinstance(client.coordinate.nodes()[1], list)
    # The agent itself brings its node into the catalog, its leader that check
    until(lambda: [check["CheckID"] for check in client.health.node("srv")[1]] == ["serfHealth"])
    assert [check["CheckID"] for check in client.health.state("passing")[1]] == ["serfHealth"]
