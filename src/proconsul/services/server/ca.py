"""The mesh's certificate authority on the leader: its beginning, its settings, rotation, signing.

Follows `CAManager` of agent/consul/leader_connect_ca.go and agent/consul/server_connect.go. The
primary makes the root; `ca_secondary` keeps a secondary's intermediate.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from proconsul.domain import ca_config
from proconsul.domain import connect as ca
from proconsul.domain.base import bytes_of
from proconsul.domain.federation import raw_time
from proconsul.domain.messages import MessageType
from proconsul.domain.spiffe import SigningId
from proconsul.federation.rate import Signal
from proconsul.mesh.errors import CertificateError
from proconsul.services.server.ca_limits import SigningLimits
from proconsul.services.server.ca_provider import (
    PROVIDER,
    CaError,
    CaServer,
    Provider,
    root_row,
)
from proconsul.state.errors import StateError
from proconsul.util.errors import ProconsulError
from proconsul.wire.gotime import ZERO_TIME_NS, decode_time

log = logging.getLogger("proconsul.connect.ca")

PRUNE_S = 3600.0
STATE_READ_ONLY = "CA Provider State is read-only"
NO_PROVIDER = "internal error: CA provider is nil"
NO_ROOT = "internal error: CA root is nil"
NO_CROSS_SIGNING = (
    "The current CA Provider does not support cross-signing. You can try again with "
    "ForceWithoutCrossSigningSet but this may cause disruption - see documentation for more."
)


class CertificateAuthority:
    """The CA of one server's datacenter. Only the leader's does anything."""

    def __init__(
        self, server: CaServer, *, is_primary: bool, initial: Mapping[str, Any] | None = None
    ) -> None:
        """`initial` is `connect.ca_config` of the files, for a CA that is yet to begin."""
        self.server, self.is_primary = server, is_primary
        self._initial = dict(initial or {})
        self.limits = SigningLimits()
        self.changing = asyncio.Lock()
        """Held while settings, roots or provider state change: one thing at a time."""
        self.reconfigured = Signal()
        """Fired in a secondary, whose intermediate may have to be another one now."""

    # -- what there is ---------------------------------------------------------------------

    @property
    def config(self) -> ca.CAConfiguration | None:
        """The settings in force."""
        return self.server.store.connect.config().value

    def provider(self, config: ca.CAConfiguration | None = None) -> Provider:
        """The provider in force, or that of `config`. Raises `CaError` before there is any."""
        config = config or self.config
        if config is None:
            raise CaError(NO_PROVIDER)
        settings = ca_config.parse_lenient(config.config)
        return Provider(self.server, settings, SigningId(config.cluster_id), self.is_primary)

    def active_root(self) -> ca.CARoot:
        """The root in force. Raises `CaError` before there is any."""
        root = self.server.store.connect.active_root().value
        if root is None:
            raise CaError(NO_ROOT)
        return root

    def first_config(self, cluster_id: str) -> ca.CAConfiguration:
        """The settings of a new CA."""
        given = {k: v for k, v in self._initial.items() if k != "ClusterID"}
        config = {**ca_config.DEFAULTS, **given}
        return ca.CAConfiguration(cluster_id=cluster_id, provider=PROVIDER, config=config)

    # -- beginnings ------------------------------------------------------------------------

    async def initialize_primary(self) -> None:
        """Make sure that there are settings with a cluster id, and an active root with its key.

        Raises `ProconsulError`; then this server should not lead.
        """
        async with self.changing:
            config = self.config
            if config is None or not config.cluster_id:
                cluster_id = str(self._initial.get("ClusterID") or uuid.uuid4())
                config = self.first_config(cluster_id)
                await self.set_config(config)
            elif "IntermediateCertTTL" not in (config.config or {}):
                added = {"IntermediateCertTTL": ca_config.DEFAULTS["IntermediateCertTTL"]}
                config = replace(config, config={**(config.config or {}), **added}, modify_index=0)
                await self.set_config(config)
            active = self.server.store.connect.active_root().value
            provider = self.provider(config)
            await provider.adopt_old_state(active)
            await provider.make_root()
            root_pem = provider.root_pem
            if active is not None:
                if active.root_cert.strip() != root_pem.strip():
                    raise CaError(
                        f'stored CA root "{active.id}" is not the active root: the key of the '
                        "active root is not in the state, restore a snapshot that has it"
                    )
                return
            await self.set_roots([await root_row(root_pem, config.cluster_id)])
        log.info("initialized primary datacenter CA with provider: provider=%s", PROVIDER)

    # -- settings and rotation ---------------------------------------------------------------

    async def update_configuration(self, given: ca.CAConfiguration) -> None:
        """Take over new settings, which may mean a new root (`ConnectCA.ConfigurationSet`).

        Raises `ProconsulError` with Consul's words, nothing having changed.
        """
        async with self.changing:
            old = self.config
            if old is None:
                raise CaError(NO_PROVIDER)
            if given.state and given.state != old.state:
                raise CaError(STATE_READ_ONLY)
            # Nobody may change the cluster's id
            config = replace(given, cluster_id=old.cluster_id, state=old.state)
            if config.provider == old.provider and config.config == old.config:
                return
            _known_provider(config.provider)
            try:
                settings = ca_config.parse(config.config)
            except ProconsulError as error:
                raise CaError(f"error configuring provider: {error}") from error
            new = Provider(self.server, settings, SigningId(config.cluster_id), self.is_primary)
            if not self.is_primary:
                # Of no use here, but kept: a primary made from this state could not start with it
                if settings.private_key:
                    await asyncio.to_thread(_check_key, settings.private_key)
                await self.set_config(config)
                log.info("Secondary CA provider config updated")
                self.reconfigured.fire()
                return
            await self._change(config, new, old)

    async def _change(
        self, config: ca.CAConfiguration, new: Provider, old: ca.CAConfiguration
    ) -> None:
        is_new = new.state is None
        try:
            try:
                await new.make_root()
                root = await root_row(new.root_pem, config.cluster_id)
            except ProconsulError as error:
                raise CaError(f"error generating CA root certificate: {error}") from error
            if root.id == self.active_root().id:
                await self.set_config(config)
                log.info("CA provider config updated")
                return
            await self._rotate(config, root, self.provider(old), old)
        except (CaError, StateError, CertificateError):
            # Whoever goes away, or leads no longer, leaves commands behind that may yet be applied:
            # the key is kept for the root that they may bring. So is that of a root which is there
            # already, since roots are written before settings that do not fit are refused.
            if is_new and new.root_pem and not self._in_use(new.root_pem):
                await new.forget()  # noqa: ASYNC120 - cancelled, nobody needs the reason
            raise
        log.info("CA rotated to new root under provider: provider=%s", config.provider)

    def _in_use(self, root_pem: str) -> bool:
        roots = self.server.store.connect.roots().value
        return any(root.root_cert.strip() == root_pem.strip() for root in roots)

    async def _rotate(
        self, config: ca.CAConfiguration, root: ca.CARoot, before: Provider, old: ca.CAConfiguration
    ) -> None:
        if before.config.disable_cross_signing:
            if not config.force_without_cross_signing:
                raise CaError(NO_CROSS_SIGNING)
            log.warning(
                "current CA doesn't support cross signing but CA reconfiguration forced anyway "
                "with ForceWithoutCrossSigning"
            )
        else:
            crossed = await before.cross_sign(root.root_cert)
            root = replace(root, intermediate_certs=[crossed])
        rows = [*self.rotated_out(but=root.id), root]  # it may have been in force before
        await self.set_roots(rows, replace(config, modify_index=old.modify_index))
        await before.forget()

    def rotated_out(self, but: str = "") -> list[ca.CARoot]:
        """All roots there are, none active any more; without that of id `but`."""
        now = raw_time(self.server.unix_ns())
        return [
            replace(root, active=False, raw_rotated_out_at=now) if root.active else root
            for root in self.server.store.connect.roots().value
            if root.id != but
        ]

    # -- writing ---------------------------------------------------------------------------

    async def set_config(self, config: ca.CAConfiguration) -> None:
        request = ca.CARequest(
            op=ca.CA_SET_CONFIG, datacenter=self.server.datacenter, config=config
        )
        if await self.server.apply(MessageType.CONNECT_CA, request) is False:
            raise CaError("could not set the CA configuration: it changed meanwhile, try again")

    async def set_roots(
        self, rows: list[ca.CARoot], config: ca.CAConfiguration | None = None
    ) -> None:
        """Replace the roots, and the settings with them; one row must be active."""
        request = ca.CARequest(
            op=ca.CA_SET_ROOTS if config is None else ca.CA_SET_ROOTS_AND_CONFIG,
            datacenter=self.server.datacenter,
            index=self.server.store.connect.roots_index,
            roots=rows,
            config=config,
        )
        if await self.server.apply(MessageType.CONNECT_CA, request) is False:
            raise CaError("could not atomically update roots and config")

    # -- pruning ---------------------------------------------------------------------------

    async def prune_forever(self) -> None:
        """Once an hour, forget the roots that no valid leaf can need any more."""
        while True:
            await asyncio.sleep(PRUNE_S)
            try:
                await self.prune()
            except (ProconsulError, TimeoutError) as error:
                log.error("error pruning CA roots: %s", error)

    async def prune(self) -> None:
        """Forget what was rotated out more than two lives of a leaf ago."""
        async with self.changing:
            config = self.config
            if config is None:
                return
            limit = 2 * ca_config.parse_lenient(config.config).leaf_ttl_ns
            roots, now = self.server.store.connect.roots().value, self.server.unix_ns()
            kept = [root for root in roots if not _outlived(root, now - limit)]
            if len(kept) == len(roots):
                return
            for root in roots:
                if root not in kept:
                    log.info("pruning old unused root CA: id=%s", root.id)
            await self.set_roots(kept)


def _outlived(root: ca.CARoot, before_ns: int) -> bool:
    rotated_out_ns = decode_time(bytes_of(root.raw_rotated_out_at))
    return not root.active and rotated_out_ns != ZERO_TIME_NS and rotated_out_ns < before_ns


def _check_key(pem: str) -> None:
    from proconsul.mesh.certificates import load_key

    try:
        load_key(pem)
    except CertificateError as error:
        raise CaError(
            f"error generating CA root certificate: error generating CA: {error}"
        ) from error


def _known_provider(name: str) -> None:
    if name in {"vault", "aws-pca"}:
        raise CaError(f'could not initialize provider: CA provider "{name}" is not supported yet')
    if name != PROVIDER:
        raise CaError(f'could not initialize provider: unknown CA provider "{name}"')
