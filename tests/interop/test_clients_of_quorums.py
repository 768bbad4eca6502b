"""A real client agent and one of ours, side by side on three servers, ours or real ones.

What they register looks alike in the catalog, what they answer is what servers answer, and when
servers die and come back ours fails no call that Consul's would not fail.
"""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, ready, until
from quorum_support import Cluster

pytestmark = [*needs_consul, pytest.mark.timeout(180)]
WEB = {
    "Name": "web", "ID": "web-1", "Port": 80, "Tags": ["b", "a"], "Meta": {"k": "v"},
    "TaggedAddresses": {"wan": {"Address": "9.9.9.9", "Port": 1}},
    "Weights": {"Passing": 3, "Warning": 2},
    "Checks": [
        {"TTL": "10m", "CheckID": "web-ttl", "Name": "ttl", "Notes": "n"},
        {"HTTP": "http://127.0.0.1:1/", "Interval": "1s", "CheckID": "web-http", "Status": "passing"},
        {"AliasNode": "s0", "CheckID": "web-alias"},
    ],
}  # fmt: skip
TARGETS = (
    "/v1/catalog/nodes", "/v1/catalog/services", "/v1/catalog/service/web", "/v1/catalog/node/real",
    "/v1/catalog/node-services/mine", "/v1/catalog/datacenters", "/v1/health/node/mine",
    "/v1/health/service/web", "/v1/health/service/web?filter=Node.Node+==+real", "/v1/kv/?recurse",
    "/v1/health/service/web?passing&cached", "/v1/health/checks/web", "/v1/session/list",
    "/v1/status/leader", "/v1/status/peers", "/v1/operator/raft/configuration", "/v1/kv/none",
    "/v1/connect/ca/roots", "/v1/catalog/nodes?filter=Nope==1",
    "/v1/catalog/nodes?node-meta=rack:7", "/v1/query", "/v1/event/list",
)  # fmt: skip


@dataclass
class Estate:
    """Three servers of one kind, a client agent of each."""

    cluster: Cluster
    real: AgentProcess
    mine: AgentProcess

    @property
    def clients(self) -> tuple[AgentProcess, AgentProcess]:
        return self.mine, self.real


@pytest.fixture(scope="module", params=["ooo", "ttt"])
def estate(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Estate]:
    agents = Agents(tmp_path_factory.mktemp("estate"))
    try:
        cluster = Cluster(agents, request.param, patience=1)
        cluster.settled()
        clients = [
            agents.client(program, name, *cluster.servers, node_meta={"rack": "7"})
            for program, name in ((THEIRS, "real"), (OURS, "mine"))
        ]
        for client in clients:
            ready(client)
            until(partial(client.get, "/v1/health/service/consul?passing"))
        yield Estate(cluster, *clients)
    finally:
        agents.close()


def test_registrations_look_alike(estate: Estate) -> None:
    for client in estate.clients:
        client.put("/v1/agent/service/register", WEB)
        client.put("/v1/agent/check/register", {"Name": "disk", "TTL": "10m", "Status": "warning"})
        client.put("/v1/agent/check/pass/web-ttl?note=fine")
    server = estate.cluster.servers[1]

    def settled() -> list[Any]:
        found: list[Any] = server.get("/v1/health/service/web?stale")
        assert [len(one["Checks"]) for one in found] == [5, 5]
        seen = json.dumps(found)
        # The alias has asked, the probe has failed.
        assert seen.count("All checks passing.") == seen.count("connection refused") == 2
        assert seen.count('"fine"') == 2, "what came after the registration has been synchronised"
        return found

    first, second = until(settled, 15)
    first, second = _nameless(first), _nameless(second)
    assert first["Checks"] == second["Checks"]
    assert first == second
    nodes = [server.get(f"/v1/catalog/node/{c.name}")["Node"] for c in estate.clients]
    assert _nameless(nodes[0]) == _nameless(nodes[1])


def _nameless(value: Any) -> Any:
    """Without what two nodes differ in."""
    if isinstance(value, dict):
        gone = {"CreateIndex", "ModifyIndex", "Node", "Address", "TaggedAddresses"}
        shown = {
            k: _nameless(v)
            for k, v in value.items()
            if k not in gone or (isinstance(v, dict) and k == "Node")
        }
        if len(str(shown.get("ID"))) == 36:
            del shown["ID"]
        return shown
    if isinstance(value, list):
        return sorted((_nameless(one) for one in value), key=json.dumps)
    return value


