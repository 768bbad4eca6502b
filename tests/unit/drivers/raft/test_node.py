"""`RaftNode` with real disks and sockets."""

from __future__ import annotations

import asyncio
import io
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

import pytest
import uvloop
from raft_support import FAST, Member, Recorder, cluster, leader_of, nowhere, soon
from typing_extensions import override

from proconsul.core.raft.types import Config, NotLeader
from proconsul.drivers.raft.applier import Replace
from proconsul.drivers.raft.errors import ApplyTimeout, Halted
from proconsul.drivers.raft.node import NodeConfig, RaftNode
from proconsul.drivers.raft.snapshots import MemorySnapshotStore, SnapshotError
from proconsul.drivers.raft.store import MemoryStore
from proconsul.drivers.raft.transport import Transport
from proconsul.testing.waiting import until
from proconsul.util.errors import WireError
from proconsul.wire.raft import AppendEntriesRequest, RequestVoteRequest, Server, Suffrage


def test_a_lone_server_leads_at_once_and_keeps_its_state(tmp_path: Path) -> None:
    async def run() -> None:
        (member,) = await cluster(tmp_path, "a")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await leader_of([member])
        assert loop.time() - began < 1
        assert await member.node.apply(b"one", soon()) == (3, b"one")
        await asyncio.gather(*(member.node.apply(b"%d" % i, soon()) for i in range(100)))
        await member.node.verify_leader(soon())
        stats = member.node.stats()
        assert (stats["state"], stats["num_peers"], stats["last_contact"]) == ("Leader", "0", "0")
        # As after a crash: what was acknowledged is on disk already.
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        await member.stop()
        assert member.leading == [True, False]

        again = Member(tmp_path, "a")
        again.address = member.address
        await again.listen()
        shutil.rmtree(tmp_path / "a")
        shutil.move(tmp_path / "b", tmp_path / "a")
        await again.start()
        assert again.node.has_state
        await leader_of([again])
        await again.node.barrier(soon())
        assert again.fsm.commands[0] == b"one"
        assert len(again.fsm.commands) == 101
        await again.stop()

    asyncio.run(run())


def test_three_elect_replicate_lose_one_and_catch_up_by_snapshot(tmp_path: Path) -> None:
    async def run() -> None:
        members = await cluster(tmp_path, "abc")
        leader = await leader_of(members)
        follower, lost = (m for m in members if m is not leader)
        await leader.node.apply(b"first", soon())
        await leader.node.verify_leader(soon())
        await until(lambda: all(m.fsm.commands == [b"first"] for m in members))
        with pytest.raises(NotLeader) as refusal:
            await follower.node.apply(b"x", soon())
        assert refusal.value.leader == (leader.name, leader.address)

        await lost.stop()
        for i in range(0, 200, 50):
            await asyncio.gather(*(leader.node.apply(b"%d" % k, soon()) for k in range(i, i + 50)))
        assert await leader.node.snapshot() is not None
        back = Member(tmp_path, lost.name)
        back.address = lost.address
        await back.listen()
        await back.start()
        await until(lambda: back.fsm.commands == leader.fsm.commands)
        assert back.node.stats()["last_snapshot_index"] != "0"

        # The leader dies: the other two go on.
        await leader.stop()
        rest = [follower, back]
        new = await leader_of(rest)
        await new.node.apply(b"after", soon())
        await until(lambda: all(m.fsm.commands[-1] == b"after" for m in rest))
        for member in rest:
            await member.stop()

    asyncio.run(run())


def test_members_change_and_leadership_moves(tmp_path: Path) -> None:
    async def run() -> None:
        members = await cluster(tmp_path, "abc", voters="a")
        a, b, c = members
        await leader_of([a])
        await a.node.add_nonvoter("b", b.address, soon())
        await a.node.add_voter("b", b.address, soon())
        await a.node.add_voter("c", c.address, soon())
        await a.node.apply(b"x", soon())
        await until(lambda: all(m.fsm.commands == [b"x"] for m in members))
        await a.node.leadership_transfer(soon(), "b")
        await until(lambda: b.node.is_leader)
        await b.node.barrier(soon())
        await b.node.remove_server("b", soon())
        await until(lambda: a.node.is_leader or c.node.is_leader)
        leader = await leader_of([a, c])
        assert {s.id for s in leader.node.configuration()[0].servers} == {"a", "c"}
        assert not b.node.is_leader
        for member in members:
            await member.stop()

    asyncio.run(run())


def test_the_death_of_a_leader_is_noticed_by_its_closed_door(tmp_path: Path) -> None:
    """With timeouts so long that waiting out the leader's silence would fail the test."""

    async def run() -> None:
        members = await cluster(tmp_path, "abc")
        leader = await leader_of(members)
        await until(lambda: all(m.node.leader == leader.node.leader for m in members))
        others = [m for m in members if m is not leader]
        for other in others:
            core = other.node._engine.running()
            core.state.config = Config(60.0, 60.0, 30.0, 0.01)
            core.state.heard(core.state.last_contact or 0.0)
        await leader.stop()
        successor = await leader_of(others)
        assert await successor.node.apply(b"after", soon()) is not None
        for member in others:
            await member.stop()

    asyncio.run(run())


def test_a_leader_without_quorum_gives_up(tmp_path: Path) -> None:
    async def run() -> None:
        members = await cluster(tmp_path, "abc")
        leader = await leader_of(members)
        await leader.node.barrier(soon())
        for member in members:
            if member is not leader:
                await member.stop()
        with pytest.raises((NotLeader, ApplyTimeout)):
            await leader.node.verify_leader(soon(2))
        await until(lambda: not leader.node.is_leader)
        assert leader.leading == [True, False]
        await leader.stop()

    asyncio.run(run())


