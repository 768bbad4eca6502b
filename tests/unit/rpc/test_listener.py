"""The server port: what each first byte and ALPN name leads to, and who is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from rpc_support import NativeDialer, Service, contexts, run, soon

from proconsul.drivers.stream import PushStream, StreamError
from proconsul.drivers.tcp import connect
from proconsul.drivers.tls import client_handshake
from proconsul.drivers.tls_config import TlsConfig, TlsContexts
from proconsul.drivers.tls_errors import TlsClientCertificateError
from proconsul.rpc.connection import RpcClientStream
from proconsul.rpc.dialer import Destination, HopError, Purpose
from proconsul.rpc.direct_dialer import DirectDialer
from proconsul.rpc.errors import RemoteError
from proconsul.rpc.limits import GATEWAY_FACTOR, ConnectionLimiter
from proconsul.rpc.listener import RpcListener
from proconsul.rpc.yamux_session import YamuxSession
from proconsul.testing.certs import TestAuthority
from proconsul.testing.waiting import until

TAGS = [
    (Purpose.RAFT, b"raft"),
    (Purpose.RPC_SNAPSHOT, b"snap"),
    (Purpose.WAN_GOSSIP_PACKET, b"pckt"),
    (Purpose.WAN_GOSSIP_STREAM, b"strm"),
]


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path)


def at(listener: RpcListener) -> Destination:
    return Destination("dc1", "s1", listener.address)


async def is_closed(stream: PushStream) -> bool:
    try:
        return await stream.read() == b""
    except StreamError:
        return True
    finally:
        await stream.aclose()


@pytest.mark.parametrize(("purpose", "tag"), TAGS)
def test_native_tls_goes_by_alpn(authority: TestAuthority, purpose: Purpose, tag: bytes) -> None:
    async def test() -> None:
        server = contexts(authority.server("s1", "dc1"))
        async with Service().listening(server) as listener:
            stream = await NativeDialer(server).dial(at(listener), purpose, soon())
            assert await stream.read_exactly(4) == tag
            await stream.write(b"x" * 100_000)
            await stream.write_eof()
            assert await stream.read_exactly(100_000) == b"x" * 100_000
            assert await stream.read() == b""
            await stream.aclose()

    run(test)


@pytest.mark.parametrize(("purpose", "tag"), TAGS[:2])
@pytest.mark.parametrize("wrapped", [False, True])
def test_type_bytes(authority: TestAuthority, purpose: Purpose, tag: bytes, wrapped: bool) -> None:
    async def test() -> None:
        tls = contexts(authority.server("s1", "dc1"), verify_outgoing=wrapped)
        async with Service().listening(tls) as listener:
            stream = await DirectDialer(tls).dial(at(listener), purpose, soon())
            assert await stream.read_exactly(4) == tag
            await stream.aclose()

    run(test)


@pytest.mark.parametrize("first", [2, 6, 7, 0x16, 0xFF])
def test_what_is_not_served_is_closed(first: int) -> None:
    async def test() -> None:
        async with Service().listening() as listener:
            stream = await connect(listener.address, soon())
            await stream.write(bytes([first]))
            assert await is_closed(stream)

    run(test)


def test_plain_is_refused_with_verify_incoming(
    authority: TestAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        tls = contexts(authority.server("s1", "dc1"), verify_incoming=True)
        service = Service()
        async with service.listening(tls) as listener:
            stream = await DirectDialer().dial(at(listener), Purpose.RPC_SINGLE, soon())
            assert await is_closed(stream)
        assert service.calls == []

    with caplog.at_level(logging.WARNING, "proconsul.rpc"):
        run(test)
    assert "Non-TLS connection attempted with VerifyIncoming set" in caplog.text


def test_tls_inside_tls_is_refused(authority: TestAuthority) -> None:
    async def test() -> None:
        tls = contexts(authority.server("s1", "dc1"), verify_outgoing=True)
        async with Service().listening(tls) as listener:
            stream = await connect(listener.address, soon())
            await stream.write(b"\x03")
            secure = await client_handshake(stream, tls.client(), deadline=soon())
            await secure.write(b"\x03")
            assert await is_closed(secure)

    run(test)


def test_native_tls_always_demands_a_certificate(authority: TestAuthority) -> None:
    async def test() -> None:
        tls = contexts(authority.server("s1", "dc1"))  # verify_incoming is off
        bare = TlsContexts(TlsConfig(ca_file=authority.ca_file))
        async with Service().listening(tls) as listener:

            async def dial_and_read() -> None:
                # In TLS 1.3 the refusal may come with the handshake or after it.
                stream = await NativeDialer(bare).dial(at(listener), Purpose.RPC_MULTI, soon())
                try:
                    await stream.read()
                finally:
                    await stream.aclose()

            with pytest.raises(TlsClientCertificateError):
                await dial_and_read()

    run(test)


@pytest.mark.parametrize(
    ("node", "datacenter", "purpose", "allowed"),
    [
        ("s2", "dc1", Purpose.RAFT, True),
        ("s2", "dc2", Purpose.RAFT, False),
        ("", "dc1", Purpose.RAFT, False),
        ("s2", "dc2", Purpose.WAN_GOSSIP_PACKET, True),
        ("", "dc2", Purpose.WAN_GOSSIP_PACKET, False),
        ("", "dc2", Purpose.WAN_GOSSIP_STREAM, False),
        ("", "dc1", Purpose.RPC_SNAPSHOT, True),
    ],
)
def test_rights_by_certificate(
    authority: TestAuthority, node: str, datacenter: str, purpose: Purpose, allowed: bool
) -> None:
    async def test() -> None:
        server = contexts(authority.server("s1", "dc1"))
        files = authority.server(node, datacenter) if node else authority.client(datacenter)
        async with Service().listening(server) as listener:
            stream = await NativeDialer(contexts(files)).dial(at(listener), purpose, soon())
            assert await is_closed(stream) is not allowed

    run(test)


@pytest.mark.parametrize(
    ("settings", "federated", "node", "datacenter", "allowed"),
    [
        ({"verify_server_hostname": True}, False, "", "dc1", False),
        ({"verify_server_hostname": True}, False, "s2", "dc2", False),
        ({"verify_server_hostname": True}, False, "s2", "dc1", True),
        ({}, True, "", "dc1", False),
        ({}, True, "s2", "dc1", True),
        ({}, False, "", "dc1", True),  # ADR 7: there servers may lack the name
        ({"verify_incoming": False, "verify_server_hostname": True}, True, "", "dc1", True),
    ],
)
def test_rights_by_certificate_after_a_type_byte(
    authority: TestAuthority,
    settings: dict[str, bool],
    federated: bool,
    node: str,
    datacenter: str,
    allowed: bool,
) -> None:
    """Raft (byte 1) within TLS (byte 3); calls are everybody's."""

    async def test() -> None:
        server = contexts(authority.server("s1", "dc1"), **{"verify_incoming": True, **settings})
        files = authority.server(node, datacenter) if node else authority.client(datacenter)
        dialer = DirectDialer(contexts(files, verify_outgoing=True))
        service = Service()
        async with service.listening(server, servers_have_names=federated) as listener:
            stream = await dialer.dial(at(listener), Purpose.RAFT, soon())
            assert await is_closed(stream) is not allowed
            assert (service.metrics.counter("consul.rpc.unauthorized") == 0) is allowed
            stream = await dialer.dial(at(listener), Purpose.RPC_SNAPSHOT, soon())
            assert await stream.read_exactly(4) == b"snap"
            await stream.aclose()

    run(test)


