"""Transactions over KV, nodes, services and checks (`agent/consul/state/txn.go`).

Operations are applied in order; if any fails, none stays and every failure is reported.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from proconsul.domain import kv as domain
from proconsul.domain.base import NIL
from proconsul.domain.catalog import HealthCheck, Node
from proconsul.domain.kv import DirEntry
from proconsul.domain.txn import (
    TxnCheckOp,
    TxnError,
    TxnKVOp,
    TxnNodeOp,
    TxnOp,
    TxnResult,
    TxnServiceOp,
)
from proconsul.state import catalog, kv, opaque, sessions
from proconsul.state.errors import StateError
from proconsul.state.tables import Transaction


def apply(tx: Transaction, ops: list[TxnOp]) -> tuple[list[TxnResult], list[TxnError]]:
    """Apply to `tx`, which the caller must roll back if there are errors."""
    results: list[TxnResult] = []
    errors: list[TxnError] = []
    for at, op in enumerate(ops):
        try:
            results += _dispatch(tx, op)
        except StateError as error:
            errors.append(TxnError(at, str(error)))
    return ([], errors) if errors else (results, [])


def _dispatch(tx: Transaction, op: TxnOp) -> list[TxnResult]:
    if op.kv is not None:
        return _kv(tx, op.kv)
    if bytes(op.intention) != bytes(NIL):
        opaque.apply_intention(tx, bytes(op.intention))
        return []
    if op.node is not None:
        return _node(tx, op.node)
    if op.service is not None:
        return _service(tx, op.service)
    if op.check is not None:
        return _check(tx, op.check)
    if op.session is not None:
        if op.session.verb != "delete":
            raise StateError(f'failed to delete session: unknown Session verb "{op.session.verb}"')
        sessions.delete_alone(tx, op.session.session.id)
        return []
    raise StateError("no operation specified")


def _kv(tx: Transaction, op: TxnKVOp) -> list[TxnResult]:
    entry, key = op.dir_ent, op.dir_ent.key
    row: DirEntry | None = tx.t.kvs.get(key)
    match op.verb:
        case domain.KV_SET:
            row = kv.set_entry(tx, entry)
        case domain.KV_DELETE:
            kv.delete(tx, key)
            return []
        case domain.KV_DELETE_CAS:
            if not kv.delete_cas(tx, key, entry.modify_index):
                raise StateError(f'failed to delete key "{key}", index is stale')
            return []
        case domain.KV_DELETE_TREE:
            kv.delete_tree(tx, key)
            return []
        case domain.KV_CAS:
            row = kv.set_cas(tx, entry)
            if row is None:
                raise StateError(f'failed to set key "{key}", index is stale')
        case domain.KV_LOCK:
            row = kv.lock(tx, entry)
            if row is None:
                raise StateError(f'failed to lock key "{key}", lock is already held')
        case domain.KV_UNLOCK:
            row = kv.unlock(tx, entry)
            if row is None:
                raise StateError(
                    f'failed to unlock key "{key}", lock isn\'t held, or is held by another session'
                )
        case domain.KV_GET:
            if row is None:
                raise StateError(f'key "{key}" doesn\'t exist')
            return [TxnResult(kv=row)]
        case domain.KV_GET_TREE:
            return [TxnResult(kv=tx.t.kvs[one]) for one in tx.t.kv_keys.with_prefix(key)]
        case domain.KV_CHECK_SESSION:
            row = _expect(row, "session", key)
            if row.session != entry.session:
                raise StateError(
                    f'failed session check for key "{key}", current session "{row.session}"'
                    f' != "{entry.session}"'
                )
        case domain.KV_CHECK_INDEX:
            row = _expect(row, "index", key)
            if row.modify_index != entry.modify_index:
                raise StateError(
                    f'failed index check for key "{key}", current modify index'
                    f" {row.modify_index} != {entry.modify_index}"
                )
        case domain.KV_CHECK_NOT_EXISTS:
            if row is not None:
                raise StateError(f'key "{key}" exists')
            return []
        case _:
            raise StateError(f'unknown KV verb "{op.verb}"')
    return [TxnResult(kv=replace(row, raw_value=NIL))]


def _expect(row: DirEntry | None, what: str, key: str) -> DirEntry:
    if row is None:
        raise StateError(f'failed to check {what}, key "{key}" doesn\'t exist')
    return row


def _cas(found: int | None, wanted: int, stale: str) -> None:
    """Consul's rule: 0 wants the row missing, anything else that modify index."""
    if wanted != (found or 0):
        raise StateError(stale)


