"""LAN members into the catalog: what the leader has to write for one member.

Decisions only (agent/consul/leader.go, `handleAliveMember` and its siblings); the leader executes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from proconsul.core.gossip.serf import Member
from proconsul.domain.catalog import (
    CRITICAL,
    PASSING,
    SERF_ALIVE_OUTPUT,
    SERF_CHECK_ID,
    SERF_CHECK_NAME,
    SERF_FAILED_OUTPUT,
    DeregisterRequest,
    HealthCheck,
    NodeService,
    RegisterRequest,
    Weights,
)
from proconsul.rpc.server_meta import ServerMeta, parse_server

if TYPE_CHECKING:
    from proconsul.state.store import Store

CONSUL_SERVICE = "consul"


def server_of(member: Member) -> ServerMeta | None:
    """The server that a member is; None for clients and strangers."""
    return parse_server(member.name, member.address[0], member.tags)


def consul_service(member: Member, server: ServerMeta) -> NodeService:
    """The service `consul`, which the leader registers for every server."""
    return NodeService(
        id=CONSUL_SERVICE,
        service=CONSUL_SERVICE,
        port=server.address[1],
        weights=Weights(1, 1),
        meta={
            "non_voter": "true" if server.non_voter else "false",
            "raft_version": str(server.raft_version),
            "serf_protocol_current": str(member.protocol_cur),
            "serf_protocol_min": str(member.protocol_min),
            "serf_protocol_max": str(member.protocol_max),
            "version": server.build,
        },
    )


def serf_check(node: str, status: str) -> HealthCheck:
    """The check by which gossip speaks in the catalog."""
    return HealthCheck(
        node=node,
        check_id=SERF_CHECK_ID,
        name=SERF_CHECK_NAME,
        status=status,
        output=SERF_ALIVE_OUTPUT if status == PASSING else SERF_FAILED_OUTPUT,
    )


def alive(member: Member, store: Store, datacenter: str) -> RegisterRequest | None:
    """What an alive member needs written; None if the catalog is right already."""
    server = server_of(member)
    service = consul_service(member, server) if server is not None else None
    node = store.catalog.node(member.name).value
    if node is not None and node.address == member.address[0]:
        registered = store.catalog.node_services(member.name).value
        known = (registered.services or {}) if registered is not None else {}
        current = known.get(CONSUL_SERVICE)
        service_right = service is None or (
            current is not None and current.meta == service.meta and current.port == service.port
        )
        if service_right and _serf_status(store, member.name) == PASSING:
            return None
    return RegisterRequest(
        datacenter=datacenter,
        node=member.name,
        id=member.tags.get("id", ""),
        address=member.address[0],
        service=service,
        check=serf_check(member.name, PASSING),
        tagged_addresses=node.tagged_addresses if node is not None else None,
        node_meta=node.meta if node is not None else None,
    )


def failed(member: Member, store: Store, datacenter: str) -> RegisterRequest | None:
    """What a failed member needs written."""
    node = store.catalog.node(member.name).value
    if node is None:
        return None
    if node.address == member.address[0] and _serf_status(store, member.name) == CRITICAL:
        return None
    return RegisterRequest(
        datacenter=datacenter,
        node=member.name,
        id=member.tags.get("id", ""),
        address=member.address[0],
        check=serf_check(member.name, CRITICAL),
        # Whatever else is known of the node is not to be clobbered.
        skip_node_update=True,
    )


def gone(name: str, store: Store, datacenter: str) -> DeregisterRequest | None:
    """What a member that left or was reaped needs written."""
    if store.catalog.node(name).value is None:
        return None
    return DeregisterRequest(datacenter=datacenter, node=name)


def reaped_nodes(store: Store, members: Iterable[str]) -> list[str]:
    """Nodes that the catalog believes to be in the pool (they have a serf check) and are not."""
    known = set(members)
    checks = store.catalog.checks_in_state("any").value
    return sorted({c.node for c in checks if c.check_id == SERF_CHECK_ID} - known)


def _serf_status(store: Store, node: str) -> str:
    checks = store.catalog.node_checks(node).value
    return next((c.status for c in checks if c.check_id == SERF_CHECK_ID), "")
