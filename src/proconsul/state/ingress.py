"""Reads of the table of services behind gateways (`gateway-services` in agent/consul/state/catalog.go)."""

from __future__ import annotations

from collections.abc import Callable

from proconsul.domain.catalog import CheckServiceNode
from proconsul.domain.config_entries import (
    INGRESS_GATEWAY,
    PROXY_CONFIG_GLOBAL,
    PROXY_DEFAULTS,
    SERVICE_DEFAULTS,
    WILDCARD,
    ProxyConfigEntry,
    ServiceConfigEntry,
)
from proconsul.domain.gateways import GatewayService
from proconsul.state.catalog_queries import CatalogQueries
from proconsul.state.opaque_queries import MeshQueries
from proconsul.state.tables import GATEWAY_SERVICES, Tables
from proconsul.state.watch import Answer, Watch, WatchRegistry


class IngressQueries:
    """Reads across gateways, config entries and the catalog."""

    __slots__ = ("_catalog", "_mesh", "_tables", "_watches")

    def __init__(
        self,
        tables: Callable[[], Tables],
        watches: WatchRegistry,
        catalog: CatalogQueries,
        mesh: MeshQueries,
    ) -> None:
        self._tables, self._watches = tables, watches
        self._catalog, self._mesh = catalog, mesh

    def gateways_of(self, service: str) -> Answer[list[CheckServiceNode]]:
        """The instances of ingress gateways that listen for `service`."""
        t = self._tables()
        index, watch = 1, Watch(self._watches, (GATEWAY_SERVICES,))
        names: dict[str, None] = {}
        for key in sorted(t.gateway_names.get(service.lower(), ())):
            one = t.gateway_services[key]
            if one.gateway_kind == INGRESS_GATEWAY:
                index = max(index, one.modify_index)
                names[one.gateway.name] = None
        rows: list[CheckServiceNode] = []
        for name in names:
            found = self._catalog.check_service_nodes(name)
            index, watch = max(index, found.index), watch.merged(found.watch)
            rows += found.value
        return Answer(index, rows, watch)

    def services_of(self, gateway: str) -> Answer[list[GatewayService]]:
        """The services behind a gateway; of a wildcard's those that speak its protocol."""
        t = self._tables()
        index, watch = (
            max(t.max_index(GATEWAY_SERVICES), 1),
            Watch(self._watches, (GATEWAY_SERVICES,)),
        )
        rows = []
        for key in sorted(key for key in t.gateway_services if key[0] == gateway.lower()):
            one = t.gateway_services[key]
            if one.service.name == WILDCARD:
                continue
            if one.gateway_kind == INGRESS_GATEWAY and one.from_wildcard:
                protocol = self._protocol(one.service.name)
                index, watch = max(index, protocol.index), watch.merged(protocol.watch)
                if protocol.value != one.protocol:
                    continue
            rows.append(one)
        return Answer(index, rows, watch)

    def _protocol(self, service: str) -> Answer[str]:
        """What a service speaks by its own and the global defaults."""
        found = self._mesh.config_entry(SERVICE_DEFAULTS, service)
        if isinstance(found.value, ServiceConfigEntry):
            protocol = found.value.protocol
        else:
            proxy = self._mesh.config_entry(PROXY_DEFAULTS, PROXY_CONFIG_GLOBAL).value
            config = proxy.config if isinstance(proxy, ProxyConfigEntry) else None
            from proconsul.domain.discovery_chain.compile import weak_text

            protocol = weak_text((config or {}).get("protocol"))
        return Answer(found.index, protocol.lower() or "tcp", found.watch)
