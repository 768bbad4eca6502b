"""The connection pool: reuse, single dials, what a failure says, reaping."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rpc_support import NativeDialer, Service, contexts, run, soon

from proconsul.drivers.stream import PushStream, memory_pair
from proconsul.rpc.dialer import Destination, Hop, HopError, Purpose
from proconsul.rpc.direct_dialer import DirectDialer
from proconsul.rpc.errors import DeadlineError, RemoteError, TransportError
from proconsul.rpc.pool import ConnectionPool
from proconsul.rpc.yamux_session import YamuxSession, YamuxStream
from proconsul.testing.certs import TestAuthority
from proconsul.testing.waiting import until
from proconsul.util.metrics import Metrics


class MemoryDialer:
    """Every dial is a memory stream with a server of ours at the other end."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.dialled: list[Destination] = []
        self.sessions: list[YamuxSession] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.failure: HopError | None = None

    async def dial(self, to: Destination, purpose: Purpose, deadline: float) -> PushStream:
        self.dialled.append(to)
        await asyncio.sleep(0.01)
        if self.failure is not None:
            raise self.failure
        near, far = memory_pair()
        if purpose is Purpose.RPC_SINGLE:
            self._serve(far)
        else:
            self.sessions.append(YamuxSession(far, client=False, on_stream=self._serve))
        return near

    def _serve(self, stream: PushStream | YamuxStream) -> None:
        task = asyncio.create_task(self.service.rpc(stream))
        self.tasks.add(task)


S1 = Destination("dc1", "s1", ("10.0.0.1", 8300))


def build() -> tuple[ConnectionPool, MemoryDialer]:
    dialer = MemoryDialer(Service())
    return ConnectionPool(dialer, Metrics()), dialer


def test_one_connection_serves_many_calls_and_dials_once() -> None:
    async def test() -> None:
        pool, dialer = build()
        async with asyncio.TaskGroup() as group:
            calls = [
                group.create_task(pool.rpc(S1, "Test.Echo", bytes([0xCC, i]), soon()))
                for i in range(100)
            ]
        assert [call.result() for call in calls] == [bytes([0xCC, i]) for i in range(100)]
        assert len(dialer.dialled) == len(pool) == 1
        streams = len(dialer.sessions[0])
        for _ in range(10):
            await pool.rpc(S1, "Test.Echo", b"\x80", soon())
        assert len(dialer.sessions[0]) <= streams
        await pool.aclose()

    run(test)


def test_same_node_and_address_in_two_datacenters_are_two_connections() -> None:
    async def test() -> None:
        pool, dialer = build()
        await pool.rpc(S1, "Test.Echo", b"\x80", soon())
        await pool.rpc(Destination("dc2", *(S1.node, S1.address)), "Test.Echo", b"\x80", soon())
        assert len(dialer.dialled) == len(pool) == 2
        await pool.aclose()

    run(test)


def test_remote_errors_keep_their_text_and_leave_no_streams_behind() -> None:
    async def test() -> None:
        pool, dialer = build()
        for _ in range(5):
            with pytest.raises(RemoteError, match=r"^no such thing$"):
                await pool.rpc(S1, "Test.Fail", b"\x80", soon())
        with pytest.raises(RemoteError) as raised:
            await pool.rpc(S1, "Test.Bug", b"\x80", soon())
        assert "secret" not in str(raised.value)
        await until(lambda: len(dialer.sessions[0]) == 0)
        assert len(dialer.dialled) == 1
        await pool.aclose()

    run(test)


def test_a_timed_out_call_is_cancelled_at_the_server() -> None:
    async def test() -> None:
        pool, dialer = build()
        with pytest.raises(DeadlineError) as raised:
            await pool.rpc(S1, "Test.Slow", b"\x80", soon(0.05))
        assert not raised.value.safe_to_retry
        await until(lambda: dialer.service.cancelled == 1)
        assert await pool.rpc(S1, "Test.Echo", b"\x01", soon()) == b"\x01"
        assert len(dialer.dialled) == 1
        await pool.aclose()

    run(test)


