"""What endpoints and `info` show of Raft."""

from __future__ import annotations

from proconsul.domain import operator as op
from proconsul.drivers.raft.node import RaftNode
from proconsul.rpc.methods import RaftStats
from proconsul.rpc.router import Router
from proconsul.wire.raft import Suffrage


class RaftViews:
    """The `rpc.endpoints.status.RaftView` of a server."""

    def __init__(self, raft: RaftNode, router: Router, datacenter: str) -> None:
        self._raft, self._router, self._datacenter = raft, router, datacenter

    def leader_address(self) -> str:
        """See `RaftView.leader_address`."""
        leader = self._raft.leader
        return leader[1] if leader is not None else ""

    def peers(self) -> op.RaftConfigurationResponse:
        """See `RaftView.peers`."""
        configuration, index = self._raft.configuration()
        leader = self.leader_address()
        names = {s.id: s.node for s in self._router.servers(self._datacenter)}
        return op.RaftConfigurationResponse(
            servers=[
                op.RaftServer(
                    id=s.id,
                    node=names.get(s.id, "(unknown)"),
                    address=s.address,
                    leader=s.address == leader,
                    protocol_version="3",
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
