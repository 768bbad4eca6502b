"""Following everything that a mesh gateway's configuration depends on.

Each dependency is a blocking query of its own, so a change is seen when it is committed. A snapshot
is given out once every query has answered, and again whenever an answer changed the outcome
(agent/proxycfg). `mesh.build` comes with Envoy's types, several MB that agents without proxies spare.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from proconsul.domain.acl import Authorizer
from proconsul.domain.catalog import MESH_GATEWAY, CheckServiceNode, NodeService
from proconsul.domain.errors import DomainError
from proconsul.domain.options import DCSpecificRequest, ServiceSpecificRequest
from proconsul.drivers.scope import TaskScope
from proconsul.mesh.errors import ProxyDeniedError, UnknownProxyError
from proconsul.rpc.caller import RpcCaller
from proconsul.services.agent.local import LocalState
from proconsul.services.server.config import Identity
from proconsul.util.errors import ProconsulError

if TYPE_CHECKING:
    from proconsul.mesh.build import GatewayView
    from proconsul.mesh.snapshot import MeshGatewaySnapshot

log = logging.getLogger("proconsul.proxycfg")

WAIT_NS = 600_000_000_000
RETRY_S_MIN, RETRY_S_MAX = 0.1, 5.0
REFUSALS_MAX = 3
"""So many in a row, and a service's instances are taken as none: one must not hold up all others."""
SETTLE_S = 0.005
"""Answers that come together make one snapshot."""
CONSUL_SERVICE = "consul"
RIGHTS_S = 300.0
"""So often a token is looked at again when nothing changes: it may have been taken back."""


class _Query:
    """One blocking query, asked again for as long as its scope lives."""

    def __init__(
        self,
        caller: RpcCaller,
        method: str,
        request: Any,
        changed: Callable[[], None],
        token: Callable[[], str],
    ) -> None:
        self._caller, self._method, self._request, self._changed = caller, method, request, changed
        self._token = token
        self.answer: Any = None
        self._refusals = 0

    @property
    def settled(self) -> bool:
        """Whether there is an answer, or the servers keep saying that there is none to be had."""
        return self.answer is not None or self._refusals >= REFUSALS_MAX

    async def run(self) -> None:
        from msgspec.structs import replace

        index, delay = 0, RETRY_S_MIN
        while True:
            request = replace(
                self._request,
                min_query_index=index,
                max_query_time_ns=WAIT_NS,
                token=self._token(),
            )
            try:
                answer = await self._caller.call(self._method, request)
            except (ProconsulError, TimeoutError) as error:
                # What was answered last stays true enough: gateways must survive their servers.
                log.debug("watch of %s failed, will retry: %s", self._method, error)
                index = 0
                if isinstance(error, DomainError) or getattr(error, "is_remote", False):
                    self._refusals += 1
                    if self._refusals == REFUSALS_MAX:
                        of = getattr(self._request, "service_name", "")
                        log.warning("the servers refuse %s of %r: %s", self._method, of, error)
                        self._changed()
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_S_MAX)
                continue
            delay, self._refusals = RETRY_S_MIN, 0
            if answer.index < index:
                index = 0
                continue
            fresh = answer.index != index or self.answer is None
            index = max(answer.index, 1)  # 0 would not block
            if fresh:
                self.answer = answer
                self._changed()


