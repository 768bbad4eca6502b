"""What the serf machine tells its owner, beside memberlist's own outputs."""

from __future__ import annotations

from enum import Enum

import msgspec

from proconsul.core.gossip.serf.member import Member


class MemberEventKind(Enum):
    """What happened to the members; the values are serf's names."""

    JOIN = "member-join"
    LEAVE = "member-leave"
    FAILED = "member-failed"
    UPDATE = "member-update"
    REAP = "member-reap"


class MemberEvent(msgspec.Struct, frozen=True):
    """Members joined, left, failed, changed, or were forgotten."""

    kind: MemberEventKind
    members: tuple[Member, ...]


class UserEvent(msgspec.Struct, frozen=True):
    """An application's event. Delivered at most once per (ltime, name, payload)."""

    ltime: int
    name: str
    payload: bytes
    coalesce: bool


class QueryEvent(msgspec.Struct, frozen=True):
    """A question to this node. Answer with `Serf.respond` before `deadline`."""

    ltime: int
    id: int
    name: str
    payload: bytes
    source: str
    address: tuple[str, int]
    relay_factor: int
    deadline: float


class QueryReply(msgspec.Struct, frozen=True):
    """An answer (or with `ack` the receipt) to the query `id` that this node asked."""

    id: int
    sender: str
    payload: bytes
    ack: bool


class QueryDone(msgspec.Struct, frozen=True):
    """The time of the query `id` is up: no more replies."""

    id: int


class SnapshotAppend(msgspec.Struct, frozen=True):
    """Lines, without line ends, to be appended to the snapshot file in this order.

    `durable` asks for an fsync: the node is leaving.
    """

    lines: tuple[str, ...]
    durable: bool


class ShutdownRequired(msgspec.Struct, frozen=True):
    """Another node has our name and the majority believes it: this node has to go."""

    reason: str


SerfOutput = (
    MemberEvent
    | UserEvent
    | QueryEvent
    | QueryReply
    | QueryDone
    | SnapshotAppend
    | ShutdownRequired
)
