"""Whether config entries fit together: what Consul's state refuses, ours must refuse too.

A service's router, splitter and resolver entries form a graph, its discovery chain. A change is
refused if a chain that it concerns could not be compiled any more (`agent/consul/discoverychain`
and `agent/consul/state/config_entry.go`). Only what decides about that is worked out here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from proconsul.state.errors import StateError
from proconsul.state.rows import Row, as_list, as_map
from proconsul.state.tables import Transaction
from proconsul.wire.msgpack import as_text

Key = tuple[str, str]
"""Kind and name of an entry."""
Lookup = Callable[[str, str], Row | None]

PROXY_DEFAULTS, SERVICE_DEFAULTS = "proxy-defaults", "service-defaults"
ROUTER, SPLITTER, RESOLVER = "service-router", "service-splitter", "service-resolver"
INGRESS, TERMINATING = "ingress-gateway", "terminating-gateway"
_CHAIN = (ROUTER, SPLITTER, RESOLVER)
_KINDS = (PROXY_DEFAULTS, SERVICE_DEFAULTS, *_CHAIN, INGRESS, TERMINATING)
_HTTP_LIKE = ("http", "http2", "grpc")
_DATACENTER = "dc1"
"""Consul compiles as if here, whatever the datacenter's name."""


class _Target(NamedTuple):
    service: str
    subset: str = ""
    datacenter: str = _DATACENTER

    @property
    def id(self) -> str:
        return ".".join(filter(None, (self.subset, self.service, "default", self.datacenter)))


def check(tx: Transaction, key: Key, proposed: Row | None) -> None:
    """Refuse the entry (None: its deletion) with Consul's `StateError` if chains would break."""
    kind, name = key
    if kind not in _KINDS:
        raise StateError(f'unhandled kind "{kind}" during validation of "{name}"')
    if kind == PROXY_DEFAULTS and name != "global":
        return
    entries = tx.t.config_entries
    for one, other in ((INGRESS, TERMINATING), (TERMINATING, INGRESS)):
        if kind == one and (other, name) in entries:
            raise StateError(
                f'cannot create a "{one}" config entry with name "{name}", '
                f'a "{other}" config entry with that name already exists'
            )
    if kind == INGRESS and proposed is None:
        return

    def lookup(wanted: str, of: str) -> Row | None:
        return proposed if (wanted, of) == key else entries.get((wanted, of))

    services, gateways = _concerned(entries, key, proposed)
    if "" in services:
        raise StateError("serviceName is required")
    for gateway in gateways:
        services.update(dict.fromkeys(related(INGRESS, gateway)))
    compiled = {service: _Chain(service, lookup).compile() for service in services}
    for gateway in gateways:
        _check_ingress(gateway, compiled, strict=kind == INGRESS)


def _concerned(
    entries: Mapping[Key, Row], key: Key, proposed: Row | None
) -> tuple[dict[str, None], list[Row]]:
    """Services whose chains, and ingress gateways whose listeners, a change may break."""
    kind, name = key
    if kind == INGRESS:
        return {}, [proposed or {}]
    everything = kind == PROXY_DEFAULTS
    services = {} if everything else {name: None}
    gateways: list[Row] = []
    for (other_kind, other_name), row in entries.items():
        if not (everything or name in related(other_kind, row)):
            continue
        if other_kind == INGRESS:
            gateways.append(row)
        elif other_kind in _CHAIN:
            services[other_name] = None
    return services, gateways


def related(kind: str, row: Row) -> set[str]:
    """The services that an entry of the graph or an ingress gateway names."""
    return {name for name in _named(kind, row) if name}


def _named(kind: str, row: Row) -> Iterator[str]:
    match kind:
        case "service-router":
            for route in as_list(row.get(b"Routes")):
                yield _text(as_map(route.get(b"Destination") or {}), b"Service")
        case "service-splitter":
            for split in as_list(row.get(b"Splits")):
                yield _text(split, b"Service")
        case "service-resolver":
            yield _text(as_map(row.get(b"Redirect") or {}), b"Service")
            for failover in as_map(row.get(b"Failover") or {}).values():
                yield _text(as_map(failover), b"Service")
        case "ingress-gateway":
            for listener in as_list(row.get(b"Listeners")):
                for service in as_list(listener.get(b"Services")):
                    if service.get(b"Name") != b"*":
                        yield _text(service, b"Name")
        case _:
            pass


def _check_ingress(gateway: Row, compiled: dict[str, tuple[str, bool]], *, strict: bool) -> None:
    """Listeners have their services' protocol; only plain TCP may lead to others by a resolver."""
    for listener in as_list(gateway.get(b"Listeners")):
        expected = _text(listener, b"Protocol")
        for service in as_list(listener.get(b"Services")):
            name = _text(service, b"Name")
            if name == "*":
                continue
            protocol, is_resolver = compiled[name]
            if protocol != expected and (strict or expected != "tcp" or not is_resolver):
                raise StateError(
                    f'service "{name}" has protocol "{protocol}", which does not match '
                    f'defined listener protocol "{expected}"'
                )