class MeshGatewayWatch:
    """The queries of one gateway."""

    def __init__(
        self, identity: Identity, caller: RpcCaller, scope: TaskScope, token: Callable[[], str]
    ) -> None:
        """`token` is asked for at every query: the gateway may be registered with another one."""
        self._identity, self._caller, self._scope, self._token = identity, caller, scope, token
        self.changed = asyncio.Event()
        stale = DCSpecificRequest(datacenter=identity.datacenter, allow_stale=True)
        self._roots = self._start("ConnectCA.Roots", stale)
        self._federation = self._start("FederationState.ListMeshGateways", stale)
        self._names = self._start("Catalog.ListServices", stale)
        self._servers = self._start(
            "Health.ServiceNodes",
            ServiceSpecificRequest(
                datacenter=identity.datacenter, service_name=CONSUL_SERVICE, allow_stale=True
            ),
        )
        self._services: dict[str, tuple[_Query, asyncio.Task[None]]] = {}

    def _query(self, method: str, request: Any) -> tuple[_Query, asyncio.Task[None]]:
        query = _Query(self._caller, method, request, self.changed.set, self._token)
        return query, self._scope.supervise(f"watch {method}", query.run)

    def _start(self, method: str, request: Any) -> _Query:
        return self._query(method, request)[0]

    def _follow_services(self) -> bool:
        """One query for each service name; whether all of them have answered or are refused.

        The catalog takes a service without a name, as the reference's does; no query finds it.
        """
        wanted = set(self._names.answer.services or ()) - {CONSUL_SERVICE, ""}
        for name in self._services.keys() - wanted:
            self._services.pop(name)[1].cancel()
        for name in wanted - self._services.keys():
            request = ServiceSpecificRequest(
                datacenter=self._identity.datacenter,
                service_name=name,
                connect=True,
                allow_stale=True,
            )
            self._services[name] = self._query("Health.ServiceNodes", request)
        return all(query.settled for query, _ in self._services.values())

    def view(self, service: NodeService) -> GatewayView | None:
        """All that is known, or None while a query has not answered yet."""
        from proconsul.mesh.build import GatewayView

        first = (self._roots, self._federation, self._names, self._servers)
        if any(query.answer is None for query in first) or not self._follow_services():
            return None
        if not self._roots.answer.trust_domain:
            return None
        federation: dict[str, list[CheckServiceNode]] = {
            datacenter: nodes or []
            for datacenter, nodes in (self._federation.answer.datacenter_nodes or {}).items()
        }
        return GatewayView(
            service=service,
            datacenter=self._identity.datacenter,
            domain=self._identity.domain,
            trust_domain=self._roots.answer.trust_domain,
            federation=federation,
            catalog={},
            servers=self._servers.answer.nodes or (),
            services={
                name: (query.answer and query.answer.nodes) or ()
                for name, (query, _) in self._services.items()
            },
        )


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


class ProxySource:
    """The xDS server's source of snapshots, on this agent's registrations."""

    def __init__(
        self,
        identity: Identity,
        caller: RpcCaller,
        state: LocalState,
        default_token: Callable[[], str] = lambda: "",
        authorizer: Callable[[str], Awaitable[Authorizer]] | None = None,
    ) -> None:
        """`default_token` reads for gateways that were registered without one; `authorizer` says
        what the token that an Envoy shows may do."""
        self._identity, self._caller, self._state = identity, caller, state
        self._default_token, self._authorizer = default_token, authorizer

    async def watch(self, proxy_id: str, token: str) -> AsyncIterator[MeshGatewaySnapshot]:
        """See `interfaces.xds.source.SnapshotSource.watch`."""
        from proconsul.mesh.build import mesh_gateway_snapshot

        await self._permitted(self._registered(proxy_id), token)
        async with TaskScope(f"proxy {proxy_id}") as scope:
            watch = MeshGatewayWatch(
                self._identity,
                self._caller,
                scope,
                lambda: self._state.service_token(proxy_id) or self._default_token(),
            )
            unsubscribe = self._state.subscribe(watch.changed.set)
            last: MeshGatewaySnapshot | None = None
            try:
                while True:
                    await _within(watch.changed, RIGHTS_S)
                    await asyncio.sleep(SETTLE_S)
                    watch.changed.clear()
                    service = self._registered(proxy_id)
                    await self._permitted(service, token)
                    view = watch.view(service)
                    snapshot = None if view is None else mesh_gateway_snapshot(view)
                    if snapshot is not None and snapshot != last:
                        last = snapshot
                        # Whoever iterates closes us (aclosing), which ends the scope.
                        yield snapshot  # noqa: ASYNC119
            finally:
                unsubscribe()

    async def _permitted(self, service: NodeService, token: str) -> None:
        """Who gets a gateway's configuration must be allowed to register it."""
        if self._authorizer is None:
            return
        try:
            authorizer = await self._authorizer(token)
        except DomainError as error:
            raise ProxyDeniedError(str(error)) from error
        if not authorizer.service_write(service.service):
            raise ProxyDeniedError("permission denied")

    def _registered(self, proxy_id: str) -> NodeService:
        service = self._state.service(proxy_id)
        if service is None:
            raise UnknownProxyError(
                f'unknown proxy ID "{proxy_id}": register it with this agent '
                "(connect envoy -register, or PUT /v1/agent/service/register)"
            )
        if service.kind != MESH_GATEWAY:
            raise UnknownProxyError(
                f'proxy "{proxy_id}" is of kind {service.kind or "typical"!r}: '
                "only mesh gateways are configured by this version"
            )
        return service
