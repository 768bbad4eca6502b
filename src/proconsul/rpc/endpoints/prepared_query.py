"""`PreparedQuery.*` (agent/consul/prepared_query_endpoint.go)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from msgspec.structs import replace

from proconsul.domain import prepared_query as q
from proconsul.domain.acl import Authorizer
from proconsul.domain.errors import QUERY_NOT_FOUND, DomainError, PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.domain.options import DCSpecificRequest, QueryOptions, QuerySource
from proconsul.domain.query_template import CompiledTemplate
from proconsul.domain.validate import check_node_meta
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, meta, read
from proconsul.rpc.endpoints.near import nearest_first
from proconsul.rpc.endpoints.query_execution import execute, node_first
from proconsul.rpc.endpoints.vetting import allowed_instances
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.state.prepared_queries import QueryError
from proconsul.state.watch import Answer
from proconsul.util.errors import ProconsulError
from proconsul.util.goduration import parse_duration_ns

log = logging.getLogger("proconsul.prepared_query")

REDACTED = "<hidden>"
"""Shown in place of a query's token to those who may not manage tokens."""
AGENT, ADDRESS = "_agent", "_ip"
"""Names that stand for the agent that asks, and for the node at the asker's address."""


class QueryNotFoundError(DomainError):
    def __init__(self) -> None:
        super().__init__(QUERY_NOT_FOUND)


class QueryServer(EndpointServer, Protocol):
    """What executing needs beside reading and writing."""

    resolve_token: Callable[[str], Authorizer | None]

    async def resolve_token_later(self, token: str) -> Authorizer:
        """What `resolve_token` could not say at once. Raises `DomainError`."""
        ...

    def datacenters(self) -> list[str]:
        """Known datacenters, nearest first."""
        ...

    async def call_datacenter(self, method: str, datacenter: str, request: Any) -> Any:
        """Ask another datacenter's servers. Raises `ProconsulError`, `TimeoutError`."""
        ...


