"""What the agent's cache keeps, and how (`agent/cache-types`, and `CacheInfo` of the requests)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import msgspec

_DAYS_S = 72 * 3600.0


@dataclass(frozen=True, slots=True)
class CacheType:
    """One kind of question. `fields` are the request's that make it another question."""

    name: str
    method: str
    fields: tuple[str, ...]
    refresh: bool = True
    blocking: bool = True
    allow_stale: bool = True
    whose: bool = True
    """Whether datacenter and token make it another question."""
    ttl_s: float = _DAYS_S
    """How long an entry lives that nobody asks for."""
    query_timeout_s: float = 600.0

    def key(self, request: Any) -> Hashable:
        """By what an entry is found."""
        asked = tuple(_hashable(getattr(request, name)) for name in self.fields)
        if not self.whose:
            return (self.name, *asked)
        return (self.name, request.datacenter, request.token, *asked)


def _hashable(value: Any) -> Hashable:
    if isinstance(value, dict):
        return tuple(sorted(value.items()))
    if isinstance(value, list):
        return tuple(sorted(value))
    if isinstance(value, msgspec.Struct):
        return msgspec.msgpack.encode(value)
    return value  # type: ignore[no-any-return]


_IN_DATACENTER = ("node_meta_filters", "filter")
_OF_SERVICE = (
    "node_meta_filters", "service_name", "service_tag", "service_tags", "service_address",
    "tag_filter", "connect", "filter", "ingress",
)  # fmt: skip

CA_ROOTS = CacheType("connect-ca-root", "ConnectCA.Roots", _IN_DATACENTER, allow_stale=False)
DATACENTERS = CacheType(
    "catalog-datacenters",
    "Catalog.ListDatacenters",
    (),
    refresh=False,
    blocking=False,
    whose=False,
)
LIST_SERVICES = CacheType("catalog-list-services", "Catalog.ListServices", _IN_DATACENTER)
CATALOG_SERVICES = CacheType("catalog-services", "Catalog.ServiceNodes", _OF_SERVICE)
HEALTH_SERVICES = CacheType("health-services", "Health.ServiceNodes", _OF_SERVICE)
NODE_SERVICES = CacheType("node-services", "Catalog.NodeServices", ("node", "filter"))
DISCOVERY_CHAIN = CacheType(
    "compiled-discovery-chain",
    "DiscoveryChain.Get",
    (
        "name", "evaluate_in_datacenter", "evaluate_in_namespace", "override_mesh_gateway",
        "override_protocol", "override_connect_timeout_ns",
    ),
)  # fmt: skip
PREPARED_QUERY = CacheType(
    "prepared-query",
    "PreparedQuery.Execute",
    ("query_id_or_name", "limit", "connect"),
    refresh=False,
    blocking=False,
)
INTENTION_MATCH = CacheType("intention-match", "Intention.Match", ("match",), allow_stale=False)
