"""`/v1/query` (`agent/prepared_query_endpoint.go`)."""

from __future__ import annotations

import re
from typing import Any

from msgspec.structs import replace

from proconsul.domain import prepared_query as q
from proconsul.domain.errors import QUERY_NOT_FOUND
from proconsul.domain.go_decode import GoDecodeError, decode_struct, parse_json
from proconsul.domain.options import DCSpecificRequest, QuerySource
from proconsul.drivers.http import Response
from proconsul.interfaces.http import views
from proconsul.interfaces.http.api import Answer, HttpApi
from proconsul.interfaces.http.errors import HttpError, bad_request
from proconsul.interfaces.http.options import consistency_of, query_options, query_source
from proconsul.interfaces.http.query import Ask, parse_bool
from proconsul.services.agent.cache_types import PREPARED_QUERY
from proconsul.util.errors import ProconsulError
from proconsul.util.goquote import go_quote

_INTEGER = re.compile(r"[+-]?\d{1,18}")
EXECUTE, EXPLAIN = "/execute", "/explain"


def general(api: HttpApi, ask: Ask) -> Answer:
    """POST and GET /v1/query: create one, list all."""
    if ask.request.method == "POST":
        return _create(api, ask)
    request = DCSpecificRequest(**query_options(ask, api.config))

    def render(out: q.IndexedPreparedQueries) -> Response:
        return api.json(ask, [view(one) for one in out.queries or ()], api.meta(out, request))

    return api.query("PreparedQuery.List", request, render)


async def specific(api: HttpApi, ask: Ask) -> Response:
    """Everything below /v1/query/, which has rules of its own for methods."""
    method = ask.request.method
    run = _execute if ask.path.endswith(EXECUTE) else None
    run = _explain if ask.path.endswith(EXPLAIN) else run
    allowed = b"GET" if run is not None else b"GET,PUT,DELETE"
    if method == "OPTIONS":
        return api.json(ask, {}, b"Allow: OPTIONS," + allowed + b"\r\n")
    if method not in allowed.decode().split(","):
        raise HttpError(405, f"method {method} not allowed", b"Allow: " + allowed + b"\r\n")
    if run is not None:
        return await run(api, ask, ask.rest.removesuffix(EXECUTE).removesuffix(EXPLAIN))
    if method == "GET":
        return await _get(api, ask)
    op = q.UPDATE if method == "PUT" else q.DELETE
    query = q.PreparedQuery()
    if op == q.UPDATE and ask.request.body:
        query = _decoded(ask.request.body)
    await _apply(api, ask, op, replace(query, id=ask.rest))
    return Response(200)


async def _create(api: HttpApi, ask: Ask) -> Response:
    return api.json(ask, {"ID": await _apply(api, ask, q.CREATE, _decoded(ask.request.body))})


async def _apply(api: HttpApi, ask: Ask, op: str, query: q.PreparedQuery) -> str:
    request = q.PreparedQueryRequest(
        datacenter=ask.first("dc") or api.config.datacenter,
        op=op,
        query=query,
        token=api.token(ask),
    )
    return str(await api.agent.rpc("PreparedQuery.Apply", request))


def _decoded(body: bytes) -> q.PreparedQuery:
    try:
        return decode_struct(parse_json(body), q.PreparedQuery)
    except GoDecodeError as error:
        raise bad_request(f"Request decode failed: {error}") from None


async def _get(api: HttpApi, ask: Ask) -> Response:
    options = query_options(ask, api.config)
    request = q.PreparedQuerySpecificRequest(query_id=ask.rest, **options)
    out = await _asked(api, "PreparedQuery.Get", request)
    return api.json(ask, [view(one) for one in out.queries or ()], api.meta(out, request))


async def _execute(api: HttpApi, ask: Ask, name: str) -> Response:
    request = _request(api, ask, name)
    if raw := ask.first("connect"):
        connect = parse_bool(raw)
        if connect is None:
            raise HttpError(
                500,
                f"Error parsing 'connect' value: strconv.ParseBool: parsing {go_quote(raw)}:"
                " invalid syntax",
            )
        request = replace(request, connect=connect)

    def render(out: q.PreparedQueryExecuteResponse) -> Response:
        body = {
            "Service": out.service,
            "Nodes": views.check_service_nodes(out.nodes or ()),
            "DNS": {"TTL": out.dns.ttl},
            "Datacenter": out.datacenter,
            "Failovers": out.failovers,
            **_meta_view(out, request),
        }
        return api.json(ask, body, api.meta(out, request))

    if api.may_use_cache(request):
        return await api.cached(PREPARED_QUERY, request, render)
    return render(await _asked(api, "PreparedQuery.Execute", request))


async def _explain(api: HttpApi, ask: Ask, name: str) -> Response:
    request = _request(api, ask, name)
    out: q.PreparedQueryExplainResponse = await _asked(api, "PreparedQuery.Explain", request)
    body = {"Query": view(out.query), **_meta_view(out, request)}
    return api.json(ask, body, api.meta(out, request))


async def _asked(api: HttpApi, method: str, request: Any) -> Any:
    try:
        out = await api.agent.rpc(method, request)
        if request.allow_stale and 0 < request.max_stale_duration_ns < out.last_contact_ns:
            fresh = replace(request, allow_stale=False, max_stale_duration_ns=0)
            out = await api.agent.rpc(method, fresh)
    except ProconsulError as error:
        if QUERY_NOT_FOUND in str(error):
            raise HttpError(404, str(error)) from None
        raise
    return out


def _request(api: HttpApi, ask: Ask, name: str) -> q.PreparedQueryExecuteRequest:
    config = api.config
    source = query_source(ask, config)
    options = query_options(ask, config)
    limit = 0
    if raw := ask.first("limit"):
        if _INTEGER.fullmatch(raw) is None:
            raise HttpError(
                500, f"Bad limit: strconv.Atoi: parsing {go_quote(raw)}: invalid syntax"
            )
        limit = int(raw)
    return q.PreparedQueryExecuteRequest(
        query_id_or_name=name,
        limit=limit,
        source=source,
        agent=QuerySource(datacenter=config.datacenter, node=config.node_name),
        **options,
    )


def _meta_view(out: Any, request: Any) -> dict[str, Any]:
    return {
        "Index": out.index,
        "LastContact": out.last_contact_ns,
        "KnownLeader": out.known_leader,
        "ConsistencyLevel": consistency_of(request),
    }


def view(one: q.PreparedQuery) -> dict[str, Any]:
    """A query as Consul shows it."""
    service, failover = one.service, one.service.failover
    return {
        "ID": one.id,
        "Name": one.name,
        "Session": one.session,
        "Token": one.token,
        "Template": {
            "Type": one.template.type,
            "Regexp": one.template.regexp,
            "RemoveEmptyTags": one.template.remove_empty_tags,
        },
        "Service": {
            "Service": service.service,
            "Failover": {"NearestN": failover.nearest_n, "Datacenters": failover.datacenters},
            "OnlyPassing": service.only_passing,
            "IgnoreCheckIDs": service.ignore_check_ids,
            "Near": service.near,
            "Tags": service.tags,
            "NodeMeta": _sorted(service.node_meta),
            "ServiceMeta": _sorted(service.service_meta),
            "Connect": service.connect,
        },
        "DNS": {"TTL": one.dns.ttl},
        "CreateIndex": one.create_index,
        "ModifyIndex": one.modify_index,
    }


def _sorted(pairs: dict[str, str] | None) -> dict[str, str] | None:
    return pairs if pairs is None else dict(sorted(pairs.items()))
