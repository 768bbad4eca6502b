"""What a full disk, or a slow one, means for a `RaftNode`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from raft_support import Member, leader_of, soon
from typing_extensions import override

from proconsul.core.raft.types import Output, RaftError, SnapshotMeta
from proconsul.drivers.raft.errors import WriteHeldUp
from proconsul.drivers.raft.snapshots import FileSnapshotStore, Sink, SnapshotError
from proconsul.drivers.raft.store import DiskFull, LmdbStore, StoreError
from proconsul.testing.waiting import until
from proconsul.wire.raft import Configuration, Server, Suffrage


class Disk(LmdbStore):
    """A log whose disk does as it is told."""

    full = broken = False

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.tried = 0
        self.batches: list[int] = []
        self.go = threading.Event()
        self.go.set()

    @override
    def write(self, outputs: Sequence[Output]) -> None:
        self.tried += 1
        assert self.go.wait(20)
        if self.full:
            raise DiskFull("raft log in /some/where cannot be written, its disk is full")
        if self.broken:
            raise StoreError("raft log in /some/where cannot be written (Input/output error)")
        super().write(outputs)
        self.batches.append(sum(len(out.append) for out in outputs))


async def _members(path: Path, names: str) -> tuple[list[Member], dict[str, Disk]]:
    members, disks = [Member(path, name) for name in names], {}

    def opener(name: str, directory: Path) -> Disk:
        disks[name] = Disk(directory)
        return disks[name]

    for member in members:
        member.open_store = partial(opener, member.name)
        await member.listen()
    servers = [Server(Suffrage.VOTER, m.name, m.address) for m in members]
    for member in members:
        await member.start()
        member.node.bootstrap(servers)
    return members, disks


def test_a_full_disk_refuses_writes_until_there_is_room(tmp_path: Path) -> None:
    async def run() -> None:
        (member,), disks = await _members(tmp_path, "a")
        node, disk = member.node, disks["a"]
        await leader_of([member])
        await node.apply(b"before", soon())
        disk.full = True
        with pytest.raises(WriteHeldUp, match=r"/some/where .* its disk is full"):
            await node.apply(b"held up", soon())
        for _ in range(3):
            with pytest.raises(DiskFull, match=r"/some/where .* its disk is full"):
                await node.apply(b"refused", soon())
            with pytest.raises(DiskFull):
                await node.add_nonvoter("b", "127.0.0.1:1", soon())
        tried = disk.tried
        await until(lambda: disk.tried > tried)
        await node.verify_leader(soon())  # it still answers reads
        assert member.fsm.commands == [b"before"]
        disk.full = False
        await until(lambda: len(member.fsm.commands) == 2)
        await node.apply(b"after", soon())
        assert member.fsm.commands == [b"before", b"held up", b"after"]
        assert not member.failures
        await member.stop()

    asyncio.run(run())


def test_a_leader_without_room_lets_another_lead(tmp_path: Path) -> None:
    async def run() -> None:
        members, disks = await _members(tmp_path, "abc")
        first = await leader_of(members)
        await first.node.apply(b"before", soon())
        disks[first.name].full = True
        with pytest.raises(RaftError):
            await first.node.apply(b"perhaps", soon())
        others = [member for member in members if member is not first]
        await until(lambda: any(member.node.is_leader for member in others))
        await until(lambda: not first.node.is_leader)
        second = await leader_of(others)
        await second.node.apply(b"without the first", soon())
        # It neither votes nor asks for votes, and says so to who wants something written.
        await asyncio.sleep(1)
        assert second.node.is_leader
        disks[first.name].full = False
        await until(lambda: b"without the first" in first.fsm.commands)
        await second.node.apply(b"after", soon())
        await until(lambda: all(member.fsm.commands[-1:] == [b"after"] for member in members))
        assert len({tuple(member.fsm.commands) for member in members}) == 1
        for member in members:
            await member.stop()

    asyncio.run(run())


def test_where_nobody_has_room_callers_are_told_so(tmp_path: Path) -> None:
    """Not that the lead is being handed over, which is tried, but not all the time."""

    async def run() -> None:
        members, disks = await _members(tmp_path, "abc")
        leader = await leader_of(members)
        await leader.node.apply(b"before", soon())
        for disk in disks.values():
            disk.full = True
        engine = leader.node._engine
        with pytest.raises(RaftError):
            await leader.node.apply(b"perhaps", soon())
        await until(lambda: not engine.handing_over)
        tried = disks[leader.name].tried
        while disks[leader.name].tried < tried + 3:
            assert not engine.handing_over
            with pytest.raises(DiskFull, match="its disk is full"):
                await leader.node.apply(b"x", soon())
            await asyncio.sleep(0.05)
        for disk in disks.values():
            disk.full = False
        for member in members:
            await member.stop()

    asyncio.run(run())


def test_a_follower_without_room_catches_up(tmp_path: Path) -> None:
    async def run() -> None:
        members, disks = await _members(tmp_path, "abc")
        leader = await leader_of(members)
        behind = next(member for member in members if member is not leader)
        disks[behind.name].full = True
        for i in range(30):
            await leader.node.apply(b"%d" % i, soon())
        assert leader.node.is_leader
        assert b"29" not in behind.fsm.commands
        disks[behind.name].full = False
        await until(lambda: behind.fsm.commands == leader.fsm.commands)
        for member in members:
            await member.stop()

    asyncio.run(run())


def test_a_disk_that_fails_otherwise_halts(tmp_path: Path) -> None:
    async def run() -> None:
        (member,), disks = await _members(tmp_path, "a")
        await leader_of([member])
        disks["a"].broken = True
        with pytest.raises(RaftError, match="Input/output error"):
            await member.node.apply(b"lost", soon())
        tried = disks["a"].tried
        assert [type(error) for error in member.failures] == [StoreError]
        await asyncio.sleep(0.6)
        assert disks["a"].tried == tried  # never again: what such a disk says is worth nothing
        await member.stop()

    asyncio.run(run())


def test_what_arrives_during_a_sync_shares_the_next_one(tmp_path: Path) -> None:
    async def run() -> None:
        (member,), disks = await _members(tmp_path, "a")
        node, disk = member.node, disks["a"]
        await leader_of([member])
        await node.barrier(soon())
        disk.batches.clear()
        disk.go.clear()
        tried = disk.tried
        waiting = [asyncio.ensure_future(node.apply(b"first", soon()))]
        await until(lambda: disk.tried > tried)
        for i in range(40):
            waiting.append(asyncio.ensure_future(node.apply(b"%d" % i, soon())))
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        disk.go.set()
        await asyncio.gather(*waiting)
        assert disk.batches == [1, 40]
        await member.stop()

    asyncio.run(run())


def test_a_snapshot_without_room_leaves_nothing_behind(tmp_path: Path) -> None:
    class FullStore(FileSnapshotStore):
        full = True

        @override
        def create(self, meta: SnapshotMeta) -> Sink:
            sink = super().create(meta)
            if self.full:
                sink._file.close()  # type: ignore[attr-defined]
                sink._file = open("/dev/full", "wb")  # type: ignore[attr-defined]  # noqa: SIM115
            return sink

    async def run() -> None:
        (member,), _ = await _members(tmp_path, "a")
        node = member.node
        await leader_of([member])
        await node.apply(b"x" * 100, soon())
        store = FullStore(tmp_path / "a")
        node._snapshotter._store = store
        with pytest.raises(SnapshotError, match=r"cannot be written.*No space left on device"):
            await node.snapshot()
        assert list(store.path.iterdir()) == []
        store.full = False
        assert await node.snapshot() is not None
        store.full = True
        await node.apply(b"goes on", soon())
        await member.stop()

    asyncio.run(run())


def test_a_snapshot_whose_directory_cannot_be_made(tmp_path: Path) -> None:
    store = FileSnapshotStore(tmp_path)
    store.path.rmdir()
    with pytest.raises(SnapshotError, match=r"can be created"):
        store.create(SnapshotMeta(5, 1, Configuration(), 0))
