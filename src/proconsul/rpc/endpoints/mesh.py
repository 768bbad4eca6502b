"""Reads of `ConfigEntry` and `Intention` (agent/consul/config_endpoint.go, intention_endpoint.go).

Real agents ask these for every gateway and proxy, and a real secondary replicates them; entries get
here by Raft and snapshots from real servers. Answers are given in the form that Go's types write by
`MarshalBinary`: bytes that hold msgpack.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from proconsul.domain import mesh_requests as m
from proconsul.domain import options as o
from proconsul.domain.acl import Authorizer
from proconsul.domain.base import raw_bytes
from proconsul.domain.errors import PermissionDeniedError
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, read
from proconsul.rpc.methods import METHODS
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.state.rows import Row
from proconsul.state.watch import Answer
from proconsul.wire import msgpack

KINDS = frozenset(
    {
        "service-defaults", "proxy-defaults", "service-router", "service-splitter",
        "service-resolver", "ingress-gateway", "terminating-gateway",
    }
)  # fmt: skip
PROXY_DEFAULTS, GLOBAL, SERVICE_DEFAULTS = "proxy-defaults", "global", "service-defaults"


class _Rows(o.QueryMeta, frozen=True):
    """Rows on their way through `read`, which wants a struct. They never travel like this."""

    rows: Any = None


def _meta(found: o.QueryMeta) -> dict[str, Any]:
    return {
        "ConsistencyLevel": found.consistency_level,
        "Index": found.index,
        "KnownLeader": found.known_leader,
        "LastContact": found.last_contact_ns,
    }


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else ""


def _entry(row: Row) -> Any:
    """An entry as Go's codec writes it; proxy-defaults marshals itself."""
    return msgpack.pack(row) if row.get(b"Kind") == PROXY_DEFAULTS.encode() else row


def _may_read(row: Row, may: Authorizer) -> bool:
    """Proxy defaults are for everyone, the rest for who may read the service."""
    return row.get(b"Kind") == PROXY_DEFAULTS.encode() or may.service_read(_text(row.get(b"Name")))


class ConfigEntries:
    """The entries of this datacenter, which are replicated from the primary."""

    def __init__(self, server: EndpointServer) -> None:
        self._server = server

    async def get(self, request: m.ConfigEntryQuery, call: Call) -> Raw:
        if not _may_read({b"Kind": request.kind.encode(), b"Name": request.name.encode()},
                         call.authorizer):  # fmt: skip
            raise PermissionDeniedError
        mesh = self._server.store.mesh

        def query() -> Answer[Row | None]:
            answer = mesh.config_entries(request.kind)
            row = mesh.config_entry(request.kind, request.name)
            return Answer(answer.index, row, answer.watch)

        found = await read(self._server, request, query, lambda row: {"rows": row}, _Rows)
        head = msgpack.pack("")
        if found.rows is not None:
            head = msgpack.pack(found.rows[b"Kind"]) + msgpack.pack(_entry(found.rows))
        return raw_bytes(head + msgpack.pack(_meta(found)))

    async def list(self, request: m.ConfigEntryQuery, call: Call) -> Raw:
        if request.kind and request.kind not in KINDS:
            raise RequestError(f"invalid config entry kind: {request.kind}")
        found = await self._list(request, request.kind, call)
        body = {"Entries": [_entry(row) for row in found.rows], "Kind": request.kind}
        head = msgpack.pack(len(found.rows)) + msgpack.pack(request.kind)
        return raw_bytes(head + msgpack.pack(body | _meta(found)))

    async def list_all(self, request: o.DCSpecificRequest, call: Call) -> Raw:
        found = await self._list(request, "", call)
        parts = [msgpack.pack(len(found.rows))]
        for row in found.rows:
            parts += [msgpack.pack(row[b"Kind"]), msgpack.pack(_entry(row))]
        return raw_bytes(b"".join((*parts, msgpack.pack(_meta(found)))))

    async def _list(self, options: o.QueryOptions, kind: str, call: Call) -> _Rows:
        mesh = self._server.store.mesh
        return await read(
            self._server,
            options,
            lambda: mesh.config_entries(kind),
            lambda rows: {"rows": [row for row in rows if _may_read(row, call.authorizer)]},
            _Rows,
        )

    async def resolve_service(self, request: m.ServiceConfigRequest, call: Call) -> Raw:
        """Proxy defaults, overlaid by the service's, and the protocols of the upstreams."""
        if not call.authorizer.service_read(request.name):
            raise PermissionDeniedError
        mesh = self._server.store.mesh
        found = await read(
            self._server,
            request,
            mesh.config_entries,
            lambda _: {"rows": self._resolved(request)},
            _Rows,
        )
        return raw_bytes(msgpack.pack(found.rows | _meta(found)))

    def _resolved(self, request: m.ServiceConfigRequest) -> dict[str, Any]:
        entry = self._server.store.mesh.config_entry
        proxy = entry(PROXY_DEFAULTS, GLOBAL) or {}
        service = entry(SERVICE_DEFAULTS, request.name) or {}
        shared: dict[Any, Any] | None = proxy.get(b"Config")
        config = dict(shared) if shared is not None else None
        mode = (proxy.get(b"MeshGateway") or {}).get(b"Mode", "")
        expose = dict(proxy.get(b"Expose") or {b"Checks": False, b"Paths": None})
        own_expose = service.get(b"Expose") or {}
        if own_expose.get(b"Checks"):
            expose[b"Checks"] = True
        if own_expose.get(b"Paths"):
            expose[b"Paths"] = own_expose[b"Paths"]
        mode = (service.get(b"MeshGateway") or {}).get(b"Mode") or mode
        if service.get(b"Protocol"):
            config = {**(config or {}), b"protocol": service[b"Protocol"]}
        names = [one.id for one in request.upstream_ids or ()] or list(request.upstreams or ())
        protocols = {}
        for name in names:
            own = (entry(SERVICE_DEFAULTS, name) or {}).get(b"Protocol")
            protocol = own or (shared or {}).get(b"protocol")
            if protocol is not None:
                protocols[name] = {"protocol": protocol}
        by_id = [{"Config": found, "Upstream": {"ID": name}} for name, found in protocols.items()]
        legacy = not request.upstream_ids
        return {
            "Expose": expose,
            "MeshGateway": {"Mode": mode},
            "ProxyConfig": config,
            "UpstreamConfigs": (protocols or None) if legacy else None,
            "UpstreamIDConfigs": None if legacy else (by_id or None),
        }


