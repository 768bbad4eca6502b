"""Every way a handshake fails has its type and says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from proconsul.drivers.stream import memory_pair
from proconsul.drivers.tls import TlsStream, client_handshake, name_matches, server_handshake
from proconsul.drivers.tls_config import TlsConfig, TlsContexts
from proconsul.drivers.tls_errors import (
    TlsAlpnError,
    TlsClientCertificateError,
    TlsEofError,
    TlsError,
    TlsExpiredError,
    TlsNameError,
    TlsProtocolError,
    TlsTimeoutError,
    TlsUnknownAuthorityError,
)
from proconsul.testing.certs import CertificateFiles, TestAuthority
from proconsul.util.errors import ConfigError

ALPN = ("consul/raft", "consul/rpc-multi")


def contexts(files: CertificateFiles, **settings: object) -> TlsContexts:
    config = TlsConfig(ca_file=files.ca, cert_file=files.certificate, key_file=files.key)
    return TlsContexts(replace(config, **settings))


async def _outcome(work: Awaitable[TlsStream]) -> TlsStream | TlsError:
    try:
        return await work
    except TlsError as error:
        return error


async def later(client: TlsStream | TlsError) -> TlsError:
    """What a client learns of a server that refuses it.

    In TLS 1.3 the handshake has ended for the client when the server judges its certificate: the
    refusal comes at once or on the first read.
    """
    if isinstance(client, TlsError):
        return client
    with pytest.raises(TlsError) as raised:
        await client.read()
    with pytest.raises(TlsError):
        await client.write(b"x")
    return raised.value


async def shake(
    server: TlsContexts,
    client: TlsContexts,
    *,
    name: str = "s1.server.dc1.consul",
    alpn: str = "consul/rpc-multi",
) -> tuple[TlsStream | TlsError, TlsStream | TlsError]:
    """(client's, server's) outcome of a native TLS handshake."""
    near, far = memory_pair()
    deadline = asyncio.get_running_loop().time() + 5
    async with asyncio.TaskGroup() as group:
        accepting = group.create_task(
            _outcome(
                server_handshake(
                    far,
                    server.server(client_certificate=True, alpn=ALPN),
                    deadline=deadline,
                    alpn=True,
                )
            )
        )
        dialling = group.create_task(
            _outcome(
                client_handshake(
                    near,
                    client.client(alpn=alpn),
                    deadline=deadline,
                    server_name=name,
                    needed_name=name,
                    alpn=alpn,
                )
            )
        )
    return dialling.result(), accepting.result()


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await test()

    uvloop.run(main())


def test_both_sides_know_who_the_other_is(authority: TestAuthority) -> None:
    async def test() -> None:
        one, two = authority.server("s1", "dc1"), authority.server("s2", "dc2")
        client, server = await shake(contexts(one), contexts(two))
        assert isinstance(client, TlsStream)
        assert isinstance(server, TlsStream)
        assert client.peer.dns_names[0] == "s1.server.dc1.consul"
        assert server.peer.dns_names == ("s2.server.dc2.consul", "server.dc2.consul", "localhost")
        assert server.peer.server_name == "s1.server.dc1.consul"
        assert client.peer.alpn == server.peer.alpn == "consul/rpc-multi"
        assert client.peer.tls
        assert len(server.peer.certificate_id) == 64
        assert server.peer.certificate_id != client.peer.certificate_id

    run(test)


def test_wrong_name_prints_needed_and_offered(authority: TestAuthority) -> None:
    async def test() -> None:
        files = authority.server("s1", "dc1")
        client, _ = await shake(contexts(files), contexts(files), name="s9.server.dc1.consul")
        assert isinstance(client, TlsNameError)
        assert client.needed == "s9.server.dc1.consul"
        assert "s1.server.dc1.consul" in client.offered
        assert "s9.server.dc1.consul" in str(client)
        assert "s1.server.dc1.consul" in str(client)

    run(test)


def test_servers_certificate_of_an_unknown_authority(
    authority: TestAuthority, tmp_path: Path
) -> None:
    async def test() -> None:
        foreign = TestAuthority(tmp_path, "other").server("s1", "dc1")
        ours = contexts(authority.server("s2", "dc2"))
        client, server = await shake(contexts(foreign), ours)
        assert isinstance(client, TlsUnknownAuthorityError)
        assert isinstance(server, TlsUnknownAuthorityError)

    run(test)


def test_clients_certificate_of_an_unknown_authority(
    authority: TestAuthority, tmp_path: Path
) -> None:
    async def test() -> None:
        foreign = TestAuthority(tmp_path, "other").server("s2", "dc2")
        server_contexts = contexts(authority.server("s1", "dc1"))
        client, server = await shake(server_contexts, contexts(foreign, ca_file=authority.ca_file))
        assert isinstance(server, TlsUnknownAuthorityError)
        assert isinstance(await later(client), TlsUnknownAuthorityError)

    run(test)


def test_expired(authority: TestAuthority) -> None:
    async def test() -> None:
        good, bad = authority.server("s2", "dc2"), authority.server("s1", "dc1", expired=True)
        client, _ = await shake(contexts(bad), contexts(good))
        assert isinstance(client, TlsExpiredError)
        _, server = await shake(contexts(good), contexts(bad), name="s2.server.dc2.consul")
        assert isinstance(server, TlsExpiredError)

    run(test)


def test_no_client_certificate(authority: TestAuthority) -> None:
    async def test() -> None:
        server_contexts = contexts(authority.server("s1", "dc1"))
        bare = TlsContexts(TlsConfig(ca_file=authority.ca_file))
        client, server = await shake(server_contexts, bare)
        assert isinstance(server, TlsClientCertificateError)
        assert isinstance(await later(client), TlsClientCertificateError)

    run(test)


def test_no_common_application_protocol(authority: TestAuthority) -> None:
    async def test() -> None:
        both = contexts(authority.server("s1", "dc1"))
        client, server = await shake(both, both, alpn="consul/unknown")
        assert isinstance(client, TlsAlpnError)
        assert isinstance(server, TlsAlpnError)

    run(test)


def test_end_before_server_hello(authority: TestAuthority) -> None:
    async def test() -> None:
        near, far = memory_pair()
        await far.write_eof()
        context = contexts(authority.server("s1", "dc1")).client()
        with pytest.raises(TlsEofError) as raised:
            await client_handshake(
                near, context, deadline=asyncio.get_running_loop().time() + 5, server_name="a.b"
            )
        assert raised.value.before_server_hello

    run(test)


def test_a_peer_that_says_nothing_times_out(authority: TestAuthority) -> None:
    async def test() -> None:
        near, _far = memory_pair()
        context = contexts(authority.server("s1", "dc1")).client()
        with pytest.raises(TlsTimeoutError):
            await client_handshake(near, context, deadline=asyncio.get_running_loop().time() + 0.05)

    run(test)


def test_a_peer_that_speaks_something_else(authority: TestAuthority) -> None:
    async def test() -> None:
        near, far = memory_pair()
        await far.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        context = contexts(authority.server("s1", "dc1")).client()
        with pytest.raises(TlsProtocolError):
            await client_handshake(near, context, deadline=asyncio.get_running_loop().time() + 5)

    run(test)


def test_an_end_without_close_notify_is_an_error(authority: TestAuthority) -> None:
    async def test() -> None:
        files = authority.server("s1", "dc1")
        client, server = await shake(contexts(files), contexts(files))
        assert isinstance(client, TlsStream)
        assert isinstance(server, TlsStream)
        await client.write(b"half a mess")
        await client._lower.write_eof()
        assert await server.read() == b"half a mess"
        with pytest.raises(TlsEofError):
            await server.read()

    run(test)


def test_certificates_in_memory(authority: TestAuthority) -> None:
    files = authority.server("s1", "dc1")
    config = TlsConfig(
        ca_pems=(Path(files.ca).read_text(),),
        cert_pem=Path(files.certificate).read_text(),
        key_pem=Path(files.key).read_text(),
    )

    async def test() -> None:
        assert "PRIVATE" not in repr(config)
        client, _ = await shake(TlsContexts(config), contexts(files))
        assert isinstance(client, TlsStream)

    run(test)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"ca_file": "/nonexistent.pem"}, "ca_file: cannot read /nonexistent.pem"),
        ({"min_version": "tls99"}, "tls_min_version"),
        ({"ca_file": "", "verify_outgoing": True}, "verify_outgoing set"),
        ({"cert_file": "", "verify_incoming": True}, "no Cert/Key pair"),
    ],
)
def test_bad_settings_are_explained(
    authority: TestAuthority, settings: dict[str, object], text: str
) -> None:
    files = authority.server("s1", "dc1")
    with pytest.raises(ConfigError, match=text):
        contexts(files, **settings)


def test_reload_changes_what_is_verified(authority: TestAuthority, tmp_path: Path) -> None:
    async def test() -> None:
        other = TestAuthority(tmp_path, "other").server("s2", "dc2")
        server_contexts = contexts(authority.server("s1", "dc1"))
        client_contexts = contexts(other, ca_file=authority.ca_file)
        _, server = await shake(server_contexts, client_contexts)
        assert isinstance(server, TlsUnknownAuthorityError)
        server_contexts.reload(replace(server_contexts.config, ca_file=other.ca))
        _, server = await shake(server_contexts, client_contexts)
        assert isinstance(server, TlsStream)

    run(test)


@pytest.mark.parametrize(
    ("needed", "offered", "expected"),
    [
        ("server.dc1.consul", ["server.dc1.consul"], True),
        ("Server.DC1.consul.", ["server.dc1.consul"], True),
        ("s1.server.dc1.consul", ["*.server.dc1.consul"], True),
        ("a.s1.server.dc1.consul", ["*.server.dc1.consul"], False),
        ("server.dc1.consul", ["*.server.dc1.consul"], False),
        ("server.dc2.consul", ["server.dc1.consul", "localhost"], False),
        ("localhost", ["*."], False),
        ("server.dc1.consul", [], False),
    ],
)
def test_names(needed: str, offered: list[str], expected: bool) -> None:
    assert name_matches(needed, offered) is expected