class PreparedQueries:
    """Stored queries and their execution. `new_id` gives a random UUID."""

    def __init__(self, server: QueryServer, new_id: Callable[[], str]) -> None:
        self._server, self._new_id = server, new_id

    # -- writing

    async def apply(self, request: q.PreparedQueryRequest, call: Call) -> str:
        query = request.query or q.PreparedQuery()
        if request.op == q.CREATE:
            if query.id:
                raise RequestError("ID must be empty when creating a new prepared query")
            query = replace(query, id=self._unused_id())
        _require_write(call.authorizer, query)
        if request.op != q.CREATE:
            existing = self._existing(query.id)
            if existing is None:
                raise RequestError(f"Cannot modify non-existent prepared query: '{query.id}'")
            _require_write(call.authorizer, existing)
        if request.op in {q.CREATE, q.UPDATE}:
            if problem := _problem(query):
                raise RequestError(f"Invalid prepared query: {problem}")
            if query.is_template:
                _check_template(query)
        elif request.op != q.DELETE:
            raise RequestError(f"Unknown prepared query operation: {request.op}")
        await self._server.apply(MessageType.PREPARED_QUERY, replace(request, query=query))
        return query.id

    def _existing(self, query_id: str) -> q.PreparedQuery | None:
        try:
            return self._server.store.queries.get(query_id).value
        except QueryError as error:
            raise RequestError(f"Prepared Query lookup failed: {error}") from error

    def _unused_id(self) -> str:
        while self._server.store.queries.get(found := self._new_id()).value is not None:
            pass
        return found

    # -- reading

    async def get(
        self, request: q.PreparedQuerySpecificRequest, call: Call
    ) -> q.IndexedPreparedQueries:
        may = call.authorizer

        def query() -> Answer[q.PreparedQuery]:
            index, found, watch = self._server.store.queries.get(request.query_id)
            if found is None:
                raise QueryNotFoundError
            return Answer(index, found, watch)

        def build(found: q.PreparedQuery) -> dict[str, Any]:
            if found.acl_prefix is None:  # whoever knows the id may see it
                return {"queries": [_redacted(may, found)]}
            return {"queries": [_shown(may, found)]}

        return await read(self._server, request, query, build, q.IndexedPreparedQueries)

    async def every(self, request: DCSpecificRequest, call: Call) -> q.IndexedPreparedQueries:
        return await read(
            self._server,
            request,
            self._server.store.queries.all,
            lambda found: {"queries": _allowed(call.authorizer, found) or None},
            q.IndexedPreparedQueries,
        )

    async def explain(
        self, request: q.PreparedQueryExecuteRequest, call: Call
    ) -> q.PreparedQueryExplainResponse:
        query = await self._resolved(request)
        shown = _shown(call.authorizer, query)
        return q.PreparedQueryExplainResponse(query=shown, **meta(self._server, 0))

    async def _resolved(self, request: q.PreparedQueryExecuteRequest) -> q.PreparedQuery:
        await self._consistent(request)
        found = self._server.store.queries.resolve(request.query_id_or_name, request.agent.segment)
        if found is None:
            raise QueryNotFoundError
        return found

    async def _consistent(self, request: QueryOptions) -> None:
        if request.require_consistent:
            await self._server.consistent_read()

    # -- executing

    async def execute(
        self, request: q.PreparedQueryExecuteRequest, _call: Call
    ) -> q.PreparedQueryExecuteResponse:
        query = await self._resolved(request)
        answer = await self._executed(query, request.connect, request.token)
        rows = self._sorted(request, query, answer.nodes or [])
        if request.limit > 0:
            rows = rows[: request.limit]
        answer = replace(answer, nodes=rows)
        return answer if rows else await self._failed_over(request, query, answer)

    async def execute_remote(
        self, request: q.PreparedQueryExecuteRemoteRequest, _call: Call
    ) -> q.PreparedQueryExecuteResponse:
        await self._consistent(request)
        answer = await self._executed(request.query, request.connect, request.token)
        if request.limit > 0:
            answer = replace(answer, nodes=(answer.nodes or [])[: request.limit])
        return answer

    async def _executed(
        self, query: q.PreparedQuery, connect: bool, token: str
    ) -> q.PreparedQueryExecuteResponse:
        """What this datacenter has, shuffled, by the rights of the query's own token if any.

        Then nobody looks at the caller's `token`, not even whether there is such a one.
        """
        server, token = self._server, query.token or token
        may = server.resolve_token(token)
        if may is None:
            await _in_a_task()
            may = await server.resolve_token_later(token)
        answer = execute(server.store, server.datacenter, query, connect=connect)
        rows = q.InAnyOrder(allowed_instances(answer.nodes or (), may))
        server.rng.shuffle(rows)
        return replace(answer, nodes=rows, **meta(server, 0))

    def _sorted(
        self, request: q.PreparedQueryExecuteRequest, query: q.PreparedQuery, rows: list[Any]
    ) -> list[Any]:
        source = request.source
        datacenter = source.datacenter or request.agent.datacenter
        node = self._near(source.node or query.service.near, source, request.agent)
        if not node:
            return rows
        own = self._server.datacenter
        if datacenter == own:
            rows = node_first(
                node, nearest_first(self._server.store, node, rows, lambda row: row.node.node)
            )
        return rows

    def _near(self, node: str, source: QuerySource, agent: QuerySource) -> str:
        if node == AGENT:
            return agent.node
        if node != ADDRESS:
            return node
        if not source.ip:
            log.warning(
                "Prepared Query using near=_ip requires the source IP to be set but none was"
                " provided. No distance sorting will be done."
            )
            return ""
        nodes = self._server.store.catalog.nodes().value
        return next((one.node for one in nodes if one.address == source.ip), "")

    async def _failed_over(
        self,
        request: q.PreparedQueryExecuteRequest,
        query: q.PreparedQuery,
        answer: q.PreparedQueryExecuteResponse,
    ) -> q.PreparedQueryExecuteResponse:
        """The first other datacenter that has any, of those that the query allows."""
        failovers = 0
        others = self._others(query.service.failover)
        if others:
            await _in_a_task()
        for datacenter in others:
            failovers += 1
            remote = q.PreparedQueryExecuteRemoteRequest(
                datacenter=datacenter,
                query=query,
                limit=request.limit,
                connect=request.connect,
                **_options(request),
            )
            try:
                answer = await self._server.call_datacenter(
                    "PreparedQuery.ExecuteRemote", datacenter, remote
                )
            except (ProconsulError, TimeoutError) as error:
                log.warning(
                    "Failed querying for service in datacenter: service=%s datacenter=%s error=%s",
                    query.service.service,
                    datacenter,
                    error,
                )
                continue
            if answer.nodes:
                break
        return replace(answer, failovers=failovers)

    def _others(self, failover: q.QueryDatacenterOptions) -> Sequence[str]:
        nearest = [dc for dc in self._server.datacenters() if dc != self._server.datacenter]
        chosen = nearest[: max(failover.nearest_n, 0)]
        named = [dc for dc in failover.datacenters or () if dc in nearest and dc not in chosen]
        return [*chosen, *named]


