"""What endpoints and `info` show of Raft."""

from __future__ import annotations

from collections.abc import Callable

from proconsul.domain import operator as op
from proconsul.drivers.raft.node import RaftNode
from proconsul.rpc.methods import RaftStats
from proconsul.rpc.server_meta import ServerMeta
from proconsul.services.server.bootstrap import raft_address
from proconsul.wire.raft import Suffrage


class RaftViews:
    """The `rpc.endpoints.status.RaftView` of a server."""

    def __init__(self, raft: RaftNode, servers: Callable[[], list[ServerMeta]]) -> None:
        """`servers()` are the servers in the LAN pool, whatever their state."""
        self._raft, self._servers = raft, servers

    def leader_address(self) -> str:
        """See `RaftView.leader_address`."""
        leader = self._raft.leader
        return leader[1] if leader is not None else ""

    def peers(self) -> op.RaftConfigurationResponse:
        """See `RaftView.peers`."""
        configuration, index = self._raft.configuration()
        leader = self.leader_address()
        known = {raft_address(s.address): s for s in self._servers()}
        return op.RaftConfigurationResponse(
            servers=[
                op.RaftServer(
                    id=s.id,
                    node=known[s.address].node if s.address in known else "(unknown)",
                    address=s.address,
                    leader=s.address == leader,
                    protocol_version=(
                        str(known[s.address].raft_version) if s.address in known else "unknown"
                    ),
                    voter=s.suffrage is Suffrage.VOTER,
                )
                for s in configuration.servers
            ],
            index=index,
        )

    def log_position(self) -> RaftStats:
        """See `RaftView.log_position`."""
        stats = self._raft.stats()
        return RaftStats(
            last_contact=stats.get("last_contact", ""),
            last_index=int(stats.get("last_log_index", "0")),
            last_term=int(stats.get("last_log_term", "0")),
        )
