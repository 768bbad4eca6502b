"""The snapshot RPC over streams in memory: headers, bytes both ways, half-close, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proconsul.domain.base import decode, encode
from proconsul.domain.errors import NoLeaderError
from proconsul.domain.snapshot import SnapshotOp, SnapshotRequest, SnapshotResponse
from proconsul.drivers.stream import MemoryStream, StreamError, memory_pair
from proconsul.rpc import snapshot_stream
from proconsul.rpc.dialer import Destination, Hop, HopError, Purpose
from proconsul.rpc.errors import TransportError
from proconsul.rpc.snapshot_stream import Answer, SnapshotFailed, call, nothing, serve
from proconsul.wire.msgpack import unpack_first

TO = Destination("dc1", "s1", ("127.0.0.1", 8300))
BIG = [bytes([i]) * 100_000 for i in range(8)]


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def _parts(*parts: bytes) -> Answer:
    left = list(parts)

    async def read() -> bytes:
        return left.pop(0) if left else b""

    return Answer(read, left.clear)


class _Caller:
    """Answers with as many bytes as it got, or refuses."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[SnapshotRequest] = []

    async def snapshot(
        self, request: SnapshotRequest, body: AsyncIterator[bytes]
    ) -> tuple[SnapshotResponse, Answer]:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        got = b"".join([part async for part in body])
        return SnapshotResponse(index=len(got), known_leader=True), _parts(*BIG)


class _Dialer:
    """Leads to a `_Caller`, or to whatever `peer` does."""

    def __init__(self, peer: Any) -> None:
        self.peer, self.tasks = peer, set[asyncio.Task[None]]()

    async def dial(self, to: Destination, purpose: Purpose, _deadline: float) -> MemoryStream:
        assert (to, purpose) == (TO, Purpose.RPC_SNAPSHOT)
        one, two = memory_pair()
        task = asyncio.get_running_loop().create_task(self.peer(two))
        self.tasks.add(task)
        return one


def test_bytes_flow_both_ways() -> None:
    async def run() -> None:
        caller = _Caller()
        dialer = _Dialer(lambda stream: serve(stream, caller))
        request = SnapshotRequest("dc1", "token", op=SnapshotOp.RESTORE)
        response, answer = await call(dialer, TO, request, chunks(*BIG), 99.0)
        assert (response.index, response.known_leader) == (800_000, True)
        assert b"".join([part async for part in answer]) == b"".join(BIG)
        assert caller.asked == [request]
        await asyncio.wait(dialer.tasks)

    asyncio.run(run())


def test_refusals_come_in_the_others_words() -> None:
    async def run() -> None:
        caller = _Caller()
        caller.error = NoLeaderError()
        dialer = _Dialer(lambda stream: serve(stream, caller))
        with pytest.raises(SnapshotFailed, match="No cluster leader"):
            await call(dialer, TO, SnapshotRequest(), nothing(), 99.0)
        caller.error = OSError(28, "No space left on device")
        with pytest.raises(SnapshotFailed, match="No space left"):
            await call(dialer, TO, SnapshotRequest(), nothing(), 99.0)

    asyncio.run(run())


def test_a_peer_that_goes_away_or_speaks_otherwise() -> None:
    async def gone(stream: MemoryStream) -> None:
        stream.abort()

    async def mute(stream: MemoryStream) -> None:
        await stream.aclose()

    async def other(stream: MemoryStream) -> None:
        await stream.write(b"\xc1\xc1\xc1")

    async def run() -> None:
        for peer in (gone, mute, other):
            with pytest.raises(TransportError, match="failed to decode response"):
                await call(_Dialer(peer), TO, SnapshotRequest(), nothing(), 99.0)

    asyncio.run(run())


@pytest.mark.parametrize(
    "sent", [b"", b"\xc1", b"\x81\xa2Op\xa1x", b"\x81\xa1a\xdb\xff\xff\xff\xff"]
)
def test_a_header_that_is_none_gets_an_answer(sent: bytes) -> None:
    async def run() -> None:
        one, two = memory_pair()
        serving = asyncio.get_running_loop().create_task(serve(two, _Caller()))
        await one.write(sent)
        await one.write_eof()
        data = b""
        while part := await one.read():
            data += part
        await serving
        _, end = unpack_first(data)
        assert decode(data[:end], SnapshotResponse).error.startswith("failed to decode request: ")
        assert end == len(data)

    asyncio.run(run())


def test_the_header_may_come_in_pieces_and_with_the_body() -> None:
    async def run() -> None:
        one, two = memory_pair()
        serving = asyncio.get_running_loop().create_task(serve(two, _Caller()))
        data = encode(SnapshotRequest("dc1")) + b"body"
        for byte in data:
            await one.write(bytes([byte]))
            await asyncio.sleep(0)
        await one.write_eof()
        answer = b""
        while part := await one.read():
            answer += part
        await serving
        _, end = unpack_first(answer)
        assert decode(answer[:end], SnapshotResponse).index == 4
        assert answer[end:] == b"".join(BIG)

    asyncio.run(run())


def test_a_peer_that_takes_or_sends_nothing_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_stream, "IDLE_S", 0.01)
    released: list[bool] = []

    async def endless() -> bytes:
        return bytes(100_000)

    class Endless(_Caller):
        async def snapshot(
            self, request: SnapshotRequest, body: AsyncIterator[bytes]
        ) -> tuple[SnapshotResponse, Answer]:
            if request.op == SnapshotOp.RESTORE:
                return await super().snapshot(request, body)
            return SnapshotResponse(), Answer(endless, lambda: released.append(True))

    async def run() -> None:
        one, two = memory_pair()
        await one.write(encode(SnapshotRequest()))
        with pytest.raises(StreamError, match="took no bytes"):
            await asyncio.wait_for(serve(two, Endless()), 10)
        assert released == [True]
        one, two = memory_pair()
        await one.write(encode(SnapshotRequest(op=SnapshotOp.RESTORE)) + b"some")
        await asyncio.wait_for(serve(two, Endless()), 10)
        answer = await one.read()
        assert "sent no bytes" in decode(answer, SnapshotResponse).error

    asyncio.run(run())


def test_who_cannot_be_dialled_has_got_nothing() -> None:
    class Nowhere:
        async def dial(self, to: Destination, purpose: Purpose, _deadline: float) -> MemoryStream:
            raise HopError(Hop.DIAL, to.datacenter, "refused")

    with pytest.raises(HopError):
        asyncio.run(call(Nowhere(), TO, SnapshotRequest(), nothing(), 99.0))