@pytest.mark.parametrize("sent", [b"", b"\x03", b"\x16\x03\x01"])
def test_a_silent_client_is_dropped(authority: TestAuthority, sent: bytes) -> None:
    async def test() -> None:
        tls = contexts(authority.server("s1", "dc1"))
        async with Service().listening(tls, timeout_s=0.05) as listener:
            stream = await connect(listener.address, soon())
            if sent:
                await stream.write(sent)
            assert await is_closed(stream)

    run(test)


def test_connections_of_one_address_are_limited() -> None:
    async def test() -> None:
        async with Service().listening(max_conns_per_client=2) as listener:
            held = [await DirectDialer().dial(at(listener), Purpose.RAFT, soon()) for _ in range(2)]
            for stream in held:
                assert await stream.read_exactly(4) == b"raft"
            extra = await connect(listener.address, soon())
            assert await is_closed(extra)
            await held[0].aclose()
            await until(lambda: listener.limiter.held("127.0.0.1") == 1)
            again = await DirectDialer().dial(at(listener), Purpose.RAFT, soon())
            assert await again.read_exactly(4) == b"raft"
            for stream in (*held, again):
                await stream.aclose()

    run(test)


def test_native_tls_is_counted_by_certificate(authority: TestAuthority) -> None:
    async def test() -> None:
        server = contexts(authority.server("s1", "dc1"))
        one = NativeDialer(contexts(authority.server("s1", "dc2")))
        two = NativeDialer(contexts(authority.server("s2", "dc2")))
        async with Service().listening(server, max_conns_per_client=2) as listener:
            listener.limiter.gateways = frozenset({"127.0.0.1"})
            streams = [
                await dialer.dial(at(listener), Purpose.RPC_SNAPSHOT, soon())
                for dialer in (one, one, two, two)
            ]
            for stream in streams:
                assert await stream.read_exactly(4) == b"snap"
            assert listener.limiter.held("127.0.0.1") == 0
            extra = await one.dial(at(listener), Purpose.RPC_SNAPSHOT, soon())
            assert await is_closed(extra)
            for stream in streams:
                await stream.aclose()

    run(test)


