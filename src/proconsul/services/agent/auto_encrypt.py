"""A client's certificate from the servers: before it joins, and ever after (`agent/auto-config`).

The first one comes by an insecure call to the servers that the agent is to join; later ones as any
leaf does, over connections that the present one secures. One that expired starts all over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address

import msgspec.structs

from proconsul.domain.base import decode, encode
from proconsul.domain.connect import CASignRequest, IndexedCARoots, IssuedCert, SignedResponse
from proconsul.domain.spiffe import AgentId
from proconsul.drivers.scope import TaskScope
from proconsul.drivers.tls_config import AutoTls, TlsContexts
from proconsul.federation.rate import Backoff
from proconsul.rpc.dialer import Destination
from proconsul.rpc.insecure import InsecureCaller
from proconsul.services.agent.cache import Cache
from proconsul.services.agent.leaf import (
    LOCAL_ADDRESSES,
    LOCAL_NAMES,
    LeafManager,
    LeafRequest,
)
from proconsul.services.agent.mesh_roots import mesh_roots
from proconsul.services.server.config import Identity
from proconsul.util.clock import Rng
from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.agent.auto-config")

CALL_S = 10.0
RETRY_S_MIN, RETRY_S_MAX = 1.0, 60.0
UNKNOWN_TRUST_DOMAIN = "unknown"
"""Until the servers have told: they put the right one in."""
QUERY_S = 60.0

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class AutoEncryptSettings:
    """`token` and `servers` (addresses of RPC ports) are asked for at every attempt."""

    identity: Identity
    dns_names: tuple[str, ...]
    addresses: tuple[IPv4Address | IPv6Address, ...]
    token: Callable[[], str]
    servers: Callable[[], Awaitable[Sequence[Address]]]


class AutoEncrypt:
    """The certificate of one client agent; `tls` are the contexts that show it."""

    def __init__(
        self, settings: AutoEncryptSettings, tls: TlsContexts, caller: InsecureCaller, rng: Rng
    ) -> None:
        self._settings, self._tls = settings, tls
        self._caller, self._rng = caller, rng
        self._first: IssuedCert | None = None
        self._manual: tuple[str, ...] = ()
        """The agents' own CAs, as the servers told."""
        self.on_change: Callable[[AutoTls], None] = lambda _: None
        """Called with every new certificate or CA."""

    async def obtain(self) -> None:
        """Get a certificate from whichever server gives one, however long that takes."""
        key_pem, csr = await asyncio.to_thread(self._request)
        delay = RETRY_S_MIN
        while (found := await self._attempt(csr)) is None:
            await asyncio.sleep(delay * self._rng.uniform(0.75, 1.25))
            delay = min(delay * 2, RETRY_S_MAX)
        cert = msgspec.structs.replace(found.issued_cert, private_key_pem=key_pem)
        self._first = cert
        roots = found.connect_ca_roots
        self._manual = tuple(found.manual_ca_roots or ())
        self._show(
            AutoTls(
                ca_pems=(*self._manual, *_pems(roots)),
                cert_pem=cert.cert_pem,
                key_pem=key_pem,
                verify_outgoing=True,
                verify_server_hostname=found.verify_server_hostname,
            )
        )
        log.info("automatically upgraded to TLS")

    def _request(self) -> tuple[str, str]:
        from proconsul.drivers.mesh_keys import generate
        from proconsul.mesh.ca import Subject, leaf_request
        from proconsul.mesh.certificates import key_pem_of

        settings, key = self._settings, generate()
        identity = settings.identity
        mine = AgentId(UNKNOWN_TRUST_DOMAIN, identity.datacenter, identity.node_name)
        names = (*LOCAL_NAMES, *settings.dns_names)
        addresses = (*LOCAL_ADDRESSES, *settings.addresses)
        subject = Subject(mine.common_name, mine.uri)
        return key_pem_of(key), leaf_request(subject, key, names, addresses)

    async def _attempt(self, csr: str) -> SignedResponse | None:
        settings = self._settings
        datacenter = settings.identity.datacenter
        request = CASignRequest(datacenter=datacenter, csr=csr, token=settings.token())
        clock = asyncio.get_running_loop().time
        servers = await settings.servers()
        if not servers:
            log.error("no auto-encrypt server addresses available for use")
        for address in servers:
            try:
                answer = await self._caller.call(
                    Destination(datacenter, "", address),
                    "AutoEncrypt.Sign",
                    encode(request),
                    clock() + CALL_S,
                )
                return decode(answer, SignedResponse)
            except (ProconsulError, TimeoutError) as error:
                host, port = address
                log.error("AutoEncrypt.Sign RPC failed: addr=%s:%d error=%s", host, port, error)
        return None

    def _show(self, auto: AutoTls) -> None:
        self._tls.update_auto(auto)
        self.on_change(auto)

    @property
    def shown(self) -> AutoTls:
        """What is shown and trusted now."""
        return self._tls.auto

    # -- ever after ------------------------------------------------------------------------

    def start(self, leaves: LeafManager, cache: Cache, scope: TaskScope) -> None:
        """Keep certificate and CAs fresh from now on."""
        _ = scope.supervise("auto-encrypt", partial(self.keep_certificate, leaves))
        _ = scope.supervise("auto-encrypt-roots", partial(self.keep_roots, cache))

    async def keep_certificate(self, leaves: LeafManager) -> None:
        """Show every new certificate; get one anew if the present one is of no use any more."""
        settings, backoff = self._settings, Backoff()
        index = 0
        while True:
            if self._first is not None:
                first, self._first = self._first, None
                signers = await asyncio.to_thread(_signers, first)
                leaves.seed(self._leaf_request(), first, signers)
                index = first.modify_index
            try:
                found = await leaves.get(self._leaf_request(), index, QUERY_S)
            except (ProconsulError, TimeoutError) as error:
                if await asyncio.to_thread(_expired, self._tls.auto.cert_pem):
                    log.warning("agent's client certificate has expired: node=%s error=%s",
                                settings.identity.node_name, error)  # fmt: skip
                    await self.obtain()
                    continue
                log.debug("agent's client certificate cannot be fetched: %s", error)
                await backoff.wait()
                continue
            backoff.reset()
            cert = found.cert
            if cert.modify_index != index:
                index = cert.modify_index
                shown = replace(
                    self._tls.auto, cert_pem=cert.cert_pem, key_pem=cert.private_key_pem
                )
                self._show(shown)
                log.debug("agent's client certificate was renewed")

    def _leaf_request(self) -> LeafRequest:
        settings = self._settings
        return LeafRequest(
            settings.identity.datacenter,
            agent=settings.identity.node_name,
            dns_names=settings.dns_names,
            addresses=settings.addresses,
            token=settings.token(),
        )

    async def keep_roots(self, cache: Cache) -> None:
        """Trust what the mesh's CA is, for ever."""
        async for roots in mesh_roots(cache, self._settings.identity.datacenter):
            pems = (*self._manual, *_pems(roots))
            if pems != self._tls.auto.ca_pems:
                self._show(replace(self._tls.auto, ca_pems=pems))


def _pems(roots: IndexedCARoots) -> tuple[str, ...]:
    return tuple(root.root_cert for root in roots.roots or ())


def _signers(cert: IssuedCert) -> list[str]:
    from proconsul.mesh.certificates import authorities_of

    return authorities_of(cert.cert_pem)


def _expired(pem: str) -> bool:
    import datetime

    from proconsul.mesh.certificates import facts_of

    return datetime.datetime.now(datetime.UTC) >= facts_of(pem).not_after
