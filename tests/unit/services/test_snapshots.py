"""Where snapshot requests go, and what is refused before anything is touched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from server_support import running, server_config

from proconsul.domain import kv
from proconsul.domain.acl import AllowAll
from proconsul.domain.errors import (
    DomainError,
    NoLeaderError,
    NoPathToDatacenterError,
    PermissionDeniedError,
)
from proconsul.domain.messages import MessageType
from proconsul.domain.snapshot import SnapshotOp, SnapshotRequest
from proconsul.drivers.raft.node import RestoreUndecided
from proconsul.drivers.raft.snapshots import SnapshotError
from proconsul.drivers.snapshot_archive import ArchiveError
from proconsul.rpc.dialer import Destination, Hop, HopError, Purpose
from proconsul.rpc.snapshot_stream import nothing
from proconsul.services.server import snapshots
from proconsul.services.server.server import Server
from proconsul.services.server.snapshots import Snapshots
from proconsul.testing.waiting import until
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics

S1 = Destination("dc1", "s1", ("10.0.0.1", 8300))
S2 = Destination("dc2", "s2", ("10.0.0.2", 8300))
S3 = Destination("dc2", "s3", ("10.0.0.3", 8300))


class _Server:
    """A follower that knows its leader and another datacenter."""

    def __init__(self) -> None:
        self.datacenter, self.is_leader = "dc1", False
        self.known_leader: Destination | None = S1
        self.failed: list[Destination] = []
        self.authorizer: Any = AllowAll()

    def leader(self) -> Destination | None:
        return self.known_leader

    def servers(self, datacenter: str) -> list[Destination]:
        return [S2, S3] if datacenter == "dc2" else []

    def failed_server(self, to: Destination) -> None:
        self.failed.append(to)

    def resolve_token(self, _token: str) -> Any:
        return self.authorizer


class _Dialer:
    """Reaches nobody, and remembers whom it tried."""

    def __init__(self) -> None:
        self.tried: list[str] = []

    async def dial(self, to: Destination, purpose: Purpose, _deadline: float) -> Any:
        assert purpose is Purpose.RPC_SNAPSHOT
        self.tried.append(to.node)
        raise HopError(Hop.DIAL, to.datacenter, "nobody there")


def _fails(
    request: SnapshotRequest, error: type[ProconsulError], server: _Server | None = None
) -> list[str]:
    dialer, server = _Dialer(), server or _Server()
    asked = Snapshots(server, dialer)  # type: ignore[arg-type]
    with pytest.raises(error):
        asyncio.run(asked.snapshot(request, nothing()))
    return dialer.tried


def test_the_way_of_a_request() -> None:
    assert _fails(SnapshotRequest("dc1"), HopError) == ["s1"]
    assert _fails(SnapshotRequest(), HopError) == ["s1"]
    server = _Server()
    assert _fails(SnapshotRequest("dc2"), HopError, server) == ["s2", "s3"]
    assert server.failed == [S2, S3]
    assert _fails(SnapshotRequest("dc3"), NoPathToDatacenterError) == []
    server.known_leader = None
    assert _fails(SnapshotRequest("dc1"), NoLeaderError, server) == []


def test_what_is_refused_here() -> None:
    server = _Server()
    stale = {"allow_stale": True}
    assert _fails(SnapshotRequest(op=SnapshotOp.RESTORE, **stale), DomainError, server) == []
    assert _fails(SnapshotRequest(op=7, **stale), DomainError, server) == []
    server.authorizer = SimpleNamespace(snapshot=lambda: False)
    assert _fails(SnapshotRequest(**stale), PermissionDeniedError, server) == []


async def _bytes(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _write(key: str) -> kv.KVSRequest:
    return kv.KVSRequest(op=kv.KV_SET, dir_ent=kv.DirEntry.of(key, b"v"))


def test_a_state_goes_out_and_comes_back() -> None:
    async def run() -> None:
        server = Server(server_config("s1"), Metrics())
        async with running(server):
            await until(lambda: server.ready_for_consistent_reads)
            await server.apply(MessageType.KVS, _write("kept"))
            response, archive = await server.snapshot(SnapshotRequest("dc1"), nothing())
            data = b"".join([chunk async for chunk in archive])
            assert response.index == server.raft.applied_index
            assert response.known_leader
            await server.apply(MessageType.KVS, _write("goes"))
            restore = SnapshotRequest("dc1", op=SnapshotOp.RESTORE)
            for bad in (data[:-9], data[:100], b""):
                with pytest.raises(ArchiveError):
                    await server.snapshot(restore, _bytes(bad))
            assert server.store.kv.get("goes").value is not None
            before = server.raft.last_index
            await server.snapshot(restore, _bytes(data))
            assert server.store.kv.get("kept").value is not None
            assert server.store.kv.get("goes").value is None
            assert server.raft.last_index > before
            # The leader's duties run anew on the restored state, and agents are told to compare.
            assert server.ready_for_consistent_reads
            await server.apply(MessageType.KVS, _write("after"))
            await until(lambda: server.store.catalog.node("s1").value is not None)

    asyncio.run(run())


def test_only_a_few_archives_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots, "SAVE_WAIT_S", 0.05)

    async def run() -> None:
        server = Server(server_config("s1"), Metrics())
        async with running(server):
            await until(lambda: server.ready_for_consistent_reads)
            request = SnapshotRequest("dc1")
            held = [(await server.snapshot(request, nothing()))[1] for _ in range(2)]
            with pytest.raises(DomainError, match="2 snapshots are being saved by this server"):
                await server.snapshot(request, nothing())
            await held[0].aclose()  # unread
            await held[0].aclose()
            assert b"".join([chunk async for chunk in held[1]])
            with monkeypatch.context() as broken:
                broken.setattr(snapshots, "write_archive", no_space)
                for _ in range(3):
                    with pytest.raises(DomainError, match="failed to write snapshot file"):
                        await server.snapshot(request, nothing())
            for answer in [(await server.snapshot(request, nothing()))[1] for _ in range(2)]:
                await answer.aclose()

    asyncio.run(run())


async def _archive(server: Server) -> bytes:
    _, archive = await server.snapshot(SnapshotRequest("dc1"), nothing())
    return b"".join([chunk async for chunk in archive])


RESTORE = SnapshotRequest("dc1", op=SnapshotOp.RESTORE)


def test_who_goes_away_during_a_restore_leaves_a_whole_leader() -> None:
    async def run() -> None:
        server = Server(server_config("s1"), Metrics())
        async with running(server):
            await until(lambda: server.ready_for_consistent_reads)
            data = await _archive(server)
            await server.apply(MessageType.KVS, _write("goes"))
            duties, reached, go = server._leader, asyncio.Event(), asyncio.Event()
            barrier, ready = server.raft.barrier, []

            async def slow(deadline: float) -> None:
                if server._leader is duties:
                    ready.append(server.ready_for_consistent_reads)
                    reached.set()
                    await go.wait()
                await barrier(deadline)

            server.raft.barrier = slow  # type: ignore[method-assign]
            restoring = asyncio.create_task(server.snapshot(RESTORE, _bytes(data)))
            await reached.wait()
            restoring.cancel()
            with pytest.raises(asyncio.CancelledError):
                await restoring
            go.set()
            await until(lambda: server._leader is not duties and server.ready_for_consistent_reads)
            assert ready == [False]  # nobody reads what a quorum may not have
            assert server.store.kv.get("goes").value is None

    asyncio.run(run())


@pytest.mark.parametrize("undecided", [True, False])
def test_the_duties_begin_anew_unless_nothing_has_changed(undecided: bool) -> None:
    async def run() -> None:
        server = Server(server_config("s1"), Metrics())
        async with running(server):
            await until(lambda: server.ready_for_consistent_reads)
            data = await _archive(server)
            duties = server._leader

            async def fails(*_: object) -> None:
                assert not server.ready_for_consistent_reads
                raise (RestoreUndecided if undecided else SnapshotError)("the reason")

            server.raft.restore = fails  # type: ignore[method-assign,assignment]
            with pytest.raises(DomainError, match="restoring snapshot: the reason"):
                await server.snapshot(RESTORE, _bytes(data))
            assert server.ready_for_consistent_reads
            assert (server._leader is not duties) is undecided

    asyncio.run(run())


def test_duties_that_end_late_are_taken_up_all_the_same() -> None:
    async def run() -> None:
        server = Server(server_config("s1"), Metrics())
        async with running(server):
            await until(lambda: server.ready_for_consistent_reads)
            duties, go = server._leader, asyncio.Event()

            async def stubborn() -> None:
                try:
                    await asyncio.sleep(60)
                finally:
                    await go.wait()

            assert server._leader_task is not None
            server._leader_task.cancel()
            server._leader_task = server._scope.spawn("stubborn", stubborn())
            await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await server.reassert_leadership()
            assert server._leader is not duties
            await until(lambda: server.ready_for_consistent_reads)
            go.set()

    asyncio.run(run())
