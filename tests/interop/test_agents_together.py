"""One datacenter of ours and real Consul's: a server of the one, a client agent of the other.

Both directions, each without and with TLS and gossip encryption.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from agent_support import (
    DYING,
    OURS,
    THEIRS,
    AgentProcess,
    Agents,
    needs_consul,
    ready,
    until,
)

pytestmark = needs_consul


@dataclass(frozen=True)
class Pair:
    """A server and a client agent that has joined it."""

    agents: Agents
    server: AgentProcess
    client: AgentProcess

    @property
    def both(self) -> tuple[AgentProcess, AgentProcess]:
        return self.server, self.client

    def same(self, target: str) -> Any:
        """The answer of both, which must be equal."""
        answers = [agent.get(target) for agent in self.both]
        assert answers[0] == answers[1], target
        return answers[0]


def tls_files(path: Path) -> dict[str, Any]:
    """A CA and certificates of our own making, and settings that demand them everywhere."""
    path.mkdir()
    for args in (("ca", "create"), ("cert", "create", "-server"), ("cert", "create", "-client")):
        subprocess.run([*OURS, "tls", *args], cwd=path, check=True, capture_output=True)
    return {
        "ca_file": str(path / "consul-agent-ca.pem"),
        "verify_incoming": True,
        "verify_outgoing": True,
        "verify_server_hostname": True,
        "encrypt": base64.b64encode(os.urandom(32)).decode(),
    }


def certificate(path: Path, role: str) -> dict[str, str]:
    name = str(path / f"dc1-{role}-consul-0")
    return {"cert_file": f"{name}.pem", "key_file": f"{name}-key.pem"}


@pytest.fixture(
    scope="module",
    params=["ours-theirs", "theirs-ours", "ours-theirs-tls", "theirs-ours-tls"],
)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    path = tmp_path_factory.mktemp("pair")
    first, second = (OURS, THEIRS) if request.param.startswith("ours") else (THEIRS, OURS)
    agents = Agents(path)
    common: dict[str, Any] = {"connect": {"enabled": True}, **DYING}
    server_tls, client_tls = {}, {}
    if request.param.endswith("tls"):
        common |= tls_files(path / "tls")
        server_tls = certificate(path / "tls", "server")
        client_tls = certificate(path / "tls", "client")
    try:
        server = agents.server(first, "srv", **common, **server_tls)
        client = agents.client(
            second, "cli", server, **common, **client_tls,
            ports={"dns": -1, "grpc": 8502}, node_meta={"rack": "7"},
        )  # fmt: skip
        ready(server)
        ready(client)
        yield Pair(agents, server, client)
    finally:
        agents.close()


def test_members_and_catalog(pair: Pair) -> None:
    def synced() -> bool:
        node = pair.same("/v1/catalog/node/cli")["Node"]
        assert node["Address"] == pair.client.address
        assert node["ID"] == pair.client.get("/v1/agent/self")["Config"]["NodeID"]
        return bool(node["Meta"] == {"rack": "7", "consul-network-segment": ""})

    until(synced)
    # The leader learns of a new member by gossip, later perhaps than by the agent's own word.
    (serf,) = until(lambda: pair.same("/v1/health/node/cli"))
    assert (serf["CheckID"], serf["Status"]) == ("serfHealth", "passing")
    members = [{m["Name"]: m for m in agent.get("/v1/agent/members")} for agent in pair.both]
    assert members[0] == members[1]
    assert {n: m["Status"] for n, m in members[0].items()} == {"srv": 1, "cli": 1}
    assert pair.same("/v1/status/leader") == f"{pair.server.address}:8300"
    pair.same("/v1/status/peers")
    pair.same("/v1/catalog/datacenters")
    pair.same("/v1/operator/raft/configuration")


def test_keys_through_the_client(pair: Pair) -> None:
    client = pair.client
    assert client.put("/v1/kv/k/a?flags=42", b"one") is True
    assert client.put("/v1/kv/k/b", b"\x00\xff") is True
    assert client.put("/v1/kv/k/sub/c", b"") is True
    (first,) = pair.same("/v1/kv/k/a?consistent")
    assert base64.b64decode(first["Value"]) == b"one"
    assert first["Flags"] == 42
    assert client.ask("GET", "/v1/kv/k/b?raw")[2] == b"\x00\xff"
    assert [e["Key"] for e in pair.same("/v1/kv/k?recurse")] == ["k/a", "k/b", "k/sub/c"]
    assert pair.same("/v1/kv/k/?keys&separator=/") == ["k/a", "k/b", "k/sub/"]
    assert client.put("/v1/kv/k/a?cas=0", b"x") is False
    assert client.put(f"/v1/kv/k/a?cas={first['ModifyIndex']}", b"two") is True
    assert pair.server.ask("GET", "/v1/kv/k/a?raw")[2] == b"two"
    assert client.ask("DELETE", "/v1/kv/k/a?cas=1")[2].strip() == b"false"
    assert client.ask("DELETE", "/v1/kv/k?recurse")[2].strip() == b"true"
    assert [agent.ask("GET", "/v1/kv/k?recurse")[0] for agent in pair.both] == [404, 404]


def test_transactions_through_a_real_agent(pair: Pair) -> None:
    real = next(agent for agent in pair.both if not agent.ours)
    write = {"KV": {"Verb": "set", "Key": "txn/a", "Value": "b25l"}}
    read = {"KV": {"Verb": "get", "Key": "txn/a"}}
    done = real.put("/v1/txn", [write, read])
    assert [r["KV"]["Key"] for r in done["Results"]] == ["txn/a", "txn/a"]
    assert real.put("/v1/txn", [read])["Results"][0]["KV"]["Value"] == "b25l"
    status, _, body = real.ask("PUT", "/v1/txn", [{"KV": {"Verb": "cas", "Key": "txn/a"}}, write])
    assert (status, json.loads(body)["Errors"][0]["OpIndex"]) == (409, 0)
    assert pair.same("/v1/kv/txn/?keys") == ["txn/a"]


@pytest.mark.parametrize("asked", [0, 1])
def test_a_blocking_query_wakes(pair: Pair, asked: int) -> None:
    reader, writer = pair.both[asked], pair.both[1 - asked]
    key = f"blocked-{asked}"
    assert writer.put(f"/v1/kv/{key}", b"before")
    index = reader.index(f"/v1/kv/{key}")
    found: list[tuple[bytes, float]] = []

    def wait() -> None:
        started = time.monotonic()
        answer = reader.ask("GET", f"/v1/kv/{key}?raw&index={index}&wait=20s", timeout=30)
        found.append((answer[2], time.monotonic() - started))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)  # the query should be waiting by then; were it not, the test proves less
    assert not found
    assert writer.put(f"/v1/kv/{key}", b"after")
    thread.join(25)
    assert found[0][0] == b"after"
    assert found[0][1] < 10


WEB = {
    "Name": "web", "ID": "web-1", "Port": 80, "Tags": ["b", "a"], "Meta": {"k": "v"},
    "TaggedAddresses": {"wan": {"Address": "9.9.9.9", "Port": 1}},
    "Weights": {"Passing": 3, "Warning": 2},
    "Checks": [
        {"TTL": "10m", "CheckID": "web-ttl", "Name": "ttl"},
        {"TCP": "127.0.0.1:1", "Interval": "1h", "CheckID": "web-tcp", "Status": "warning"},
    ],
}  # fmt: skip
GATEWAY = {
    "Name": "gateway-dc1", "Kind": "mesh-gateway", "Port": 8443,
    "Meta": {"consul-wan-federation": "1"},
    "TaggedAddresses": {
        "lan": {"Address": "127.0.0.9", "Port": 8443}, "wan": {"Address": "9.9.9.9", "Port": 443},
    },
    "Proxy": {
        "Config": {
            "envoy_mesh_gateway_no_default_bind": True,
            "envoy_mesh_gateway_bind_addresses": {"lan": {"Address": "127.0.0.9", "Port": 8443}},
        },
    },
    "Checks": [{"TTL": "10m", "CheckID": "gw", "Status": "passing"}],
}  # fmt: skip


def status_of(agent: AgentProcess, service: str) -> dict[str, str]:
    (instance,) = agent.get(f"/v1/health/service/{service}")
    return {c["CheckID"]: c["Status"] for c in instance["Checks"]}


def test_services_and_checks_of_the_client(pair: Pair) -> None:
    client = pair.client
    client.put("/v1/agent/service/register", WEB)
    client.put("/v1/agent/check/register", {"Name": "disk", "TTL": "10m", "Notes": "n"})
    client.put("/v1/agent/check/pass/disk?note=fine")
    wanted = {"serfHealth": "passing", "disk": "passing", "web-ttl": "critical"}
    until(lambda: status_of(pair.server, "web").items() >= wanted.items())
    client.put("/v1/agent/check/warn/web-ttl?note=hm")
    until(lambda: status_of(pair.server, "web")["web-ttl"] == "warning")
    (instance,) = until(lambda: pair.same("/v1/health/service/web"))
    service = instance["Service"]
    assert service["Tags"] == ["b", "a"]
    assert service["Weights"] == {"Passing": 3, "Warning": 2}
    assert service["Meta"] == {"k": "v"}
    assert service["TaggedAddresses"] == {"wan": {"Address": "9.9.9.9", "Port": 1}}
    pair.same("/v1/catalog/service/web?tag=a")
    client.put("/v1/agent/service/register", {**WEB, "Port": 81})
    until(lambda: pair.server.get("/v1/catalog/service/web")[0]["ServicePort"] == 81)
    client.put("/v1/agent/service/maintenance/web-1?enable=true&reason=r")
    until(lambda: status_of(pair.server, "web")["_service_maintenance:web-1"] == "critical")
    client.put("/v1/agent/service/maintenance/web-1?enable=false")
    client.put("/v1/agent/service/deregister/web-1")
    client.put("/v1/agent/check/deregister/disk")
    until(lambda: pair.server.get("/v1/health/service/web") == [])
    until(lambda: len(pair.server.get("/v1/health/node/cli")) == 1)


def test_the_catalog_is_corrected(pair: Pair) -> None:
    """What others write of the client's node is undone by it, and nothing is sent twice."""
    server, client = pair.both
    client.put("/v1/agent/service/register", GATEWAY)
    client.put("/v1/agent/service/register", {**WEB, "Name": "kept", "ID": "kept"})
    until(lambda: status_of(server, "kept")["web-tcp"])
    until(lambda: status_of(server, "gateway-dc1")["gw"] == "passing")
    body = {"Node": "cli", "Address": client.address, "Service": {"Service": "stray"}}
    server.put("/v1/catalog/register", body)
    assert "stray" in server.get("/v1/catalog/services")
    before = server.get("/v1/catalog/node/cli")
    # A server that comes anew makes clients compare everything.
    server.stop()
    until(lambda: client.ask("GET", "/v1/kv/x")[0] == 500 or client.members()["srv"] == 4)
    server.start()
    ready(server)
    until(lambda: server.members() == {"srv": 1, "cli": 1})
    until(lambda: "stray" not in server.get("/v1/catalog/services"), 40)
    until(lambda: client.put("/v1/kv/again", b"x"))
    del before["Services"]["stray"]
    until(
        lambda: set(server.get("/v1/catalog/node/cli")["Services"]) == set(before["Services"]), 45
    )
    after = server.get("/v1/catalog/node/cli")
    # A leader that finds a node in its catalog before it hears from it forgets it.
    forgotten = after["Node"]["CreateIndex"] != before["Node"]["CreateIndex"]
    assert forgotten or after["Services"] == before["Services"]
    names = ("kept", "gateway-dc1")
    sent = {client.log().count(f"Synced service: service={name}\n") for name in names}
    # A real leader answers before it has replayed its log: who asks just then sends all again.
    assert sent == {1 + forgotten} or (sent == {2} and not server.ours)
    for name in names:
        client.put(f"/v1/agent/service/deregister/{name}")
    # Real clients repeat a call that a restarted server lost after 15 s, and up to as long again.
    # Other tests of the pair may have left services of their own.
    until(lambda: not {"kept", "gateway-dc1"} & set(server.get("/v1/catalog/services")), 45)


