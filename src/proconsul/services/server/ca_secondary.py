"""A secondary's CA: it adopts the primary's roots and trust domain, and has a CA of its own signed.

Follows the secondary's half of agent/consul/leader_connect_ca.go. The intermediate stands in the
provider's state, in the active root's `IntermediateCerts`, and gives that root its `SigningKeyID`:
there a real server that takes leadership over looks for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from proconsul.domain import connect as ca
from proconsul.domain.federation import raw_time
from proconsul.domain.options import DCSpecificRequest
from proconsul.federation.rate import Backoff, RateLimiter, Signal
from proconsul.federation.replicator import token_hint
from proconsul.services.server.ca import CertificateAuthority
from proconsul.services.server.ca_provider import CaError, Provider
from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.connect.ca")

REFRESH_S = 600.0
START_S = 10.0
ROUNDS_PER_S, ROUNDS_BURST = 1.0, 10
RENEWAL_LOOK_S = 3600.0
RENEWAL_RETRY_S = 60.0


@dataclass(frozen=True, slots=True)
class PrimaryCa:
    """The primary's endpoints. `sign` is `ConnectCA.SignIntermediate`, with our replication token."""

    datacenter: str
    roots: Callable[[DCSpecificRequest], Awaitable[ca.IndexedCARoots]]
    sign: Callable[[ca.CASignRequest], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class _Intermediate:
    """One that was just signed, not yet kept."""

    certificate_pem: str
    key_pem: str = field(repr=False)
    key_id: str


class SecondaryCa:
    """The loops of a secondary's leader."""

    def __init__(
        self, authority: CertificateAuthority, primary: PrimaryCa, primary_appeared: Signal
    ) -> None:
        self._authority, self._primary = authority, primary
        self._appeared = primary_appeared
        self._complaint, self._patient_until = "", 0.0
        self._seen: ca.IndexedCARoots | None = None

    async def follow(self) -> None:
        """Keep roots and intermediate in step with the primary's."""
        backoff, index = Backoff(self._appeared), 0
        self._patient_until = asyncio.get_running_loop().time() + START_S
        limiter = RateLimiter(ROUNDS_PER_S, ROUNDS_BURST)
        while True:
            await limiter.wait()
            try:
                answer = await self._primary.roots(
                    DCSpecificRequest(
                        datacenter=self._primary.datacenter,
                        min_query_index=index,
                        max_query_time_ns=int(REFRESH_S * 1e9),
                    )
                )
                if answer.trust_domain and answer.roots:
                    self._seen = answer
                    await self.adopt(answer)
                    self._complaint = ""
                    # 0 would not block; an index that went back means another state
                    index = max(answer.index, 1) if answer.index >= index else 0
                    backoff.reset()
                    continue
                index = 0
                log.debug("primary datacenter %s has no CA roots yet", self._primary.datacenter)
            except (ProconsulError, TimeoutError) as error:
                index = 0
                self._complain("CA root replication failed, will retry", error)
            await backoff.wait()

    def _complain(self, what: str, error: Exception) -> None:
        """Once for each reason: the loop retries every few seconds.

        That a way to the primary is there takes a moment after the start.
        """
        text = f"{what}: error={error}"
        starting = self._seen is None and asyncio.get_running_loop().time() < self._patient_until
        known = starting or text == self._complaint
        log.log(logging.DEBUG if known else logging.ERROR, "%s%s", text, token_hint(text))
        self._complaint = "" if starting else text

    async def renew_forever(self) -> None:
        """Have the intermediate signed again once half of its life is over."""
        while True:
            wait_s = RENEWAL_LOOK_S
            try:
                if self._seen is not None:
                    await self.adopt(self._seen)  # new settings may want another intermediate
                wait_s = await self.renew()
            except (ProconsulError, TimeoutError) as error:
                log.error("error renewing intermediate certs: error=%s", error)
                wait_s = RENEWAL_RETRY_S
            await self._authority.reconfigured.wait(wait_s)

    async def renew(self) -> float:
        """Renew what is due; seconds until the next look makes sense. Raises `ProconsulError`."""
        authority = self._authority
        if authority.config is None:
            return RENEWAL_LOOK_S
        async with authority.changing:
            provider = authority.provider()
            if not provider.signing_pem:
                return RENEWAL_LOOK_S
            begins, ends = await asyncio.to_thread(_validity, provider.signing_pem)
            half = begins + (ends - begins) / 2
            left_s = (half - provider.now()).total_seconds()
            if left_s > 0:
                return min(left_s, RENEWAL_LOOK_S)
            root = authority.active_root()
            await self._keep(provider, root, await self._signed(provider, root.root_cert), None)
        log.info("received new intermediate certificate from primary datacenter")
        return 1.0

    # -- adopting --------------------------------------------------------------------------

    async def adopt(self, answer: ca.IndexedCARoots) -> None:
        """Take over the primary's roots, and have an intermediate signed if one is needed.

        Without an intermediate the roots are adopted all the same. Raises `ProconsulError`.
        """
        authority = self._authority
        async with authority.changing:
            answer = self._seen or answer  # who waited for its turn may be behind
            active = _active(answer)
            config = await self._config(answer.trust_domain.split(".")[0])
            provider = authority.provider(config)
            known = authority.server.store.connect.active_root().value
            if not self._needs_intermediate(provider, active, known):
                await self._trust(answer, None, None)
                return
            signed, refused = await self._asked(provider, active.root_cert)
            if signed is None:
                await self._trust(answer, active, known)
                raise CaError(
                    f"Primary datacenter refused to sign our intermediate CA certificate: {refused}"
                )
            await self._keep(provider, active, signed, answer)
        self._authority.reconfigured.fire()
        log.info("received new intermediate certificate from primary datacenter")

    async def _config(self, cluster_id: str) -> ca.CAConfiguration:
        authority = self._authority
        config = authority.config
        if config is not None and config.cluster_id == cluster_id:
            return config
        if config is None:
            config = authority.first_config(cluster_id)
        config = replace(config, cluster_id=cluster_id, modify_index=0)
        await authority.set_config(config)
        log.info("adopted the primary datacenter's trust domain %s.consul", cluster_id)
        return config

    @staticmethod
    def _needs_intermediate(provider: Provider, active: ca.CARoot, known: ca.CARoot | None) -> bool:
        own = provider.signing_pem.strip()
        if not own or known is None or known.id != active.id:
            return True
        if provider.root_pem.strip() != active.root_cert.strip():
            return True
        return own not in {pem.strip() for pem in known.intermediate_certs or ()}

    async def _asked(
        self, provider: Provider, root_pem: str
    ) -> tuple[_Intermediate | None, Exception | None]:
        try:
            return await self._signed(provider, root_pem), None
        except (ProconsulError, TimeoutError) as error:
            return None, error

    async def _signed(self, provider: Provider, root_pem: str) -> _Intermediate:
        """A new key, and the primary's certificate for it."""
        key_pem, request = await asyncio.to_thread(_request, provider)
        pem = await self._primary.sign(
            ca.CASignRequest(datacenter=self._primary.datacenter, csr=request)
        )

        def check() -> str:
            from proconsul.mesh.certificates import check_intermediate

            facts = check_intermediate(pem, root_pem, key_pem, provider.trust, provider.now())
            return facts.subject_key_id

        return _Intermediate(pem, key_pem, await asyncio.to_thread(check))

    async def _keep(
        self,
        provider: Provider,
        root: ca.CARoot,
        signed: _Intermediate,
        answer: ca.IndexedCARoots | None,
    ) -> None:
        """Sign with it from now on. Key and certificate change together: no leaf falls between."""
        before = provider.signing_pem.strip()
        await provider.save(
            ca.CAConsulProviderState(
                id=provider.id,
                private_key=signed.key_pem,
                root_cert=root.root_cert,
                intermediate_cert=signed.certificate_pem,
            )
        )
        others = [pem for pem in root.intermediate_certs or () if pem.strip() != before]
        row = replace(
            root,
            intermediate_certs=[*others, signed.certificate_pem],
            signing_key_id=signed.key_id,
            active=True,
        )
        rows = [*self._authority.rotated_out(but=root.id), *self._retired(answer), row]
        await self._write(rows)

    async def _trust(
        self, answer: ca.IndexedCARoots, active: ca.CARoot | None, known: ca.CARoot | None
    ) -> None:
        """Trust what the primary trusts; `active` becomes the active root unless it is None."""
        authority = self._authority
        retired = self._retired(answer)
        if active is None:
            if not retired:
                return
            rows = [*authority.server.store.connect.roots().value, *retired]
        elif known is not None and known.id == active.id:
            return
        else:
            # Whatever signs here goes on signing: agents must not think that their leaves are stale
            signer = known.signing_key_id if known is not None else active.signing_key_id
            row = replace(active, signing_key_id=signer)
            rows = [*authority.rotated_out(but=active.id), *retired, row]
        await self._write(rows)

    def _retired(self, answer: ca.IndexedCARoots | None) -> list[ca.CARoot]:
        """Roots that the primary still trusts without using them, and that we have not yet."""
        connect, now = self._authority.server.store.connect, self._authority.server.unix_ns()
        known = {root.id for root in connect.roots().value}
        roots = answer.roots or () if answer is not None else ()
        return [
            replace(root, raw_rotated_out_at=raw_time(now))
            for root in roots
            if not root.active and root.id not in known
        ]

    async def _write(self, rows: list[ca.CARoot]) -> None:
        authority = self._authority
        config = authority.config
        if config is None:
            raise CaError("local CA not initialized yet")
        await authority.set_roots(rows, config)
        log.info("updated root certificates from primary datacenter")


def _active(answer: ca.IndexedCARoots) -> ca.CARoot:
    for root in answer.roots or ():
        if root.active and root.id == answer.active_root_id:
            return root
    raise CaError("primary datacenter does not have an active root CA for Connect")


def _request(provider: Provider) -> tuple[str, str]:
    from proconsul.domain.spiffe import authority_common_name
    from proconsul.drivers.mesh_keys import compact_id, generate
    from proconsul.mesh.ca import authority_request
    from proconsul.mesh.certificates import key_pem_of

    config, trust = provider.config, provider.trust
    key = generate(config.private_key_type, config.private_key_bits)
    name = authority_common_name(compact_id(), trust.cluster_id, primary=False)
    return key_pem_of(key), authority_request(trust, name, key)


def _validity(pem: str) -> tuple[datetime, datetime]:
    from proconsul.mesh.certificates import facts_of

    facts = facts_of(pem)
    return facts.not_before, facts.not_after
