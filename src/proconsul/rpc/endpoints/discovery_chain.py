"""`DiscoveryChain.Get` (agent/consul/discovery_chain_endpoint.go)."""

from __future__ import annotations

from typing import Any, TypeVar

from proconsul.domain import config_entries as c
from proconsul.domain.discovery_chain.types import (
    ChainEntries,
    CompileRequest,
    DiscoveryChainResponse,
)
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.mesh_requests import DiscoveryChainRequest
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, Sharing, read
from proconsul.rpc.methods import METHODS
from proconsul.rpc.shared_reads import SharedReads
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.state.opaque_queries import MeshQueries
from proconsul.state.watch import Answer

T = TypeVar("T")

CONNECT_NOT_ENABLED = "Connect must be enabled in order to use this endpoint"


class DiscoveryChain:
    """What config entries make of a service's name."""

    def __init__(self, server: EndpointServer, *, enabled: bool) -> None:
        self._server, self._enabled = server, enabled
        self._reads = SharedReads()

    async def get(self, request: DiscoveryChainRequest, call: Call) -> DiscoveryChainResponse:
        if not call.authorizer.service_read(request.name):
            raise PermissionDeniedError
        if not request.name:
            raise RequestError("Must provide service name")
        store = self._server.store

        def query() -> Answer[ChainEntries]:
            found = store.mesh.config_entry(c.PROXY_DEFAULTS, c.PROXY_CONFIG_GLOBAL)
            watch = found.watch.merged(store.connect.config().watch)
            return Answer(found.index, chain_entries(store.mesh), watch)

        return await read(
            self._server,
            request,
            query,
            lambda entries: self._compiled(request, entries),
            DiscoveryChainResponse,
            Sharing(self._reads, "Get", call.authorizer),
        )

    def _compiled(self, request: DiscoveryChainRequest, entries: ChainEntries) -> dict[str, Any]:
        config = self._server.store.connect.config().value
        if config is None:
            raise RequestError("no cluster ca config setup")
        if not config.cluster_id:
            raise RequestError("no cluster trust domain setup")
        from proconsul.domain.discovery_chain.compile import compile_chain

        here = self._server.datacenter
        compiled = compile_chain(
            CompileRequest(
                service=request.name,
                datacenter=request.evaluate_in_datacenter or here,
                trust_domain=f"{config.cluster_id}.consul",
                use_datacenter=here,
                override_mesh_gateway=request.override_mesh_gateway.mode,
                override_protocol=request.override_protocol,
                override_connect_timeout_ns=request.override_connect_timeout_ns,
            ),
            entries,
        )
        return {"chain": compiled}

    def refuse_if_disabled(self, request: DiscoveryChainRequest) -> DiscoveryChainRequest:
        """Whoever is asked refuses, before anything is forwarded."""
        if not self._enabled:
            raise RequestError(CONNECT_NOT_ENABLED)
        return request


def chain_entries(mesh: MeshQueries) -> ChainEntries:
    """The entries of a state, looked up as they are needed."""

    def entry(kind: str, name: str, type_: type[T]) -> T | None:
        found = mesh.config_entry(kind, name).value
        return found if isinstance(found, type_) else None

    return ChainEntries(
        router=lambda name: entry(c.SERVICE_ROUTER, name, c.ServiceRouterConfigEntry),
        splitter=lambda name: entry(c.SERVICE_SPLITTER, name, c.ServiceSplitterConfigEntry),
        resolver=lambda name: entry(c.SERVICE_RESOLVER, name, c.ServiceResolverConfigEntry),
        service=lambda name: entry(c.SERVICE_DEFAULTS, name, c.ServiceConfigEntry),
        proxy=entry(c.PROXY_DEFAULTS, c.PROXY_CONFIG_GLOBAL, c.ProxyConfigEntry),
    )


def endpoints(server: EndpointServer, *, enabled: bool) -> list[Endpoint]:
    """All of `DiscoveryChain`; with `enabled` false it refuses, as without Connect."""
    it = DiscoveryChain(server, enabled=enabled)
    return [
        Endpoint(
            METHODS["DiscoveryChain.Get"],
            Requires.SERVICE_READ,
            it.get,
            prepare=it.refuse_if_disabled,
        )
    ]
