"""Leaf certificates of services and agents: made, kept, and renewed in time.

Follows agent/cache-types/connect_ca_leaf.go. The key is made here and never leaves. A leaf is made
anew when about half of its life is over, when its CA is not the active one any more (spread over
`SPREAD_S`, so that not all agents ask at once), and at once when no trusted root leads to it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from msgspec.structs import replace

from proconsul.domain.base import bytes_of
from proconsul.domain.connect import CASignRequest, IndexedCARoots, IssuedCert
from proconsul.domain.errors import DomainError
from proconsul.domain.options import DCSpecificRequest
from proconsul.domain.spiffe import DEFAULT_NAMESPACE, AgentId, ServiceId
from proconsul.drivers.scope import TaskScope
from proconsul.federation.rate import Signal
from proconsul.rpc.caller import RpcCaller
from proconsul.services.agent.cache import Cache
from proconsul.services.agent.cache_types import CA_ROOTS
from proconsul.services.agent.mesh_roots import mesh_roots
from proconsul.util.clock import Rng
from proconsul.util.errors import ProconsulError
from proconsul.wire.gotime import decode_time

log = logging.getLogger("proconsul.agent.connect")

SPREAD_S = 30.0
"""Within this time agents ask for new leaves after a rotation; who is refused waits as long again."""
RENEW_FROM, RENEW_TO = 0.5, 0.6
"""Parts of a leaf's life between which it is renewed."""
RETRY_S_MIN, RETRY_S_MAX = 1.0, 60.0
RATE_LIMITED = "Rate limit reached, try again later"
NO_CA = "cluster has no CA bootstrapped yet"
ENTRIES_MAX = 8192
WAIT_S_DEFAULT, WAIT_S_MAX = 300.0, 600.0
IDLE_S = 600.0
"""Leaves that nobody asked for during this time are forgotten."""
LOCAL_NAMES = ("localhost",)
LOCAL_ADDRESSES = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


@dataclass(frozen=True, slots=True)
class LeafRequest:
    """For whom; either `service` or `agent` is set. Another token is another request."""

    datacenter: str
    service: str = ""
    agent: str = ""
    dns_names: tuple[str, ...] = ()
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    token: str = field(default="", repr=False)

    def identity(self, trust_domain: str) -> ServiceId | AgentId:
        """Raises `DomainError` if it is for nobody."""
        if self.service:
            return ServiceId(trust_domain, DEFAULT_NAMESPACE, self.datacenter, self.service)
        if self.agent:
            return AgentId(trust_domain, self.datacenter, self.agent)
        raise DomainError("URI must be either service or agent")


@dataclass(frozen=True, slots=True)
class CachedLeaf:
    """`hit`: it was there already, for `age_s` seconds."""

    cert: IssuedCert
    hit: bool
    age_s: float


@dataclass(slots=True)
class _Entry:
    """One request's leaf. Times are of the wall clock but for `fetched_at` and `used_at`."""

    request: LeafRequest
    used_at: float
    cert: IssuedCert | None = None
    signer: str = ""
    """The key id of the CA that signed it."""
    authorities: frozenset[str] = frozenset()
    """The key ids of all CAs in its chain: if one of them is a trusted root's, it verifies."""
    expires_at: float = 0.0
    renew_at: float = 0.0
    forced_at: float = math.inf
    """When to ask for another one although this one is good for longer."""
    fetched_at: float = 0.0
    rotation_at: float = 0.0
    refusals: int = 0
    failures: int = 0
    waiting: int = 0
    fetching: asyncio.Task[Exception | None] | None = None
    keeping: asyncio.Task[None] | None = None
    changed: Signal = field(default_factory=Signal)

    @property
    def due_at(self) -> float:
        return min(self.renew_at, self.forced_at)


