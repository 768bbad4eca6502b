"""Operator structs: autopilot and the Raft configuration (`agent/structs/operator.go`)."""

from __future__ import annotations

from proconsul.domain.base import GoStruct, Int64, Uint64
from proconsul.domain.options import WriteRequest


class AutopilotConfig(GoStruct, frozen=True, gc=False):
    """Go's `autopilot.Config`; durations in nanoseconds."""

    cleanup_dead_servers: bool = False
    last_contact_threshold_ns: Int64 = 0
    max_trailing_logs: Uint64 = 0
    min_quorum: Uint64 = 0
    server_stabilization_time_ns: Int64 = 0
    redundancy_zone_tag: str = ""
    disable_upgrade_migration: bool = False
    upgrade_version_tag: str = ""
    create_index: Uint64 = 0
    modify_index: Uint64 = 0


DEFAULT_AUTOPILOT = AutopilotConfig(
    cleanup_dead_servers=True,
    last_contact_threshold_ns=200_000_000,
    max_trailing_logs=250,
    server_stabilization_time_ns=10_000_000_000,
)


class AutopilotSetConfigRequest(WriteRequest, frozen=True, gc=False):
    datacenter: str = ""
    config: AutopilotConfig = AutopilotConfig()
    cas: bool = False


class RaftRemovePeerRequest(WriteRequest, frozen=True, gc=False):
    """One of `address` ("ip:port") and `id` says whom."""

    datacenter: str = ""
    address: str = ""
    id: str = ""


class RaftServer(GoStruct, frozen=True, gc=False):
    id: str = ""
    node: str = ""
    address: str = ""
    leader: bool = False
    protocol_version: str = ""
    voter: bool = False


class RaftConfigurationResponse(GoStruct, frozen=True, gc=False):
    servers: list[RaftServer] | None = None
    index: Int64 = 0
