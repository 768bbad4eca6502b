"""The parts that Consul's requests and responses embed (`agent/structs/structs.go`).

Go embeds them and its codec flattens embedded structs, so here they are base classes.
"""

from __future__ import annotations

from msgspec import field

from proconsul.domain.base import GoStruct, Int64, Uint64


class QueryOptions(GoStruct, frozen=True, gc=False):
    """How a read is to be answered. Durations are nanoseconds."""

    token: str = ""
    min_query_index: Uint64 = 0
    max_query_time_ns: Int64 = 0
    allow_stale: bool = False
    require_consistent: bool = False
    use_cache: bool = False
    max_stale_duration_ns: Int64 = 0
    max_age_ns: Int64 = 0
    must_revalidate: bool = False
    stale_if_error_ns: Int64 = 0
    filter: str = ""


class WriteRequest(GoStruct, frozen=True, gc=False):
    """What every write carries."""

    token: str = ""


class QueryMeta(GoStruct, frozen=True, gc=False):
    """How a read was answered. `last_contact_ns` is the age of a follower's data."""

    index: Int64 = 0
    last_contact_ns: Int64 = 0
    known_leader: bool = False
    consistency_level: str = ""


class QuerySource(GoStruct, frozen=True, gc=False):
    """Who asks, for sorting by distance."""

    datacenter: str = ""
    segment: str = ""
    node: str = ""
    ip: str = field(default="", name="Ip")


class DatacentersRequest(QueryOptions, frozen=True, gc=False):
    """For `Catalog.ListDatacenters`."""


class DCSpecificRequest(QueryOptions, frozen=True, gc=False):
    """A query about one datacenter."""

    datacenter: str = ""
    node_meta_filters: dict[str, str] | None = None
    source: QuerySource = QuerySource()


class NodeSpecificRequest(QueryOptions, frozen=True, gc=False):
    """A query about one node."""

    datacenter: str = ""
    node: str = ""


class ServiceSpecificRequest(QueryOptions, frozen=True, gc=False):
    """A query about one service."""

    datacenter: str = ""
    node_meta_filters: dict[str, str] | None = None
    service_name: str = ""
    service_tag: str = ""
    service_tags: list[str] | None = None
    service_address: str = ""
    tag_filter: bool = False
    source: QuerySource = QuerySource()
    connect: bool = False
    ingress: bool = False


class ServiceDumpRequest(QueryOptions, frozen=True, gc=False):
    """All services with nodes and checks, or those of one kind."""

    datacenter: str = ""
    service_kind: str = ""
    use_service_kind: bool = False
    source: QuerySource = QuerySource()


class ChecksInStateRequest(QueryOptions, frozen=True, gc=False):
    """A query for the checks in one state (`any` is all)."""

    datacenter: str = ""
    node_meta_filters: dict[str, str] | None = None
    state: str = ""
    source: QuerySource = QuerySource()
