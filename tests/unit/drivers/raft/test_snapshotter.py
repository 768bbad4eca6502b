"""Snapshots that come from others: what is on disk after each way in which they may fail."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Generator, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
from raft_support import FAST, Recorder, nowhere, soon
from typing_extensions import override

from proconsul.core.raft.types import Channel, LeadershipLost, Output, Role, Send
from proconsul.drivers.raft.applier import Replace
from proconsul.drivers.raft.errors import Halted
from proconsul.drivers.raft.node import NodeConfig, RaftNode, RestoreUndecided
from proconsul.drivers.raft.snapshots import FileSnapshotStore, NotTakenBack, SnapshotError
from proconsul.drivers.raft.store import LmdbStore
from proconsul.drivers.raft.transport import Transport
from proconsul.testing.waiting import until
from proconsul.util.errors import WireError
from proconsul.wire.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Configuration,
    Entry,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    LogType,
    Server,
    Suffrage,
    encode_configuration,
    encode_peers,
)

L, F, G = (f"10.0.0.{i}:8300" for i in (1, 2, 3))
MEMBERS = Configuration(
    tuple(Server(Suffrage.VOTER, name, at) for name, at in zip("LFG", (L, F, G), strict=True))
)
STATE = b"RESTORED\n"


class Slow(Recorder):
    """Restores when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.loading = asyncio.Event(), False
        self.go.set()

    @override
    def restore(self, reader: BinaryIO) -> Generator[None, None, Replace]:
        if reader.read() == b"bad":
            raise WireError("not a state")
        reader.seek(0)
        self.loading = True
        while not self.go.is_set():
            yield
        return (yield from super().restore(reader))


async def _start(path: Path) -> tuple[RaftNode, Slow]:
    fsm = Slow()
    node = RaftNode(
        NodeConfig("F", F, FAST), fsm, Transport(nowhere), LmdbStore(path), FileSnapshotStore(path)
    )
    await node.start()
    return node, fsm


async def _alone(path: Path) -> tuple[RaftNode, Slow]:
    """A server that leads itself, with three commands."""
    node, fsm = await _start(path)
    node.bootstrap([Server(Suffrage.VOTER, "F", F)])
    await until(lambda: node.is_leader)
    for i in range(3):
        await node.apply(b"old%d" % i, soon())
    return node, fsm


def _on_disk(path: Path) -> list[str]:
    return sorted(p.name for p in (path / "snapshots").iterdir())


async def _append(node: RaftNode, leader: str, prev: tuple[int, int], *terms: int) -> None:
    """Entries behind `prev`, all of them committed."""
    first = prev[0] + 1
    entries = tuple(
        Entry(first + i, term, LogType.COMMAND, b"%d/%d" % (first + i, term))
        for i, term in enumerate(terms)
    )
    if first == 1:
        members = Entry(1, 1, LogType.CONFIGURATION, encode_configuration(MEMBERS))
        entries = (members, *entries[1:])
    response, _ = await node.handle(
        AppendEntriesRequest(terms[-1], leader.encode(), *prev, entries, entries[-1].index)
    )
    assert isinstance(response, AppendEntriesResponse)
    assert response.success


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _never() -> AsyncIterator[bytes]:
    yield b"RES"
    await asyncio.sleep(60)


def _install(
    node: RaftNode, index: int, data: bytes = STATE, term: int = 1, *, stuck: bool = False
) -> asyncio.Task[tuple[object, str]]:
    members = encode_configuration(MEMBERS)
    leader = L if term == 1 else G
    request = InstallSnapshotRequest(
        term, leader.encode(), index, 1, members, 1, len(data), encode_peers(MEMBERS)
    )
    return asyncio.ensure_future(node.install(request, _never() if stuck else _once(data)))


