"""Raft's transport where the way to a server loses packets."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from raft_support import soon
from typing_extensions import override

from proconsul.drivers.buffer import StreamError
from proconsul.drivers.raft.engine import Engine, Hooks
from proconsul.drivers.raft.transport import Connection, RemoteError, Transport
from proconsul.drivers.scope import TaskScope
from proconsul.drivers.stream import MemoryStream, PeerInfo, Stream, memory_pair
from proconsul.testing.waiting import until
from proconsul.util.metrics import Metrics
from proconsul.wire.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    Request,
    Response,
    encode_request,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proconsul.core.raft.machine import Raft
    from proconsul.drivers.raft.applier import Applier
    from proconsul.drivers.raft.store import Store


class _Handler:
    """Answers, until it is silenced."""

    def __init__(self) -> None:
        self.silent = False

    def handle(self, request: Request) -> asyncio.Future[tuple[Response | None, str]]:
        future: asyncio.Future[tuple[Response | None, str]]
        future = asyncio.get_running_loop().create_future()
        if not self.silent:
            future.set_result((AppendEntriesResponse(1, 0, success=True), ""))
        return future

    async def install(self, request: object, chunks: object) -> tuple[Response | None, str]:
        raise NotImplementedError

    def connection_lost(self, leader: str) -> None:
        """Of no interest."""


def test_a_call_that_times_out_takes_no_old_connection_next_time() -> None:
    async def run() -> None:
        handler, serving = _Handler(), []
        server = Transport(_nowhere)
        dialled = 0

        async def dial(_id: str, _address: str, _deadline: float) -> Stream:
            nonlocal dialled
            dialled += 1
            ours, theirs = memory_pair()
            serving.append(asyncio.create_task(server.serve(theirs, handler)))
            return ours

        client, heartbeat = Transport(dial), AppendEntriesRequest(1, b"a:1")
        both = [client.call("b", "b:1", heartbeat, 5.0) for _ in range(2)]
        await asyncio.gather(*both)
        assert dialled == 2  # both are kept
        handler.silent = True
        started = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await client.call("b", "b:1", heartbeat, 0.05)
        assert asyncio.get_running_loop().time() - started < 5
        handler.silent = False
        assert await client.call("b", "b:1", heartbeat, 5.0) is not None
        assert dialled == 3
        await client.aclose()
        async with asyncio.timeout_at(soon()):
            await asyncio.gather(*serving)

    asyncio.run(run())


def test_a_leader_that_takes_no_answer_is_reported_too() -> None:
    class Deaf(MemoryStream):
        @override
        async def write(self, data: bytes) -> None:
            raise StreamError("connection reset by peer")

    class Handler(_Handler):
        lost = ""

        @override
        def connection_lost(self, leader: str) -> None:
            self.lost = leader

    async def run() -> None:
        leader, _ = memory_pair()
        stream, handler = Deaf(PeerInfo(("192.0.2.1", 99))), Handler()
        leader.join(stream)
        leader.write_nowait(encode_request(AppendEntriesRequest(1, b"a:1")))
        async with asyncio.timeout_at(soon()):
            await Transport(_nowhere).serve(stream, handler)
        assert handler.lost == "a:1"

    asyncio.run(run())


def test_a_second_leader_that_is_lost_is_asked_for_beside_the_first() -> None:
    asked: list[str] = []

    async def refuses(address: str) -> bool:
        asked.append(address)
        await asyncio.sleep(3600)
        return False

    async def run() -> None:
        core = SimpleNamespace(state=SimpleNamespace(leader=("a", "a:1")))
        async with TaskScope("test") as scope:
            engine = Engine(
                scope,
                cast("Transport", SimpleNamespace(refuses=refuses)),
                cast("Store", None),
                cast("Applier", None),
                Hooks(),
                Metrics(),
            )
            engine.core = cast("Raft", core)
            engine.connection_lost("a:1")
            engine.connection_lost("a:1")
            await until(lambda: asked)
            core.state.leader = ("b", "b:1")
            engine.connection_lost("b:1")
            await until(lambda: "b:1" in asked)
            await scope.aclose()
        assert asked == ["a:1", "b:1"]
        await asyncio.to_thread(engine.disk.shutdown)

    asyncio.run(run())


async def _nowhere(_id: str, _address: str, _deadline: float) -> MemoryStream:
    raise AssertionError("a server that only serves dials nobody")


def test_a_leader_that_vanishes_while_it_sends_a_snapshot_is_not_waited_for() -> None:
    class Handler(_Handler):
        error = ""

        @override
        async def install(self, request: object, chunks: object) -> tuple[Response | None, str]:
            with pytest.raises(StreamError) as caught:
                async for _ in cast("AsyncIterator[bytes]", chunks):
                    pass
            self.error = str(caught.value)
            return None, self.error

    async def run() -> None:
        leader, stream = memory_pair()
        handler = Handler()
        await leader.write(encode_request(_snapshot(100)) + b"x" * 50)
        async with asyncio.timeout_at(soon()):
            await Transport(_nowhere, timeout_s=0.05).serve(stream, handler)
        assert handler.error == "no more of the snapshot came for 0.05 s"

    asyncio.run(run())


def test_what_is_not_wanted_of_a_snapshot_is_no_request() -> None:
    class Handler(_Handler):
        @override
        async def install(self, request: object, chunks: object) -> tuple[Response | None, str]:
            async for _ in cast("AsyncIterator[bytes]", chunks):
                break
            return None, "the disk is full"

    async def run() -> None:
        leader, stream = memory_pair()
        serving = asyncio.create_task(Transport(_nowhere).serve(stream, Handler()))
        heartbeat = AppendEntriesRequest(1, b"a:1")
        snapshot = _snapshot(2 << 20)
        connection = Connection(leader)
        await leader.write(encode_request(snapshot))
        for _ in range(2):
            await leader.write(b"x" * (1 << 20))
        await leader.write(encode_request(heartbeat))
        async with asyncio.timeout_at(soon()):
            with pytest.raises(RemoteError, match="the disk is full"):
                await connection.answer(snapshot)
            assert await connection.answer(heartbeat) is not None
            leader.abort()
            await serving

    asyncio.run(run())


def _snapshot(size: int) -> InstallSnapshotRequest:
    return InstallSnapshotRequest(1, b"a:1", 6, 1, b"", 1, size, b"")