class Intentions:
    """Who may connect to whom."""

    def __init__(self, server: EndpointServer) -> None:
        self._server = server

    async def list(self, request: o.DCSpecificRequest, call: Call) -> Raw:
        may = call.authorizer.service_read

        def allowed(rows: list[Row]) -> dict[str, Any]:
            return {"rows": [r for r in rows if may(_text(r.get(b"DestinationName")))]}

        intentions = self._server.store.mesh.intentions
        found = await read(self._server, request, intentions, allowed, _Rows)
        return Raw(msgpack.pack(_meta(found) | {"Intentions": found.rows or None}))

    async def match(self, request: m.IntentionQueryRequest, call: Call) -> Raw:
        match = request.match
        if match is None or match.type not in {"source", "destination"}:
            raise RequestError("must specify a match type of source or destination")
        entries = match.entries or []
        for entry in entries:
            if entry.name not in ("", "*") and not call.authorizer.service_read(entry.name):
                raise PermissionDeniedError
        field = b"SourceName" if match.type == "source" else b"DestinationName"

        def matching(rows: list[Row]) -> dict[str, Any]:
            per_entry = [
                [r for r in rows if r.get(field) in (b"*", entry.name.encode())] or None
                for entry in entries
            ]
            return {"rows": per_entry}

        intentions = self._server.store.mesh.intentions
        found = await read(self._server, request, intentions, matching, _Rows)
        return Raw(msgpack.pack(_meta(found) | {"Matches": found.rows}))


def endpoints(server: EndpointServer) -> list[Endpoint]:
    """What is served of `ConfigEntry` and `Intention`."""
    entries, intentions = ConfigEntries(server), Intentions(server)
    needs = Requires.SERVICE_READ
    return [
        Endpoint(METHODS["ConfigEntry.Get"], needs, entries.get),
        Endpoint(METHODS["ConfigEntry.List"], needs, entries.list),
        Endpoint(METHODS["ConfigEntry.ListAll"], needs, entries.list_all),
        Endpoint(METHODS["ConfigEntry.ResolveServiceConfig"], needs, entries.resolve_service),
        Endpoint(METHODS["Intention.List"], needs, intentions.list),
        Endpoint(METHODS["Intention.Match"], needs, intentions.match),
    ]
