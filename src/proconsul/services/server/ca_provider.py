"""The built-in provider of the mesh's CA: its key and certificates, kept in Raft.

Follows `agent/connect/ca/provider_consul.go`. Real servers look for the provider's state by an id
that they make of the settings, so that they and ours can take leadership over from each other.
Nothing is kept here: each use reads the replicated state.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from msgspec.structs import replace

from proconsul.domain import connect as ca
from proconsul.domain.ca_config import AuthorityConfig
from proconsul.domain.errors import DomainError
from proconsul.domain.federation import raw_time
from proconsul.domain.messages import MessageType
from proconsul.domain.spiffe import SigningId, authority_common_name
from proconsul.state.store import Store

log = logging.getLogger("proconsul.connect.ca")

PROVIDER = "consul"
NOT_INITIALIZED = "provider not initialized"


class CaError(DomainError):
    """The CA cannot do what was asked; the text is Consul's where Consul has one."""


class CaServer(Protocol):
    """What the CA needs of its server."""

    @property
    def datacenter(self) -> str: ...

    @property
    def store(self) -> Store: ...

    def unix_ns(self) -> int: ...

    async def apply(self, type_: MessageType, request: Any, *, may_ignore: bool = False) -> Any: ...


@dataclass(frozen=True, slots=True)
class Provider:
    """The provider that one configuration describes. `trust` is the mesh's trust domain."""

    server: CaServer
    config: AuthorityConfig
    trust: SigningId
    is_primary: bool

    @property
    def id(self) -> str:
        """Under which id Consul's servers look for the state of these settings."""
        given = f"{self.config.private_key},{self.config.root_cert}"
        what = f"{given},{str(self.is_primary).lower()}"
        return hashlib.sha256(what.encode()).digest().hex(":")

    @property
    def state(self) -> ca.CAConsulProviderState | None:
        """Key and certificates; a secret of the servers."""
        return self.server.store.connect.provider_state(self.id)

    @property
    def root_pem(self) -> str:
        """The root of this provider; empty if it has none yet."""
        state = self.state
        return state.root_cert if state is not None else ""

    @property
    def signing_pem(self) -> str:
        """The certificate whose key signs leaves; empty if there is none yet."""
        state = self.state
        if state is None:
            return ""
        return state.root_cert if self.is_primary else state.intermediate_cert

    # -- keeping state ---------------------------------------------------------------------

    async def adopt_old_state(self, active: ca.CARoot | None) -> None:
        """Move a state that is kept under an id of former times, Consul's or ours, to the right one.

        `active` is the root whose key must not be lost.
        """
        if self.state is not None:
            return
        connect = self.server.store.connect
        old = connect.provider_state(f"{self.config.private_key},{self.config.root_cert}")
        if old is None and active is not None:
            old = connect.signing_state(active)
        if old is not None:
            await self.save(replace(old, id=self.id))
            await self._delete(old.id)

    async def make_root(self) -> None:
        """A root by the settings, unless there is one: the user's own, or a new one.

        Raises `CertificateError` if the user's key and root cannot be used.
        """
        if self.root_pem:
            return
        serial = 0 if self.config.root_cert else await self.next_serial()
        key_pem, root_pem = await asyncio.to_thread(self._make_root, serial, self.now())
        await self.save(
            ca.CAConsulProviderState(id=self.id, private_key=key_pem, root_cert=root_pem)
        )

    def _make_root(self, serial: int, now: datetime) -> tuple[str, str]:
        # X.509 costs memory and time: only who makes or signs something pays, in a thread.
        from proconsul.drivers.mesh_keys import compact_id, generate
        from proconsul.mesh import ca as x509
        from proconsul.mesh import certificates as certs

        config = self.config
        if config.private_key:
            key_pem, key = config.private_key, certs.load_key(config.private_key)
            certs.check_key(key)
        else:
            key = generate(config.private_key_type, config.private_key_bits)
            key_pem = certs.key_pem_of(key)
        if config.root_cert:
            certs.check_root(config.root_cert, key_pem)
            return key_pem, config.root_cert
        name = authority_common_name(compact_id(), self.trust.cluster_id, primary=True)
        return key_pem, x509.create_root(self.trust, name, key, serial, now)

    async def save(self, state: ca.CAConsulProviderState) -> None:
        request = ca.CARequest(
            op=ca.CA_SET_PROVIDER_STATE, datacenter=self.server.datacenter, provider_state=state
        )
        await self.server.apply(MessageType.CONNECT_CA, request)

    async def forget(self) -> None:
        """Delete the state: key and certificates are gone for good."""
        await self._delete(self.id)

    async def _delete(self, state_id: str) -> None:
        request = ca.CARequest(
            op=ca.CA_DELETE_PROVIDER_STATE,
            datacenter=self.server.datacenter,
            provider_state=ca.CAConsulProviderState(id=state_id),
        )
        await self.server.apply(MessageType.CONNECT_CA, request)

    async def next_serial(self) -> int:
        request = ca.CARequest(
            op=ca.CA_INCREMENT_PROVIDER_SERIAL, datacenter=self.server.datacenter
        )
        return int(await self.server.apply(MessageType.CONNECT_CA, request))

    # -- signing ---------------------------------------------------------------------------

    async def sign_leaf(self, request_pem: str, common_name: str, uri: str) -> str:
        """A leaf (PEM). Raises `CaError`, `SigningRequestError`."""
        certificate, key = self._signer(self.signing_pem)
        serial, now = await self.next_serial(), self.now()
        valid = timedelta(microseconds=self.config.leaf_ttl_ns // 1000)

        def sign() -> str:
            from proconsul.mesh import ca as x509

            subject, authority = x509.Subject(common_name, uri), x509.Authority(certificate, key)
            return x509.sign_leaf(request_pem, subject, authority, serial, now, valid)

        return await asyncio.to_thread(sign)

    async def sign_intermediate(self, request_pem: str) -> str:
        """Another datacenter's CA (PEM), of the primary. Raises `CaError`, `SigningRequestError`."""
        certificate, key = self._signer(self.root_pem)
        serial, now = await self.next_serial(), self.now()
        valid = timedelta(microseconds=self.config.intermediate_ttl_ns // 1000)

        def sign() -> str:
            from proconsul.mesh import ca as x509

            authority = x509.Authority(certificate, key)
            return x509.sign_intermediate(request_pem, authority, self.trust, serial, now, valid)

        return await asyncio.to_thread(sign)

    async def cross_sign(self, new_root_pem: str) -> str:
        """A new root as an intermediate of ours (PEM). Raises `CaError`, `CertificateError`."""
        certificate, key = self._signer(self.root_pem)
        serial, now = await self.next_serial(), self.now()
        valid = 2 * timedelta(microseconds=self.config.leaf_ttl_ns // 1000)

        def sign() -> str:
            from proconsul.mesh import ca as x509

            authority = x509.Authority(certificate, key)
            return x509.cross_sign(new_root_pem, authority, serial, now, valid)

        return await asyncio.to_thread(sign)

    def _signer(self, certificate_pem: str) -> tuple[str, str]:
        state = self.state
        if state is None or not state.private_key or not certificate_pem:
            raise CaError(NOT_INITIALIZED)
        return certificate_pem, state.private_key

    def now(self) -> datetime:
        from proconsul.mesh.certificates import utc

        return utc(self.server.unix_ns())


async def root_row(pem: str, cluster_id: str) -> ca.CARoot:
    """What the state keeps of a root, active. Raises `CertificateError`."""

    def read() -> ca.CARoot:
        from proconsul.mesh.certificates import facts_of

        found = facts_of(pem)
        return ca.CARoot(
            id=found.fingerprint,
            name="Consul CA Root Cert",
            serial_number=found.serial & ((1 << 64) - 1),
            signing_key_id=found.subject_key_id,
            external_trust_domain=cluster_id,
            raw_not_before=raw_time(int(found.not_before.timestamp()) * 1_000_000_000),
            raw_not_after=raw_time(int(found.not_after.timestamp()) * 1_000_000_000),
            root_cert=pem,
            active=True,
            private_key_type=found.key_type,
            private_key_bits=found.key_bits,
        )

    return await asyncio.to_thread(read)
