"""A datacenter's CA on a state of its own, and OpenSSL's judgement of what it signs."""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
import time
from collections.abc import Coroutine
from typing import Any

from proconsul.domain import connect as ca
from proconsul.domain.messages import MessageType, encode_command
from proconsul.domain.options import DCSpecificRequest
from proconsul.domain.spiffe import AgentId, ServiceId
from proconsul.drivers.mesh_keys import generate
from proconsul.federation.rate import Signal
from proconsul.mesh.ca import Subject, leaf_request
from proconsul.mesh.certificates import key_pem_of
from proconsul.services.server.ca import CertificateAuthority
from proconsul.services.server.ca_secondary import PrimaryCa, SecondaryCa
from proconsul.services.server.ca_signing import LeafSigner
from proconsul.services.server.fsm import RaftFsm
from proconsul.state.errors import StateError

CLUSTER = "11111111-2222-3333-4444-555555555555"


class Datacenter:
    """Commands applied at once; time stands still unless a test moves it."""

    def __init__(self, name: str = "dc1", *, is_primary: bool = True, **initial: Any) -> None:
        self.datacenter, self.index = name, 0
        self.now_ns = 1_900_000_000_000_000_000
        self.fsm = RaftFsm()
        self.store = self.fsm.store
        self.ca = CertificateAuthority(self, is_primary=is_primary, initial=initial)
        self.signer = LeafSigner(self.ca, name, "consul")
        self.refusal: Exception | None = None

    def unix_ns(self) -> int:
        return self.now_ns

    async def apply(self, type_: MessageType, request: Any, *, may_ignore: bool = False) -> Any:
        self.index += 1
        result = self.fsm.apply(self.index, encode_command(type_, request))
        if isinstance(result, StateError):
            raise result
        return result

    @property
    def root_ids(self) -> list[str]:
        return [root.id for root in self.store.connect.roots().value]

    @property
    def roots_pem(self) -> str:
        return "".join(root.root_cert for root in self.store.connect.roots().value)

    async def roots(self, _request: DCSpecificRequest) -> ca.IndexedCARoots:
        index, (roots, config), _ = self.store.connect.roots_and_config()
        active = next((root.id for root in roots if root.active), "")
        domain = f"{config.cluster_id}.consul" if config else ""
        return ca.IndexedCARoots(
            trust_domain=domain, active_root_id=active, roots=roots, index=index
        )

    async def _sign(self, request: ca.CASignRequest) -> str:
        if self.refusal is not None:
            raise self.refusal
        return await self.signer.sign_intermediate(request.csr)

    def secondary_of(self, primary: Datacenter) -> SecondaryCa:
        there = PrimaryCa(primary.datacenter, primary.roots, primary._sign)
        return SecondaryCa(self.ca, there, Signal())

    async def leaf(self, service: str = "web") -> tuple[ca.IssuedCert, str]:
        """A service's certificate and key."""
        config = self.ca.config
        assert config is not None
        identity = ServiceId(f"{config.cluster_id}.consul", "default", self.datacenter, service)
        return await self.issue(identity)

    async def issue(
        self, identity: ServiceId | AgentId, *dns_names: str
    ) -> tuple[ca.IssuedCert, str]:
        key = generate()
        request = leaf_request(Subject(identity.common_name, identity.uri), key, dns_names)
        found = await self.signer.identify(request)
        return await self.signer.sign(request, found), key_pem_of(key)

    async def rotate(self, **config: Any) -> None:
        """New settings; by default with a new key."""
        from proconsul.domain.ca_config import DEFAULTS

        given = config or {"PrivateKey": key_pem_of(generate())}
        await self.ca.update_configuration(
            ca.CAConfiguration(provider="consul", config={**DEFAULTS, **given})
        )


def accepted(leaf: ca.IssuedCert, key_pem: str, roots_pem: str) -> bool:
    """Whether OpenSSL takes the leaf of both sides of a TLS connection, trusting only `roots_pem`."""
    server, client = (_context(p, leaf, key_pem, roots_pem) for p in _PROTOCOLS)
    wires = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        server.wrap_bio(wires[0], wires[1], server_side=True),
        client.wrap_bio(wires[1], wires[0]),
    ]
    for _ in range(6):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return all(side.getpeercert() for side in sides)


_PROTOCOLS = ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT


def _context(protocol: int, leaf: ca.IssuedCert, key_pem: str, roots_pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=roots_pem)
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write(leaf.cert_pem + key_pem)
    context.load_cert_chain(file.name)
    os.unlink(file.name)
    return context


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test

    asyncio.run(bounded())


async def made_primary(**initial: Any) -> Datacenter:
    primary = Datacenter("dc1", ClusterID=CLUSTER, **initial)
    primary.now_ns = time.time_ns()
    await primary.ca.initialize_primary()
    return primary


async def made_secondary(primary: Datacenter) -> Datacenter:
    secondary = Datacenter("dc2", is_primary=False)
    secondary.now_ns = primary.now_ns
    await secondary.secondary_of(primary).adopt(await primary.roots(None))  # type: ignore[arg-type]
    return secondary
