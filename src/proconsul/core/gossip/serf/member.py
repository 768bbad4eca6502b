"""A member of the cluster as users of serf see it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import msgspec
from typing_extensions import override


class MemberStatus(IntEnum):
    """Where a member is in its life; the values are serf's on the wire."""

    NONE = 0
    ALIVE = 1
    LEAVING = 2
    LEFT = 3
    FAILED = 4

    @override
    def __str__(self) -> str:
        return self.name.lower()


class Member(msgspec.Struct, frozen=True):
    """An immutable view. `address` is the gossip address; versions are memberlist's (protocol)
    and serf's (delegate).
    """

    name: str
    address: tuple[str, int]
    tags: Mapping[str, str]
    status: MemberStatus
    protocol_min: int = 1
    protocol_max: int = 5
    protocol_cur: int = 2
    delegate_min: int = 2
    delegate_max: int = 5
    delegate_cur: int = 4
