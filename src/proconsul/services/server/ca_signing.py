"""Leaf certificates: who they are for, and their making (`Server.SignCertificate`).

What may stand in a leaf is decided here, whatever the request asks for: one identity, of our trust
domain and datacenter, and no name by which servers are known.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from proconsul.domain import connect as ca
from proconsul.domain import spiffe
from proconsul.domain.federation import raw_time
from proconsul.domain.messages import MessageType
from proconsul.domain.spiffe import AgentId, ServiceId
from proconsul.rpc.endpoints.connect_ca import ConnectSettings
from proconsul.services.server.ca import CertificateAuthority
from proconsul.services.server.ca_provider import CaError

if TYPE_CHECKING:
    from proconsul.services.server.server import Server

SECOND_NS = 1_000_000_000


def connect_settings(server: Server) -> ConnectSettings:
    """What the endpoints of the CA are told of the server's configuration."""
    config = server.config
    return ConnectSettings(
        enabled=config.connect_enabled,
        is_primary=config.identity.is_primary,
        auto_encrypt=config.auto_encrypt,
        agent_cas=lambda: server.tls.agent_cas if server.tls is not None else (),
        verify_server_hostname=config.tls.verify_server_hostname,
    )


class LeafSigner:
    """Signs with the datacenter's CA. `domain` is the agents', for the names of servers."""

    def __init__(self, authority: CertificateAuthority, datacenter: str, domain: str) -> None:
        self._authority, self._datacenter = authority, datacenter
        self._domain = domain.rstrip(".").lower()

    @classmethod
    def of(cls, server: Server) -> LeafSigner:
        """That of a server."""
        identity = server.config.identity
        return cls(server.ca, identity.datacenter, identity.domain)

    @property
    def config(self) -> ca.CAConfiguration | None:
        """See `Authority.config`."""
        return self._authority.config

    async def update_configuration(self, given: ca.CAConfiguration) -> None:
        """See `Authority.update_configuration`."""
        await self._authority.update_configuration(given)

    async def sign_intermediate(self, request_pem: str) -> str:
        """See `Authority.sign_intermediate`."""
        return await self._authority.provider().sign_intermediate(request_pem)

    async def identify(self, request_pem: str) -> ServiceId | AgentId:
        """Who the request says it is for. Raises `ProconsulError` with Consul's texts."""

        def read() -> tuple[list[str], list[str]]:
            # X.509 costs memory and time: only who signs something pays, in a thread.
            from proconsul.mesh.certificates import dns_names_of, load_request, uris_of

            request, _ = load_request(request_pem)
            return uris_of(request), dns_names_of(request)

        uris, names = await asyncio.to_thread(read)
        if len(uris) != 1:
            # The reference looks at the first alone and signs all of them (CVE-2022-40716)
            raise CaError(f"CSR SAN contains an invalid number of URIs: {len(uris)}")
        found = spiffe.parse(uris[0])
        if not isinstance(found, ServiceId | AgentId):
            raise CaError("SPIFFE ID in CSR must be a service or agent ID")
        if found.datacenter != self._datacenter:
            raise CaError(
                f"SPIFFE ID in CSR from a different datacenter: {found.datacenter}, "
                f"we are {self._datacenter}"
            )
        for name in names:
            if self._names_server(name.rstrip(".").lower()):
                raise CaError(
                    f'CSR asks for the DNS name "{name}": names of servers are not given to '
                    "services and agents, remove it from dns_san"
                )
        return found

    def _names_server(self, name: str) -> bool:
        end = f".{self._domain}"
        labels = name.removesuffix(end).split(".") if name.endswith(end) else []
        # A wildcard in that place stands for a server's name too
        return len(labels) > 1 and (labels[-2] == "server" or "*" in labels[-2])

    async def sign(self, request_pem: str, identity: ServiceId | AgentId) -> ca.IssuedCert:
        """A leaf for `identity` with the chain to its roots. Raises `ProconsulError`."""
        authority = self._authority
        root, provider = authority.active_root(), authority.provider()
        trust = provider.trust
        if isinstance(identity, AgentId):
            # AutoEncrypt asks before it knows the trust domain
            identity = dataclasses.replace(identity, host=trust.host)
        elif not trust.can_sign(identity):
            raise CaError(
                f"SPIFFE ID in CSR from a different trust domain: {identity.host}, "
                f"we are {trust.host}"
            )
        async with authority.limits.admitted(provider.config):
            own = "" if authority.is_primary else provider.signing_pem
            leaf = await provider.sign_leaf(request_pem, identity.common_name, identity.uri)

        def read() -> tuple[str, str, int, int]:
            from proconsul.mesh import ca as x509
            from proconsul.mesh.certificates import facts_of

            facts = facts_of(leaf)
            serial = facts.serial.to_bytes((facts.serial.bit_length() + 7) // 8, "big").hex(":")
            begins, ends = int(facts.not_before.timestamp()), int(facts.not_after.timestamp())
            return serial, x509.chain(leaf, own, root.intermediate_certs or []), begins, ends

        serial, chain, begins, ends = await asyncio.to_thread(read)
        index = await authority.server.apply(
            MessageType.CONNECT_CA_LEAF, ca.CALeafRequest(datacenter=self._datacenter),
            may_ignore=True,
        )  # fmt: skip
        is_service = isinstance(identity, ServiceId)
        return ca.IssuedCert(
            serial_number=serial,
            cert_pem=chain,
            service=identity.service if isinstance(identity, ServiceId) else "",
            service_uri=identity.uri if is_service else "",
            agent=identity.agent if isinstance(identity, AgentId) else "",
            agent_uri="" if is_service else identity.uri,
            raw_valid_after=raw_time(begins * SECOND_NS),
            raw_valid_before=raw_time(ends * SECOND_NS),
            create_index=int(index),
            modify_index=int(index),
        )
