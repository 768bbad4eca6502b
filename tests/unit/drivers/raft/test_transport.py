"""Raft's transport where the way to a server loses packets."""

from __future__ import annotations

import asyncio

import pytest
from raft_support import soon

from proconsul.drivers.raft.transport import Transport
from proconsul.drivers.stream import MemoryStream, Stream, memory_pair
from proconsul.wire.raft import AppendEntriesRequest, AppendEntriesResponse, Request, Response


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


async def _nowhere(_id: str, _address: str, _deadline: float) -> MemoryStream:
    raise AssertionError("a server that only serves dials nobody")
