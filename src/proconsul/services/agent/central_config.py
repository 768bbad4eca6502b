"""Config entries overlaid onto the proxies and gateways that are registered here.

`agent/service_manager.go`: for each of them a blocking query is open for what `service-defaults` and
`proxy-defaults` say; local state, and so the catalog, holds the registration completed by that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from proconsul.domain.catalog import CONNECT_PROXY, GATEWAY_KINDS, NodeService, Upstream
from proconsul.domain.config_entry_messages import ServiceConfigResponse
from proconsul.domain.mesh_requests import ServiceConfigRequest, ServiceId
from proconsul.drivers.scope import TaskScope
from proconsul.federation.rate import Backoff
from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.agent.manager")

_SERVICE = ("", "service")
"""Types of upstreams that are services; config entries say nothing of prepared queries."""
_MERGE_DEPTH_MAX = 64


@dataclass(slots=True)
class _Registered:
    """One proxy or gateway as it was registered."""

    service: NodeService
    token: str
    watch: asyncio.Task[None] | None = None


class CentralConfig:
    """The overlays of this agent."""

    def __init__(
        self,
        datacenter: str,
        call: Callable[[str, Any], Awaitable[Any]],
        scope: TaskScope,
        agent_token: Callable[[], str],
        changed: Callable[[NodeService, str], None],
        *,
        enabled: bool,
    ) -> None:
        """`changed(service, token)` is told when a registered service looks otherwise now."""
        self._datacenter, self._call, self._scope = datacenter, call, scope
        self._agent_token, self._changed, self._enabled = agent_token, changed, enabled
        self._registered: dict[str, _Registered] = {}
        self._defaults: dict[str, ServiceConfigResponse] = {}

    async def fetch(self, service: NodeService, token: str) -> None:
        """Learn what applies to a service that is about to be registered.

        Raises `ProconsulError`: it must not be registered without.
        """
        if not self._concerns(service):
            return
        service_id = service.id or service.service
        try:
            answer = await self._call(
                "ConfigEntry.ResolveServiceConfig", self._request(service, token, 0)
            )
        except (ProconsulError, TimeoutError) as error:
            raise ProconsulError(
                "could not retrieve initial service_defaults config for service "
                f'"{service_id}": {error}'
            ) from error
        self._defaults[service_id] = answer

    def registered(self, service: NodeService, token: str) -> NodeService:
        """The service as it is to be kept from now on; what applies to it is followed."""
        if not self._concerns(service):
            self.removed(service.id)
            return service
        known = self._registered.get(service.id)
        if known is None or (known.service, known.token) != (service, token):
            self._stop(service.id)
            self._registered[service.id] = one = _Registered(service, token)
            one.watch = self._scope.supervise(
                f"central-config-{service.id}", lambda: self._follow(one)
            )
        return merged(service, self._defaults.get(service.id))

    def removed(self, service_id: str) -> None:
        """The service is gone."""
        self._stop(service_id)
        self._defaults.pop(service_id, None)

    def _stop(self, service_id: str) -> None:
        known = self._registered.pop(service_id, None)
        if known is not None and known.watch is not None:
            known.watch.cancel()

    def _concerns(self, service: NodeService) -> bool:
        return self._enabled and (_is_sidecar(service) or service.kind in GATEWAY_KINDS)

    def _request(self, service: NodeService, token: str, index: int) -> ServiceConfigRequest:
        name, upstreams = service.service, None
        if _is_sidecar(service):
            name = service.proxy.destination_service_name
            upstreams = [
                ServiceId(up.destination_name)
                for up in service.proxy.upstreams or ()
                if up.destination_type in _SERVICE
            ]
        return ServiceConfigRequest(
            name=name,
            datacenter=self._datacenter,
            token=token or self._agent_token(),
            upstream_ids=upstreams or None,
            min_query_index=index,
        )

    async def _follow(self, one: _Registered) -> None:
        index, backoff = 0, Backoff()
        service_id = one.service.id
        complaint = ""
        while True:
            request = self._request(one.service, one.token, index)
            try:
                answer = await self._call("ConfigEntry.ResolveServiceConfig", request)
            except (ProconsulError, TimeoutError) as error:
                text = str(error) or type(error).__name__
                if text != complaint:
                    log.error(
                        "error handling service update: error watching service config: %s", text
                    )
                complaint = text
                await backoff.wait()
                continue
            backoff.reset()
            complaint = ""
            index = answer.index if answer.index >= index else 0
            before = merged(one.service, self._defaults.get(service_id))
            self._defaults[service_id] = answer
            after = merged(one.service, answer)
            if after != before:
                self._changed(after, one.token)


def _is_sidecar(service: NodeService) -> bool:
    """Whether it stands before one instance: other proxies are left as they are, as in Consul."""
    return service.kind == CONNECT_PROXY and bool(service.proxy.destination_service_id)


def merged(service: NodeService, defaults: ServiceConfigResponse | None) -> NodeService:
    """A registration completed by config entries; what it says itself stays."""
    if defaults is None:
        return service
    proxy = service.proxy
    mode = proxy.mesh_gateway.mode or defaults.mesh_gateway.mode
    by_name = {one.upstream.id: one.config for one in defaults.upstream_id_configs or ()}
    upstreams = proxy.upstreams
    if upstreams:
        upstreams = [_upstream(up, mode, by_name.get(up.destination_name)) for up in upstreams]
    expose = replace(
        proxy.expose,
        checks=proxy.expose.checks or defaults.expose.checks,
        paths=proxy.expose.paths or defaults.expose.paths,
    )
    proxy = replace(
        proxy,
        config=_filled(proxy.config, defaults.proxy_config),
        mesh_gateway=replace(proxy.mesh_gateway, mode=mode),
        expose=expose,
        upstreams=upstreams,
    )
    return replace(service, proxy=proxy)


def _upstream(up: Upstream, mode: str, config: dict[str, Any] | None) -> Upstream:
    if up.destination_type not in _SERVICE:
        return up
    gateway = replace(up.mesh_gateway, mode=up.mesh_gateway.mode or mode)
    return replace(up, mesh_gateway=gateway, config=_filled(up.config, config))


def _filled(
    own: dict[str, Any] | None, defaults: dict[str, Any] | None, depth: int = 0
) -> dict[str, Any] | None:
    """`own`, where it says nothing or something empty by `defaults` (imdario/mergo)."""
    if not defaults or depth > _MERGE_DEPTH_MAX:
        return own
    found = dict(own or {})
    for key, value in defaults.items():
        mine = found.get(key)
        if isinstance(mine, dict) and isinstance(value, dict):
            found[key] = _filled(mine, value, depth + 1)
        elif not mine:
            found[key] = value
    return found
