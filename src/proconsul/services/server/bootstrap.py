"""When a fresh cluster gives itself its first Raft configuration (agent/consul/server_serf.go)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from proconsul.domain.base import decode, encode
from proconsul.domain.options import DCSpecificRequest
from proconsul.drivers.raft.node import RaftNode
from proconsul.rpc.pool import ConnectionPool
from proconsul.rpc.server_meta import ServerMeta
from proconsul.services.server.config import Identity
from proconsul.util.errors import ProconsulError
from proconsul.wire.raft import Server, Suffrage

log = logging.getLogger("proconsul.server")

PEER_QUERIES_MAX = 6
PEER_QUERY_S = 5.0


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


class Bootstrapper:
    """Looks, whenever a server joins, whether it is time to begin a cluster; does so once.

    `servers()` are the servers in the LAN pool, this one included.
    """

    def __init__(
        self,
        identity: Identity,
        expect: int,
        raft: RaftNode,
        pool: ConnectionPool,
        servers: Callable[[], list[ServerMeta]],
    ) -> None:
        self._identity, self._expect = identity, expect
        self._raft, self._pool, self._servers = raft, pool, servers
        self.waiting = expect > 0
        """Whether a cluster may still have to be begun."""

    async def look(self) -> None:
        """Begin a cluster if all expected servers are there and none of them has one yet."""
        if not self.waiting or self._raft.has_state:
            self.waiting = False
            return
        datacenter, servers = self._identity.datacenter, self._servers()
        if not may_bootstrap(servers, self._expect, datacenter):
            return
        for server in servers:
            if server.id != self._identity.node_id and await self._has_peers(server):
                log.info(
                    "Existing Raft peers reported by server, disabling bootstrap mode: server=%s",
                    server.name,
                )
                self.waiting = False
                return
        if self.waiting and not self._raft.has_state:
            self.waiting = False
            log.info("Found expected number of peers, attempting bootstrap: peers=%d", len(servers))
            self._raft.bootstrap(first_configuration(servers, datacenter))

    async def _has_peers(self, server: ServerMeta) -> bool:
        """Whether a server already belongs to a cluster. One that does not answer has none."""
        body = encode(DCSpecificRequest(datacenter=self._identity.datacenter))
        loop = asyncio.get_running_loop()
        for attempt in range(PEER_QUERIES_MAX):
            try:
                answer = await self._pool.rpc(
                    server.destination, "Status.Peers", body, loop.time() + PEER_QUERY_S
                )
            except ProconsulError as error:
                log.error(
                    "Failed to confirm peer status for server (will retry): server=%s error=%s",
                    server.name,
                    error,
                )
                await asyncio.sleep(min(0.2 * 2**attempt, 5.0))
            else:
                return bool(decode(answer, list[str] | None))  # type: ignore[arg-type]
        return False
