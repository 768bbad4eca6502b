"""PUT /v1/txn: several operations, all or none (`agent/txn_endpoint.go`).

A transaction that only reads spares the log, and may be answered by any server.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from proconsul.domain.base import GoStruct, Uint64, raw_bytes
from proconsul.domain.catalog import HealthCheck, Node, NodeService, Weights
from proconsul.domain.go_decode import GoDecodeError, decode_struct, parse_json
from proconsul.domain.kv import DirEntry
from proconsul.domain.txn import (
    TXN_OPS_MAX,
    TxnCheckOp,
    TxnKVOp,
    TxnNodeOp,
    TxnOp,
    TxnReadRequest,
    TxnReadResponse,
    TxnRequest,
    TxnResponse,
    TxnResult,
    TxnServiceOp,
    writes,
)
from proconsul.drivers.http import Response
from proconsul.interfaces.http import views
from proconsul.interfaces.http.api import HttpApi
from proconsul.interfaces.http.errors import HttpError, bad_request
from proconsul.interfaces.http.kv import entries_view
from proconsul.interfaces.http.options import query_options
from proconsul.interfaces.http.query import Ask
from proconsul.util import gobase64
from proconsul.util.goquote import go_quote

_LIMIT_HELP = "See https://www.consul.io/docs/agent/options.html#txn_max_req_len."


class KVTxnOp(GoStruct, frozen=True, gc=False):
    """As clients send it; `value` is base64."""

    verb: str = ""
    key: str = ""
    value: str | None = None
    flags: Uint64 = 0
    index: Uint64 = 0
    session: str = ""
    namespace: str = ""


class NodeTxnOp(GoStruct, frozen=True, gc=False):
    verb: str = ""
    node: Node = Node()


class ServiceTxnOp(GoStruct, frozen=True, gc=False):
    verb: str = ""
    node: str = ""
    service: NodeService = NodeService()


class CheckTxnOp(GoStruct, frozen=True, gc=False):
    verb: str = ""
    check: HealthCheck = HealthCheck()


class ApiTxnOp(GoStruct, frozen=True, gc=False):
    """Only the first member that is set counts."""

    kv: KVTxnOp | None = None
    node: NodeTxnOp | None = None
    service: ServiceTxnOp | None = None
    check: CheckTxnOp | None = None


async def txn(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/txn"""
    ops, writing = _operations(api, ask)
    if writing:
        request = TxnRequest(
            datacenter=ask.first("dc") or api.config.datacenter, ops=ops, token=api.token(ask)
        )
        out: TxnResponse = await api.agent.rpc("Txn.Apply", request)
        return api.json(ask, _view(out), status=409 if out.errors else 200)
    read = TxnReadRequest(ops=ops, **query_options(ask, api.config))
    found: TxnReadResponse = await api.agent.rpc("Txn.Read", read)
    view = _view(found) | {
        "Index": found.index,
        "LastContact": found.last_contact_ns,
        "KnownLeader": found.known_leader,
        "ConsistencyLevel": found.consistency_level,
    }
    known, contact_ms = found.known_leader, max(found.last_contact_ns, 0) // 1_000_000
    head = f"X-Consul-Knownleader: {str(known).lower()}\r\nX-Consul-Lastcontact: {contact_ms}\r\n"
    return api.json(ask, view, head.encode(), status=409 if found.errors else 200)


def _operations(api: HttpApi, ask: Ask) -> tuple[list[TxnOp] | None, int]:
    """The operations as servers take them, and how many of them write. Raises `HttpError`."""
    limit = max(api.config.txn_bytes_max, api.config.kv_value_bytes_max)
    body = ask.request.body
    if len(body) > limit:
        raise HttpError(
            413,
            f"Request body({len(body)} bytes) too large, max size: {limit} bytes. {_LIMIT_HELP}",
            b"Connection: close\r\n",
        )
    try:
        given = parse_json(body)
        if given is not None and not isinstance(given, list):
            raise GoDecodeError(
                f"json: cannot unmarshal {_kind(given)} into Go value of type api.TxnOps"
            )
        decoded = [decode_struct(one, ApiTxnOp) for one in given or ()]
        if len(decoded) > TXN_OPS_MAX:
            raise HttpError(
                413,
                f"Transaction contains too many operations ({len(decoded)} > {TXN_OPS_MAX})",
            )
        ops = [op for one in decoded if (op := _operation(api, one)) is not None]
    except GoDecodeError as error:
        raise bad_request(f"Failed to parse body: {error}") from None
    return ops or None, sum(map(writes, ops))


def _kind(value: object) -> str:
    kinds = {dict: "object", str: "string", bool: "bool", int: "number", float: "number"}
    return kinds.get(type(value), "value")


def _operation(api: HttpApi, given: ApiTxnOp) -> TxnOp | None:
    if given.kv is not None:
        return TxnOp(kv=_kv(api, given.kv))
    if given.node is not None:
        node = given.node.node
        datacenter = node.datacenter or api.config.datacenter
        node = replace(node, datacenter=datacenter, create_index=0)
        return TxnOp(node=TxnNodeOp(given.node.verb, node))
    if given.service is not None:
        one = given.service
        # A client's kind, proxy and connect are passed over here, as in Consul.
        service = NodeService(
            id=one.service.id,
            service=one.service.service,
            tags=one.service.tags,
            address=one.service.address,
            meta=one.service.meta,
            port=one.service.port,
            weights=one.service.weights or Weights(0, 0),
            enable_tag_override=one.service.enable_tag_override,
            modify_index=one.service.modify_index,
        )
        return TxnOp(service=TxnServiceOp(one.verb, one.node, service))
    if given.check is not None:
        check = replace(given.check.check, type="", create_index=0)
        return TxnOp(check=TxnCheckOp(given.check.verb, check))
    return None


def _kv(api: HttpApi, given: KVTxnOp) -> TxnKVOp:
    try:
        value = None if given.value is None else gobase64.decode(given.value)
    except ValueError as error:
        raise GoDecodeError(str(error)) from None
    limit = api.config.kv_value_bytes_max
    if value is not None and len(value) > limit:
        raise HttpError(
            413, f"Value for key {go_quote(given.key)} is too large ({len(value)} > {limit} bytes)"
        )
    entry = DirEntry(
        key=given.key,
        raw_value=raw_bytes(value),
        flags=given.flags,
        session=given.session,
        modify_index=given.index,
    )
    return TxnKVOp(given.verb, entry)


def _view(out: TxnResponse | TxnReadResponse) -> dict[str, Any]:
    results, errors = out.results, out.errors
    return {
        "Results": None if results is None else [_result(one) for one in results],
        "Errors": None
        if not errors
        else [{"OpIndex": one.op_index, "What": one.what} for one in errors],
    }


def _result(one: TxnResult) -> dict[str, Any]:
    if one.kv is not None:
        return {"KV": entries_view([one.kv])[0]}
    if one.node is not None:
        return {"Node": views.node(one.node)}
    if one.service is not None:
        return {"Service": views.service(one.service, nulls=True)}
    return {"Check": views.check(one.check, nulls=True)} if one.check is not None else {}
