"""Compiles config entries into a discovery chain (`agent/consul/discoverychain/compile.go`).

A chain is a graph: a router leads to splitters or resolvers, a splitter to resolvers (splitters behind
it are merged into it), a resolver to a target and those that stand in for it.
"""

from __future__ import annotations

from typing import Any

from proconsul.domain.config_entries import (
    DEFAULT_NAMESPACE,
    ServiceResolverConfigEntry,
    ServiceResolverFailover,
    ServiceResolverRedirect,
    ServiceResolverSubset,
    ServiceRoute,
    ServiceRouteDestination,
    ServiceRouteHTTPMatch,
    ServiceRouteMatch,
    ServiceRouterConfigEntry,
)
from proconsul.domain.config_entry_rules import normal_weight
from proconsul.domain.discovery_chain import types as t
from proconsul.domain.discovery_chain.go_hash import customization_hash
from proconsul.domain.discovery_chain.graph import Node, Target, joined
from proconsul.domain.errors import DomainError
from proconsul.util.goquote import go_quote

CONNECT_TIMEOUT_NS = 5_000_000_000
SPLITS_MAX = 10_000
"""Of one splitter once those behind it are merged into it; they multiply."""
_ADVANCED = frozenset({"http", "http2", "grpc"})


class ChainError(DomainError):
    """The entries do not make a chain; the text is Consul's."""


def compile_chain(request: t.CompileRequest, entries: t.ChainEntries) -> t.CompiledDiscoveryChain:
    """The chain of `request.service`. Raises `ChainError`."""
    return _Compiler(request, entries).compile()


