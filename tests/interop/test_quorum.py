"""Three servers in one Raft quorum, in all mixtures of ours and real Consul's.

Each test is one life of a cluster, since elections are what costs time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_support import Agents, needs_consul, until
from quorum_support import STATE, Cluster, voters, write_by_its_own, write_something

pytestmark = [*needs_consul, pytest.mark.timeout(240)]


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    agents = Agents(tmp_path)
    try:
        yield lambda mixture, **config: Cluster(agents, mixture, **config)
    finally:
        agents.close()


@pytest.mark.parametrize("mixture", ["oot", "ott", "ooo"])
def test_a_life_of_a_cluster(clusters: Callable[..., Cluster], mixture: str) -> None:
    cluster = clusters(mixture)
    cluster.settled()
    assert cluster.leader().ours == (mixture[1] == "o")
    for i, server in enumerate(cluster.servers):
        write_something(server, f"w{i}")
    write_by_its_own(cluster, "first")
    cluster.same_everywhere()

    # The leader dies, another follows, the dead one comes back and catches up.
    leader = cluster.leader()
    leader.stop()
    others = [s for s in cluster.servers if s is not leader]
    assert cluster.leader(others) is not leader
    write_something(others[0], "killed")
    write_by_its_own(cluster, "second", others)
    leader.start()
    cluster.settled()
    cluster.same_everywhere()

    # A follower dies and comes back.
    if mixture == "ooo":
        follower = next(s for s in cluster.servers if s is not cluster.leader())
        follower.stop()
        others = [s for s in cluster.servers if s is not follower]
        write_something(others[1], "follower")
        follower.start()
        cluster.settled()
    before = cluster.same_everywhere()

    # All die at once: what was written is still there.
    for server in cluster.servers:
        server.stop()
    for server in cluster.servers:
        server.start()
    cluster.settled()
    after = cluster.same_everywhere()
    kept = [t for t in STATE if t.startswith(("/v1/kv", "/v1/catalog/service/", "/v1/connect"))]
    assert {t: before[t][:2] for t in kept} == {t: after[t][:2] for t in kept}

    # One leaves for good (in mixtures: test_rolling_replacement).
    if mixture != "ooo":
        return
    leaver = next(s for s in cluster.servers if s is not cluster.leader())
    leaver.put("/v1/agent/leave")
    leaver.wait_exit()
    cluster.servers.remove(leaver)
    until(lambda: voters(cluster.servers[0]) == cluster.names())
    until(lambda: voters(cluster.servers[1]) == cluster.names())
    assert cluster.servers[0].put("/v1/kv/after", b"leave") is True
    until(lambda: cluster.servers[1].get(f"/v1/catalog/node/{leaver.name}") is None)


@pytest.mark.parametrize("mixture", ["oot", "ott"])
def test_snapshots_are_installed(clusters: Callable[..., Cluster], mixture: str) -> None:
    """A server that lost everything, or lags far behind, gets the leader's snapshot."""
    small = {"raft_snapshot_threshold": 20, "raft_trailing_logs": 5, "raft_snapshot_interval": "1s"}
    cluster = clusters(mixture, **small)
    cluster.settled()
    leader = cluster.leader()
    behind = next(s for s in cluster.servers if s.ours != leader.ours)
    behind.stop()
    for i in range(60):
        assert leader.put(f"/v1/kv/many/{i}", b"x" * 100)
    write_something(leader, "snap")
    write_by_its_own(cluster, "snap", [s for s in cluster.servers if s is not behind])
    until(lambda: int(leader.get("/v1/agent/self")["Stats"]["raft"]["last_snapshot_index"]) > 60)
    behind.start()
    cluster.settled()
    cluster.same_everywhere()
    assert int(behind.get("/v1/agent/self")["Stats"]["raft"]["last_snapshot_index"]) > 60
    # It can read back what it was sent.
    behind.stop()
    behind.start()
    cluster.settled()
    cluster.same_everywhere()
