"""`Txn.*` (agent/consul/txn_endpoint.go), for keys: what real agents send for `/v1/txn`.

Operations on the catalog are refused here; the state machine applies them when a real leader sends them.
"""

from __future__ import annotations

from proconsul.domain import kv
from proconsul.domain.acl import Authorizer
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.domain.txn import (
    TXN_OPS_MAX,
    TxnError,
    TxnOp,
    TxnReadRequest,
    TxnReadResponse,
    TxnRequest,
    TxnResponse,
    TxnResult,
)
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, meta
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.util.goquote import go_quote

_FILTERED = frozenset({kv.KV_GET, kv.KV_GET_TREE})
"""What these may show is decided by the results."""
_CHECKS = frozenset({kv.KV_CHECK_SESSION, kv.KV_CHECK_INDEX})


class Txn:
    """Several operations, all or none."""

    def __init__(self, server: EndpointServer) -> None:
        self._server = server

    async def apply(self, request: TxnRequest, call: Call) -> TxnResponse:
        ops = _bounded(request.ops)
        errors = _refused(ops, call.authorizer) or self._delayed(ops)
        if errors:
            return TxnResponse(None, errors)
        answer = await self._server.apply(MessageType.TXN, request)
        if not isinstance(answer, TxnResponse):
            raise RequestError(f"unexpected return type {type(answer).__name__}")
        return TxnResponse(_allowed(answer.results, call.authorizer), answer.errors)

    def _delayed(self, ops: list[TxnOp]) -> list[TxnError]:
        return [
            TxnError(at, f"failed to lock key {go_quote(key)} due to lock delay")
            for at, op in enumerate(ops)
            if op.kv is not None
            and op.kv.verb == kv.KV_LOCK
            and self._server.lock_delayed(key := op.kv.dir_ent.key)
        ]

    async def read(self, request: TxnReadRequest, call: Call) -> TxnReadResponse:
        ops = _bounded(request.ops)
        if request.require_consistent:
            await self._server.consistent_read()
        head = meta(self._server, 0)
        if errors := _refused(ops, call.authorizer):
            return TxnReadResponse(errors=errors, **head)
        results, errors = self._server.store.read_transaction(ops)
        return TxnReadResponse(
            results=_allowed(results, call.authorizer), errors=errors or None, **head
        )


def _bounded(ops: list[TxnOp] | None) -> list[TxnOp]:
    if ops is not None and len(ops) > TXN_OPS_MAX:
        raise RequestError(f"Transaction contains too many operations ({len(ops)} > {TXN_OPS_MAX})")
    return ops or []


def _refused(ops: list[TxnOp], may: Authorizer) -> list[TxnError]:
    reasons = ((at, _reason(op, may)) for at, op in enumerate(ops))
    return [TxnError(at, reason) for at, reason in reasons if reason]


def _reason(op: TxnOp, may: Authorizer) -> str:
    if op.kv is None:
        return "only operations on keys are supported in transactions"
    verb, key = op.kv.verb, op.kv.dir_ent.key
    if not key and verb != kv.KV_DELETE_TREE:
        return "Must provide key"
    if verb in _FILTERED:
        return ""
    if verb == kv.KV_DELETE_TREE:
        allowed = may.key_write_prefix(key)
    else:
        allowed = may.key_read(key) if verb in _CHECKS else may.key_write(key)
    return "" if allowed else str(PermissionDeniedError())


def _allowed(results: list[TxnResult] | None, may: Authorizer) -> list[TxnResult] | None:
    if results is None:
        return None
    return [one for one in results if one.kv is None or may.key_read(one.kv.key)]


def endpoints(server: EndpointServer) -> list[Endpoint]:
    """All of `Txn`."""
    it = Txn(server)
    return [
        Endpoint(METHODS["Txn.Apply"], Requires.KEY_WRITE, it.apply),
        Endpoint(METHODS["Txn.Read"], Requires.KEY_READ, it.read),
    ]
