"""Serf tags in Consul's names and values, and who may merge into a pool.

Other agents, real Consul's too, know a server by these (agent/consul/server_serf.go, merge.go).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from proconsul.core.gossip.serf import Member, MemberStatus
from proconsul.rpc.server_meta import parse_server
from proconsul.services.server.config import Identity, ServerConfig

PROTOCOL_VERSION = 2
PROTOCOL_MIN, PROTOCOL_MAX = 2, 3
RAFT_PROTOCOL = 3
FEDERATION_STATES_FLAG = "ft_fs"

NEW_LEADER_EVENT = "consul:new-leader"
"""The user event by which a new leader tells every agent of its datacenter."""


def _common(identity: Identity) -> dict[str, str]:
    return {
        "dc": identity.datacenter,
        "segment": "",
        "id": identity.node_id,
        "vsn": str(PROTOCOL_VERSION),
        "vsn_min": str(PROTOCOL_MIN),
        "vsn_max": str(PROTOCOL_MAX),
        "build": f"{identity.build}:",
        # An agent starts in legacy mode and moves on once the whole cluster can.
        "acls": "1" if identity.acls_enabled else "0",
    }


def server_tags(config: ServerConfig, *, wan: bool) -> dict[str, str]:
    """The tags of a server in its LAN or WAN pool."""
    tags = {
        **_common(config.identity),
        "role": "consul",
        "raft_vsn": str(RAFT_PROTOCOL),
        "port": str(config.rpc_advertise[1]),
        FEDERATION_STATES_FLAG: "1",
    }
    if not wan and config.wan is not None:
        tags["wan_join_port"] = str(config.wan.memberlist.advertise[1])
    if config.bootstrap:
        tags["bootstrap"] = "1"
    if config.bootstrap_expect:
        tags["expect"] = str(config.bootstrap_expect)
    if config.tls.use_tls:
        tags["use_tls"] = "1"
    return tags


def client_tags(identity: Identity) -> dict[str, str]:
    """The tags of a client agent in its LAN pool."""
    return {**_common(identity), "role": "node"}


def is_agent(member: Member) -> bool:
    """Whether a member is a Consul agent at all, client or server."""
    return member.tags.get("role") in ("node", "consul")


def _conflict(identity: Identity, member: Member, seen: dict[str, str]) -> str | None:
    node_id = member.tags.get("id", "")
    if not node_id or member.status is MemberStatus.LEFT:
        return None
    if node_id == identity.node_id and member.name != identity.node_name:
        return f"Member '{member.name}' has conflicting node ID '{node_id}' with this agent's ID"
    if (other := seen.get(node_id)) is not None and other != member.name:
        return f"Member '{member.name}' has conflicting node ID '{node_id}' with member '{other}'"
    seen[node_id] = member.name
    return None


def lan_merge(identity: Identity) -> Callable[[Sequence[Member]], str | None]:
    """The LAN refuses other datacenters, other segments and duplicate node ids."""

    def check(members: Sequence[Member]) -> str | None:
        seen: dict[str, str] = {}
        for member in members:
            if reason := _conflict(identity, member, seen):
                return reason
            datacenter = member.tags.get("dc", "")
            if is_agent(member) and datacenter != identity.datacenter:
                return f"Member '{member.name}' part of wrong datacenter '{datacenter}'"
            if segment := member.tags.get("segment", ""):
                return f"Member '{member.name}' part of wrong segment '{segment}' (expected '')"
        return None

    return check


def wan_merge(members: Iterable[Member]) -> str | None:
    """The WAN is for servers alone."""
    for member in members:
        if parse_server(member.name, member.address[0], member.tags) is None:
            return f"Member '{member.name}' is not a server"
    return None