def test_clients_answer_as_servers_do(estate: Estate) -> None:
    leader = estate.cluster.leader()

    def same(target: str) -> bool:
        answers = [agent.ask("GET", target)[::2] for agent in (*estate.clients, leader)]
        assert answers[0][0] == answers[1][0] == answers[2][0], (target, answers)
        bodies = [_sorted(body) for _, body in answers]
        assert bodies[0] == bodies[1] == bodies[2], target
        return True

    for target in TARGETS:
        until(partial(same, target), 5)


def _sorted(body: bytes) -> Any:
    try:
        found = json.loads(body)
    except ValueError:
        # Consul's agents say so once for each server that passed the call on.
        return body.replace(b"rpc error making call: ", b"")
    return sorted(found, key=json.dumps) if isinstance(found, list) else found


@dataclass
class Load:
    """Reads and writes through one client, and what failed of them."""

    client: AgentProcess
    failed: dict[str, list[str]] = field(default_factory=lambda: {"read": [], "write": []})
    written: set[int] = field(default_factory=set)
    slowest_s: float = 0.0
    done: int = 0

    def write(self, number: int) -> None:
        if self._ask("write", "PUT", f"/v1/kv/{self.client.name}/{number}", b"x"):
            self.written.add(number)

    def read(self, number: int) -> None:
        key = f"/v1/kv/{self.client.name}/{number}"
        self._ask("read", "GET", key)
        self._ask("read", "GET", f"{key}?stale")
        self._ask("read", "GET", f"{key}?consistent")

    def block(self, _number: int) -> None:
        found = self._ask("read", "GET", "/v1/catalog/services")
        self._ask("read", "GET", f"/v1/catalog/services?index={found}&wait=1s")

    def _ask(self, kind: str, method: str, target: str, body: bytes | None = None) -> str:
        started = time.monotonic()
        try:
            status, head, answer = self.client.ask(method, target, body, timeout=30)
        except (OSError, http.client.HTTPException) as error:
            self.failed[kind].append(f"{target}: {error!r}")
            return ""
        finally:
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
        if status not in {200, 404}:
            self.failed[kind].append(f"{target}: {status} {answer.decode()}")
            return ""
        self.done += 1
        return head.get("X-Consul-Index", "1")


@contextmanager
def under_load(estate: Estate) -> Iterator[tuple[Load, Load]]:
    loads = Load(estate.mine), Load(estate.real)
    end = threading.Event()

    def repeat(work: Any) -> None:
        number = 0
        while not end.wait(0.02):
            number += 1
            work(number)

    threads = [
        threading.Thread(target=repeat, args=(work,))
        for load in loads
        for work in (load.write, load.read, load.block)
    ]
    for thread in threads:
        thread.start()
    try:
        yield loads
    finally:
        end.set()
        for thread in threads:
            thread.join(40)


def test_servers_come_and_go(estate: Estate) -> None:
    cluster = estate.cluster
    with under_load(estate) as (mine, real):
        for number in (signal.SIGKILL, signal.SIGTERM):
            victim = cluster.leader()
            victim.stop(number)
            rest = [server for server in cluster.servers if server is not victim]
            cluster.leader(rest)
            done = mine.done
            until(lambda done=done: mine.done > done + 20)  # type: ignore[misc]
            victim.start()
            cluster.leader()
            until(lambda: len(cluster.leader().get("/v1/health/service/consul?passing")) == 3, 40)
    # Reads are repeated, for as long as either client waits for a leader (7 s).
    assert len(mine.failed["read"]) <= len(real.failed["read"]), mine.failed["read"]
    # A write that is under way when its server dies cannot be repeated: one for each death.
    assert len(mine.failed["write"]) <= max(2, len(real.failed["write"])), mine.failed["write"]
    for load in (mine, real):
        keys = set(load.client.get(f"/v1/kv/{load.client.name}/?keys"))
        assert {f"{load.client.name}/{number}" for number in load.written} <= keys
