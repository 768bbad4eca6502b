"""Which ingress gateways lead to a service (`CheckIngressServiceNodes` in agent/consul/state/catalog.go).

Consul keeps a table of gateways and their services; here the answer is derived from the config
entries when it is asked for, which is seldom.
"""

from __future__ import annotations

from collections.abc import Callable

from proconsul.domain.catalog import CheckServiceNode
from proconsul.domain.config_entries import INGRESS_GATEWAY, IngressGatewayConfigEntry
from proconsul.state.catalog_queries import CatalogQueries
from proconsul.state.opaque_queries import MeshQueries
from proconsul.state.tables import CONFIG_ENTRIES, SERVICES, Tables
from proconsul.state.watch import Answer, Watch, WatchRegistry

WILDCARD = "*"
CONSUL_SERVICE = "consul"


class IngressQueries:
    """Reads across config entries and the catalog."""

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
        """The instances of gateways that listen for `service`, by name or by a wildcard."""
        t = self._tables()
        names = {service}
        if service != CONSUL_SERVICE and any(
            t.services[node][at].kind == "" for node, at in t.service_names.get(service.lower(), ())
        ):
            names.add(WILDCARD)
        index = t.max_index(CONFIG_ENTRIES)
        rows: list[CheckServiceNode] = []
        for entry in self._mesh.config_entries(INGRESS_GATEWAY).value:
            if isinstance(entry, IngressGatewayConfigEntry) and _leads_to(entry, names):
                found = self._catalog.check_service_nodes(entry.name)
                index = max(index, found.index)
                rows += [row for row in found.value if row.service.kind == INGRESS_GATEWAY]
        watch = Watch(self._watches, (CONFIG_ENTRIES, SERVICES))
        return Answer(max(index, 1), rows, watch)


def _leads_to(entry: IngressGatewayConfigEntry, names: set[str]) -> bool:
    return any(
        behind.name in names
        for listener in entry.listeners or ()
        for behind in listener.services or ()
    )
