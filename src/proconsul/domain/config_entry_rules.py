"""What config entries are made to look like, what they must be, and who may read and write them.

`Normalize`, `Validate`, `CanRead` and `CanWrite` of `agent/structs/config_entry*.go`; the texts are
Consul's. Whether entries fit together is `state.config_graph`'s.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from functools import singledispatch
from typing import Any

from msgspec.structs import replace

from proconsul.domain import config_entries as c
from proconsul.domain.acl import Authorizer
from proconsul.domain.definitions import multierror
from proconsul.domain.errors import DomainError
from proconsul.domain.validate import free_form_problem
from proconsul.util.goduration import format_duration_ns
from proconsul.util.goquote import go_quote as quote

META_PAIRS_MAX = 64
META_KEY_LENGTH_MAX = 128
META_VALUE_LENGTH_MAX = 512
_SUBSET = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SUBSET_LENGTH_MAX = 63
_SCALED_WEIGHT_MAX = 100 * 100
_WEIGHT_HUGE = 1e30
_INGRESS_PROTOCOLS = frozenset({"tcp", "http", "http2", "grpc"})
_DOMAIN_LENGTH_MAX = 255
_LABEL_LENGTH_MAX = 63


class InvalidEntryError(DomainError):
    """An entry that must not be written."""


# -- normalisation


def normalize(entry: c.ConfigEntry) -> c.ConfigEntry:
    """The entry with its kind, defaults, and letters in the right case."""
    kind = next(kind for kind, type_ in c.ENTRY_TYPES.items() if type_ is type(entry))
    match entry:
        case c.ServiceConfigEntry():
            return replace(entry, kind=kind, protocol=entry.protocol.lower())
        case c.ProxyConfigEntry():
            return replace(entry, kind=kind, name=c.PROXY_CONFIG_GLOBAL)
        case c.ServiceRouterConfigEntry():
            routes = [_normal_route(route) for route in entry.routes or ()]
            return replace(entry, kind=kind, routes=routes if entry.routes else entry.routes)
        case c.ServiceSplitterConfigEntry():
            splits = [replace(s, weight=normal_weight(s.weight)) for s in entry.splits or ()]
            return replace(entry, kind=kind, splits=splits if entry.splits else entry.splits)
        case c.IngressGatewayConfigEntry():
            listeners = [
                replace(one, protocol=(one.protocol or "tcp").lower())
                for one in entry.listeners or ()
            ]
            return replace(
                entry, kind=kind, listeners=listeners if entry.listeners else entry.listeners
            )
        case _:
            return replace(entry, kind=kind)


def _normal_route(route: c.ServiceRoute) -> c.ServiceRoute:
    """A namespace is filled in only beside methods, as Consul has it."""
    http = route.match.http if route.match is not None else None
    if route.match is None or http is None or not http.methods:
        return route
    http = replace(http, methods=[method.upper() for method in http.methods])
    destination = route.destination
    if destination is not None and not destination.namespace:
        destination = replace(destination, namespace=c.DEFAULT_NAMESPACE)
    return replace(route, match=replace(route.match, http=http), destination=destination)


def normal_weight(weight: float) -> float:
    """A weight in the steps of 0.01 that are told apart."""
    return _scaled(weight) / 100


def _scaled(weight: float) -> int:
    """In hundredths of a percent; half of one away from zero, as Go's `math.Round`."""
    scaled = _float32(_float32(weight) * 100)
    return int(math.copysign(math.floor(abs(scaled) + 0.5), scaled))