def _node(tx: Transaction, op: TxnNodeOp) -> list[TxnResult]:
    wanted = op.node

    def current() -> Node | None:
        if wanted.id:
            return tx.t.nodes.get(tx.t.node_ids.get(wanted.id.lower(), ""))
        return tx.t.nodes.get(wanted.node.lower())

    match op.verb:
        case "get":
            if current() is None:
                raise StateError(f'node "{wanted.node}" doesn\'t exist')
        case "set":
            catalog.ensure_node(tx, wanted)
        case "cas":
            existing = tx.t.nodes.get(wanted.node.lower())
            _cas(
                existing.modify_index if existing else None,
                wanted.modify_index,
                f'failed to set node "{wanted.node}", index is stale',
            )
            catalog.ensure_node(tx, wanted)
        case "delete":
            catalog.delete_node(tx, wanted.node)
            return []
        case "delete-cas":
            existing = tx.t.nodes.get(wanted.node.lower())
            if existing is None or existing.modify_index != wanted.modify_index:
                raise StateError(f'failed to delete node "{wanted.node}", index is stale')
            catalog.delete_node(tx, wanted.node)
            return []
        case _:
            raise StateError(f'unknown Node verb "{op.verb}"')
    return _result(current(), lambda row: TxnResult(node=row))


def _service(tx: Transaction, op: TxnServiceOp) -> list[TxnResult]:
    wanted, node = op.service, op.node
    existing = catalog.get_service(tx.t, node, wanted.id)
    match op.verb:
        case "get":
            if existing is None:
                raise StateError(f'service "{wanted.id}" on node "{node}" doesn\'t exist')
        case "set":
            catalog.ensure_service(tx, node, wanted)
        case "cas":
            _cas(
                existing.modify_index if existing else None,
                wanted.modify_index,
                f'failed to set service "{wanted.id}" on node "{node}", index is stale',
            )
            catalog.ensure_service(tx, node, wanted)
        case "delete":
            catalog.delete_service(tx, node, wanted.id)
            return []
        case "delete-cas":
            if existing is None or existing.modify_index != wanted.modify_index:
                raise StateError(
                    f'failed to delete service "{wanted.id}" on node "{node}", index is stale'
                )
            catalog.delete_service(tx, node, wanted.id)
            return []
        case _:
            raise StateError(f'unknown Service verb "{op.verb}"')
    row = catalog.get_service(tx.t, node, wanted.id)
    return _result(row, lambda found: TxnResult(service=found))


def _check(tx: Transaction, op: TxnCheckOp) -> list[TxnResult]:
    wanted: HealthCheck = op.check
    existing = catalog.get_check(tx.t, wanted.node, wanted.check_id)
    name = f'check "{wanted.check_id}" on node "{wanted.node}"'
    match op.verb:
        case "get":
            if existing is None:
                raise StateError(f"{name} doesn't exist")
        case "set":
            catalog.ensure_check(tx, wanted)
        case "cas":
            _cas(
                existing.modify_index if existing else None,
                wanted.modify_index,
                f"failed to set {name}, index is stale",
            )
            catalog.ensure_check(tx, wanted)
        case "delete":
            catalog.delete_check(tx, wanted.node, wanted.check_id)
            return []
        case "delete-cas":
            if existing is None or existing.modify_index != wanted.modify_index:
                raise StateError(f"failed to delete {name}, index is stale")
            catalog.delete_check(tx, wanted.node, wanted.check_id)
            return []
        case _:
            raise StateError(f'unknown Check verb "{op.verb}"')
    row = catalog.get_check(tx.t, wanted.node, wanted.check_id)
    return _result(row, lambda found: TxnResult(check=found))


def _result(row: object, wrap: Callable[..., TxnResult]) -> list[TxnResult]:
    return [wrap(row)] if row is not None else []
