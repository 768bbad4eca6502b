"""Requests about config entries and intentions (`agent/structs/config_entry.go`, `intention.go`)."""

from __future__ import annotations

from msgspec import field

from proconsul.domain.base import GoStruct, Int64
from proconsul.domain.catalog import MeshGatewayConfig
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


class IntentionQueryCheck(GoStruct, frozen=True, gc=False):
    """Whether one may connect to the other; exact names."""

    source_namespace: str = field(default="", name="SourceNS")
    source_name: str = ""
    destination_namespace: str = field(default="", name="DestinationNS")
    destination_name: str = ""
    source_type: str = ""


class IntentionQueryRequest(QueryOptions, frozen=True, gc=False):
    datacenter: str = ""
    intention_id: str = ""
    match: IntentionQueryMatch | None = None
    check: IntentionQueryCheck | None = None


class DiscoveryChainRequest(QueryOptions, frozen=True, gc=False):
    """The discovery chain of a service, as seen from a datacenter, with a proxy's own settings."""

    name: str = ""
    evaluate_in_datacenter: str = ""
    evaluate_in_namespace: str = ""
    override_mesh_gateway: MeshGatewayConfig = MeshGatewayConfig()
    override_protocol: str = ""
    override_connect_timeout_ns: Int64 = 0
    datacenter: str = ""