def test_a_connection_that_died_is_replaced() -> None:
    async def test() -> None:
        pool, dialer = build()
        await pool.rpc(S1, "Test.Echo", b"\x80", soon())
        dialer.sessions[0].abort()
        await pool.rpc(S1, "Test.Echo", b"\x80", soon())
        assert len(dialer.dialled) == 2
        dialer.sessions[1].go_away()
        await asyncio.sleep(0)
        await pool.rpc(S1, "Test.Echo", b"\x80", soon())
        assert len(dialer.dialled) == 3
        await pool.aclose()

    run(test)


def test_a_call_lost_half_way_is_not_safe_to_repeat() -> None:
    async def test() -> None:
        pool, dialer = build()
        call = asyncio.create_task(pool.rpc(S1, "Test.Slow", b"\x80", soon()))
        await until(lambda: dialer.service.calls == ["Test.Slow"])
        dialer.sessions[0].abort()
        with pytest.raises(TransportError) as raised:
            await call
        assert not raised.value.safe_to_retry
        await pool.aclose()

    run(test)


def test_a_peer_that_closes_while_a_long_request_waits_for_its_window() -> None:
    async def test() -> None:
        pool, dialer = build()
        closed: list[YamuxStream] = []

        def deaf(stream: PushStream | YamuxStream) -> None:
            assert isinstance(stream, YamuxStream)
            asyncio.get_running_loop().call_later(0.02, stream.session.core.end, stream.stream_id)
            asyncio.get_running_loop().call_later(0.02, stream.session.flush_soon)
            closed.append(stream)

        dialer._serve = deaf
        with pytest.raises(TransportError, match="stream closed") as raised:
            await pool.rpc(S1, "Test.Echo", bytes(600_000), soon())
        assert not isinstance(raised.value, DeadlineError)
        assert len(closed) == 1
        await pool.aclose()

    run(test)


def test_a_failed_dial_fails_all_who_wait_and_is_tried_again() -> None:
    async def test() -> None:
        pool, dialer = build()
        dialer.failure = HopError(Hop.DIAL, "dc1", "nobody there")
        calls = [asyncio.create_task(pool.rpc(S1, "Test.Echo", b"\x80", soon())) for _ in range(5)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, HopError) for result in results)
        assert len(dialer.dialled) == 1
        assert not await pool.ping(S1, soon())
        dialer.failure = None
        assert await pool.ping(S1, soon())
        await pool.aclose()

    run(test)


def test_a_dial_outlives_the_caller_that_began_it() -> None:
    async def test() -> None:
        pool, dialer = build()
        first = asyncio.create_task(pool.rpc(S1, "Test.Echo", b"\x80", soon()))
        second = asyncio.create_task(pool.rpc(S1, "Test.Echo", b"\x02", soon()))
        await until(lambda: len(dialer.dialled) == 1)
        first.cancel()
        assert await second == b"\x02"
        assert len(dialer.dialled) == 1
        await pool.aclose()

    run(test)


def test_what_leads_to_an_old_address_ends_when_a_server_moves() -> None:
    async def test() -> None:
        pool, dialer = build()
        here, other = S1, Destination("dc1", "s2", ("10.0.0.2", 8300))
        there = Destination("dc1", "s1", ("10.0.0.9", 8300))
        for to in (here, other, there):
            assert await pool.rpc(to, "Test.Echo", b"\x80", soon()) == b"\x80"
        pool.moved(there)
        assert len(pool) == 2
        dialling = asyncio.create_task(pool.rpc(here, "Test.Echo", b"\x80", soon()))
        await until(lambda: len(dialer.dialled) == 4)
        pool.moved(there)
        with pytest.raises(TransportError, match="s1 is elsewhere now") as caught:
            await dialling
        assert caught.value.safe_to_retry
        assert await pool.rpc(there, "Test.Echo", b"\x80", soon()) == b"\x80"
        assert len(dialer.dialled) == 4
        await pool.aclose()

    run(test)


