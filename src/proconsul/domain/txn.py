"""Transactions (`agent/structs/txn.go`). Each operation has exactly one member set."""

from __future__ import annotations

from msgspec import Raw

from proconsul.domain.base import NIL, GoStruct, Int64
from proconsul.domain.catalog import HealthCheck, Node, NodeService
from proconsul.domain.kv import DirEntry
from proconsul.domain.options import QueryMeta, QueryOptions, WriteRequest
from proconsul.domain.session import Session

TXN_OPS_MAX = 64
_KV_WRITES = frozenset({"set", "delete", "delete-cas", "delete-tree", "cas", "lock", "unlock"})


class TxnKVOp(GoStruct, frozen=True, gc=False):
    verb: str = ""
    dir_ent: DirEntry = DirEntry()


class TxnNodeOp(GoStruct, frozen=True, gc=False):
    verb: str = ""
    node: Node = Node()


class TxnServiceOp(GoStruct, frozen=True, gc=False):
    verb: str = ""
    node: str = ""
    service: NodeService = NodeService()


class TxnCheckOp(GoStruct, frozen=True, gc=False):
    verb: str = ""
    check: HealthCheck = HealthCheck()


class TxnSessionOp(GoStruct, frozen=True, gc=False):
    verb: str = ""
    session: Session = Session()


class TxnOp(GoStruct, frozen=True, gc=False):
    kv: TxnKVOp | None = None
    intention: Raw = NIL
    """An intention's request, which real leaders write when they replicate from the primary."""
    node: TxnNodeOp | None = None
    service: TxnServiceOp | None = None
    check: TxnCheckOp | None = None
    session: TxnSessionOp | None = None


def writes(op: TxnOp) -> bool:
    """Whether it changes anything, so that a Raft entry is needed.

    Not so an unknown verb on keys, which is refused where it is read, as in Consul.
    """
    if op.kv is not None:
        return op.kv.verb in _KV_WRITES
    part = op.node or op.service or op.check
    return part is None or part.verb != "get"


class TxnRequest(WriteRequest, frozen=True, gc=False):
    datacenter: str = ""
    ops: list[TxnOp] | None = None


class TxnReadRequest(QueryOptions, frozen=True, gc=False):
    datacenter: str = ""
    ops: list[TxnOp] | None = None


class TxnError(GoStruct, frozen=True, gc=False):
    """`op_index` counts from 0, in the order of the request."""

    op_index: Int64 = 0
    what: str = ""


class TxnResult(GoStruct, frozen=True, gc=False):
    kv: DirEntry | None = None
    node: Node | None = None
    service: NodeService | None = None
    check: HealthCheck | None = None


class TxnResponse(GoStruct, frozen=True, gc=False):
    results: list[TxnResult] | None = None
    errors: list[TxnError] | None = None


class TxnReadResponse(QueryMeta, frozen=True, gc=False):
    results: list[TxnResult] | None = None
    errors: list[TxnError] | None = None