# Waiting for failures to be detected takes long, and TLS has no part in it.
@pytest.mark.parametrize("pair", ["ours-theirs", "theirs-ours"], indirect=True, scope="module")
def test_kill_and_leave_of_the_client(pair: Pair) -> None:
    server, client = pair.both
    client.stop()
    until(lambda: server.members()["cli"] == 4, 40)
    until(lambda: server.get("/v1/health/node/cli")[0]["Status"] == "critical")
    client.start()
    ready(client)
    until(lambda: server.members()["cli"] == 1, 30)
    until(lambda: server.get("/v1/health/node/cli")[0]["Status"] == "passing")
    # Once it has told the catalog of itself it has no reason to do that again while it leaves.
    client.put("/v1/agent/service/register", {"Name": "last"})
    until(lambda: server.get("/v1/catalog/service/last"))
    if not client.ours:  # its first full comparison would else come while it leaves
        until(lambda: "Service in sync: service=last" in client.log())
    client.put("/v1/agent/leave")
    assert client.wait_exit() == 0
    until(lambda: server.members()["cli"] == 3)
    until(lambda: server.get("/v1/catalog/node/cli") is None)
    client.start()
    ready(client)
    until(lambda: server.members()["cli"] == 1, 30)
    assert client.stop(signal.SIGTERM) == 0, "a client leaves when terminated"
    until(lambda: server.members()["cli"] == 3)
    client.start()
    ready(client)


HARMLESS = (
    "bootstrap = true", "heartbeat timeout reached", "No known Consul servers",
    "No servers available", "No cluster leader", "connection refused", "EOF", "connection reset",
    "broken pipe", "Check is now", "Check missed TTL", "not part of the cluster", "Suspect",
    "Refuting", "refuting",
    "i/o timeout", "no known leader", "Error pushing", "shutting down", "server is dead",
    "Got a ping", "couldn't join", "Join cluster failed", "failed to get conn", "other probes failed",
    "Failed to re-join any", "has failed, no acks", "socket connection failed",
    "stream closed", "use of closed network connection",
)  # fmt: skip


def test_nobody_complains(pair: Pair) -> None:
    """Last: whatever the real program calls of ours is there."""
    for agent in pair.both:
        lines = [x for x in agent.complaints() if not any(h in x for h in HARMLESS)]
        assert not lines, "\n".join(lines[:20])