def test_idle_connections_are_reaped() -> None:
    async def test() -> None:
        dialer = MemoryDialer(Service())
        pool = ConnectionPool(dialer, Metrics(), idle_s=0.05)
        await pool.rpc(S1, "Test.Echo", b"\x80", soon())
        await until(lambda: len(pool) == 0)
        await until(lambda: dialer.sessions[0].closed)
        await pool.rpc(S1, "Test.Echo", b"\x80", soon())
        await pool.aclose()
        with pytest.raises(TransportError, match="shutdown"):
            await pool.rpc(S1, "Test.Echo", b"\x80", soon())

    run(test)


@pytest.mark.parametrize("broken", [True, False])
def test_a_broken_connection_is_told_apart_from_an_idle_one(broken: bool) -> None:
    async def test() -> None:
        dialer = MemoryDialer(Service())
        back: list[Destination] = []
        idle_s = 60.0 if broken else 0.05
        pool = ConnectionPool(dialer, Metrics(), idle_s=idle_s, on_reconnected=back.append)
        await pool.rpc(S1, "Test.Echo", b"\x80", soon())
        if broken:
            dialer.sessions[-1].abort()
            await until(lambda: dialer.sessions[-1].closed)
        else:
            await until(lambda: len(pool) == 0)
        await pool.rpc(S1, "Test.Echo", b"\x80", soon())
        assert back == ([S1] if broken else [])
        await pool.aclose()

    run(test)


def test_single_connection() -> None:
    async def test() -> None:
        pool, dialer = build()
        assert await pool.rpc_single(S1, "Test.Echo", b"\x05", soon()) == b"\x05"
        assert len(pool) == 0
        with pytest.raises(DeadlineError):
            await pool.rpc_single(S1, "Test.Slow", b"\x80", soon(0.05))
        await until(lambda: dialer.service.cancelled == 1)
        await pool.aclose()

    run(test)


@pytest.mark.parametrize("way", ["plain", "wrapped", "native"])
def test_over_the_network(tmp_path: Path, way: str) -> None:
    async def test() -> None:
        authority = TestAuthority(tmp_path)
        ours = contexts(authority.server("s1", "dc1"), verify_outgoing=way == "wrapped")
        dialer = NativeDialer(ours) if way == "native" else DirectDialer(ours)
        service = Service()
        async with service.listening(ours) as listener:
            to = Destination("dc1", "s1", listener.address)
            pool = ConnectionPool(dialer, Metrics())
            big = b"\xc6" + (3_000_000).to_bytes(4, "big") + bytes(3_000_000)
            assert await pool.rpc(to, "Test.Echo", big, soon()) == big
            assert await pool.rpc_single(to, "Test.Echo", b"\x05", soon()) == b"\x05"
            assert service.peers[0].tls is (way != "plain")
            with pytest.raises(DeadlineError):
                await pool.rpc(to, "Test.Slow", b"\x80", soon(0.05))
            await until(lambda: service.cancelled == 1)
            await pool.aclose()
            await until(lambda: listener.connections == 0)

    run(test)


def test_a_retired_connection_ends_with_its_last_call_while_new_ones_dial() -> None:
    async def test() -> None:
        dialer = MemoryDialer(Service())
        pool = ConnectionPool(dialer, Metrics(), idle_s=0.05)
        slow = asyncio.create_task(pool.rpc(S1, "Test.Slow", b"\x80", soon()))
        await until(lambda: len(dialer.sessions) == 1 and len(dialer.sessions[0]) == 1)
        pool.retire(S1.datacenter)
        await pool.rpc(S1, "Test.Echo", b"\x80", soon())
        assert len(dialer.dialled) == 2
        assert not dialer.sessions[0].closed
        slow.cancel()
        await until(lambda: dialer.sessions[0].closed)
        await pool.aclose()

    run(test)
