"""Prepared queries (`agent/structs/prepared_query.go`)."""

from __future__ import annotations

from msgspec import field

from proconsul.domain.base import GoStruct, Int64, Uint64
from proconsul.domain.catalog import CheckServiceNode
from proconsul.domain.options import QueryMeta, QueryOptions, QuerySource, WriteRequest

NAME_PREFIX_MATCH = "name_prefix_match"
"""The only type of templates: the query's name is a prefix of the names it answers."""

CREATE, UPDATE, DELETE = "create", "update", "delete"


class QueryDatacenterOptions(GoStruct, frozen=True, gc=False):
    """Where else to look: the nearest so many datacenters, then those named."""

    nearest_n: Int64 = 0
    datacenters: list[str] | None = None


class QueryDNSOptions(GoStruct, frozen=True, gc=False):
    """The TTL of answers over DNS, as a Go duration."""

    ttl: str = ""


class ServiceQuery(GoStruct, frozen=True, gc=False):
    """Which instances. A tag that begins with `!` must be absent."""

    service: str = ""
    failover: QueryDatacenterOptions = QueryDatacenterOptions()
    only_passing: bool = False
    ignore_check_ids: list[str] | None = field(default=None, name="IgnoreCheckIDs")
    near: str = ""
    tags: list[str] | None = None
    node_meta: dict[str, str] | None = None
    service_meta: dict[str, str] | None = None
    connect: bool = False


class QueryTemplateOptions(GoStruct, frozen=True, gc=False):
    """With a type the query is a template: its texts are filled in from the name asked for."""

    type: str = ""
    regexp: str = ""
    remove_empty_tags: bool = False


class PreparedQuery(GoStruct, frozen=True, gc=False):
    """A stored query. `token` is used when it is executed, and shown to few."""

    id: str = ""
    name: str = ""
    session: str = ""
    token: str = ""
    template: QueryTemplateOptions = QueryTemplateOptions()
    service: ServiceQuery = ServiceQuery()
    dns: QueryDNSOptions = QueryDNSOptions()
    create_index: Uint64 = 0
    modify_index: Uint64 = 0

    @property
    def is_template(self) -> bool:
        return bool(self.template.type)

    @property
    def acl_prefix(self) -> str | None:
        """What rights to the query are about; None: whoever has its id may use it."""
        return self.name if self.name or self.is_template else None


class PreparedQueryRequest(WriteRequest, frozen=True, gc=False):
    """Create, update or delete."""

    datacenter: str = ""
    op: str = ""
    query: PreparedQuery | None = None


class PreparedQuerySpecificRequest(QueryOptions, frozen=True, gc=False):
    """One query by its id."""

    datacenter: str = ""
    query_id: str = ""


class IndexedPreparedQueries(QueryMeta, frozen=True, gc=False):
    queries: list[PreparedQuery] | None = None


class PreparedQueryExecuteRequest(QueryOptions, frozen=True, gc=False):
    """Execute or explain; `agent` is who asks, `source` whom results are to be near."""

    datacenter: str = ""
    query_id_or_name: str = field(default="", name="QueryIDOrName")
    limit: Int64 = 0
    connect: bool = False
    source: QuerySource = QuerySource()
    agent: QuerySource = QuerySource()


class PreparedQueryExecuteRemoteRequest(QueryOptions, frozen=True, gc=False):
    """Execute a query that the asked datacenter does not have, without failing over further."""

    datacenter: str = ""
    query: PreparedQuery = PreparedQuery()
    limit: Int64 = 0
    connect: bool = False


class InAnyOrder(list[CheckServiceNode]):
    """Instances whose order is chance: whom they are handed to in this process may draw another."""


class PreparedQueryExecuteResponse(QueryMeta, frozen=True, gc=False):
    """The instances, and where they were found after how many failovers."""

    service: str = ""
    nodes: list[CheckServiceNode] | None = None
    dns: QueryDNSOptions = QueryDNSOptions()
    datacenter: str = ""
    failovers: Int64 = 0


class PreparedQueryExplainResponse(QueryMeta, frozen=True, gc=False):
    """The query that a name leads to, filled in."""

    query: PreparedQuery = PreparedQuery()
