"""Who may have what signed, and what exists for callers without a certificate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest
from endpoint_support import ServerInMemory

from proconsul.domain import connect as ca
from proconsul.domain.acl import AllowAll
from proconsul.domain.messages import MessageType
from proconsul.domain.options import DCSpecificRequest
from proconsul.domain.spiffe import AgentId, ServiceId
from proconsul.drivers.stream import PeerInfo
from proconsul.rpc.endpoints.connect_ca import AutoEncrypt, ConnectCa, ConnectSettings
from proconsul.rpc.insecure import only_insecure
from proconsul.rpc.table import Call
from proconsul.util.errors import ProconsulError

ON = ConnectSettings(enabled=True, is_primary=True, auto_encrypt=True, agent_cas=lambda: ["CA"])
SERVER: Any = SimpleNamespace(datacenter="dc1")
SIGNED = ca.IssuedCert(cert_pem="signed")


class Authority:
    """Signs whatever it is asked for."""

    config = ca.CAConfiguration(provider="consul")

    def __init__(self) -> None:
        self.given: ca.CAConfiguration | None = None

    async def update_configuration(self, given: ca.CAConfiguration) -> None:
        self.given = given

    async def sign_intermediate(self, _request_pem: str) -> str:
        return "intermediate"

    async def identify(self, request_pem: str) -> ServiceId | AgentId:
        if request_pem == "service":
            return ServiceId("x.consul", "default", "dc1", "web")
        return AgentId("x.consul", "dc1", "node")

    async def sign(self, _request_pem: str, _identity: ServiceId | AgentId) -> ca.IssuedCert:
        return SIGNED


class Only(AllowAll):
    """Allows one thing: `service:web`, `node:node` or `operator`."""

    def __init__(self, allowed: str) -> None:
        self._allowed = allowed

    def service_write(self, service: str) -> bool:
        return self._allowed == f"service:{service}"

    def node_write(self, node: str) -> bool:
        return self._allowed == f"node:{node}"

    def operator_write(self) -> bool:
        return self._allowed == "operator"


def _outcome(asked: Awaitable[Any]) -> Any:
    async def run() -> Any:
        try:
            return await asked
        except ProconsulError as error:
            return str(error)

    return asyncio.run(run())


def _call(allowed: str) -> Call:
    return Call(Only(allowed), None)


@pytest.mark.parametrize(
    ("csr", "rights", "expected"),
    [
        ("service", "service:web", SIGNED),
        ("service", "service:db", "Permission denied"),
        ("service", "operator", "Permission denied"),
        ("agent", "node:node", SIGNED),
        ("agent", "node:other", "Permission denied"),
        ("agent", "service:web", "Permission denied"),
    ],
)
def test_a_leaf_needs_the_right_to_be_what_it_says(csr: str, rights: str, expected: Any) -> None:
    it = ConnectCa(SERVER, Authority(), ON)
    assert _outcome(it.sign(ca.CASignRequest(csr=csr), _call(rights))) == expected


def test_settings_and_intermediates_are_operators() -> None:
    authority = Authority()
    it = ConnectCa(SERVER, authority, ON)
    change = ca.CARequest(config=ca.CAConfiguration(provider="consul"))
    for rights, expected in (("service:web", "Permission denied"), ("operator", None)):
        assert _outcome(it.set_configuration(change, _call(rights))) == expected
    assert authority.given == change.config
    got = _outcome(it.get_configuration(DCSpecificRequest(), _call("operator")))
    assert got == authority.config
    denied = _outcome(it.get_configuration(DCSpecificRequest(), _call("")))
    assert denied == "Permission denied"
    request = ca.CASignRequest(csr="x")
    assert _outcome(it.sign_intermediate(request, _call("operator"))) == "intermediate"
    assert _outcome(it.sign_intermediate(request, _call(""))) == "Permission denied"
    elsewhere = ConnectCa(SERVER, authority, ConnectSettings(enabled=True, is_primary=False))
    there = _outcome(elsewhere.sign_intermediate(request, _call("operator")))
    assert there == "not the primary datacenter"
    off = ConnectCa(SERVER, authority, ConnectSettings(enabled=False, is_primary=True))
    for asked in (off.sign(request, _call("")), off.set_configuration(change, _call(""))):
        assert _outcome(asked) == "Connect must be enabled in order to use this endpoint"


def test_roots_are_everybodys_but_for_their_keys() -> None:
    server: Any = ServerInMemory()
    it = ConnectCa(server, Authority(), ON)
    empty = _outcome(it.roots(DCSpecificRequest(), _call("")))
    assert (empty.trust_domain, empty.active_root_id, empty.roots) == ("", "", [])
    config = ca.CAConfiguration(cluster_id="abc", provider="consul")
    row = ca.CARoot(id="r", active=True, signing_key="secret", signing_cert="x", root_cert="pem")
    for request in (
        ca.CARequest(op=ca.CA_SET_CONFIG, config=config),
        ca.CARequest(op=ca.CA_SET_ROOTS, index=server.store.connect.roots_index, roots=[row]),
    ):
        asyncio.run(server.apply(MessageType.CONNECT_CA, request))
    found = _outcome(it.roots(DCSpecificRequest(), _call("")))
    assert (found.trust_domain, found.active_root_id) == ("abc.consul", "r")
    assert (found.roots[0].signing_key, found.roots[0].signing_cert) == ("", "")
    off = ConnectCa(server, Authority(), ConnectSettings(enabled=False, is_primary=True))
    refused = _outcome(off.roots(DCSpecificRequest(), _call("")))
    assert refused == "Connect must be enabled in order to use this endpoint"


def test_auto_encrypt_asks_the_leader_with_the_callers_token() -> None:
    asked: list[tuple[str, Any]] = []

    async def ask(method: str, request: Any) -> Any:
        asked.append((method, request))
        return SIGNED if method == "ConnectCA.Sign" else ca.IndexedCARoots(trust_domain="x.consul")

    it = AutoEncrypt(SERVER, ask, ON)
    request = ca.CASignRequest(datacenter="dc1", csr="agent", token="secret")
    answer = _outcome(it.sign(request, _call("")))
    assert answer.issued_cert == SIGNED
    assert answer.connect_ca_roots.trust_domain == "x.consul"
    assert answer.manual_ca_roots == ["CA"]
    assert ("ConnectCA.Sign", request) in asked
    elsewhere = _outcome(it.sign(ca.CASignRequest(datacenter="dc2"), _call("")))
    assert elsewhere == "insecure dialing prohibited between datacenters"
    off = AutoEncrypt(SERVER, ask, ConnectSettings(enabled=True, is_primary=True))
    expected = "AutoEncrypt.AllowTLS must be enabled in order to use this endpoint"
    assert _outcome(off.sign(request, _call(""))) == expected


def test_without_a_certificate_nothing_else_exists() -> None:
    async def dispatch(method: str, _body: bytes, _peer: PeerInfo) -> bytes:
        return method.encode()

    limited, peer = only_insecure(dispatch), PeerInfo(("127.0.0.1", 1))
    assert _outcome(limited("AutoEncrypt.Sign", b"", peer)) == b"AutoEncrypt.Sign"
    for method in ("KVS.Get", "ConnectCA.Sign", "ConnectCA.Roots", "AutoEncrypt.Other", ""):
        assert _outcome(limited(method, b"", peer)) == f"rpc: can't find service {method}"
