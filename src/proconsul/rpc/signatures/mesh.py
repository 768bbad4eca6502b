"""Config entries, intentions, discovery chains."""

from __future__ import annotations

from proconsul.domain import config_entry_messages as ce
from proconsul.domain import gateways as gw
from proconsul.domain import intention as ixn
from proconsul.domain import mesh_requests as mr
from proconsul.domain import options as o
from proconsul.domain.discovery_chain import types as dc
from proconsul.rpc.signatures.base import Empty
from proconsul.rpc.table import Method, Route

_LEADER, _PRIMARY = Route.LEADER, Route.PRIMARY

SIGNATURES = (
    Method("Catalog.GatewayServices", o.ServiceSpecificRequest, gw.IndexedGatewayServices, _LEADER),
    Method("Internal.GatewayServiceDump", o.ServiceSpecificRequest, gw.IndexedServiceDump, _LEADER),
    Method("DiscoveryChain.Get", mr.DiscoveryChainRequest, dc.DiscoveryChainResponse, _LEADER),
    Method("ConfigEntry.Apply", ce.ConfigEntryRequest, bool, _PRIMARY, is_read=False),
    Method("ConfigEntry.Delete", ce.ConfigEntryRequest, Empty, _PRIMARY, is_read=False),
    Method("ConfigEntry.Get", mr.ConfigEntryQuery, ce.ConfigEntryResponse, _LEADER),
    Method("ConfigEntry.List", mr.ConfigEntryQuery, ce.IndexedConfigEntries, _LEADER),
    Method("ConfigEntry.ListAll", o.DCSpecificRequest, ce.IndexedGenericConfigEntries, _LEADER),
    Method(
        "ConfigEntry.ResolveServiceConfig",
        mr.ServiceConfigRequest,
        ce.ServiceConfigResponse,
        _LEADER,
    ),
    Method("Intention.Apply", ixn.IntentionRequest, str, _LEADER, is_read=False),
    Method("Intention.Get", mr.IntentionQueryRequest, ixn.IndexedIntentions, _LEADER),
    Method("Intention.List", o.DCSpecificRequest, ixn.IndexedIntentions, _LEADER),
    Method("Intention.Match", mr.IntentionQueryRequest, ixn.IndexedIntentionMatches, _LEADER),
    Method("Intention.Check", mr.IntentionQueryRequest, ixn.IntentionQueryCheckResponse, _LEADER),
)
