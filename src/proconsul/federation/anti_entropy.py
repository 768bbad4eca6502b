"""Publishing our own gateways, and forgetting datacenters that are gone.

Each datacenter's leader compares the mesh gateways of its catalog with its own federation state as
replicated, and writes the difference to the primary. The primary's leader prunes the states of
datacenters that left the WAN (`agent/consul/leader_federation_state_ae.go`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from proconsul.domain.catalog import CheckServiceNode
from proconsul.domain.federation import (
    FEDERATION_DELETE,
    FEDERATION_UPSERT,
    FederationState,
    FederationStateRequest,
    raw_time,
)
from proconsul.federation.ports import FederationServer
from proconsul.federation.rate import Backoff
from proconsul.federation.replicator import token_hint
from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.federation_state_anti_entropy")

RESEND_S = 60.0
"""A state that we wrote and that has not come back by replication is written again after this."""

WAIT_S = 300.0


def ordered(nodes: Sequence[CheckServiceNode]) -> list[CheckServiceNode]:
    """Sorted and distinct, so that a mere reordering is never a change."""
    unique = {(n.node.node, n.service.id): n for n in nodes}
    return [unique[key] for key in sorted(unique)]


def comparable(nodes: Sequence[CheckServiceNode] | None) -> list[object]:
    """What of gateways matters to others: all but Raft indexes and checks' changing output."""
    out: list[object] = []
    for item in ordered(nodes or ()):
        node, service = item.node, item.service
        checks = sorted((c.check_id, c.status) for c in item.checks or ())
        out.append(
            (
                (node.node, node.id, node.address, node.datacenter),
                sorted((node.tagged_addresses or {}).items()),
                (service.id, service.service, service.address, service.port),
                sorted((k, v.address, v.port) for k, v in (service.tagged_addresses or {}).items()),
                sorted((service.meta or {}).items()),
                checks,
            )
        )
    return out


class FederationStateAntiEntropy:
    """The loop of every datacenter's leader. `unix_ns` gives `UpdatedAt`."""

    def __init__(self, server: FederationServer, unix_ns: Callable[[], int]) -> None:
        self._server, self._unix_ns = server, unix_ns

    async def run(self) -> None:
        """Publish until cancelled."""
        backoff = Backoff(self._server.primary_appeared)
        sent: object = None
        sent_at = 0.0
        complained = ""
        clock = asyncio.get_running_loop().time
        while True:
            gateways = ordered(self._server.local_gateways())
            wanted = comparable(gateways)
            published = self._published()
            settled = published is not None and comparable(published.mesh_gateways) == wanted
            if settled or (sent == wanted and clock() - sent_at < RESEND_S):
                backoff.reset()
                await self._server.wait_for_change(self._view, WAIT_S if settled else RESEND_S)
                continue
            try:
                await self._publish(gateways)
            except (ProconsulError, TimeoutError) as error:
                if str(error) != complained:
                    complained = str(error)
                    log.error(
                        "error performing anti-entropy sync of federation state: %s%s",
                        error,
                        token_hint(complained),
                    )
                await backoff.wait()
            else:
                log.info("federation state anti-entropy synced: %d gateways", len(gateways))
                sent, sent_at, complained = wanted, clock(), ""

    def _published(self) -> FederationState | None:
        own = self._server.datacenter
        return next((s for s in self._server.states() if s.datacenter == own), None)

    def _view(self) -> object:
        published = self._published()
        return (
            comparable(self._server.local_gateways()),
            None if published is None else comparable(published.mesh_gateways),
        )

    async def _publish(self, gateways: list[CheckServiceNode]) -> None:
        server = self._server
        state = FederationState(
            datacenter=server.datacenter,
            mesh_gateways=gateways,
            raw_updated_at=raw_time(self._unix_ns()),
        )
        request = FederationStateRequest(
            datacenter=server.primary_datacenter, op=FEDERATION_UPSERT, state=state
        )
        if server.datacenter == server.primary_datacenter:
            await server.apply_locally(request)
        else:
            await server.apply_in_primary(request)


async def prune_forever(server: FederationServer, interval_s: float) -> None:
    """The primary's leader: every interval, drop states of datacenters unknown to the WAN pool."""
    while True:
        await asyncio.sleep(interval_s)
        await prune(server)


async def prune(server: FederationServer) -> list[str]:
    """Drop them now; returns the datacenters' names. Failures are logged and retried next time."""
    gone = [s for s in server.states() if not server.knows_datacenter(s.datacenter)]
    for state in gone:
        log.info("pruning stale federation state: datacenter=%s", state.datacenter)
        try:
            await server.apply_locally(
                FederationStateRequest(
                    datacenter=server.datacenter,
                    op=FEDERATION_DELETE,
                    state=FederationState(datacenter=state.datacenter),
                )
            )
        except ProconsulError as error:
            log.error("error pruning stale federation states: %s", error)
    return [state.datacenter for state in gone]