class _Chain:
    """One service's discovery chain while it is compiled."""

    def __init__(self, service: str, lookup: Lookup) -> None:
        self._service, self._lookup = service, lookup
        self._protocol = ""
        self._advanced = False
        self._splitters: dict[str, list[str]] = {}
        """Where each splitter leads: to other splitters, by their names; "" is a resolver."""
        self._resolved: set[str] = set()

    def compile(self) -> tuple[str, bool]:
        """Its protocol, and whether it starts with a resolver. Raises `StateError`."""
        router = self._lookup(ROUTER, self._service)
        if router is not None:
            self._advanced = True
            self._record_protocol(self._service)
            for route in as_list(router.get(b"Routes")):
                destination = as_map(route.get(b"Destination") or {})
                service = _text(destination, b"Service") or self._service
                subset = _text(destination, b"ServiceSubset")
                if subset:
                    self._resolve(_Target(service, subset))
                else:
                    self._split_or_resolve(service)
        starts = self._split_or_resolve(self._service)
        self._find_circles()
        if self._advanced and self._protocol not in _HTTP_LIKE:
            raise StateError(
                f'discovery chain "{self._service}" uses a protocol "{self._protocol}" that does '
                "not permit advanced routing or splitting behavior"
            )
        return self._protocol, router is None and not starts

    def _record_protocol(self, service: str) -> None:
        defaults = self._lookup(SERVICE_DEFAULTS, service)
        if defaults is not None:
            protocol = _text(defaults, b"Protocol")
        else:
            proxy = self._lookup(PROXY_DEFAULTS, "global") or {}
            found = as_map(proxy.get(b"Config") or {}).get(b"protocol")
            protocol = as_text(found) if isinstance(found, bytes) else ""
        protocol = protocol.lower() or "tcp"
        if self._protocol and protocol != self._protocol:
            raise StateError(
                f'discovery chain "{self._service}" uses inconsistent protocols; service '
                f'"{service}" has "{protocol}" which is not "{self._protocol}"'
            )
        self._protocol = protocol

    def _split_or_resolve(self, service: str) -> bool:
        """Whether there is a splitter."""
        if self._split(service):
            return True
        self._resolve(_Target(service))
        return False

    def _split(self, service: str) -> bool:
        """Follow the service's splitter and those behind it; whether there is one."""
        todo = [service]
        while todo:
            name = todo.pop()
            splitter = self._lookup(SPLITTER, name)
            if splitter is None or name in self._splitters:
                continue
            self._advanced = True
            leads = self._splitters[name] = []
            for split in as_list(splitter.get(b"Splits")):
                other = _text(split, b"Service") or name
                subset = _text(split, b"ServiceSubset")
                if other != name and not subset and self._lookup(SPLITTER, other) is not None:
                    leads.append(other)
                    todo.append(other)
                else:
                    self._resolve(_Target(other, subset))
        return service in self._splitters

    def _find_circles(self) -> None:
        """Refuse splitters that lead back to themselves. Each is looked at once, whatever its depth."""
        done: set[str] = set()
        for start in self._splitters:
            path: dict[str, Iterator[str]] = {}
            name: str | None = start
            while name is not None:
                if name in path:
                    circle = " -> ".join(f"splitter:{one}.default" for one in [*path, name])
                    raise StateError(f"detected circular reference: [{circle}]")
                if name not in done:
                    path[name] = iter(self._splitters[name])
                name = None
                while path and name is None:
                    last = next(reversed(path))
                    name = next(path[last], None)
                    if name is None:
                        del path[last]
                        done.add(last)

    def _resolve(self, target: _Target, *, is_failover: bool = False) -> None:
        history: list[str] = []
        while True:
            if target.id in self._resolved:
                return
            self._record_protocol(target.service)
            resolver = self._lookup(RESOLVER, target.service) or {}
            if target.id in history:
                circle = " -> ".join([*history, target.id])
                raise StateError(f"detected circular resolver redirect: [{circle}]")
            history.append(target.id)
            onward = _rewritten(target, as_map(resolver.get(b"Redirect") or {}))
            if onward.id == target.id and not target.subset:
                onward = target._replace(subset=_text(resolver, b"DefaultSubset"))
            if onward.id == target.id:
                break
            target = onward
        self._check_resolver(target, resolver)
        if is_failover:
            return
        self._resolved.add(target.id)
        failovers = as_map(resolver.get(b"Failover") or {})
        failover = as_map(failovers.get(target.subset.encode()) or failovers.get(b"*") or {})
        for datacenter in as_list(failover.get(b"Datacenters")) or ([b""] if failover else []):
            other = _rewritten(target, {**failover, b"Datacenter": datacenter})
            if other.id != target.id:
                self._resolve(other, is_failover=True)

    def _check_resolver(self, target: _Target, resolver: Row) -> None:
        subsets = as_map(resolver.get(b"Subsets") or {})
        if target.subset and target.subset.encode() not in subsets:
            raise StateError(
                f'service "{target.service}" does not have a subset named "{target.subset}"'
            )
        if not (self._lookup(SERVICE_DEFAULTS, target.service) or {}).get(b"ExternalSNI"):
            return
        for field, what in (
            (b"Redirect", "redirects"), (b"Subsets", "subsets"), (b"Failover", "failover"),
        ):  # fmt: skip
            if resolver.get(field):
                raise StateError(
                    f'service "{target.service}" has an external SNI set; '
                    f"cannot define {what} for external services"
                )


def _rewritten(target: _Target, to: Row) -> _Target:
    """Where a redirect or failover leads; another service starts without a subset."""
    service = _text(to, b"Service") or target.service
    subset = target.subset if service == target.service else ""
    return _Target(
        service,
        _text(to, b"ServiceSubset") or subset,
        _text(to, b"Datacenter") or target.datacenter,
    )


def _text(row: Row, field: bytes) -> str:
    return as_text(row.get(field))
