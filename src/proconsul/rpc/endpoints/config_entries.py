"""`ConfigEntry.*` (agent/consul/config_endpoint.go).

Writes go to the primary datacenter, from where the others copy them.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from proconsul.domain import config_entries as c
from proconsul.domain import config_entry_messages as ce
from proconsul.domain import mesh_requests as m
from proconsul.domain import options as o
from proconsul.domain.config_entry_forms import ConfigEntryError, make
from proconsul.domain.config_entry_rules import can_read, can_write, normalize, validate
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, Sharing, read
from proconsul.rpc.methods import METHODS, Empty
from proconsul.rpc.shared_reads import SharedReads
from proconsul.rpc.table import Call, Endpoint, Requires


class ConfigEntries:
    """The entries of this datacenter."""

    def __init__(self, server: EndpointServer) -> None:
        self._server = server
        self._reads = SharedReads()

    async def apply(self, request: ce.ConfigEntryRequest, call: Call) -> bool:
        entry = normalize(request.entry)
        validate(entry)
        if not can_write(entry, call.authorizer):
            raise PermissionDeniedError
        op = request.op if request.op == c.UPSERT_CAS else c.UPSERT
        request = replace(request, op=op, entry=entry)
        result = await self._server.apply(MessageType.CONFIG_ENTRY, request)
        return result if isinstance(result, bool) else False

    async def delete(self, request: ce.ConfigEntryRequest, call: Call) -> Empty:
        entry = normalize(request.entry)
        if not can_write(entry, call.authorizer):
            raise PermissionDeniedError
        request = replace(request, op=c.DELETE, entry=entry)
        await self._server.apply(MessageType.CONFIG_ENTRY, request)
        return Empty()

    async def get(self, request: m.ConfigEntryQuery, call: Call) -> ce.ConfigEntryResponse:
        try:
            wanted = make(request.kind, request.name)
        except ConfigEntryError as error:
            raise RequestError(str(error)) from error
        if not can_read(wanted, call.authorizer):
            raise PermissionDeniedError
        mesh = self._server.store.mesh
        return await read(
            self._server,
            request,
            lambda: mesh.config_entry(request.kind, request.name),
            lambda entry: {"entry": entry},
            ce.ConfigEntryResponse,
        )

    async def list(self, request: m.ConfigEntryQuery, call: Call) -> ce.IndexedConfigEntries:
        kind = request.kind
        if kind and kind not in c.ENTRY_TYPES:
            raise RequestError(f"invalid config entry kind: {kind}")
        mesh = self._server.store.mesh
        return await read(
            self._server,
            request,
            lambda: mesh.config_entries(kind),
            lambda found: {"kind": kind, "entries": _readable(found, call)},
            ce.IndexedConfigEntries,
        )

    async def list_all(
        self, request: o.DCSpecificRequest, call: Call
    ) -> ce.IndexedGenericConfigEntries:
        mesh = self._server.store.mesh
        return await read(
            self._server,
            request,
            mesh.config_entries,
            lambda found: {"entries": _readable(found, call)},
            ce.IndexedGenericConfigEntries,
        )

    async def resolve_service(
        self, request: m.ServiceConfigRequest, call: Call
    ) -> ce.ServiceConfigResponse:
        """Proxy defaults, overlaid by the service's, and the protocols of the upstreams."""
        if not call.authorizer.service_read(request.name):
            raise PermissionDeniedError
        mesh = self._server.store.mesh
        return await read(
            self._server,
            request,
            lambda: mesh.config_entry(c.SERVICE_DEFAULTS, request.name),
            lambda service: self._resolved(request, service),
            ce.ServiceConfigResponse,
            Sharing(self._reads, "ResolveServiceConfig", call.authorizer),
        )

    def _resolved(self, request: m.ServiceConfigRequest, service: Any) -> dict[str, Any]:
        mesh = self._server.store.mesh
        found = mesh.config_entry(c.PROXY_DEFAULTS, c.PROXY_CONFIG_GLOBAL).value
        proxy = found if isinstance(found, c.ProxyConfigEntry) else c.ProxyConfigEntry()
        config, expose, gateway = proxy.config, proxy.expose, proxy.mesh_gateway
        if isinstance(service, c.ServiceConfigEntry):
            expose = replace(
                expose,
                checks=expose.checks or service.expose.checks,
                paths=service.expose.paths or expose.paths,
            )
            if service.mesh_gateway.mode:
                gateway = service.mesh_gateway
            if service.protocol:
                config = {**(config or {}), "protocol": service.protocol}
        names = [one.id for one in request.upstream_ids or ()] or list(request.upstreams or ())
        upstreams: dict[str, dict[str, Any]] = {}
        for name in names:
            protocol = self._protocol(name) or (proxy.config or {}).get("protocol")
            if protocol is not None:
                upstreams[name] = {"protocol": protocol}
        legacy = not request.upstream_ids
        by_id = [ce.UpstreamConfig(m.ServiceId(name), found) for name, found in upstreams.items()]
        return {
            "proxy_config": config,
            "expose": expose,
            "mesh_gateway": gateway,
            "upstream_configs": (upstreams or None) if legacy else None,
            "upstream_id_configs": None if legacy else (by_id or None),
        }

    def _protocol(self, name: str) -> str:
        entry = self._server.store.mesh.config_entry(c.SERVICE_DEFAULTS, name).value
        return entry.protocol if isinstance(entry, c.ServiceConfigEntry) else ""


def _readable(entries: list[c.ConfigEntry], call: Call) -> tuple[c.ConfigEntry, ...]:
    return tuple(entry for entry in entries if can_read(entry, call.authorizer))


def endpoints(server: EndpointServer) -> list[Endpoint]:
    """All of `ConfigEntry`."""
    it = ConfigEntries(server)
    reads = Requires.SERVICE_READ
    writes = Requires.OPERATOR_WRITE
    return [
        Endpoint(METHODS["ConfigEntry.Apply"], writes, it.apply),
        Endpoint(METHODS["ConfigEntry.Delete"], writes, it.delete),
        Endpoint(METHODS["ConfigEntry.Get"], reads, it.get),
        Endpoint(METHODS["ConfigEntry.List"], reads, it.list),
        Endpoint(METHODS["ConfigEntry.ListAll"], reads, it.list_all),
        Endpoint(METHODS["ConfigEntry.ResolveServiceConfig"], reads, it.resolve_service),
    ]