def _float32(value: float) -> float:
    """As Go's float32 holds it; what is beyond its range is no weight, and stays beyond 100."""
    try:
        (found,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return math.copysign(_WEIGHT_HUGE, value)
    return float(found) if math.isfinite(found) else _WEIGHT_HUGE


# -- validation


def validate(entry: c.ConfigEntry) -> None:
    """Raises `InvalidEntryError` with Consul's text for a normalised entry that makes no sense."""
    for problem in _problems(entry):
        raise InvalidEntryError(problem)


@singledispatch
def _problems(entry: Any) -> Iterator[str]:
    """What is wrong, most important first; only the first is ever told."""
    yield from _meta_problems(entry.meta)


@_problems.register
def _(entry: c.ProxyConfigEntry) -> Iterator[str]:
    if entry.name != c.PROXY_CONFIG_GLOBAL:
        yield (
            f"invalid name ({quote(entry.name)}), only {quote(c.PROXY_CONFIG_GLOBAL)} is supported"
        )
    yield from _meta_problems(entry.meta)
    # The entry itself may have none, but no value in it
    if entry.config and (odd := free_form_problem(entry.config, "Config", nulls=False)):
        yield odd


@_problems.register
def _(entry: c.ServiceRouterConfigEntry) -> Iterator[str]:
    if not entry.name:
        yield "Name is required"
    yield from _meta_problems(entry.meta)
    for at, route in enumerate(entry.routes or ()):
        http = route.match.http if route.match is not None else None
        if http is not None:
            yield from _match_problems(f"Route[{at}]", http)
        rewritable = http is not None and bool(http.path_exact or http.path_prefix)
        if route.destination is not None and route.destination.prefix_rewrite and not rewritable:
            yield (
                f"Route[{at}] cannot make use of PrefixRewrite without configuring either "
                "PathExact or PathPrefix"
            )


def _match_problems(route: str, http: c.ServiceRouteHTTPMatch) -> Iterator[str]:
    for name, path in (("PathExact", http.path_exact), ("PathPrefix", http.path_prefix)):
        if path and not path.startswith("/"):
            yield f"{route} {name} doesn't start with '/': {quote(path)}"
    if sum(map(bool, (http.path_exact, http.path_prefix, http.path_regex))) > 1:
        yield f"{route} should only contain at most one of PathExact, PathPrefix, or PathRegex"
    for at, header in enumerate(http.header or ()):
        if not header.name:
            yield f"{route} Header[{at}] missing required Name field"
        parts = (header.present, header.exact, header.regex, header.prefix, header.suffix)
        if sum(map(bool, parts)) != 1:
            yield (
                f"{route} Header[{at}] should only contain one of Present, Exact, Prefix, "
                "Suffix, or Regex"
            )
    for at, param in enumerate(http.query_param or ()):
        if not param.name:
            yield f"{route} QueryParam[{at}] missing required Name field"
        if sum(map(bool, (param.present, param.exact, param.regex))) != 1:
            yield f"{route} QueryParam[{at}] should only contain one of Present, Exact, or Regex"
    seen: set[str] = set()
    for method in http.methods or ():
        if method in seen:
            yield f"{route} Methods contains {quote(method)} more than once"
        seen.add(method)


@_problems.register
def _(entry: c.ServiceSplitterConfigEntry) -> Iterator[str]:
    if not entry.name:
        yield "Name is required"
    if not entry.splits:
        yield "no splits configured"
    yield from _meta_problems(entry.meta)
    seen = set()
    total = 0
    for split in entry.splits or ():
        key = (split.service or entry.name, split.service_subset, split.namespace)
        if key in seen:
            service, subset, namespace = map(quote, key)
            yield (
                "split destination occurs more than once: "
                f"service={service}, subset={subset}, namespace={namespace}"
            )
        seen.add(key)
        total += _scaled(split.weight)
    if total != _SCALED_WEIGHT_MAX:
        yield f"the sum of all split weights must be 100, not {_float32(total / 100):f}"


@_problems.register
def _(entry: c.ServiceResolverConfigEntry) -> Iterator[str]:
    if not entry.name:
        yield "Name is required"
    yield from _meta_problems(entry.meta)
    subsets = entry.subsets or {}
    for name in sorted(subsets):
        if not name:
            yield "Subset defined with empty name"
        if (reason := _subset_problem(name)) is not None:
            yield f"Subset {quote(name)} is invalid: {reason}"
    if entry.default_subset and entry.default_subset not in subsets:
        yield f"DefaultSubset {quote(entry.default_subset)} is not a valid subset"
    if entry.redirect is not None:
        yield from _redirect_problems(entry, entry.redirect)
    for subset, failover in sorted((entry.failover or {}).items()):
        yield from _failover_problems(entry, subset, failover)
    if entry.connect_timeout_ns < 0:
        timeout = format_duration_ns(entry.connect_timeout_ns)
        yield f"Bad ConnectTimeout '{timeout}', must be >= 0"


def _redirect_problems(
    entry: c.ServiceResolverConfigEntry, to: c.ServiceResolverRedirect
) -> Iterator[str]:
    if entry.failover:
        yield "Redirect and Failover cannot both be set"
    if not (to.service or to.service_subset or to.namespace or to.datacenter):
        yield "Redirect is empty"
    if not to.service:
        if to.service_subset:
            yield "Redirect.ServiceSubset defined without Redirect.Service"
        if to.namespace:
            yield "Redirect.Namespace defined without Redirect.Service"
    elif to.service == entry.name:
        subset = to.service_subset
        if subset and subset not in (entry.subsets or {}):
            yield (
                f"Redirect.ServiceSubset {quote(subset)} is not a valid subset "
                f"of {quote(to.service)}"
            )


def _failover_problems(
    entry: c.ServiceResolverConfigEntry, subset: str, to: c.ServiceResolverFailover
) -> Iterator[str]:
    subsets, bad = entry.subsets or {}, f"Bad Failover[{quote(subset)}]"
    if subset != c.WILDCARD and subset not in subsets:
        yield f"{bad}: not a valid subset"
    if not (to.service or to.service_subset or to.namespace or to.datacenters):
        yield f"{bad} one of Service, ServiceSubset, Namespace, or Datacenters is required"
    if to.service_subset and to.service in ("", entry.name) and to.service_subset not in subsets:
        yield (
            f"{bad}.ServiceSubset {quote(to.service_subset)} is not a valid subset "
            f"of {quote(to.service)}"
        )
    if not all(to.datacenters or ()):
        yield f"{bad}.Datacenters: found empty datacenter"


def _subset_problem(name: str) -> str | None:
    """A subset's name is part of an SNI name: a label of DNS."""
    if not name or len(name.encode()) > _SUBSET_LENGTH_MAX:
        return "must be non-empty and 63 characters or fewer"
    if _SUBSET.fullmatch(name) is None:
        return (
            "must be 63 characters or fewer, begin or end with lower case alphanumeric "
            "characters, and contain lower case alphanumeric characters or '-' in between"
        )
    return None


@_problems.register
def _(entry: c.IngressGatewayConfigEntry) -> Iterator[str]:
    yield from _meta_problems(entry.meta)
    ports: set[int] = set()
    for listener in entry.listeners or ():
        services, at = listener.services or [], f"(listener on port {listener.port})"
        if listener.port in ports:
            yield f"port {listener.port} declared on two listeners"
        ports.add(listener.port)
        if listener.protocol not in _INGRESS_PROTOCOLS:
            yield (
                "protocol must be 'tcp', 'http', 'http2', or 'grpc'. "
                f"'{listener.protocol}' is an unsupported protocol"
            )
        if not services:
            yield f"No service declared for listener with port {listener.port}"
        if listener.protocol != "http" and len(services) > 1:
            yield ("Multiple services per listener are only supported for protocol = 'http' " + at)
        hosts: set[str] = set()
        for service in services:
            yield from _ingress_service_problems(listener, service, at)
            for host in service.hosts or ():
                if host in hosts:
                    yield f"Hosts must be unique within a specific listener {at}"
                hosts.add(host)
                yield from _host_problems(host, tls=entry.tls.enabled)


def _ingress_service_problems(
    listener: c.IngressListener, service: c.IngressService, at: str
) -> Iterator[str]:
    if listener.protocol == "tcp":
        if service.name == c.WILDCARD:
            yield f"Wildcard service name is only valid for protocol = 'http' {at}"
        if service.hosts:
            yield (
                "Associating hosts to a service is not supported for the "
                f"{listener.protocol} protocol {at}"
            )
    if not service.name:
        yield f"Service name cannot be blank {at}"
    if service.name == c.WILDCARD and service.hosts:
        yield f"Associating hosts to a wildcard service is not supported {at}"


def _host_problems(host: str, *, tls: bool) -> Iterator[str]:
    if host == "*":
        if tls:
            yield (
                "Host '*' is not allowed when TLS is enabled, all hosts must be valid DNS "
                "records to add as a DNSSAN"
            )
        return
    if not _is_domain_name(host):
        yield f"Host {quote(host)} must be a valid DNS hostname"
    if "*" in host.removeprefix("*."):
        yield (
            f"Host {quote(host)} is not valid, a wildcard specifier is only allowed as the "
            "leftmost label"
        )


def _is_domain_name(host: str) -> bool:
    """As miekg/dns has it: any labels of up to 63 bytes, none empty, 255 bytes in all."""
    labels = host.removesuffix(".").split(".") if host != "." else []
    sizes = [len(label.encode("utf-8", "surrogateescape")) for label in labels]
    return (
        bool(host)
        and all(0 < size <= _LABEL_LENGTH_MAX for size in sizes)
        and (sum(sizes) + len(sizes) + 1 <= _DOMAIN_LENGTH_MAX)
    )


@_problems.register
def _(entry: c.TerminatingGatewayConfigEntry) -> Iterator[str]:
    yield from _meta_problems(entry.meta)
    seen: set[str] = set()
    for service in entry.services or ():
        name = service.name
        if not name:
            yield "Service name cannot be blank."
        if name in seen:
            yield f"Service {quote(name)} was specified more than once within a namespace"
        seen.add(name)
        files = (service.ca_file, service.cert_file, service.key_file)
        if (service.cert_file or service.key_file) and not all(files):
            yield (
                f"Service {quote(name)} must have a CertFile, CAFile, and KeyFile specified "
                "for TLS origination"
            )


def _meta_problems(meta: dict[str, str] | None) -> Iterator[str]:
    problems = [*meta_problems(meta)]
    if problems:
        yield multierror(problems)


def meta_problems(meta: dict[str, str] | None) -> Iterator[str]:
    """What is wrong with the metadata of a config entry or an intention."""
    meta = meta or {}
    if len(meta) > META_PAIRS_MAX:
        yield f"Meta exceeds maximum element count {META_PAIRS_MAX}"
    for key, value in sorted(meta.items()):
        if len(key.encode("utf-8", "surrogateescape")) > META_KEY_LENGTH_MAX:
            yield f"Meta key {quote(key)} exceeds maximum length {META_KEY_LENGTH_MAX}"
        if len(value.encode("utf-8", "surrogateescape")) > META_VALUE_LENGTH_MAX:
            yield (
                f"Meta value for key {quote(key)} exceeds maximum length {META_VALUE_LENGTH_MAX}"
            )


# -- rights


def can_read(entry: c.ConfigEntry, may: Authorizer) -> bool:
    """Proxy defaults are for everyone, the rest for who may read the service."""
    return isinstance(entry, c.ProxyConfigEntry) or may.service_read(entry.name)


def can_write(entry: c.ConfigEntry, may: Authorizer) -> bool:
    """A service's own; where it leads to others, they must be readable. Gateways are operators'."""
    match entry:
        case c.ProxyConfigEntry() | c.IngressGatewayConfigEntry():
            return may.operator_write()
        case c.TerminatingGatewayConfigEntry():
            return may.operator_write()
        case c.ServiceConfigEntry():
            return may.service_write(entry.name)
        case _:
            others = related_services(entry) - {entry.name}
            return may.service_write(entry.name) and all(map(may.service_read, sorted(others)))


def related_services(entry: c.ConfigEntry) -> set[str]:
    """The services that an entry of a discovery chain, or an ingress gateway, names."""
    match entry:
        case c.ServiceRouterConfigEntry():
            destinations = (route.destination for route in entry.routes or ())
            named = {one.service or entry.name for one in destinations if one is not None}
            return named | {entry.name}
        case c.ServiceSplitterConfigEntry():
            return {split.service or entry.name for split in entry.splits or ()} - {entry.name}
        case c.ServiceResolverConfigEntry():
            found = {to.service or entry.name for to in (entry.failover or {}).values()}
            if entry.redirect is not None:
                found.add(entry.redirect.service or entry.name)
            return found - {entry.name}
        case c.IngressGatewayConfigEntry():
            services = (s for one in entry.listeners or () for s in one.services or ())
            return {service.name for service in services} - {c.WILDCARD}
        case _:
            return set()
