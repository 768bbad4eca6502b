"""Autopilot's rules: which server is healthy, which stable, which dead ones may go.

After `agent/consul/autopilot` of Consul 1.8. Times are nanoseconds; Serf's states are its numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Raw

from proconsul.domain.base import GoStruct, Int64, bytes_of, raw_bytes
from proconsul.domain.operator import AutopilotConfig
from proconsul.wire.gotime import ZERO_TIME_NS, decode_time, encode_time

SERF_NONE, SERF_ALIVE = 0, 1
NEVER_NS = -1
"""The last contact of a server that did not tell one."""


class ServerHealth(GoStruct, frozen=True, gc=False):
    """One of Raft's servers as the leader sees it."""

    id: str = ""
    name: str = ""
    address: str = ""
    serf_status: Int64 = SERF_NONE
    version: str = ""
    leader: bool = False
    last_contact_ns: Int64 = NEVER_NS
    last_term: Int64 = 0
    last_index: Int64 = 0
    healthy: bool = False
    voter: bool = False
    raw_stable_since: Raw = raw_bytes(encode_time(ZERO_TIME_NS))

    @property
    def stable_since_ns(self) -> int:
        """Wall clock of the last change between healthy and not."""
        return decode_time(bytes_of(self.raw_stable_since))


class OperatorHealthReply(GoStruct, frozen=True, gc=False):
    """All of Raft's servers, and how many healthy voters can be spared."""

    healthy: bool = False
    failure_tolerance: Int64 = 0
    servers: list[ServerHealth] | None = None

    def of(self, server_id: str) -> ServerHealth | None:
        """The health of one server."""
        return next((s for s in self.servers or () if s.id == server_id), None)


def is_healthy(
    server: ServerHealth, last_term: int, last_index: int, config: AutopilotConfig
) -> bool:
    """Whether a server keeps up with the leader, whose log ends at `last_term`, `last_index`."""
    return (
        server.serf_status == SERF_ALIVE
        and 0 <= server.last_contact_ns <= config.last_contact_threshold_ns
        and server.last_term == last_term
        and server.last_index + config.max_trailing_logs >= last_index
    )


def stable_since(healthy: bool, before: ServerHealth | None, now_ns: int) -> Raw:
    """The time since which a server is as healthy, or not, as it is now."""
    if before is None or before.healthy is not healthy:
        return raw_bytes(encode_time(now_ns))
    return before.raw_stable_since


def is_stable(server: ServerHealth | None, now_ns: int, config: AutopilotConfig) -> bool:
    """Whether a server has been healthy for the stabilization time."""
    if server is None or not server.healthy:
        return False
    return now_ns - server.stable_since_ns >= config.server_stabilization_time_ns


def summary(servers: Iterable[ServerHealth]) -> OperatorHealthReply:
    """The health of the whole cluster."""
    rows = list(servers)
    voters = [row for row in rows if row.voter]
    spare = sum(row.healthy for row in voters) - (len(voters) // 2 + 1)
    return OperatorHealthReply(
        healthy=all(row.healthy for row in rows),
        failure_tolerance=max(spare, 0),
        servers=rows,
    )


def may_remove(voters: int, dead: int, min_quorum: int) -> tuple[bool, str]:
    """Whether `dead` servers may be taken from a cluster of `voters`, and why or why not."""
    if voters - dead < min_quorum:
        return False, (
            f"denied, because removing {dead}/{voters} servers would leave less then minimal "
            f"allowed quorum of {min_quorum} servers"
        )
    # To survive F failures takes 2F+1 servers: so many may go and leave the rest a majority.
    if dead > (voters - 1) // 2:
        return False, (
            f"denied, because removing the majority of servers {dead}/{voters} is not safe"
        )
    return True, (
        f"allowed, because removing {dead}/{voters} servers leaves a majority of servers above "
        f"the minimal allowed quorum {min_quorum}"
    )