class _Compiler:
    def __init__(self, request: t.CompileRequest, entries: t.ChainEntries) -> None:
        self._request, self._entries = request, entries
        self._plain = bool(request.override_protocol) and (
            request.override_protocol not in _ADVANCED
        )
        """Whether routers and splitters are passed over."""
        self._nodes: dict[str, Node] = {}
        self._splitters: dict[str, Node] = {}
        self._resolved: dict[str, Node] = {}
        self._targets: dict[str, Target] = {}
        self._retained: set[str] = set()
        self._protocol = ""
        self._advanced = False
        self._custom_gateway = self._custom_protocol = self._custom_timeout = False

    def compile(self) -> t.CompiledDiscoveryChain:
        request = self._request
        start = self._assemble()
        self._find_circles(start)
        self._merge_splitters()
        nodes = self._reachable(start)
        if self._advanced and self._protocol not in _ADVANCED:
            raise ChainError(
                f"discovery chain {go_quote(request.service)} uses a protocol "
                f"{go_quote(self._protocol)} that does not permit advanced routing or splitting "
                "behavior"
            )
        if request.override_protocol and request.override_protocol != self._protocol:
            self._protocol, self._custom_protocol = request.override_protocol, True
        return t.CompiledDiscoveryChain(
            service_name=request.service,
            namespace=DEFAULT_NAMESPACE,
            datacenter=request.datacenter,
            customization_hash=self._customization(),
            protocol=self._protocol,
            start_node=start,
            nodes={key: nodes[key].finished() for key in sorted(nodes)},
            targets={key: self._targets[key].finished() for key in sorted(self._retained)},
        )

    def _customization(self) -> str:
        if not (self._custom_gateway or self._custom_protocol or self._custom_timeout):
            return ""
        request = self._request
        return customization_hash(
            request.override_mesh_gateway if self._custom_gateway else "",
            request.override_protocol if self._custom_protocol else "",
            request.override_connect_timeout_ns if self._custom_timeout else 0,
        )

    # -- the graph

    def _assemble(self) -> str:
        """Work out all nodes; the key of the first."""
        service = self._request.service
        router = self._entries.router(service)
        if router is not None and self._plain:
            router, self._custom_protocol = None, True
        if router is None:
            return self._split_or_resolve(self._target(service)).key
        node = Node(t.ROUTER, joined(service, DEFAULT_NAMESPACE))
        self._advanced = True
        self._record_protocol(service)
        node.routes = [
            t.DiscoveryRoute(route, self._route_leads(route)) for route in router.routes or ()
        ]
        node.routes.append(self._default_route(router))
        self._nodes[node.key] = node
        return node.key

    def _route_leads(self, route: ServiceRoute) -> str:
        to = route.destination or ServiceRouteDestination()
        service = to.service or self._request.service
        if to.service_subset:
            target = self._target(service, to.service_subset, to.namespace)
            return self._resolve(target).key
        return self._split_or_resolve(self._target(service, "", to.namespace)).key

    def _default_route(self, router: ServiceRouterConfigEntry) -> t.DiscoveryRoute:
        """What no route fits goes to the service itself."""
        match = ServiceRouteMatch(ServiceRouteHTTPMatch(path_prefix="/"))
        to = ServiceRouteDestination(service=router.name, namespace=DEFAULT_NAMESPACE)
        node = self._split_or_resolve(self._target(router.name))
        return t.DiscoveryRoute(ServiceRoute(match, to), node.key)

    def _split_or_resolve(self, target: Target) -> Node:
        return self._split(target.service) or self._resolve(target)

    def _split(self, service: str) -> Node | None:
        name = joined(service, DEFAULT_NAMESPACE)
        if name in self._splitters:
            return self._splitters[name]
        splitter = self._entries.splitter(service)
        if splitter is None:
            return None
        if self._plain:
            self._custom_protocol = True
            return None
        node = self._splitters[name] = Node(t.SPLITTER, name)
        self._nodes[node.key] = node
        for split in splitter.splits or ():
            other = split.service or service
            leads = None
            if other != service and not split.service_subset:
                leads = self._split(other)
            leads = leads or self._resolve(self._target(other, split.service_subset))
            node.splits.append(t.DiscoverySplit(normal_weight(split.weight), leads.key))
        self._advanced = True
        return node

    def _find_circles(self, start: str) -> None:
        """Splitters may lead back to themselves. A node is looked at once, however it is reached."""
        done: set[str] = set()
        path: dict[str, list[str]] = {start: self._nodes[start].next_keys()}
        while path:
            at = next(reversed(path))
            if not path[at]:
                del path[at]
                done.add(at)
                continue
            key = path[at].pop()
            if key in path:
                circle = " -> ".join((*path, key))
                raise ChainError(f"detected circular reference: [{circle}]")
            if key not in done:
                path[key] = self._nodes[key].next_keys()

    def _merge_splitters(self) -> None:
        """Until no splitter leads to another one."""
        changed = True
        while changed:
            changed = False
            for node in self._nodes.values():
                if any(self._nodes[s.next_node].type == t.SPLITTER for s in node.splits):
                    node.splits = [one for split in node.splits for one in self._merged(split)]
                    changed = True
                if len(node.splits) > SPLITS_MAX:
                    raise ChainError(
                        f"discovery chain {go_quote(self._request.service)} splits requests into "
                        f"more than {SPLITS_MAX} parts"
                    )

    def _merged(self, split: t.DiscoverySplit) -> list[t.DiscoverySplit]:
        following = self._nodes[split.next_node]
        if following.type != t.SPLITTER:
            return [split]
        return [
            t.DiscoverySplit(normal_weight(split.weight * inner.weight / 100), inner.next_node)
            for inner in following.splits
        ]

    def _reachable(self, start: str) -> dict[str, Node]:
        found: dict[str, Node] = {}
        todo = [start]
        while todo:
            key = todo.pop()
            if key not in found:
                found[key] = self._nodes[key]
                todo += found[key].next_keys()
        return found

    def _record_protocol(self, service: str) -> None:
        """All services of a chain must speak the same."""
        defaults, proxy = self._entries.service(service), self._entries.proxy
        if defaults is not None:
            protocol = defaults.protocol
        else:
            protocol = weak_text((proxy.config or {}).get("protocol") if proxy else None)
        protocol = protocol.lower() or "tcp"
        if self._protocol and protocol != self._protocol:
            raise ChainError(
                f"discovery chain {go_quote(self._request.service)} uses inconsistent protocols; "
                f"service {go_quote(service)} has {go_quote(protocol)} which is not "
                f"{go_quote(self._protocol)}"
            )
        self._protocol = protocol

    # -- targets and resolvers

    def _target(
        self, service: str, subset: str = "", namespace: str = "", datacenter: str = ""
    ) -> Target:
        request = self._request
        namespace = namespace or DEFAULT_NAMESPACE
        datacenter = datacenter or request.datacenter
        name = joined(subset, service, namespace, datacenter, "internal", request.trust_domain)
        target = Target(service, subset, namespace, datacenter, sni=name, name=name)
        return self._targets.setdefault(target.id, target)

    def _rewritten(
        self,
        target: Target,
        to: ServiceResolverRedirect | ServiceResolverFailover,
        datacenter: str,
    ) -> Target:
        """Where a redirect or failover leads; another service starts without a subset."""
        service = to.service or target.service
        subset = target.subset if service == target.service else ""
        return self._target(
            service,
            to.service_subset or subset,
            to.namespace or target.namespace,
            datacenter or target.datacenter,
        )

    def _resolve(self, target: Target, *, failover: bool = False) -> Node:
        history: list[str] = []
        while True:
            if target.id in self._resolved:
                return self._resolved[target.id]
            self._record_protocol(target.service)
            resolver = self._entries.resolver(target.service) or ServiceResolverConfigEntry()
            if target.id in history:
                circle = " -> ".join([*history, target.id])
                raise ChainError(f"detected circular resolver redirect: [{circle}]")
            history.append(target.id)
            onward = self._onward(target, resolver)
            if onward is None:
                break
            target = onward
        node = self._resolver_node(target, resolver)
        self._retained.add(target.id)
        if failover:
            return node
        self._nodes[node.key] = self._resolved[target.id] = node
        self._fail_over(node, target, resolver)
        return node

    def _onward(self, target: Target, resolver: ServiceResolverConfigEntry) -> Target | None:
        """Where the resolver sends its target to, None if this is it."""
        redirect = resolver.redirect
        if redirect is not None:
            onward = self._rewritten(target, redirect, redirect.datacenter)
            if onward.id != target.id:
                return onward
        if not target.subset and resolver.default_subset:
            return self._target(
                target.service, resolver.default_subset, target.namespace, target.datacenter
            )
        return None

    def _resolver_node(self, target: Target, resolver: ServiceResolverConfigEntry) -> Node:
        subsets = resolver.subsets or {}
        if target.subset and target.subset not in subsets:
            raise ChainError(
                f"service {go_quote(target.service)} does not have a subset named "
                f"{go_quote(target.subset)}"
            )
        timeout_ns = resolver.connect_timeout_ns
        timeout_ns = CONNECT_TIMEOUT_NS if timeout_ns < 1 else timeout_ns
        override_ns = self._request.override_connect_timeout_ns
        if override_ns > 0 and override_ns != timeout_ns:
            timeout_ns, self._custom_timeout = override_ns, True
        target.subset_definition = subsets.get(target.subset, ServiceResolverSubset())
        self._set_sni(target, resolver)
        self._set_gateway(target)
        return Node(
            t.RESOLVER,
            target.id,
            resolver=t.DiscoveryResolver(_is_default(resolver), timeout_ns, target.id),
        )

    def _set_sni(self, target: Target, resolver: ServiceResolverConfigEntry) -> None:
        defaults = self._entries.service(target.service)
        if defaults is None or not defaults.external_sni:
            return
        target.sni, target.external = defaults.external_sni, True
        for value, what in (
            (resolver.redirect is not None, "redirects"),
            (resolver.subsets, "subsets"),
            (resolver.failover, "failover"),
        ):
            if value:
                raise ChainError(
                    f"service {go_quote(target.service)} has an external SNI set; "
                    f"cannot define {what} for external services"
                )

    def _set_gateway(self, target: Target) -> None:
        """By which gateways a target in another datacenter is reached."""
        if target.datacenter == self._request.use_datacenter or target.external:
            target.gateway_mode = ""
            return
        defaults, proxy = self._entries.service(target.service), self._entries.proxy
        if defaults is not None:
            target.gateway_mode = defaults.mesh_gateway.mode
        if proxy is not None and not target.gateway_mode:
            target.gateway_mode = proxy.mesh_gateway.mode
        override = self._request.override_mesh_gateway
        if override and override != target.gateway_mode:
            target.gateway_mode, self._custom_gateway = override, True

    def _fail_over(self, node: Node, target: Target, resolver: ServiceResolverConfigEntry) -> None:
        failovers = resolver.failover or {}
        to = failovers.get(target.subset, failovers.get("*"))
        if to is None or node.resolver is None:
            return
        others = [self._rewritten(target, to, dc) for dc in to.datacenters or ("",)]
        found = [
            self._resolve(other, failover=True).resolver
            for other in others
            if other.id != target.id
        ]
        targets = [one.target for one in found if one is not None]
        if targets:
            default, timeout_ns = node.resolver.default, node.resolver.connect_timeout_ns
            node.resolver = t.DiscoveryResolver(
                default, timeout_ns, target.id, t.DiscoveryFailover(targets)
            )


def _is_default(resolver: ServiceResolverConfigEntry) -> bool:
    return not (
        resolver.default_subset
        or resolver.subsets
        or resolver.redirect is not None
        or resolver.failover
        or resolver.connect_timeout_ns
    )


def weak_text(value: Any) -> str:
    """A scalar of a free-form configuration as text."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) else ""
