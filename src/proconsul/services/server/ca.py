"""The mesh CA's beginnings: the primary's leader makes cluster id and root, secondaries adopt.

Without roots no gateway could be configured, since service traffic is named by the trust domain
(agent/consul/leader_connect_ca.go).
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from proconsul.domain import connect as ca
from proconsul.domain.federation import raw_time
from proconsul.domain.messages import MessageType
from proconsul.domain.options import DCSpecificRequest
from proconsul.federation.rate import Backoff, Signal
from proconsul.state.store import Store
from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.connect.ca")

PROVIDER = "consul"
KEY_TYPE, KEY_BITS = "ec", 256
DEFAULT_CONFIG: dict[str, Any] = {
    "RotationPeriod": "2160h",
    "LeafCertTTL": "72h",
    "IntermediateCertTTL": "8760h",
}
REFRESH_S = 600.0

Apply = Callable[[MessageType, Any], Awaitable[Any]]
Roots = Callable[[DCSpecificRequest], Awaitable[ca.IndexedCARoots]]


async def initialize_primary(store: Store, datacenter: str, apply: Apply) -> None:
    """Make sure that there is a configuration with a cluster id, and an active root."""
    config = store.connect.config().value
    if config is None or not config.cluster_id:
        config = ca.CAConfiguration(
            cluster_id=str(uuid.uuid4()), provider=PROVIDER, config=DEFAULT_CONFIG
        )
        await apply(
            MessageType.CONNECT_CA,
            ca.CARequest(op=ca.CA_SET_CONFIG, datacenter=datacenter, config=config),
        )
    if store.connect.active_root().value is not None:
        return
    # Only for this once in a federation's life: X.509 costs every other start time and memory.
    from cryptography.hazmat.primitives.asymmetric import ec

    from proconsul.mesh.ca import create_root

    root = create_root(
        config.cluster_id,
        ec.generate_private_key(ec.SECP256R1()),
        secrets.randbits(40) | 1,
        datetime.now(UTC),
    )
    provider = ca.CAConsulProviderState(
        id=provider_id(config), private_key=root.key_pem, root_cert=root.certificate_pem
    )
    await apply(
        MessageType.CONNECT_CA,
        ca.CARequest(op=ca.CA_SET_PROVIDER_STATE, datacenter=datacenter, provider_state=provider),
    )
    row = ca.CARoot(
        id=root.fingerprint,
        name="Consul CA Root Cert",
        serial_number=root.serial,
        signing_key_id=root.signing_key_id,
        external_trust_domain=config.cluster_id,
        raw_not_before=raw_time(int(root.not_before.timestamp()) * 1_000_000_000),
        raw_not_after=raw_time(int(root.not_after.timestamp()) * 1_000_000_000),
        root_cert=root.certificate_pem,
        active=True,
        private_key_type=KEY_TYPE,
        private_key_bits=KEY_BITS,
    )
    await _set_roots(store, datacenter, apply, [row])
    log.info("initialized primary datacenter CA with provider %r", PROVIDER)


def provider_id(config: ca.CAConfiguration) -> str:
    """Under which id a real leader of the primary looks for key and root of this configuration.

    What is not found there it makes anew, and then refuses to lead: the root would be another one.
    """

    def given(name: str) -> str:
        value = (config.config or {}).get(name, "")
        return value.decode() if isinstance(value, bytes) else str(value)

    what = f"{given('PrivateKey')},{given('RootCert')},true"
    return hashlib.sha256(what.encode()).digest().hex(":")


async def follow_primary(
    store: Store,
    datacenter: str,
    primary: str,
    apply: Apply,
    roots: Roots,
    primary_appeared: Signal,
) -> None:
    """A secondary's leader: adopt the primary's trust domain and roots, and their changes."""
    backoff = Backoff(primary_appeared)
    seen = 0
    while True:
        try:
            answer = await roots(
                DCSpecificRequest(
                    datacenter=primary,
                    min_query_index=seen,
                    max_query_time_ns=int(REFRESH_S * 1e9),
                    allow_stale=True,
                )
            )
            if answer.trust_domain and answer.roots:
                await _adopt(store, datacenter, apply, answer)
                seen = max(answer.index, 1)  # 0 would not block
                backoff.reset()
                continue
            log.debug("primary datacenter %s has no CA roots yet", primary)
        except (ProconsulError, TimeoutError) as error:
            seen = 0
            log.debug("CA roots of the primary datacenter are not available: %s", error)
        await backoff.wait()


async def _adopt(store: Store, datacenter: str, apply: Apply, answer: ca.IndexedCARoots) -> None:
    cluster_id = answer.trust_domain.split(".")[0]
    config = store.connect.config().value
    if config is None or config.cluster_id != cluster_id:
        config = ca.CAConfiguration(cluster_id=cluster_id, provider=PROVIDER, config=DEFAULT_CONFIG)
        await apply(
            MessageType.CONNECT_CA,
            ca.CARequest(op=ca.CA_SET_CONFIG, datacenter=datacenter, config=config),
        )
    ours = {(r.id, r.active) for r in store.connect.roots().value}
    wanted = [replace(r, create_index=0, modify_index=0) for r in answer.roots or ()]
    if ours != {(r.id, r.active) for r in wanted}:
        await _set_roots(store, datacenter, apply, wanted)
        log.info("adopted the primary datacenter's CA roots, trust domain %s", answer.trust_domain)


async def _set_roots(store: Store, datacenter: str, apply: Apply, rows: list[ca.CARoot]) -> None:
    request = ca.CARequest(
        op=ca.CA_SET_ROOTS,
        datacenter=datacenter,
        index=store.connect.roots_index,
        roots=rows,
    )
    if await apply(MessageType.CONNECT_CA, request) is False:
        raise ProconsulError("could not set CA roots: they changed meanwhile, will retry")