def test_a_server_that_keeps_nothing() -> None:
    async def run() -> None:
        fsm, snapshots = Recorder(), MemorySnapshotStore()
        node = RaftNode(
            NodeConfig("a", "127.0.0.1:1", FAST), fsm, Transport(nowhere), MemoryStore(), snapshots
        )
        await node.start()
        node.bootstrap([Server(Suffrage.VOTER, "a", "127.0.0.1:1")])
        assert node.is_leader
        assert await node.apply(b"x", soon()) == (3, b"x")
        assert await node.snapshot() is not None
        assert snapshots.path.exists()
        await node.aclose()
        assert not snapshots.path.exists()

    asyncio.run(run())


def test_a_state_machine_that_fails_halts_the_server(tmp_path: Path) -> None:
    async def run() -> None:
        (member,) = await cluster(tmp_path, "a")
        await leader_of([member])
        with pytest.raises(Halted):
            await member.node.apply(b"boom", soon())
        assert [str(error) for error in member.failures] == ["cannot apply"]
        assert not member.node.is_leader
        with pytest.raises(Halted):
            await member.node.apply(b"x", soon())
        await member.stop()

    asyncio.run(run())


def test_a_timer_that_is_due_already_is_armed_twice_under_uvloop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """uvloop's `call_at` gives a handle without `when` for a time that is past."""

    async def scenario() -> None:
        config, fsm = NodeConfig("me", "127.0.0.1:1", FAST), Recorder()
        node = RaftNode(config, fsm, Transport(nowhere), MemoryStore(), MemorySnapshotStore())
        await node.start()
        engine = node._engine
        monkeypatch.setattr(engine.running(), "get_timer", lambda: 0.0)
        engine._arm_timer()
        first = engine._timer
        engine._arm_timer()
        assert first is not None
        assert engine._timer is first
        monkeypatch.undo()
        await node.aclose()

    uvloop.run(scenario())


def test_a_snapshot_from_outside_replaces_the_state_of_all(tmp_path: Path) -> None:
    async def run() -> None:
        members = await cluster(tmp_path, "abc")
        leader = await leader_of(members)
        follower = next(m for m in members if m is not leader)
        await asyncio.gather(*(leader.node.apply(b"old%d" % i, soon()) for i in range(50)))
        index = leader.node.last_index
        with pytest.raises(NotLeader):
            await follower.node.restore(7, io.BytesIO(b"x\n"), soon())

        restoring = asyncio.create_task(
            leader.node.restore(index + 1000, io.BytesIO(b"new\nstate\n"), soon())
        )
        await asyncio.sleep(0)
        writing = asyncio.create_task(leader.node.apply(b"after", soon()))  # it waits
        await restoring
        await writing
        await until(lambda: all(m.fsm.commands == [b"new", b"state", b"after"] for m in members))
        # Behind both the log and where it came from; then the noop, and the write.
        assert leader.node.last_index >= index + 1000 + 3
        stats = leader.node.stats()
        assert int(stats["last_snapshot_index"]) == index + 1001

        # It lasts: all of them stop and start again.
        for member in members:
            await member.stop()
        again = []
        for member in members:
            back = Member(tmp_path, member.name)
            back.address = member.address
            await back.listen()
            await back.start()
            again.append(back)
        second = await leader_of(again)
        await second.node.apply(b"more", soon())
        await until(
            lambda: all(m.fsm.commands == [b"new", b"state", b"after", b"more"] for m in again)
        )
        for member in again:
            await member.stop()

    asyncio.run(run())


def test_a_snapshot_that_the_state_machine_refuses_changes_nothing(tmp_path: Path) -> None:
    class Picky(Recorder):
        @override
        def restore(self, reader: BinaryIO) -> Generator[None, None, Replace]:
            if reader.read() == b"bad":
                raise WireError("not a state")
            yield
            return lambda: iter(())

    async def run() -> None:
        fsm = Picky()
        node = RaftNode(
            NodeConfig("a", "127.0.0.1:1", FAST),
            fsm,
            Transport(nowhere),
            MemoryStore(),
            MemorySnapshotStore(),
        )
        await node.start()
        node.bootstrap([Server(Suffrage.VOTER, "a", "127.0.0.1:1")])
        await node.apply(b"kept", soon())
        before = node.stats()
        with pytest.raises(SnapshotError, match="not a state"):
            await node.restore(5, io.BytesIO(b"bad"), soon())
        assert fsm.commands == [b"kept"]
        assert node.stats() == before
        await node.apply(b"goes on", soon())
        await node.restore(5, io.BytesIO(b"good"), soon())
        snapshot, reader = await node.open_snapshot()
        with reader:
            assert (snapshot.meta.index, snapshot.size) == (node.applied_index, len(reader.read()))
        await node.aclose()

    asyncio.run(run())


def test_a_heartbeat_is_waited_for_no_longer_than_an_election(tmp_path: Path) -> None:
    async def run() -> None:
        (member,) = await cluster(tmp_path, "a")
        patience = member.node._engine._patience_s
        assert patience(AppendEntriesRequest(1, b"a:1")) == FAST.heartbeat_timeout_s
        assert patience(RequestVoteRequest(1, b"a:1", 0, 0)) is None
        await member.stop()

    asyncio.run(run())
