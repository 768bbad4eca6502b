"""All three servers of real Consul are replaced by ours, and back, under continuous writes.

Nothing that was acknowledged may be lost, and rows that nobody touched must come back bit for bit:
Consul's snapshot of before is compared with its snapshot of after, by way of our snapshots.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, until
from quorum_support import voters

from proconsul.domain.messages import MessageType

pytestmark = [*needs_consul, pytest.mark.timeout(300)]

COMMON: dict[str, Any] = {
    "server": True, "connect": {"enabled": True}, "retry_interval": "1s",
    "encrypt": base64.b64encode(bytes(range(32))).decode(),
    "autopilot": {"server_stabilization_time": "500ms"},
    "performance": {"raft_multiplier": 1, "leave_drain_time": "100ms"},
    "raft_snapshot_threshold": 50, "raft_trailing_logs": 20, "raft_snapshot_interval": "1s",
}  # fmt: skip

MASTER = "7f9b1d2e-0000-4000-8000-0123456789ab"
UNTOUCHED = (
    "/v1/kv/before?recurse", "/v1/kv/lock/by-consul", "/v1/session/list",
    "/v1/query", "/v1/connect/intentions",
    "/v1/config/service-defaults", "/v1/config/proxy-defaults", "/v1/config/service-resolver",
    "/v1/internal/federation-states",
    "/v1/catalog/node/outside", "/v1/health/node/outside", "/v1/connect/ca/roots",
)  # fmt: skip
"""What is written once, through Consul, and asked of Consul again at the end."""

ROWS = {
    MessageType.SESSION, MessageType.PREPARED_QUERY, MessageType.INTENTION,
    MessageType.CONFIG_ENTRY, MessageType.ACL_TOKEN_SET, MessageType.ACL_POLICY_SET,
    MessageType.ACL_ROLE_SET, MessageType.FEDERATION_STATE, MessageType.CONNECT_CA,
    MessageType.CONNECT_CA_PROVIDER_STATE, MessageType.CONNECT_CA_CONFIG,
}  # fmt: skip
"""Snapshot records that nothing changes in between."""


class Writer:
    """One client that writes without a pause, at whoever takes it, and knows what was taken."""

    def __init__(self, servers: list[AgentProcess]) -> None:
        self.servers = servers  # whoever may be asked: replaced, never changed
        self.keys: dict[str, tuple[int, str]] = {}
        self.nodes: dict[str, str] = {}
        self.latest = 0
        self.waited_s_max = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer")
        self.failure: BaseException | None = None

    @contextmanager
    def running(self) -> Iterator[Writer]:
        self._thread.start()
        try:
            yield self
        finally:
            self._end.set()
            self._thread.join(60)

    def _run(self) -> None:
        try:
            number = 0
            while not self._end.is_set():
                number += 1
                self._write(number)
                self._end.wait(0.02)
        except BaseException as error:
            self.failure = error
            raise

    def _write(self, number: int) -> None:
        key, value = f"during/{number}", f"value {number}"
        self._insist(f"/v1/kv/{key}?flags={number}", value)
        self.keys[key] = (number, value)
        self._insist("/v1/kv/latest", str(number))
        self.latest = number
        if number % 10 == 0:
            name, tag = f"web{number % 7}", f"t{number}"
            service = {"Service": name, "ID": name, "Port": number % 60000, "Tags": [tag]}
            check = {"Name": "c", "CheckID": f"c-{name}", "Status": "passing", "Output": tag}
            body = {
                "Node": "written", "Address": "1.1.1.2",
                "Service": service, "Check": {**check, "ServiceID": name},
            }  # fmt: skip
            self._insist("/v1/catalog/register", json.dumps(body))
            self.nodes[name] = tag

    def _insist(self, target: str, body: str) -> None:
        """Until a server says yes. Doing it twice is the same as once."""
        started = time.monotonic()
        turn = 0
        while True:
            servers = self.servers
            server = servers[turn % len(servers)]
            turn += 1
            try:
                status, _, answer = server.ask("PUT", target, body, timeout=8)
                if status == 200 and answer.strip() == b"true":
                    break
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
            assert time.monotonic() - started < 60, f"nobody accepts {target}"
        self.waited_s_max = max(self.waited_s_max, time.monotonic() - started)


def _lock(server: AgentProcess, name: str) -> str:
    """A session that nothing ends, and the key that it holds."""
    body = {"Name": name, "Node": "outside", "NodeChecks": [], "LockDelay": "1s"}
    session = str(server.put("/v1/session/create", body)["ID"])
    assert server.put(f"/v1/kv/lock/{name}?acquire={session}&flags=7", b"l") is True
    return session


def _write_before(server: AgentProcess) -> None:
    """Of every table something, through real Consul."""
    for i in range(20):
        assert server.put(f"/v1/kv/before/{i}?flags={i * 1000}", f"b{i}")
    server.ask("DELETE", "/v1/kv/before/3")
    node = {"Node": "outside", "Address": "1.1.1.1", "SkipNodeUpdate": False}
    server.put(
        "/v1/catalog/register",
        {
            **node, "NodeMeta": {"a": "b"},
            "Service": {"Service": "db", "Port": 80, "Tags": ["b", "a"], "Meta": {"k": "v"}},
            "Checks": [{"Name": "c", "Status": "passing", "ServiceID": "db", "Notes": "n"}],
        },
    )  # fmt: skip
    gateway = {
        "Service": "gw", "Kind": "mesh-gateway", "Port": 8443,
        "Meta": {"consul-wan-federation": "1"},
        "TaggedAddresses": {"wan": {"Address": "9.9.9.9", "Port": 1}},
    }  # fmt: skip
    server.put("/v1/catalog/register", {**node, "Service": gateway})
    session_id = _lock(server, "by-consul")
    for body in (
        {"Kind": "proxy-defaults", "Name": "global", "Config": {"a": [1, "x", {"b": True}]}},
        {"Kind": "service-defaults", "Name": "db", "Protocol": "http"},
        {"Kind": "service-resolver", "Name": "db", "ConnectTimeout": "3s"},
    ):
        server.put("/v1/config", body)
    intention = {"SourceName": "web", "DestinationName": "db", "Action": "allow"}
    assert server.ask("POST", "/v1/connect/intentions", intention)[0] == 200
    query = {"Name": "q", "Service": {"Service": "db"}, "Session": session_id}
    assert server.ask("POST", "/v1/query", query)[0] == 200
    token = f"?token={MASTER}"
    rules = {"Name": "p", "Rules": 'key_prefix "" { policy = "read" }'}
    policy = server.put(f"/v1/acl/policy{token}", rules)["ID"]
    role = server.put(f"/v1/acl/role{token}", {"Name": "r", "Policies": [{"ID": policy}]})["ID"]
    server.put(f"/v1/acl/token{token}", {"Description": "t", "Roles": [{"ID": role}]})
    until(lambda: server.get("/v1/internal/federation-states"))


class Rolling:
    """A cluster whose servers come and go, each under a name of its own."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self.servers: list[AgentProcess] = []

    def start(self, command: tuple[str, ...], *names: str, **config: Any) -> list[AgentProcess]:
        """Servers that join those there are."""
        new = [self._agents.make(command, name, **COMMON, **config) for name in names]
        for server in new:
            server.config["retry_join"] = [s.address for s in self.servers or new]
            if command is THEIRS:
                server.config["acl"] = {
                    "enabled": True, "default_policy": "allow", "tokens": {"master": MASTER}
                }  # fmt: skip
            server.start()
        self.servers = [*self.servers, *new]
        for server in self.servers:
            until(lambda s=server: voters(s) == {other.name for other in self.servers}, 60)
        return new

    def leave(self, *servers: AgentProcess) -> None:
        """Servers leave gracefully, at once, and there is a quorum without them."""
        self.servers = [s for s in self.servers if s not in servers]
        with ThreadPoolExecutor(len(servers)) as pool:  # the answer comes when it has left
            list(pool.map(lambda server: server.put("/v1/agent/leave"), servers))
        for server in servers:
            server.wait_exit()
        for other in self.servers:
            until(lambda s=other: voters(s) == {one.name for one in self.servers}, 60)

    def replace(
        self, writer: Writer, command: tuple[str, ...], old: list[AgentProcess], *names: str
    ) -> list[AgentProcess]:
        """New ones join, old ones leave; the writer follows."""
        new = self.start(command, *names)
        writer.servers = [s for s in self.servers if s not in old]
        self.leave(*old)
        return new


