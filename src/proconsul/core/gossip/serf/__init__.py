"""Serf over memberlist, without I/O: `Serf` is the machine, the rest are its inputs and outputs."""

from proconsul.core.gossip.serf.config import SerfConfig, SerfError
from proconsul.core.gossip.serf.coordinate import Coordinate
from proconsul.core.gossip.serf.events import (
    MemberEvent,
    MemberEventKind,
    QueryDone,
    QueryEvent,
    QueryReply,
    ShutdownRequired,
    SnapshotAppend,
    UserEvent,
)
from proconsul.core.gossip.serf.machine import Output, Serf
from proconsul.core.gossip.serf.member import Member, MemberStatus
from proconsul.core.gossip.serf.node import SerfState
from proconsul.core.gossip.serf.queries import QueryParams
from proconsul.core.gossip.serf.snapshot import Snapshot

__all__ = [
    "Coordinate", "Member", "MemberEvent", "MemberEventKind", "MemberStatus", "Output", "QueryDone",
    "QueryEvent", "QueryParams", "QueryReply", "Serf", "SerfConfig", "SerfError", "SerfState",
    "ShutdownRequired", "Snapshot", "SnapshotAppend", "UserEvent",
]  # fmt: skip
