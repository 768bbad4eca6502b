"""An agent that answers DNS's calls from a list, and questions put to it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import dnslib
from msgspec.structs import replace

from proconsul.domain import catalog as c
from proconsul.domain.prepared_query import PreparedQueryExecuteResponse
from proconsul.interfaces.dns.server import DnsServer
from proconsul.interfaces.dns.settings import DnsSettings
from proconsul.services.agent.cache import CacheMeta
from proconsul.services.agent.cache_types import CacheType
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics


def instance(
    node: str,
    address: str,
    *,
    own: str = "",
    status: str = "passing",
    port: int = 80,
    meta: dict[str, str] | None = None,
    weights: c.Weights | None = None,
) -> c.CheckServiceNode:
    """One instance of the service web."""
    return c.CheckServiceNode(
        c.Node(node=node, address=address, datacenter="dc1", meta=meta),
        c.NodeService(id="web", service="web", address=own, port=port, weights=weights),
        [c.HealthCheck(node=node, check_id="c", status=status, service_name="web")],
    )


class FakeCache:
    """Asks its agent once for each question."""

    def __init__(self, agent: FakeAgent) -> None:
        self.agent = agent
        self.kept: dict[Any, Any] = {}

    async def get(self, kind: CacheType, request: Any) -> tuple[Any, CacheMeta]:
        key = kind.key(request)
        if key not in self.kept:
            self.kept[key] = await self.agent.rpc(kind.method, request)
        return self.kept[key], CacheMeta()


class FakeAgent:
    """Services by name. With `later` nothing can be had at once; with `error` nothing at all."""

    def __init__(self, **services: list[c.CheckServiceNode]) -> None:
        self.metrics = Metrics()
        self.cache: Any = FakeCache(self)
        self.services = services
        self.later = False
        self.error: Exception | None = None
        self.last_contact_ns = 0
        self.version: int | None = 1
        self.calls: list[tuple[str, Any]] = []

    def state_version(self) -> int | None:
        return self.version

    def try_rpc(self, method: str, request: Any) -> Any | None:
        return None if self.later else self._answer(method, request)

    async def rpc(self, method: str, request: Any) -> Any:
        return self._answer(method, request)

    def _answer(self, method: str, request: Any) -> Any:
        self.calls.append((method, request))
        if self.error is not None:
            raise self.error
        stale = {"last_contact_ns": self.last_contact_ns if request.allow_stale else 0}
        rows = [row for rows in self.services.values() for row in rows]
        match method:
            case "Health.ServiceNodes":
                found = self.services.get(request.service_name)
                return c.IndexedCheckServiceNodes(nodes=found, **stale)
            case "Catalog.NodeServices":
                nodes = [row.node for row in rows if row.node.node == request.node]
                found = c.NodeServices(nodes[0]) if nodes else None
                return c.IndexedNodeServices(node_services=found, **stale)
            case "Catalog.ListNodes":
                return c.IndexedNodes(nodes=[row.node for row in rows])
            case "Catalog.ServiceNodes":
                return c.IndexedServiceNodes(service_nodes=[])
            case "PreparedQuery.Execute":
                rows = self.services.get(request.query_id_or_name, [])
                return PreparedQueryExecuteResponse(service="web", nodes=rows, datacenter="dc1")
        raise ProconsulError(f"rpc: can't find method {method}")


SETTINGS = DnsSettings("dc1", "here", (b"consul",))


class Asked:
    """A DNS server before a fake agent. Keyword arguments are its settings."""

    def __init__(self, agent: FakeAgent, exchange: Any = None, **settings: Any) -> None:
        import dataclasses

        self.agent = agent
        self.now, self.token = 0.0, "token"
        self.settings = dataclasses.replace(SETTINGS, **settings)
        clock: Callable[[], float] = lambda: self.now  # noqa: E731
        self.server = DnsServer(
            agent, self.settings, exchange, lambda: self.token, random.Random(1), clock, lambda: 7.0
        )

    def raw(self, data: bytes, *, tcp: bool = False) -> Any:
        """What `handle` gives, run to its end."""
        outcome = self.server.handle(data, "192.0.2.99", tcp)
        if outcome is None or isinstance(outcome, bytes):
            return outcome
        import asyncio

        return asyncio.run(outcome)

    def __call__(
        self, name: str, kind: str = "A", *, tcp: bool = False, edns: int = 0
    ) -> dnslib.DNSRecord:
        """The answer to a question, parsed."""
        query = dnslib.DNSRecord.question(name, kind)
        if edns:
            query.add_ar(dnslib.EDNS0(udp_len=edns))
        return dnslib.DNSRecord.parse(self.raw(bytes(query.pack()), tcp=tcp))


def fleet(count: int) -> list[c.CheckServiceNode]:
    """So many passing instances, each on a node of its own."""
    one = instance("n", "10.0.0.0")
    return [
        replace(
            one,
            node=replace(one.node, node=f"n{n}", address=f"10.0.{n // 250}.{n % 250 + 1}"),
            service=replace(one.service, port=n),
        )
        for n in range(count)
    ]