def _snapshot(server: AgentProcess) -> list[tuple[int, Any]]:
    """Records of the state as real Consul hands it out."""
    status, _, archive = server.ask("GET", f"/v1/snapshot?token={MASTER}")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        state = tar.extractfile("state.bin")
        assert state is not None
        data = state.read()
    return _records(data)


def _records(data: bytes) -> list[tuple[int, Any]]:
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
    unpacker.feed(data)
    unpacker.unpack()
    found = []
    while unpacker.tell() < len(data):
        found.append((unpacker.read_bytes(1)[0], unpacker.unpack()))
    return found


def _state_of_ours(server: AgentProcess) -> bytes:
    """The newest snapshot that a server of ours has on its disk."""
    paths = (server.path / "data/raft/snapshots").glob("*/state.bin")
    return max(paths, key=lambda path: path.stat().st_mtime).read_bytes()


def _untouched(records: list[tuple[int, Any]]) -> Counter[str]:
    return Counter(repr((t, _plain(v))) for t, v in records if t in ROWS)


def _plain(value: Any) -> Any:
    """Maps in a fixed order; what a record wraps in a string is opened."""
    if isinstance(value, dict):
        return sorted((key, _plain(item)) for key, item in value.items())
    return [_plain(item) for item in value] if isinstance(value, list) else value


