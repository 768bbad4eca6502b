"""A client's certificate: got from whoever gives one, shown at once, renewed, and got anew."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest
from authority_support import Datacenter
from cryptography import x509

from proconsul.app.auto_encrypt import _host
from proconsul.domain.base import decode, encode
from proconsul.domain.connect import CASignRequest, SignedResponse
from proconsul.domain.options import DCSpecificRequest
from proconsul.drivers.tls_config import AutoTls, TlsConfig, TlsContexts
from proconsul.rpc.dialer import Destination
from proconsul.services.agent import auto_encrypt as module
from proconsul.services.agent.auto_encrypt import AutoEncrypt, AutoEncryptSettings
from proconsul.services.agent.leaf import CachedLeaf, LeafRequest
from proconsul.services.server.config import Identity
from proconsul.util.errors import ConfigError, ProconsulError

IDENTITY = Identity("c0", "id", "dc1", "dc1")


class Servers:
    """What the insecure calls reach: the first address never answers."""

    def __init__(self, primary: Datacenter) -> None:
        self.primary, self.asked = primary, list[tuple[str, int]]()
        self.refusals = 0

    async def call(self, to: Destination, method: str, body: bytes, _deadline: float) -> bytes:
        self.asked.append(to.address)
        if to.address[0] == "10.0.0.1" or self.refusals:
            self.refusals = max(0, self.refusals - 1)
            raise ProconsulError("connection refused")
        assert method == "AutoEncrypt.Sign"
        request = decode(body, CASignRequest)
        assert request.token == "agent-token"
        identity = await self.primary.signer.identify(request.csr)
        return encode(
            SignedResponse(
                issued_cert=await self.primary.signer.sign(request.csr, identity),
                connect_ca_roots=await self.primary.roots(DCSpecificRequest()),
                verify_server_hostname=True,
            )
        )


async def _made() -> tuple[AutoEncrypt, Servers, TlsContexts]:
    primary = Datacenter("dc1")
    primary.now_ns = time.time_ns()
    await primary.ca.initialize_primary()
    servers, tls = Servers(primary), TlsContexts(TlsConfig())

    async def addresses() -> list[tuple[str, int]]:
        return [("10.0.0.1", 8300), ("10.0.0.2", 8300)]

    settings = AutoEncryptSettings(
        IDENTITY, ("a.example",), (ip_address("10.9.8.7"),), lambda: "agent-token", addresses
    )
    return AutoEncrypt(settings, tls, servers, random.Random(1)), servers, tls  # type: ignore[arg-type]


def _run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


def test_the_first_who_gives_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S_MIN", 0.001)

    async def test() -> None:
        it, servers, tls = await _made()
        shown: list[AutoTls] = []
        it.on_change = shown.append
        servers.refusals = 3
        await it.obtain()
        assert servers.asked.count(("10.0.0.2", 8300)) == 2
        assert shown == [tls.auto]
        config = tls.config
        assert config.mutual_tls_capable
        assert config.use_tls
        assert config.verify_server_hostname
        names = x509.load_pem_x509_certificate(config.cert_pem.encode()).extensions
        found = names.get_extension_for_class(x509.SubjectAlternativeName).value
        assert found.get_values_for_type(x509.DNSName) == ["localhost", "a.example"]
        assert ip_address("10.9.8.7") in found.get_values_for_type(x509.IPAddress)
        tls.client()
        tls.server(client_certificate=True)
        assert config.key_pem not in repr(tls.auto)

    _run(test)


def test_it_is_renewed_and_got_anew_once_it_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    expired = asyncio.Event()
    monkeypatch.setattr(module, "_expired", lambda _pem: expired.is_set())

    async def test() -> None:
        it, servers, tls = await _made()
        await it.obtain()
        first = tls.auto.cert_pem
        renewed, _ = await servers.primary.leaf("stands-for-the-agent")
        answers: list[Any] = [renewed, ProconsulError("no servers"), None]
        seeded: list[int] = []

        class Leaves:
            def seed(self, request: LeafRequest, cert: Any, authorities: list[str]) -> None:
                assert (request.agent, request.token) == ("c0", "agent-token")
                assert authorities
                seeded.append(cert.modify_index)

            async def get(self, _request: LeafRequest, index: int, _wait: float) -> CachedLeaf:
                answer = answers.pop(0)
                if answer is None:
                    await asyncio.sleep(60)
                if isinstance(answer, Exception):
                    expired.set()
                    raise answer
                assert index == seeded[0]
                return CachedLeaf(SimpleNamespace(  # type: ignore[arg-type]
                    modify_index=answer.modify_index, cert_pem=first,
                    private_key_pem=tls.auto.key_pem,
                ), hit=False, age_s=0)  # fmt: skip

        keeping = asyncio.create_task(it.keep_certificate(Leaves()))  # type: ignore[arg-type]
        while len(seeded) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert tls.auto.cert_pem != first
        keeping.cancel()

    _run(test)


def test_what_cannot_be_used_changes_nothing() -> None:
    tls = TlsContexts(TlsConfig())
    with pytest.raises(ConfigError):
        tls.update_auto(AutoTls(ca_pems=("none",)))
    assert tls.auto == AutoTls()
    tls.reload(TlsConfig())


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1:8301", "10.0.0.1"),
        ("[::1]:8301", "::1"),
        ("::1", "::1"),
        ("name.example:8301", "name.example"),
        ("name.example", "name.example"),
    ],
)
def test_hosts_of_what_is_joined(entry: str, host: str) -> None:
    assert _host(entry) == host