async def _in_a_task() -> None:
    """Before what takes time: `Forwarder.try_call` gives up here, and the call begins anew."""
    await asyncio.sleep(0)


def _options(request: QueryOptions) -> dict[str, Any]:
    return {name: getattr(request, name) for name in QueryOptions.__struct_fields__}


def _require_write(may: Authorizer, query: q.PreparedQuery) -> None:
    prefix = query.acl_prefix
    if prefix is not None and not may.prepared_query_write(prefix):
        log.warning("Operation on prepared query denied due to ACLs: query=%s", query.id)
        raise PermissionDeniedError


def _redacted(may: Authorizer, query: q.PreparedQuery) -> q.PreparedQuery:
    if not query.token or may.acl_write():
        return query
    return replace(query, token=REDACTED)


def _allowed(may: Authorizer, queries: Iterable[q.PreparedQuery]) -> list[q.PreparedQuery]:
    """Those that the caller may read; managers of tokens see all as they are."""
    if may.acl_write():
        return list(queries)
    return [
        _redacted(may, query)
        for query in queries
        if query.acl_prefix is not None and may.prepared_query_read(query.acl_prefix)
    ]


def _shown(may: Authorizer, query: q.PreparedQuery) -> q.PreparedQuery:
    allowed = _allowed(may, [query])
    if not allowed:
        log.warning("Request to get prepared query denied due to ACLs: query=%s", query.id)
        raise PermissionDeniedError
    return allowed[0]


def _problem(query: q.PreparedQuery) -> str | None:
    """What is wrong with a query to be stored, as Consul says it (`parseQuery`)."""
    service = query.service
    if not query.name and not query.template.type and not query.session:
        return "Must be bound to a session"
    if query.token == REDACTED:
        return (
            f"Bad Token '{query.token}', it looks like a query definition with a redacted token"
            " was submitted"
        )
    if not service.service:
        return "Must provide a Service name to query"
    if service.failover.nearest_n < 0:
        return f"Bad NearestN '{service.failover.nearest_n}', must be >= 0"
    if problem := check_node_meta(service.node_meta, allow_reserved=True):
        return problem
    return _ttl_problem(query.dns.ttl)


def _ttl_problem(ttl: str) -> str | None:
    if not ttl:
        return None
    try:
        ttl_ns = parse_duration_ns(ttl)
    except ValueError as error:
        return f"Bad DNS TTL '{ttl}': {error}"
    return f"DNS TTL '{ttl_ns}', must be >=0" if ttl_ns < 0 else None


def _check_template(query: q.PreparedQuery) -> None:
    """Refuses before the log what no server takes, and what this one could not execute."""
    try:
        CompiledTemplate(query).render(query.name)
    except DomainError as error:
        raise RequestError(f"failed compiling template: {error}") from error


def _by_itself(_request: object) -> bool:
    """Which token counts is known only once the query is."""
    return False


def endpoints(server: QueryServer, new_id: Callable[[], str]) -> list[Endpoint]:
    """All of `PreparedQuery`."""
    it = PreparedQueries(server, new_id)
    read_, service = Requires.QUERY_READ, Requires.SERVICE_READ
    return [
        Endpoint(METHODS["PreparedQuery.Apply"], Requires.QUERY_WRITE, it.apply),
        Endpoint(METHODS["PreparedQuery.Get"], read_, it.get, token_last=True),
        Endpoint(METHODS["PreparedQuery.List"], read_, it.every),
        Endpoint(METHODS["PreparedQuery.Explain"], read_, it.explain, token_last=True),
        Endpoint(METHODS["PreparedQuery.Execute"], service, it.execute, resolves=_by_itself),
        Endpoint(
            METHODS["PreparedQuery.ExecuteRemote"],
            service,
            it.execute_remote,
            resolves=_by_itself,
        ),
    ]