def test_consul_to_ours_and_back(tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    try:
        cluster = Rolling(agents)
        theirs = cluster.start(THEIRS, "t0", "t1", "t2", bootstrap_expect=3)
        # Refused as "in legacy mode" until the leader has heard that no server is older than that
        until(lambda: theirs[0].get(f"/v1/acl/token/self?token={MASTER}"), 40)
        _write_before(theirs[0])
        before = {target: _answer(theirs[0], target) for target in UNTOUCHED}
        rows = _untouched(_snapshot(theirs[0]))
        assert {int(row[1 : row.index(",")]) for row in rows} == {int(row) for row in ROWS}

        with Writer(theirs).running() as writer:
            ours = cluster.replace(writer, OURS, theirs[:1], "o0")
            ours += cluster.replace(writer, OURS, theirs[1:], "o1", "o2")
            session = _lock(ours[0], "by-ours")
            alone = writer.latest
            until(lambda: writer.latest > alone + 100, 30)
            until(lambda: _untouched(_records(_state_of_ours(ours[1]))) >= rows, 10)

            back = cluster.replace(writer, THEIRS, ours[:1], "u0")
            back += cluster.replace(writer, THEIRS, ours[1:], "u1", "u2")
        assert writer.failure is None
        assert "Installed remote snapshot" in back[0].log(), "a snapshot of ours"
        _nothing_lost(writer, back)
        after = {target: _answer(back[0], target) for target in UNTOUCHED}
        theirs_only = [row for row in after["/v1/session/list"] if row["ID"] != session]
        assert {**after, "/v1/session/list": theirs_only} == before
        assert len(after["/v1/session/list"]) == len(theirs_only) + 1
        assert back[1].get("/v1/kv/lock/by-ours")[0]["Session"] == session
        more = _untouched(_snapshot(back[0])) - rows
        assert [row for row in more if session not in row] == []
    finally:
        agents.close()


def _answer(server: AgentProcess, target: str) -> Any:
    status, _, body = server.ask("GET", target)
    assert status == 200, (target, body)
    return json.loads(body)


def _nothing_lost(writer: Writer, servers: list[AgentProcess]) -> None:
    """All that was acknowledged is there, on every server, and by Consul's own snapshot in ours."""
    for server in servers:
        rows = until(lambda s=server: s.get("/v1/kv/during?recurse&consistent"))
        found = {
            row["Key"]: (row["Flags"], base64.b64decode(row["Value"]).decode()) for row in rows
        }
        lost = {key for key, value in writer.keys.items() if found.get(key) != value}
        assert not lost
        latest = server.get("/v1/kv/latest")[0]["Value"]
        assert int(base64.b64decode(latest)) == writer.latest
        services = server.get("/v1/catalog/node/written")["Services"]
        assert {name: one["Tags"] for name, one in services.items()} == {
            name: [tag] for name, tag in writer.nodes.items()
        }
        checks = server.get("/v1/health/node/written")
        assert {one["ServiceID"]: one["Output"] for one in checks} == writer.nodes
    assert writer.waited_s_max < 20