def test_limiter_allows_gateways_more() -> None:
    limiter = ConnectionLimiter(1, {"192.0.2.1"})
    assert limiter.acquire("192.0.2.9")
    assert not limiter.acquire("192.0.2.9")
    assert [limiter.acquire("192.0.2.1") for _ in range(GATEWAY_FACTOR + 1)].count(True) == (
        GATEWAY_FACTOR
    )
    limiter.release("192.0.2.9")
    assert limiter.held("192.0.2.9") == 0
    unlimited = ConnectionLimiter(0)
    assert all(unlimited.acquire("a") for _ in range(1000))


def test_dialling_names_the_hop(authority: TestAuthority) -> None:
    async def test() -> None:
        tls = contexts(
            authority.server("s1", "dc2"), verify_outgoing=True, verify_server_hostname=True
        )
        async with Service().listening(tls) as listener:
            with pytest.raises(HopError, match=r"TLS failed.*server\.dc1\.consul"):
                await DirectDialer(tls).dial(at(listener), Purpose.RAFT, soon())
            address = listener.address
        with pytest.raises(HopError, match=r"dial failed.*connection refused"):
            await DirectDialer().dial(Destination("dc1", "s1", address), Purpose.RAFT, soon())
        with pytest.raises(HopError, match="mesh gateways only"):
            await DirectDialer().dial(
                Destination("dc1", "s1", address), Purpose.WAN_GOSSIP_STREAM, soon()
            )

    run(test)


def test_an_error_leaves_its_stream_open() -> None:
    """Consul closes it after an unknown method."""

    async def test() -> None:
        service = Service()
        async with service.listening() as listener:
            dialer = DirectDialer()
            stream = await dialer.dial(at(listener), Purpose.RPC_MULTI, soon())
            session = YamuxSession(stream, client=True)
            calls = RpcClientStream(await session.open_stream())
            with pytest.raises(RemoteError, match="no such thing"):
                await calls.call("Test.Fail", b"\x80")
            assert await calls.call("Test.Echo", b"\xa1x") == b"\xa1x"
            await session.aclose()

    run(test)
