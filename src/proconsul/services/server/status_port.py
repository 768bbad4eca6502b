"""`federation.status.StatusServer` on a `Server`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proconsul.domain.catalog import CheckServiceNode
from proconsul.domain.federation import FederationState
from proconsul.domain.options import DCSpecificRequest
from proconsul.federation.gateway_connect import GatewayConnect, GatewayTraffic
from proconsul.federation.locator import GatewayLocator
from proconsul.federation.replicator import ReplicationStatus
from proconsul.federation.status import WanServer, gather
from proconsul.federation.status_probe import TlsConnect
from proconsul.rpc.dialer import Dialer
from proconsul.rpc.direct_dialer import DirectDialer
from proconsul.services.server.reconcile import server_of

if TYPE_CHECKING:
    from proconsul.services.server.server import Server


class StatusPort:
    """What a report asks of its server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        config, federation = server.config, server.federation
        self.dialer: Dialer = (
            federation.dialer
            if federation is not None
            else DirectDialer(server.tls, config.identity.domain, config.rpc_bind[0])
        )
        self.locator: GatewayLocator | None = federation.locator if federation is not None else None
        self.connect: TlsConnect | None = None
        if federation is not None and server.tls is not None:
            # Traffic of its own: a diagnosis does not count as the federation's
            self.connect = GatewayConnect(server.tls, GatewayTraffic())

    @property
    def datacenter(self) -> str:
        return self._server.datacenter

    @property
    def primary_datacenter(self) -> str:
        return self._server.config.identity.primary_datacenter

    @property
    def node(self) -> str:
        return self._server.config.identity.node_name

    @property
    def domain(self) -> str:
        return self._server.config.identity.domain

    @property
    def is_leader(self) -> bool:
        return self._server.is_leader

    @property
    def replication(self) -> ReplicationStatus | None:
        replicator = self._server.replicator
        return replicator.status if replicator is not None else None

    def wan_servers(self) -> Sequence[WanServer]:
        """Of our own datacenter by the LAN pool: servers may advertise the WAN another address."""
        server = self._server
        remote = server.wan.members() if server.wan is not None else ()
        out = []
        for member in (*server.lan.members(), *remote):
            meta = server_of(member)
            is_own = meta is not None and meta.datacenter == server.datacenter
            if meta is not None and is_own == (meta.name == meta.node):
                status = member.status.name.lower()
                out.append(WanServer(meta.node, meta.datacenter, meta.address, status))
        return out

    def states(self) -> Sequence[FederationState]:
        return self._server.store.federation.all().value

    def local_gateways(self) -> Sequence[CheckServiceNode]:
        return self._server.federation_server.local_gateways()

    @property
    def has_replication_token(self) -> bool:
        return bool(self._server.config.replication_token())

    @property
    def publishing_error(self) -> str:
        return self._server.federation_server.publishing_error

    async def read_in_primary(self, deadline: float) -> None:
        async with asyncio.timeout_at(deadline):
            await self._server.federation_server.read_in_primary()

    async def leader_of(self, datacenter: str, deadline: float) -> str:
        async with asyncio.timeout_at(deadline):
            answer = await self._server.call(
                "Status.Leader", DCSpecificRequest(datacenter=datacenter)
            )
        return str(answer)


async def federation_status(server: Server, deadline: float) -> dict[str, Any]:
    """The report of `GET /v1/internal/federation-status`; deadline on the loop's clock."""
    return await gather(StatusPort(server), deadline)
