"""Whole servers come back: by peers.json, at another address, from a snapshot in a mixed quorum."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_support import (
    OURS,
    THEIRS,
    AgentProcess,
    Agents,
    free_address,
    needs_consul,
    ready,
    until,
)

pytestmark = needs_consul


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    found = Agents(tmp_path)
    try:
        yield found
    finally:
        found.close()


def quorum(agents: Agents, *commands: tuple[str, ...]) -> list[AgentProcess]:
    """Servers that found each other, with a leader."""
    servers: list[AgentProcess] = []
    for number, command in enumerate(commands, 1):
        join = [server.address for server in servers[:1]]
        servers.append(
            agents.server(
                command,
                f"s{number}",
                bootstrap_expect=len(commands),
                retry_join=join,
                retry_interval="1s",
            )
        )
    for server in servers:
        ready(server, 40)
    return servers


def peers(server: AgentProcess) -> dict[str, dict[str, Any]]:
    """Raft's servers by node name."""
    found = server.get("/v1/operator/raft/configuration?stale")
    return {row["Node"]: row for row in found["Servers"]}


def values(server: AgentProcess) -> dict[str, Any]:
    return {row["Key"]: row["Value"] for row in server.get("/v1/kv/?recurse&stale")}


def leads(server: AgentProcess) -> bool:
    return server.leader() == f"{server.address}:8300"


def test_a_survivor_of_three_goes_on_by_peers_json(agents: Agents) -> None:
    servers = quorum(agents, OURS, OURS, OURS)
    for i in range(5):
        servers[0].put(f"/v1/kv/{i}", "x")
    survivor = servers[2]
    until(lambda: len(values(survivor)) == 5)
    for server in servers:
        server.stop()
    raft = survivor.path / "data" / "raft"
    assert "peers.json" in (raft / "peers.info").read_text()
    node_id = (survivor.path / "data" / "node-id").read_text().strip()
    (raft / "peers.json").write_text("[")
    survivor.start()
    assert survivor.wait_exit() == 1
    assert "recovery failed to parse peers.json" in survivor.log()
    (raft / "peers.json").write_text(
        json.dumps([{"id": node_id, "address": f"{survivor.address}:8300"}])
    )
    ready(survivor.start())
    assert not (raft / "peers.json").exists()
    assert len(values(survivor)) == 5
    assert list(peers(survivor)) == ["s3"]
    survivor.put("/v1/kv/after", "1")
    # A real server comes to it, is sent the snapshot, and gets its vote.
    fresh = agents.server(
        THEIRS, "fresh", bootstrap_expect=3, retry_join=[survivor.address], retry_interval="1s"
    )
    ready(fresh, 40)
    until(lambda: len(values(fresh)) == 6)
    until(lambda: peers(survivor)["fresh"]["Voter"], 40)


def test_a_server_returns_with_another_address(agents: Agents) -> None:
    servers = quorum(agents, OURS, OURS, OURS)
    until(lambda: all(leads(s) or s.leader() for s in servers))
    moved = next(s for s in servers if not leads(s))
    rest = [s for s in servers if s is not moved]
    node_id = peers(rest[0])[moved.name]["ID"]
    moved.stop()
    rest[0].put("/v1/kv/meanwhile", "1")
    moved.address = free_address()
    moved.config.update(
        bind_addr=moved.address, client_addr=moved.address, retry_join=[rest[0].address]
    )
    ready(moved.start(), 40)

    def at_home() -> bool:
        row = peers(rest[0]).get(moved.name, {})
        return row.get("Address") == f"{moved.address}:8300"

    until(at_home, 40)
    row = peers(rest[0])[moved.name]
    assert (row["ID"], row["Voter"]) == (node_id, True)
    assert len(peers(rest[0])) == 3
    until(lambda: "meanwhile" in values(moved))
    moved.put("/v1/kv/from-there", "1")


def test_snapshots_in_a_quorum_of_both(agents: Agents, tmp_path: Path) -> None:
    servers = quorum(agents, THEIRS, THEIRS, OURS)
    ours = servers[2]
    for i in range(5):
        servers[0].put(f"/v1/kv/{i}", "x")
    until(lambda: len(values(ours)) == 5)
    expected = values(ours)
    path = tmp_path / "archive"
    # Whoever leads: each saves and restores through the other program's server.
    for leader_ours in (leads(ours), not leads(ours)):
        for _ in range(12):
            if leads(ours) is leader_ours:
                break
            leader = next(s for s in servers if leads(s))
            leader.stop()
            rest = [s for s in servers if s is not leader]
            homes = {f"{s.address}:8300" for s in rest}
            until(lambda rest=rest, homes=homes: rest[0].leader() in homes, 40)
            leader.start()
            until(lambda leader=leader: leader.leader() == ours.leader() != "", 40)
        assert leads(ours) is leader_ours
        asked = servers[0] if leader_ours else ours
        assert asked.cli(OURS, "snapshot", "save", str(path))[0] == 0
        assert asked.cli(THEIRS, "snapshot", "save", "-stale", str(path) + ".stale")[0] == 0
        for server in servers:
            server.put(f"/v1/kv/goes-{server.name}", "away")
        status, out, err = asked.cli(OURS, "snapshot", "restore", str(path))
        assert (status, out, err) == (0, "Restored snapshot\n", "")
        for server in servers:
            until(lambda server=server: values(server) == expected, 40)
        refused = asked.ask("PUT", "/v1/snapshot", b"no archive")
        assert (refused[0], refused[2]) == (
            500, b"failed to decompress snapshot: gzip: invalid header",
        )  # fmt: skip
        ours.put("/v1/kv/on", "1")
        assert ours.ask("DELETE", "/v1/kv/on")[0] == 200
