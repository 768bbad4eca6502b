"""Prepared queries."""

from __future__ import annotations

from proconsul.domain import prepared_query as q
from proconsul.domain.options import DCSpecificRequest
from proconsul.rpc.table import Method, Route

_LEADER = Route.LEADER

SIGNATURES = (
    Method("PreparedQuery.Apply", q.PreparedQueryRequest, str, _LEADER, is_read=False),
    Method("PreparedQuery.Get", q.PreparedQuerySpecificRequest, q.IndexedPreparedQueries, _LEADER),
    Method("PreparedQuery.List", DCSpecificRequest, q.IndexedPreparedQueries, _LEADER),
    Method(
        "PreparedQuery.Explain",
        q.PreparedQueryExecuteRequest,
        q.PreparedQueryExplainResponse,
        _LEADER,
    ),
    Method(
        "PreparedQuery.Execute",
        q.PreparedQueryExecuteRequest,
        q.PreparedQueryExecuteResponse,
        _LEADER,
    ),
    Method(
        "PreparedQuery.ExecuteRemote",
        q.PreparedQueryExecuteRemoteRequest,
        q.PreparedQueryExecuteResponse,
        _LEADER,
    ),
)
