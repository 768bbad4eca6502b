"""The calls behind answers: at once where the agent can, never staler than allowed."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from proconsul.domain import catalog as c
from proconsul.domain import options as o
from proconsul.domain.errors import QUERY_NOT_FOUND, is_no_path_to_datacenter
from proconsul.domain.prepared_query import (
    PreparedQueryExecuteRequest,
    PreparedQueryExecuteResponse,
)
from proconsul.interfaces.dns.asked import NodeLookup, QueryLookup, ServiceLookup
from proconsul.interfaces.dns.settings import DnsAgent, DnsSettings
from proconsul.services.agent.cache_types import (
    HEALTH_SERVICES,
    NODE_SERVICES,
    PREPARED_QUERY,
    CacheType,
)
from proconsul.wire import dns

STALE_NS = 5_000_000_000
"""Older answers are counted."""


class MustWait(Exception):
    """The answer cannot be had at once: ask again, in a task."""


class Lookups:
    """Calls for one question. With `now` nothing waits: `MustWait` is raised instead."""

    __slots__ = ("_agent", "_settings", "_token", "now")

    def __init__(self, agent: DnsAgent, settings: DnsSettings, token: str, *, now: bool) -> None:
        self._agent, self._settings, self._token = agent, settings, token
        self.now = now

    async def service(self, lookup: ServiceLookup) -> c.IndexedCheckServiceNodes:
        """The instances, healthy or not. Raises `ProconsulError`, `TimeoutError`."""
        settings = self._settings
        out: c.IndexedCheckServiceNodes = await self._fresh(
            HEALTH_SERVICES,
            o.ServiceSpecificRequest(
                connect=lookup.connect,
                ingress=lookup.ingress,
                datacenter=lookup.datacenter,
                service_name=lookup.service,
                service_tags=[lookup.tag],
                tag_filter=bool(lookup.tag),
                token=self._token,
                allow_stale=settings.allow_stale,
                max_age_ns=settings.cache_max_age_ns,
            ),
        )
        return out

    async def node(self, lookup: NodeLookup) -> c.Node | None:
        """A node by name. Raises `ProconsulError`, `TimeoutError`."""
        request = o.NodeSpecificRequest(
            datacenter=lookup.datacenter,
            node=lookup.node,
            token=self._token,
            allow_stale=self._settings.allow_stale,
        )
        out: c.IndexedNodeServices = await self._fresh(NODE_SERVICES, request)
        return out.node_services.node if out.node_services is not None else None

    async def query(self, lookup: QueryLookup, source_ip: str) -> PreparedQueryExecuteResponse:
        """Execute a prepared query, near this agent or near `source_ip`, as it says. Raises as above."""
        settings = self._settings
        out: PreparedQueryExecuteResponse = await self._fresh(
            PREPARED_QUERY,
            PreparedQueryExecuteRequest(
                datacenter=lookup.datacenter,
                query_id_or_name=lookup.query,
                token=self._token,
                allow_stale=settings.allow_stale,
                max_age_ns=settings.cache_max_age_ns,
                source=o.QuerySource(ip=source_ip),
                agent=o.QuerySource(datacenter=settings.datacenter, node=settings.node_name),
            ),
        )
        return out

    async def nodes(self) -> c.IndexedNodes:
        """All nodes of this datacenter. Raises as above."""
        settings = self._settings
        request = o.DCSpecificRequest(
            datacenter=settings.datacenter, token=self._token, allow_stale=settings.allow_stale
        )
        out: c.IndexedNodes = await self._call("Catalog.ListNodes", request)
        return out

    async def service_at(self, address: str) -> list[c.ServiceNode]:
        """The instances with this address of their own. Raises as above."""
        settings = self._settings
        request = o.ServiceSpecificRequest(
            datacenter=settings.datacenter,
            service_address=address,
            token=self._token,
            allow_stale=settings.allow_stale,
        )
        out: c.IndexedServiceNodes = await self._call("Catalog.ServiceNodes", request)
        return [row for row in out.service_nodes or () if row.service_address == address]

    async def _fresh(self, kind: CacheType, request: Any) -> Any:
        if self._settings.use_cache:
            if self.now:
                raise MustWait
            out, _ = await self._agent.cache.get(kind, request)
        else:
            out = await self._call(kind.method, request)
        if request.allow_stale:
            if out.last_contact_ns > self._settings.max_stale_ns:
                out = await self._call(kind.method, replace(request, allow_stale=False))
            elif out.last_contact_ns > STALE_NS:
                self._agent.metrics.incr("consul.dns.stale_queries")
        return out

    async def _call(self, method: str, request: Any) -> Any:
        out = self._agent.try_rpc(method, request)
        if out is not None:
            return out
        if self.now:
            raise MustWait
        return await self._agent.rpc(method, request)


def rcode_of(error: Exception) -> int:
    """What a failed call means to who asked (`computeRCode`)."""
    if is_no_path_to_datacenter(error) or QUERY_NOT_FOUND in str(error):
        return dns.NXDOMAIN
    return dns.SERVFAIL
