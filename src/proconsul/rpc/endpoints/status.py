"""`Status.*`: what servers ask each other about Raft (agent/consul/status_endpoint.go)."""

from __future__ import annotations

from typing import Protocol

from proconsul.domain import operator as op
from proconsul.domain import options as o
from proconsul.rpc.methods import METHODS, Empty, RaftStats
from proconsul.rpc.table import Call, Endpoint, Requires


class RaftView(Protocol):
    """What these endpoints show of Raft."""

    def leader_address(self) -> str:
        """`ip:port`, or "" without a leader."""
        ...

    def peers(self) -> op.RaftConfigurationResponse: ...

    def log_position(self) -> RaftStats: ...


class Status:
    """Answered by whichever server of the datacenter is asked."""

    def __init__(self, raft: RaftView) -> None:
        self._raft = raft

    async def ping(self, _request: Empty | None, _call: Call) -> Empty:
        return Empty()

    async def leader(self, _request: o.DCSpecificRequest, _call: Call) -> str:
        return self._raft.leader_address()

    async def peers(self, _request: o.DCSpecificRequest, _call: Call) -> list[str]:
        return [server.address for server in self._raft.peers().servers or ()]

    async def raft_stats(self, _request: Empty | None, _call: Call) -> RaftStats:
        return self._raft.log_position()


def endpoints(raft: RaftView) -> list[Endpoint]:
    """All of `Status`."""
    it = Status(raft)
    return [
        Endpoint(METHODS["Status.Ping"], Requires.NOTHING, it.ping),
        Endpoint(METHODS["Status.Leader"], Requires.NOTHING, it.leader),
        Endpoint(METHODS["Status.Peers"], Requires.NOTHING, it.peers),
        Endpoint(METHODS["Status.RaftStats"], Requires.NOTHING, it.raft_stats),
    ]
