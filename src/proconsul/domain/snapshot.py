"""The header of a snapshot RPC, before the bytes (`agent/structs/snapshot.go`)."""

from __future__ import annotations

from enum import IntEnum

from proconsul.domain.base import GoStruct
from proconsul.domain.options import QueryMeta


class SnapshotOp(IntEnum):
    """What is asked for."""

    SAVE = 0
    RESTORE = 1


class SnapshotRequest(GoStruct, frozen=True, gc=False):
    """`op` is a number, for an unknown one is answered, not refused."""

    datacenter: str = ""
    token: str = ""
    allow_stale: bool = False
    op: int = SnapshotOp.SAVE


class SnapshotResponse(QueryMeta, frozen=True, gc=False):
    """`error` is empty on success; `index` that of the snapshot that was saved."""

    error: str = ""