def test_a_snapshot_that_was_not_installed_takes_back_nothing_later(tmp_path: Path) -> None:
    """While it is received, a later leader's entries take its place, and are acknowledged."""

    async def run() -> None:
        node, fsm = await _start(tmp_path)
        await _append(node, L, (0, 0), 1, 1, 1, 1, 1)
        fsm.go.clear()
        installing = _install(node, 6)
        await until(lambda: fsm.loading)
        assert [name for name in _on_disk(tmp_path) if not name.endswith(".tmp")] == []
        await _append(node, G, (5, 1), 2, 2)
        fsm.go.set()
        await installing
        expected = list(fsm.commands)
        assert expected[-1] == b"7/2"
        assert _on_disk(tmp_path) == []
        await node.aclose()

        node, fsm = await _start(tmp_path)
        assert node.last_index == 7
        await _append(node, G, (7, 2), 2)
        assert fsm.commands == [*expected, b"8/2"]
        await node.aclose()

    asyncio.run(run())


def test_a_later_term_while_the_snapshot_becomes_durable(tmp_path: Path) -> None:
    async def run() -> None:
        node, fsm = await _start(tmp_path)
        await _append(node, L, (0, 0), 1, 1)
        with _slow_commit(node._snapshots) as (reached, go):
            installing = _install(node, 6)
            await until(reached.is_set)
            await _append(node, G, (2, 1), 2)
            go.set()
            response, error = await installing
        assert isinstance(response, InstallSnapshotResponse)
        assert not response.success
        assert "a later term began" in error
        assert _on_disk(tmp_path) == []
        assert fsm.commands == [b"2/1", b"3/2"]
        await node.aclose()

    asyncio.run(run())


class _slow_commit:
    """Commits rename, and then wait; (they have come so far, they may go on)."""

    def __init__(self, store: FileSnapshotStore) -> None:
        self._store, self._create = store, store.create
        self.reached, self.go = threading.Event(), threading.Event()

    def __enter__(self) -> tuple[threading.Event, threading.Event]:
        def create(meta: object) -> object:
            sink = self._create(meta)  # type: ignore[arg-type]
            commit = sink.commit

            def slow() -> object:
                snapshot = commit()
                self.reached.set()
                assert self.go.wait(10)
                return snapshot

            sink.commit = slow  # type: ignore[method-assign,assignment]
            return sink

        self._store.create = create  # type: ignore[method-assign,assignment]
        return self.reached, self.go

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self._store.create = self._create  # type: ignore[method-assign]


def test_a_snapshot_that_cannot_be_read_is_never_on_disk(tmp_path: Path) -> None:
    async def run() -> None:
        node, _ = await _start(tmp_path)
        await _append(node, L, (0, 0), 1, 1)
        _, error = await _install(node, 6, b"bad")
        assert "not a state" in error
        with pytest.raises(Halted):
            await node.barrier(soon())
        await node.aclose()
        assert _on_disk(tmp_path) == []
        node, _ = await _start(tmp_path)
        await node.aclose()

    asyncio.run(run())


def test_a_cancelled_restore_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        node, fsm = await _alone(tmp_path)
        with _slow_commit(node._snapshots) as (reached, go):
            restoring = asyncio.create_task(node.restore(1, io.BytesIO(STATE), soon()))
            await until(reached.is_set)
            restoring.cancel()
            await asyncio.sleep(0)
            restoring.cancel()
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await restoring
        assert _on_disk(tmp_path) == []
        for i in range(2):
            await node.apply(b"new%d" % i, soon())
        expected = [b"old0", b"old1", b"old2", b"new0", b"new1"]
        assert fsm.commands == expected
        await node.aclose()
        node, fsm = await _start(tmp_path)
        await until(lambda: node.is_leader)
        await node.barrier(soon())
        assert fsm.commands == expected
        await node.aclose()

    asyncio.run(run())


def test_a_restore_that_lost_leadership_and_cannot_be_taken_back_halts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(snapshot: object) -> None:
        raise NotTakenBack("it cannot be deleted")

    async def run() -> None:
        node, _ = await _alone(tmp_path)
        monkeypatch.setattr(node._snapshots, "delete", stuck)
        with _slow_commit(node._snapshots) as (reached, go):
            restoring = asyncio.create_task(node.restore(1, io.BytesIO(STATE), soon()))
            await until(reached.is_set)
            monkeypatch.setattr(node._engine.running(), "may_restore", lambda _meta: False)
            go.set()
            with pytest.raises(NotTakenBack):
                await restoring
        with pytest.raises(Halted, match="it cannot be deleted"):
            await node.barrier(soon())
        await node.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("index", [1 << 62, (1 << 64) - 1])
