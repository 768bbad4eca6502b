"""Requests about config entries and intentions (`agent/structs/config_entry.go`, `intention.go`)."""

from __future__ import annotations

from msgspec import field

from proconsul.domain.base import GoStruct
from proconsul.domain.options import QueryOptions


class ConfigEntryQuery(QueryOptions, frozen=True, gc=False):
    """One entry by kind and name, or all of a kind."""

    kind: str = ""
    name: str = ""
    datacenter: str = ""


class ServiceId(GoStruct, frozen=True, gc=False):
    """Go's `structs.ServiceID`."""

    id: str = ""


class ServiceConfigRequest(QueryOptions, frozen=True, gc=False):
    """What config entries make of a service and its upstreams; `upstreams` is the old form."""

    name: str = ""
    datacenter: str = ""
    upstreams: list[str] | None = None
    upstream_ids: list[ServiceId] | None = field(default=None, name="UpstreamIDs")


class IntentionMatchEntry(GoStruct, frozen=True, gc=False):
    namespace: str = ""
    name: str = ""


class IntentionQueryMatch(GoStruct, frozen=True, gc=False):
    """`type` is `source` or `destination`."""

    type: str = ""
    entries: list[IntentionMatchEntry] | None = None


class IntentionQueryRequest(QueryOptions, frozen=True, gc=False):
    datacenter: str = ""
    intention_id: str = ""
    match: IntentionQueryMatch | None = None
