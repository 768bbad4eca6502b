"""The leader's autopilot on a Raft that only records and servers that answer as told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from server_support import server_config

from proconsul.core.gossip.serf import Member, MemberStatus
from proconsul.core.raft.types import NotLeader
from proconsul.domain.base import encode
from proconsul.domain.operator import DEFAULT_AUTOPILOT
from proconsul.rpc.errors import TransportError
from proconsul.rpc.methods import RaftStats
from proconsul.services.server import autopilot
from proconsul.services.server.autopilot import Autopilot
from proconsul.services.server.tags import server_tags
from proconsul.util.metrics import Metrics
from proconsul.wire.raft import Configuration, Server, Suffrage

SECOND = 1_000_000_000


def _member(name: str, status: MemberStatus = MemberStatus.ALIVE, **tags: str) -> Member:
    known = server_tags(server_config(name), wan=False)
    return Member(name, ("127.0.0.1", 8301), {**known, **tags}, status, 1, 5, 2, 2, 5, 4)


def _peer(member: Member, suffrage: Suffrage = Suffrage.VOTER) -> Server:
    return Server(suffrage, member.tags["id"], f"127.0.0.1:{member.tags['port']}")


class _Cluster:
    """What `Autopilot` uses of a server; the first member is itself, and leads."""

    def __init__(self, members: list[Member], peers: list[Server]) -> None:
        self.members, self.peers = members, peers
        self.config = SimpleNamespace(identity=server_config("s1").identity)
        self.settings = replace(DEFAULT_AUTOPILOT, server_stabilization_time_ns=10 * SECOND)
        self.done: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.now_ns = 100 * SECOND
        self.answers: dict[str, RaftStats] = {}
        """By node name; a server without one is silent."""
        self.metrics, self.datacenter, self.wan = Metrics(), "dc1", None
        self.lan = SimpleNamespace(members=lambda: self.members, force_leave=self._force)
        self.store = SimpleNamespace(autopilot=lambda: SimpleNamespace(value=self.settings))
        self.views = SimpleNamespace(
            log_position=lambda: RaftStats("0", 7, 1000), leader_address=lambda: peers[0].address
        )
        self.pool = SimpleNamespace(rpc=self._rpc)
        self.raft = SimpleNamespace(
            last_index=1000,
            configuration=lambda: (Configuration(tuple(self.peers)), 1),
            remove_server=self._change("remove"),
            add_voter=self._change("promote"),
        )

    def unix_ns(self) -> int:
        return self.now_ns

    def answer(self, *names: str, contact: str = "10ms", behind: int = 0) -> None:
        for name in names:
            self.answers[name] = RaftStats(contact, 7, 1000 - behind)

    async def _rpc(self, to: Any, method: str, body: bytes, _deadline: float) -> bytes:
        assert (method, body) == ("Status.RaftStats", b"\x80")
        if to.node not in self.answers:
            raise TransportError("silent", safe_to_retry=True)
        return encode(self.answers[to.node])

    def _force(self, name: str) -> None:
        self.done.append(("force_leave", name))

    def _change(self, what: str) -> Any:
        async def change(server_id: str, *_: Any) -> int:
            if self.error is not None:
                raise self.error
            self.done.append((what, server_id))
            return 1

        return change


def _pilot(cluster: _Cluster) -> Autopilot:
    return Autopilot(cluster)  # type: ignore[arg-type]


def test_health_as_servers_tell_it() -> None:
    members = [_member(f"s{i}") for i in range(1, 5)]
    cluster = _Cluster(members, [_peer(m) for m in members])
    cluster.answer("s2")
    cluster.answer("s3", contact="never")
    pilot = _pilot(cluster)
    asyncio.run(pilot.look(cluster.settings))
    rows = pilot.health.servers or []
    assert [(r.name, r.healthy, r.leader, r.last_contact_ns) for r in rows] == [
        ("s1", True, True, 0),
        ("s2", True, False, 10_000_000),
        ("s3", False, False, -1),
        ("s4", False, False, -1),
    ]
    assert (pilot.health.healthy, pilot.health.failure_tolerance) == (False, 0)
    assert all(r.voter and r.serf_status == 1 and r.version == "1.8.7" for r in rows)


def test_a_server_that_gossip_lost_is_unhealthy_and_nameless() -> None:
    members = [_member(f"s{i}") for i in (1, 2, 3)]
    cluster = _Cluster(members[:2], [_peer(m) for m in members])
    cluster.answer("s2")
    pilot = _pilot(cluster)
    asyncio.run(pilot.look(cluster.settings))
    lost = (pilot.health.servers or [])[2]
    assert (lost.name, lost.serf_status, lost.healthy) == ("", 0, False)


def test_a_fourth_voter_waits_for_its_log_and_for_stability() -> None:
    members = [_member(f"s{i}") for i in range(1, 5)]
    peers = [*map(_peer, members[:3]), _peer(members[3], Suffrage.NONVOTER)]
    cluster = _Cluster(members, peers)
    pilot = _pilot(cluster)

    async def round_at(seconds: int) -> bool:
        cluster.now_ns = seconds * SECOND
        await pilot.look(cluster.settings)
        return await pilot.promote(cluster.settings)

    async def run() -> None:
        cluster.answer("s2", "s3")
        cluster.answer("s4", behind=251)
        assert not await round_at(100)
        assert not await round_at(120)  # however long: its log is not there yet
        cluster.answer("s4", behind=250)
        assert not await round_at(121)
        assert not await round_at(130)
        assert await round_at(131)
        assert cluster.done == [("promote", members[3].tags["id"])]

    asyncio.run(run())


def test_the_second_voter_waits_for_its_log_alone() -> None:
    members = [_member("s1"), _member("s2"), _member("s3", nonvoter="1")]
    suffrages = (Suffrage.VOTER, Suffrage.NONVOTER, Suffrage.NONVOTER)
    cluster = _Cluster(members, [_peer(m, s) for m, s in zip(members, suffrages, strict=True)])
    pilot = _pilot(cluster)

    async def run() -> None:
        for behind, expected in ((500, []), (0, [("promote", members[1].tags["id"])])):
            cluster.answer("s2", "s3", behind=behind)
            await pilot.look(cluster.settings)
            await pilot.promote(cluster.settings)
            assert cluster.done == expected

    asyncio.run(run())


def test_a_server_that_left_during_another_promotion_is_not_brought_back() -> None:
    members = [_member(f"s{i}") for i in range(1, 4)]
    peers = [_peer(members[0]), *(_peer(m, Suffrage.NONVOTER) for m in members[1:])]
    cluster = _Cluster(members, peers)
    cluster.answer("s2", "s3")
    promoted: list[tuple[str, int]] = []

    async def add_voter(server_id: str, _address: str, _deadline: float, prev_index: int) -> int:
        promoted.append((server_id, prev_index))
        cluster.peers = [peers[0], _peer(members[1])]  # "s3" left meanwhile
        return 1

    cluster.raft.add_voter = add_voter
    pilot = _pilot(cluster)

    async def run() -> None:
        await pilot.look(cluster.settings)
        assert await pilot.promote(cluster.settings)

    asyncio.run(run())
    assert promoted == [(members[1].tags["id"], 1)]


@pytest.mark.parametrize(("voters", "forced"), [(4, ["s4"]), (3, [])])
def test_dead_servers_go_only_while_three_remain(voters: int, forced: list[str]) -> None:
    members = [_member(f"s{i}") for i in range(1, voters)]
    members.append(_member(f"s{voters}", MemberStatus.FAILED))
    cluster = _Cluster(members, [_peer(m) for m in members])
    asyncio.run(_pilot(cluster).prune(cluster.settings))
    assert cluster.done == [("force_leave", name) for name in forced]
    cluster.done.clear()
    asyncio.run(_pilot(cluster).prune(replace(cluster.settings, cleanup_dead_servers=False)))
    assert cluster.done == []


def test_a_failed_nonvoter_goes_at_once() -> None:
    members = [_member("s1"), _member("s2", MemberStatus.FAILED)]
    cluster = _Cluster(members, [_peer(members[0]), _peer(members[1], Suffrage.NONVOTER)])
    asyncio.run(_pilot(cluster).prune(cluster.settings))
    assert cluster.done == [("force_leave", "s2")]


def test_who_gossip_never_knew_goes_after_a_whole_round(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [_member(f"s{i}") for i in range(1, 5)]
    cluster = _Cluster(members[:3], [_peer(m) for m in members])
    monkeypatch.setattr(autopilot, "ROUND_S", 0.05)

    async def run() -> None:
        pilot = _pilot(cluster)
        await pilot.prune(cluster.settings)
        assert cluster.done == []  # they may all have started just now
        await asyncio.sleep(0.06)
        await pilot.prune(cluster.settings)
        assert cluster.done == [("remove", members[3].tags["id"])]

    asyncio.run(run())


@pytest.mark.parametrize("error", [NotLeader(None), TimeoutError()])
def test_errors_do_not_end_it(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autopilot, "HEALTH_S", 0.02)
    members = [_member(f"s{i}") for i in (1, 2)]
    cluster = _Cluster(members, [_peer(members[0]), _peer(members[1], Suffrage.NONVOTER)])
    cluster.answer("s2")
    cluster.error = error

    async def run() -> None:
        running = asyncio.get_running_loop().create_task(_pilot(cluster).run())
        async with asyncio.timeout(10):
            await asyncio.sleep(0.05)
            assert not running.done()
            cluster.error = None
            while not cluster.done:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.wait([running])
        assert cluster.done[0] == ("promote", members[1].tags["id"])

    asyncio.run(run())
