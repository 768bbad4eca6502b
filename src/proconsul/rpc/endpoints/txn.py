"""`Txn.*` (agent/consul/txn_endpoint.go): operations on keys, nodes, services and checks.

What writes the catalog is checked as a registration is, and gets the same defaults.
"""

from __future__ import annotations

from msgspec.structs import replace

from proconsul.domain import kv
from proconsul.domain.acl import Authorizer
from proconsul.domain.base import is_byte_field, is_nil
from proconsul.domain.errors import DomainError, PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.domain.txn import (
    TXN_OPS_MAX,
    TxnError,
    TxnKVOp,
    TxnOp,
    TxnReadRequest,
    TxnReadResponse,
    TxnRequest,
    TxnResponse,
    TxnResult,
    writes,
)
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, meta
from proconsul.rpc.endpoints.catalog import check_node, prepared_service
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.util.goquote import go_quote

_GET = "get"
_FILTERED = frozenset({kv.KV_GET, kv.KV_GET_TREE})
"""What these may show is decided by the results."""
_WRITES = "cannot write in a read-only transaction"
_CHECKS = frozenset({kv.KV_CHECK_SESSION, kv.KV_CHECK_INDEX})


class Txn:
    """Several operations, all or none."""

    def __init__(self, server: EndpointServer) -> None:
        self._server = server

    async def apply(self, request: TxnRequest, call: Call) -> TxnResponse:
        ops, errors = self._prepared(_bounded(request.ops), call.authorizer)
        if errors:
            return TxnResponse(None, errors)
        answer = await self._server.apply(MessageType.TXN, replace(request, ops=ops or None))
        if not isinstance(answer, TxnResponse):
            raise RequestError(f"unexpected return type {type(answer).__name__}")
        return TxnResponse(_allowed(answer.results, call.authorizer), answer.errors)

    def _prepared(self, ops: list[TxnOp], may: Authorizer) -> tuple[list[TxnOp], list[TxnError]]:
        """The operations as they may be applied, and why some may not."""
        prepared, errors = list(ops), list[TxnError]()
        for at, op in enumerate(ops):
            try:
                prepared[at] = self._checked(op, may)
            except DomainError as error:
                errors.append(TxnError(at, str(error)))
        return prepared, errors

    def _checked(self, op: TxnOp, may: Authorizer) -> TxnOp:
        if not is_nil(op.intention):
            # Leaders write these to Raft directly. Consul takes them here too, and asks for no right.
            raise RequestError("intentions cannot be changed in a transaction")
        if op.kv is not None:
            _check_kv(op.kv, may)
            key = op.kv.dir_ent.key
            if op.kv.verb == kv.KV_LOCK and self._server.lock_delayed(key):
                raise RequestError(f"failed to lock key {go_quote(key)} due to lock delay")
        elif op.node is not None and op.node.verb != _GET:
            check_node(op.node.node.node, op.node.node.id)
            _require(may.node_write(op.node.node.node))
        elif op.service is not None and op.service.verb != _GET:
            service = prepared_service(op.service.service)
            _require(may.service_write(service.service))
            return replace(op, service=replace(op.service, service=service))
        elif op.check is not None and op.check.verb != _GET:
            check = op.check.check
            check = replace(check, check_id=check.check_id or check.name)
            if check.service_id:
                _require(may.service_write(check.service_name))
            else:
                _require(may.node_write(check.node))
            return replace(op, check=replace(op.check, check=check))
        elif op.session is not None:
            session = self._server.store.sessions.get(op.session.session.id).value
            _require(
                may.session_write(op.session.session.node if session is None else session.node)
            )
        return op

    async def read(self, request: TxnReadRequest, call: Call) -> TxnReadResponse:
        ops = _bounded(request.ops)
        if request.require_consistent:
            await self._server.consistent_read()
        head = meta(self._server, 0)
        ops, errors = self._prepared(ops, call.authorizer)
        errors += [TxnError(at, _WRITES) for at, op in enumerate(ops) if writes(op)]
        if errors:
            return TxnReadResponse(errors=errors, **head)
        results, errors = self._server.store.read_transaction(ops)
        if errors:
            return TxnReadResponse(errors=errors, **head)
        return TxnReadResponse(results=_allowed(results, call.authorizer), **head)


def _bounded(ops: list[TxnOp] | None) -> list[TxnOp]:
    if ops is not None and len(ops) > TXN_OPS_MAX:
        raise RequestError(f"Transaction contains too many operations ({len(ops)} > {TXN_OPS_MAX})")
    return ops or []


def _require(allowed: bool) -> None:
    if not allowed:
        raise PermissionDeniedError


def _check_kv(op: TxnKVOp, may: Authorizer) -> None:
    verb, key = op.verb, op.dir_ent.key
    if not is_byte_field(op.dir_ent.raw_value):
        raise RequestError(kv.VALUE_NO_BYTES)
    if not key and verb != kv.KV_DELETE_TREE:
        raise RequestError("Must provide key")
    if verb in _FILTERED:
        return
    if verb == kv.KV_DELETE_TREE:
        _require(may.key_write_prefix(key))
    else:
        _require(may.key_read(key) if verb in _CHECKS else may.key_write(key))


def _allowed(results: list[TxnResult] | None, may: Authorizer) -> list[TxnResult] | None:
    if results is None:
        return None
    return [one for one in results if _shown(one, may)]


def _shown(one: TxnResult, may: Authorizer) -> bool:
    if one.kv is not None:
        return may.key_read(one.kv.key)
    if one.node is not None:
        return may.node_read(one.node.node)
    if one.service is not None:
        return may.service_read(one.service.service)
    if one.check is None:
        return True
    if one.check.service_name:
        return may.service_read(one.check.service_name)
    return may.node_read(one.check.node)


def endpoints(server: EndpointServer) -> list[Endpoint]:
    """All of `Txn`."""
    it = Txn(server)
    return [
        Endpoint(METHODS["Txn.Apply"], Requires.KEY_WRITE, it.apply),
        Endpoint(METHODS["Txn.Read"], Requires.KEY_READ, it.read),
    ]
