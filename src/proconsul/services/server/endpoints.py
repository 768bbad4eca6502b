"""The endpoint table of a server: every RPC that it answers."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from proconsul.rpc.endpoints import (
    acl,
    catalog,
    config_entries,
    connect_ca,
    discovery_chain,
    federation,
    gateways,
    health,
    intentions,
    internal,
    kvs,
    operator,
    ops,
    prepared_query,
    session,
    status,
    txn,
)
from proconsul.rpc.table import EndpointTable
from proconsul.services.server.ca_signing import LeafSigner, connect_settings
from proconsul.services.server.gossip_ops import GossipOps
from proconsul.services.server.mesh_replication import intentions_datacenter

if TYPE_CHECKING:
    from proconsul.rpc.endpoints.internal import Coordinates
    from proconsul.services.server.server import Server


def endpoint_table(server: Server, coordinates: Coordinates) -> EndpointTable:
    """All that can be called on `server`."""
    return EndpointTable(
        [
            *status.endpoints(server.views),
            *acl.endpoints(server, server.acl_admin),
            *operator.endpoints(server, server.views, server),
            *catalog.endpoints(server, server.datacenters),
            *health.endpoints(server),
            *kvs.endpoints(server),
            *internal.endpoints(server, coordinates),
            *ops.endpoints(server, GossipOps(server)),
            *federation.endpoints(server, server.unix_ns),
            *config_entries.endpoints(server),
            *gateways.endpoints(server),
            *discovery_chain.endpoints(server, enabled=server.config.connect_enabled),
            *intentions.endpoints(
                server,
                server.unix_ns,
                lambda: server.config.acl.allows_by_default,
                intentions_datacenter(server),
            ),
            *txn.endpoints(server),
            *prepared_query.endpoints(server, lambda: str(uuid.uuid4())),
            *session.endpoints(
                server,
                server.session_timers,
                int(server.config.session_ttl_min_s * 1e9),
                lambda: str(uuid.uuid4()),
            ),
            *connect_ca.endpoints(
                server, LeafSigner.of(server), connect_settings(server), server.call
            ),
        ]
    )
