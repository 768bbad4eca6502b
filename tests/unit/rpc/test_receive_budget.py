"""What one connection's streams may keep in a server's memory, all together."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from rpc_support import NativeDialer, Service, contexts, run, soon
from typing_extensions import override

from proconsul.drivers.stream import PeerInfo
from proconsul.rpc import listener as listener_module
from proconsul.rpc.connection import RpcClientStream
from proconsul.rpc.dialer import Destination, Purpose
from proconsul.rpc.direct_dialer import DirectDialer
from proconsul.rpc.listener import RpcListener
from proconsul.rpc.yamux_session import Budget, YamuxSession
from proconsul.testing.certs import TestAuthority
from proconsul.testing.waiting import until
from proconsul.wire.netrpc import encode_request

KB = 1024
STREAMS = 40
BODY = b"\xdb" + (16 * KB).to_bytes(4, "big") + bytes(16 * KB)
"""A string in msgpack."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "BUDGET", Budget(unfinished=1024 * KB, busy=64 * KB))


async def connected(listener: RpcListener, native: NativeDialer | None = None) -> YamuxSession:
    dialer = native or DirectDialer()
    to = Destination("dc1", "s1", listener.address)
    return YamuxSession(await dialer.dial(to, Purpose.RPC_MULTI, soon()), client=True)


@pytest.mark.parametrize("encrypted", [False, True])
def test_unfinished_messages_of_many_streams_end_the_connection(
    encrypted: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        tls = contexts(TestAuthority(tmp_path).server("s1", "dc1")) if encrypted else None
        service = Service()
        async with service.listening(tls) as listener:
            session = await connected(listener, NativeDialer(tls) if tls else None)
            unfinished = encode_request("Test.Echo", 1, BODY)[:-1]
            for _ in range(2 * STREAMS):
                stream = await session.open_stream()
                stream.write_nowait(unfinished)
            await until(lambda: session.closed)
            assert service.calls == []
            other = await connected(listener, NativeDialer(tls) if tls else None)
            client = RpcClientStream(await other.open_stream())
            assert await client.call("Test.Echo", BODY) == BODY, "others are served"
            await other.aclose()
            session.abort()

    with caplog.at_level(logging.ERROR, "proconsul.rpc"):
        run(test)
    assert "bytes of unfinished messages: from=127.0.0.1:" in caplog.text


def test_finished_messages_are_no_burden() -> None:
    async def test() -> None:
        service = Service()
        async with service.listening() as listener:
            session = await connected(listener)
            clients = [RpcClientStream(await session.open_stream()) for _ in range(STREAMS)]
            for _ in range(3):
                for client in clients:
                    assert await client.call("Test.Echo", BODY) == BODY
            for client in clients[:20]:  # closed ones are forgotten, whatever they have begun
                client.stream.write_nowait(BODY[: 8 * KB])
                await asyncio.sleep(0)
                client.stream.close_nowait()
                again = RpcClientStream(await session.open_stream())
                assert await again.call("Test.Echo", BODY) == BODY
                again.stream.close_nowait()
            assert not session.closed
            await session.aclose()

    run(test)


def test_while_too_much_is_worked_on_nothing_is_read() -> None:
    """Nothing is lost by that: a leader that is slow to commit must not cost a connection."""

    async def test() -> None:
        go = asyncio.Event()

        class Waiting(Service):
            @override
            async def dispatch(self, method: str, body: bytes, peer: PeerInfo) -> bytes:
                self.calls.append(method)
                await go.wait()
                return body

        service = Waiting()
        async with service.listening() as listener:
            session = await connected(listener)

            async def call() -> bytes:
                return await RpcClientStream(await session.open_stream()).call("Test.Wait", BODY)

            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(call()) for _ in range(STREAMS)]
                await until(lambda: len(service.calls) >= 4)
                await asyncio.sleep(0.05)
                begun = len(service.calls)
                go.set()
            assert [task.result() for task in calls] == [BODY] * STREAMS
            assert begun < STREAMS
            assert not session.closed
            await session.aclose()

    run(test)
