"""When a fresh cluster gives itself its first Raft configuration (agent/consul/server_serf.go)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from proconsul.rpc.server_meta import ServerMeta
from proconsul.wire.raft import Server, Suffrage

log = logging.getLogger("proconsul.server")


def raft_address(address: tuple[str, int]) -> str:
    """`ip:port` as hashicorp/raft writes it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def may_bootstrap(servers: Sequence[ServerMeta], expect: int, datacenter: str) -> bool:
    """Whether all expected voters are there and agree on how many they are."""
    if expect <= 0:
        return False
    voters = 0
    for server in servers:
        if server.datacenter != datacenter:
            log.warning("Member has a conflicting datacenter, ignoring: member=%s", server.name)
            continue
        if server.expect not in (0, expect):
            log.error(
                "Member has a conflicting expect value. All nodes should expect the same number: "
                "member=%s expect=%d ours=%d",
                server.name,
                server.expect,
                expect,
            )
            return False
        if server.bootstrap:
            log.error("Member has bootstrap mode. Expect disabled: member=%s", server.name)
            return False
        voters += not server.non_voter
    return voters >= expect


def first_configuration(servers: Sequence[ServerMeta], datacenter: str) -> list[Server]:
    """The same on every server, whoever computes it."""
    return [
        Server(
            suffrage=Suffrage.NONVOTER if server.non_voter else Suffrage.VOTER,
            id=server.id,
            address=raft_address(server.address),
        )
        for server in sorted(servers, key=lambda s: s.id)
        if server.datacenter == datacenter
    ]