class LeafManager:
    """All leaves of an agent."""

    def __init__(
        self,
        datacenter: str,
        caller: RpcCaller,
        cache: Cache,
        scope: TaskScope,
        rng: Rng,
        wall: Callable[[], float],
    ) -> None:
        """`cache` has the roots of our `datacenter`; `wall` gives seconds since the epoch."""
        self._caller, self._cache, self._scope = caller, cache, scope
        self._rng, self._wall = rng, wall
        self._roots_request = DCSpecificRequest(datacenter=datacenter)
        self._roots_changed = Signal()
        self._following: asyncio.Task[None] | None = None
        self._entries: dict[LeafRequest, _Entry] = {}
        self._trust: tuple[tuple[str, ...], frozenset[str]] = ((), frozenset())

    async def get(
        self, request: LeafRequest, min_index: int = 0, wait_s: float = 0.0
    ) -> CachedLeaf:
        """A leaf that verifies now, newer than `min_index` unless `wait_s` is over (0: default).

        Raises `ProconsulError` with the servers' words if none can be had.
        """
        clock = asyncio.get_running_loop().time
        entry = self._entry(request, clock())
        hit = await self._usable(entry)
        if not hit:
            await self._fetched(entry)
        cert = entry.cert
        assert cert is not None
        if min_index:
            deadline = clock() + min(wait_s or WAIT_S_DEFAULT, WAIT_S_MAX)
            hit = hit and cert.modify_index > min_index
            cert = await self._newer(entry, cert, min_index, deadline)
        return CachedLeaf(cert, hit, clock() - entry.fetched_at)

    async def _newer(
        self, entry: _Entry, cert: IssuedCert, min_index: int, deadline: float
    ) -> IssuedCert:
        clock = asyncio.get_running_loop().time
        entry.waiting += 1
        try:
            while cert.modify_index <= min_index and clock() < deadline:
                await entry.changed.wait(deadline - clock())
                cert = entry.cert or cert
        finally:
            entry.waiting -= 1
            entry.used_at = clock()
        return cert

    def seed(self, request: LeafRequest, cert: IssuedCert, authorities: list[str]) -> None:
        """Begin with a leaf that AutoEncrypt brought, key included.

        `authorities` are the ids of the keys that signed its chain, the leaf's own signer first.
        """
        entry = self._entry(request, asyncio.get_running_loop().time())
        self._take(entry, cert, authorities[0], frozenset(authorities))

    def _entry(self, request: LeafRequest, now: float) -> _Entry:
        entry = self._entries.get(request)
        if entry is None:
            if len(self._entries) >= ENTRIES_MAX:
                raise DomainError(f"this agent keeps {ENTRIES_MAX} leaf certificates already")
            entry = self._entries[request] = _Entry(request, now)
            entry.keeping = self._scope.supervise("connect-leaf", partial(self._keep, entry))
            if self._following is None or self._following.done():
                self._following = self._scope.supervise("connect-roots", self._follow_roots)
        entry.used_at = now
        return entry

    async def _usable(self, entry: _Entry) -> bool:
        if entry.cert is None or self._wall() >= entry.expires_at:
            return False
        trusted = await self._trusted(await self._current_roots())
        return not trusted.isdisjoint(entry.authorities)

    async def _current_roots(self) -> IndexedCARoots:
        roots: IndexedCARoots
        roots, _ = await self._cache.get(CA_ROOTS, self._roots_request)
        return roots

    async def _follow_roots(self) -> None:
        index = 0
        async with aclosing(mesh_roots(self._cache, self._roots_request.datacenter)) as coming:
            async for roots in coming:
                if not self._entries:
                    return
                if roots.index != index:
                    index = roots.index
                    self._roots_changed.fire()

    # -- making ----------------------------------------------------------------------------

    async def _fetched(self, entry: _Entry) -> None:
        """Make a new leaf; whoever wants the same waits for the same."""
        if entry.fetching is None or entry.fetching.done():
            entry.fetching = self._scope.spawn("connect-sign", self._tried(entry))
        if (error := await asyncio.shield(entry.fetching)) is not None:
            if entry.cert is None:
                self._forget(entry)  # requests that are refused must not pile up
            raise error

    def _forget(self, entry: _Entry) -> None:
        if self._entries.get(entry.request) is entry:
            del self._entries[entry.request]
        if entry.keeping is not None:
            entry.keeping.cancel()

    async def _tried(self, entry: _Entry) -> Exception | None:
        """What went wrong: it belongs to those who wait."""
        try:
            await self._fetch(entry)
        except (ProconsulError, TimeoutError) as error:
            return error
        return None

    async def _fetch(self, entry: _Entry) -> None:
        roots = await self._current_roots()
        if not roots.trust_domain:
            raise DomainError(NO_CA)
        request = entry.request
        key_pem, csr = await asyncio.to_thread(_signing_request, request, roots.trust_domain)
        reply: IssuedCert = await self._caller.call(
            "ConnectCA.Sign",
            CASignRequest(datacenter=request.datacenter, csr=csr, token=request.token),
        )
        signer, authorities = await asyncio.to_thread(_signers, reply.cert_pem)
        self._take(entry, replace(reply, private_key_pem=key_pem), signer, authorities)

    def _take(
        self, entry: _Entry, cert: IssuedCert, signer: str, authorities: frozenset[str]
    ) -> None:
        begins = decode_time(bytes_of(cert.raw_valid_after)) / 1e9
        ends = decode_time(bytes_of(cert.raw_valid_before)) / 1e9
        part = self._rng.uniform(RENEW_FROM, RENEW_TO)
        entry.cert, entry.signer, entry.authorities = cert, signer, authorities
        entry.expires_at, entry.renew_at = ends, begins + part * (ends - begins)
        entry.forced_at, entry.rotation_at = math.inf, 0.0
        entry.refusals, entry.failures = 0, 0
        entry.fetched_at = asyncio.get_running_loop().time()
        entry.changed.fire()

    # -- keeping ---------------------------------------------------------------------------

    async def _keep(self, entry: _Entry) -> None:
        """Renew in time for as long as anybody wants it."""
        clock = asyncio.get_running_loop().time
        while entry.waiting or clock() - entry.used_at < IDLE_S:
            if entry.cert is None:
                await entry.changed.wait(IDLE_S)
                continue
            wait_s = min(entry.due_at - self._wall(), IDLE_S)
            if wait_s > 0:
                await self._roots_changed.wait(wait_s)
                await self._look_at_roots(entry)
                continue
            try:
                await self._fetched(entry)
            except (ProconsulError, TimeoutError) as error:
                self._postpone(entry, error)
        if self._entries.get(entry.request) is entry:
            del self._entries[entry.request]

    async def _look_at_roots(self, entry: _Entry) -> None:
        try:
            roots = await self._current_roots()
            trusted = await self._trusted(roots)
        except (ProconsulError, TimeoutError):
            return
        active = next((root for root in roots.roots or () if root.active), None)
        now = self._wall()
        if trusted.isdisjoint(entry.authorities):
            # One that is just made may be ahead of what we know of the roots
            age = asyncio.get_running_loop().time() - entry.fetched_at
            entry.forced_at = now + max(0.0, RETRY_S_MIN - age)
        elif active is None or active.signing_key_id == entry.signer:
            if not entry.refusals:
                entry.forced_at, entry.rotation_at = math.inf, 0.0
        elif not entry.rotation_at:
            entry.rotation_at = now
            entry.forced_at = now + self._rng.uniform(0, SPREAD_S)

    def _postpone(self, entry: _Entry, error: Exception) -> None:
        now = self._wall()
        if RATE_LIMITED in str(error):  # Consul's servers put words before it when they forward
            entry.rotation_at = entry.rotation_at or now
            entry.refusals += 1
            window = entry.rotation_at + entry.refusals * SPREAD_S
            entry.forced_at = max(window, now) + self._rng.uniform(0, SPREAD_S)
            entry.renew_at = max(entry.renew_at, entry.forced_at)
            return
        name = entry.request.service or entry.request.agent
        level = logging.DEBUG if entry.failures else logging.WARNING
        log.log(level, "leaf certificate of %s cannot be renewed, will retry: %s", name, error)
        delay = min(RETRY_S_MIN * 2**entry.failures, RETRY_S_MAX)
        entry.failures = min(entry.failures + 1, 16)
        entry.forced_at = entry.renew_at = now + self._rng.uniform(delay / 2, delay)

    async def _trusted(self, roots: IndexedCARoots) -> frozenset[str]:
        """The key ids of the trusted roots."""
        pems = tuple(root.root_cert for root in roots.roots or ())
        if self._trust[0] != pems:
            self._trust = pems, await asyncio.to_thread(_key_ids, pems)
        return self._trust[1]


def _key_ids(pems: tuple[str, ...]) -> frozenset[str]:
    # X.509 costs memory: only agents that have leaves pay
    from proconsul.mesh.certificates import facts_of

    return frozenset(facts_of(pem).subject_key_id for pem in pems)


def _signers(chain_pem: str) -> tuple[str, frozenset[str]]:
    from proconsul.mesh.certificates import authorities_of

    ids = authorities_of(chain_pem)
    return ids[0], frozenset(ids)


def _signing_request(request: LeafRequest, trust_domain: str) -> tuple[str, str]:
    from proconsul.drivers.mesh_keys import generate
    from proconsul.mesh.ca import Subject, leaf_request
    from proconsul.mesh.certificates import key_pem_of

    identity, names = request.identity(trust_domain), request.dns_names
    addresses = request.addresses
    if isinstance(identity, AgentId):
        names, addresses = (*LOCAL_NAMES, *names), (*LOCAL_ADDRESSES, *addresses)
    key = generate()
    subject = Subject(identity.common_name, identity.uri)
    return key_pem_of(key), leaf_request(subject, key, names, addresses)