def test_a_snapshot_from_the_end_of_time_is_refused(tmp_path: Path, index: int) -> None:
    async def run() -> None:
        node, fsm = await _alone(tmp_path)
        before = node.stats()
        with pytest.raises(SnapshotError, match="too large"):
            await node.restore(index, io.BytesIO(STATE), soon())
        assert node.stats() == before
        await node.restore((1 << 62) - 1, io.BytesIO(STATE), soon())
        await node.apply(b"goes on", soon())
        assert fsm.commands == [b"RESTORED", b"goes on"]
        await node.aclose()

    asyncio.run(run())


def test_what_is_sent_is_what_the_log_begins_with(tmp_path: Path) -> None:
    """Not one that is about to be taken over; and nothing by who does not lead any more."""

    async def run() -> None:
        node, _ = await _alone(tmp_path)
        taken = await node.snapshot()
        assert taken is not None
        sent: list[int] = []
        engine = node._engine

        async def send_snapshot(
            _id: str, _at: str, request: InstallSnapshotRequest, _: object
        ) -> None:
            sent.append(request.last_log_index)

        engine.transport.send_snapshot = send_snapshot  # type: ignore[method-assign,assignment]
        order = Send(1, "G", G, None, Channel.SNAPSHOT)
        with _slow_commit(node._snapshots) as (reached, go):
            restoring = asyncio.create_task(node.restore(99, io.BytesIO(STATE), soon()))
            await until(reached.is_set)
            await node._snapshotter.send(order)
            go.set()
            await restoring
        await node._snapshotter.send(order)
        assert sent == [taken.meta.index, 100]

        (newest,) = [s for s in node._snapshots.list() if s.meta.index == 100]
        (newest.path / "state.bin").write_bytes(b"damaged")
        await node._snapshotter.send(order)
        assert sent.pop() == node.applied_index > 100

        sending = asyncio.create_task(node._snapshotter.send(order))
        await asyncio.sleep(0)
        state = engine.running().state
        state.role = Role.FOLLOWER
        await sending
        state.role = Role.LEADER
        assert len(sent) == 2
        await node.aclose()

    asyncio.run(run())


def test_a_restore_without_leadership_changes_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        node, fsm = await _alone(tmp_path)
        fsm.go.clear()
        restoring = asyncio.create_task(node.restore(1, io.BytesIO(STATE), soon()))
        await until(lambda: fsm.loading)
        node._engine.running().may_restore = lambda _meta: False  # type: ignore[method-assign,assignment]
        fsm.go.set()
        with pytest.raises(LeadershipLost):
            await restoring
        assert _on_disk(tmp_path) == []
        assert fsm.commands == [b"old0", b"old1", b"old2"]
        await node.aclose()

    asyncio.run(run())


def test_a_restore_that_no_quorum_confirms_in_time_is_undecided(tmp_path: Path) -> None:
    async def run() -> None:
        node, fsm = await _alone(tmp_path)
        store, go = node._store, threading.Event()
        write = store.write

        def slow(outputs: Sequence[Output]) -> None:
            assert go.wait(10)
            write(outputs)

        store.write = slow  # type: ignore[method-assign]
        with pytest.raises(RestoreUndecided, match="timed out waiting for raft restore"):
            await node.restore(1, io.BytesIO(STATE), soon(-1))
        assert fsm.commands == [b"RESTORED"]
        go.set()
        await node.aclose()

    asyncio.run(run())


def test_a_later_leaders_snapshot_does_not_wait_for_the_one_before(tmp_path: Path) -> None:
    async def run() -> None:
        node, fsm = await _start(tmp_path)
        await _append(node, L, (0, 0), 1, 1)
        stuck = _install(node, 6, stuck=True)
        await until(lambda: _on_disk(tmp_path))
        again = _install(node, 6, stuck=True)  # of the same leader: it waits
        await asyncio.sleep(0)
        response, _ = await _install(node, 7, term=2)
        assert isinstance(response, InstallSnapshotResponse)
        assert response.success
        with pytest.raises(asyncio.CancelledError):
            await stuck
        assert "a later term began" in (await again)[1]
        assert fsm.commands == [b"RESTORED"]
        assert node._engine.running()._installing == 0
        await node.aclose()

    asyncio.run(run())
