"""Servers of ours and real Consul's in one quorum that are killed, removed and brought back.

Gossip is encrypted and RPC is TLS that demands certificates and checks names: everything of Raft,
snapshots too, takes that way here. `test_quorum` does the same in the open.
"""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from agent_support import DYING, OURS, THEIRS, AgentProcess, Agents, needs_consul, until
from quorum_support import Cluster, voters, write_by_its_own, write_something

from proconsul.testing.certs import TestAuthority

pytestmark = [*needs_consul, pytest.mark.timeout(240)]

SNAPSHOTS = {"raft_snapshot_threshold": 20, "raft_trailing_logs": 5, "raft_snapshot_interval": "1s"}


def _secured(path: Path) -> dict[str, object]:
    files = TestAuthority(path).server("any", "dc1")
    return {
        "ca_file": files.ca, "cert_file": files.certificate, "key_file": files.key,
        "verify_incoming": True, "verify_outgoing": True, "verify_server_hostname": True,
        "encrypt": base64.b64encode(bytes(range(32))).decode(),
        # Real leaders look every 10 s whom to promote.
        "autopilot": {"server_stabilization_time": "500ms"}, **DYING,
    }  # fmt: skip


def _order(cluster: Cluster) -> list[AgentProcess]:
    """The leader first, then one of the other kind, if there is one."""
    leader = cluster.leader()
    others = [s for s in cluster.servers if s is not leader]
    return [leader, *sorted(others, key=lambda s: s.ours is leader.ours)]


def _without(cluster: Cluster, gone: AgentProcess) -> list[AgentProcess]:
    return [s for s in cluster.servers if s is not gone]


def _snapshot_index(server: AgentProcess) -> int:
    return int(server.get("/v1/agent/self")["Stats"]["raft"]["last_snapshot_index"])


@pytest.mark.parametrize("mixture", ["oot", "ott"])
def test_each_is_killed_and_one_is_removed(tmp_path: Path, mixture: str) -> None:
    agents = Agents(tmp_path)
    try:
        cluster = Cluster(agents, mixture, patience=2, **SNAPSHOTS, **_secured(tmp_path))
        cluster.settled()
        for number, victim in enumerate(_order(cluster)):
            victim.stop()
            others = _without(cluster, victim)
            assert cluster.leader(others) is not victim
            write_something(others[0], f"without-{number}")
            write_by_its_own(cluster, f"own-{number}", others)
            victim.start()
            until(lambda v=victim, n=number: v.get(f"/v1/kv/without-{n}/7?stale"), 40)
        cluster.settled()
        cluster.same_everywhere()
        _remove_and_bring_back(cluster)
    finally:
        agents.close()


def _remove_and_bring_back(cluster: Cluster) -> None:
    """By the command of the real program; the log that it missed comes as a snapshot."""
    _, gone, stays = _order(cluster)
    gone.stop()
    node_id = next(
        one["ID"]
        for one in stays.get("/v1/operator/raft/configuration")["Servers"]
        if one["Node"] == gone.name
    )
    status, out, err = stays.cli(THEIRS, "operator", "raft", "remove-peer", f"-id={node_id}")
    assert status == 0, (out, err)
    others = _without(cluster, gone)
    for server in others:
        until(lambda s=server: voters(s) == {other.name for other in others})
    before = max(_snapshot_index(server) for server in others)
    for i in range(40):
        assert until(lambda i=i: others[0].put(f"/v1/kv/removed/{i}", b"x" * 50)) is True
    until(lambda: _snapshot_index(cluster.leader(others)) > before)
    # Its return must be news to gossip: it is what makes the leader add it.
    until(lambda: all(server.members()[gone.name] == 4 for server in others), 40)
    gone.start()
    cluster.settled()
    cluster.same_everywhere()
    assert _snapshot_index(gone) > before


def test_real_servers_carry_on_a_mesh_ca_of_ours(tmp_path: Path) -> None:
    """A real leader that misses the CA's key where it looks for it makes another, and gives up."""
    agents = Agents(tmp_path)
    try:
        quick = {
            "connect": {"enabled": True}, "performance": {"raft_multiplier": 1},
            "autopilot": {"server_stabilization_time": "200ms"}, "retry_interval": "1s",
        }  # fmt: skip
        ours = agents.server(OURS, "s0", **quick)
        root = until(lambda: ours.get("/v1/connect/ca/roots")["ActiveRootID"])
        theirs = [
            agents.make(THEIRS, name, server=True, retry_join=[ours.address], **quick).start()
            for name in ("s1", "s2")
        ]
        until(lambda: voters(ours) == {"s0", "s1", "s2"}, 60)
        ours.stop()
        for server in theirs:
            # Answered by a leader that has established itself, and by no other
            until(lambda s=server: s.ask("GET", "/v1/kv/x?consistent")[0] == 404, 40)
            assert server.get("/v1/connect/ca/roots")["ActiveRootID"] == root
    finally:
        agents.close()
