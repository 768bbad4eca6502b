"""What an agent says of itself: `/v1/agent/self` (`AgentSelf` in agent/agent_endpoint.go)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proconsul import CONSUL_VERSION, VERSION
from proconsul.drivers.gossip.pool import GossipPool
from proconsul.services.agent.config import AgentSettings
from proconsul.services.agent.coordinates import coordinate_view


def self_view(
    settings: AgentSettings, lan: GossipPool, stats: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """`Config`, `DebugConfig`, `Coord`, `Member`, `Stats`, `Meta`, and `xDS` if it is served."""
    identity = settings.identity
    info: dict[str, Any] = {
        "Config": {
            "Datacenter": identity.datacenter,
            "NodeName": identity.node_name,
            "NodeID": identity.node_id,
            "Revision": "",
            "Server": settings.is_server,
            "Version": CONSUL_VERSION,
        },
        "DebugConfig": {
            "Datacenter": identity.datacenter,
            "PrimaryDatacenter": identity.primary_datacenter,
            "NodeName": identity.node_name,
            "NodeID": identity.node_id,
            "ServerMode": settings.is_server,
            "DNSDomain": f"{identity.domain}.",
            "EnableDebug": False,
            "GRPCPort": settings.grpc_port,
            "ProconsulVersion": VERSION,
        },
        "Coord": coordinate_view(lan),
        "Member": lan.local(),
        "Stats": stats,
        "Meta": dict(settings.node_meta),
    }
    if settings.grpc_port > 0:
        info["xDS"] = {"SupportedProxies": {"envoy": ["1.40.0"]}}
    return info
