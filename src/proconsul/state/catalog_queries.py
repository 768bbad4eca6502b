"""Reads of nodes, services and checks, with Consul's blocking indexes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from proconsul.domain.catalog import (
    ANY_STATE,
    TERMINATING_GATEWAY,
    CheckServiceNode,
    HealthCheck,
    Node,
    NodeInfo,
    NodeService,
    NodeServices,
    ServiceNode,
    Weights,
)
from proconsul.state.catalog import kind_index, service_index
from proconsul.state.tables import (
    CHECKS,
    EXTINCTION,
    GATEWAY_SERVICES,
    NODES,
    SERVICES,
    InstanceKey,
    Tables,
)
from proconsul.state.watch import Answer, Watch, WatchRegistry

_UUID_PREFIX_LENGTH_MIN = 2


def has_meta(meta: dict[str, str] | None, wanted: dict[str, str] | None) -> bool:
    """Whether `meta` contains all pairs of `wanted`."""
    if not wanted:
        return True
    return meta is not None and all(meta.get(key) == value for key, value in wanted.items())


def has_tags(service: NodeService, tags: Iterable[str]) -> bool:
    """Whether the instance carries all `tags`, in any case of letters."""
    own = {tag.lower() for tag in service.tags or ()}
    return all(tag.lower() in own for tag in tags)


def _has_address(service: NodeService, address: str) -> bool:
    tagged = (service.tagged_addresses or {}).values()
    return service.address == address or any(one.address == address for one in tagged)


class CatalogQueries:
    """Every list is in the order of names (node, then service or check ID)."""

    __slots__ = ("_tables", "_watches")

    def __init__(self, tables: Callable[[], Tables], watches: WatchRegistry) -> None:
        self._tables = tables
        self._watches = watches

    def _watch(self, *keys: Hashable) -> Watch:
        return Watch(self._watches, keys)

    # --- nodes

    def nodes(self, meta: dict[str, str] | None = None) -> Answer[list[Node]]:
        """All nodes whose metadata contains `meta`."""
        t = self._tables()
        rows = [t.nodes[key] for key in sorted(t.nodes) if has_meta(t.nodes[key].meta, meta)]
        return Answer(max(t.max_index(NODES), 1), rows, self._watch(NODES))

    def node(self, name: str) -> Answer[Node | None]:
        t = self._tables()
        row = t.nodes.get(name.lower())
        return Answer(max(t.max_index(NODES), 1), row, self._watch(("node", name.lower())))

    def node_by_id(self, node_id: str) -> Answer[Node | None]:
        t = self._tables()
        key = t.node_ids.get(node_id.lower())
        row = t.nodes[key] if key is not None else None
        return Answer(max(t.max_index(NODES), 1), row, self._watch(NODES))

    def node_services(self, name_or_id: str) -> Answer[NodeServices | None]:
        """A node, by name or by an unambiguous prefix of its ID, and its services."""
        t = self._tables()
        key = self._find_node(t, name_or_id)
        if key is None:
            return Answer(1, None, self._watch(("node", name_or_id.lower()), NODES))
        services = t.services.get(key, {})
        value = NodeServices(
            t.nodes[key], {services[at].id: services[at] for at in sorted(services)}
        )
        index = t.max_index(NODES, SERVICES)
        return Answer(max(index, 1), value, self._watch(("node", key), ("node-services", key)))

    @staticmethod
    def _find_node(t: Tables, name_or_id: str) -> str | None:
        key = name_or_id.lower()
        if key in t.nodes:
            return key
        if len(key) < _UUID_PREFIX_LENGTH_MIN:
            return None
        found = [node for node_id, node in t.node_ids.items() if node_id.startswith(key)]
        return found[0] if len(found) == 1 else None

    # --- services

    def services(self, node_meta: dict[str, str] | None = None) -> Answer[dict[str, list[str]]]:
        """Names of all services and the union of their instances' tags, both sorted."""
        t = self._tables()
        unique: dict[str, set[str]] = {}
        for key, instances in t.services.items():
            if node_meta and not has_meta(t.nodes[key].meta, node_meta):
                continue
            for service in instances.values():
                unique.setdefault(service.service, set()).update(service.tags or ())
        value = {name: sorted(unique[name]) for name in sorted(unique)}
        if node_meta:
            index, watch = t.max_index(NODES, SERVICES), self._watch(NODES, SERVICES)
        else:
            index, watch = t.max_index(SERVICES), self._watch(SERVICES)
        return Answer(max(index, 1), value, watch)

    def service_nodes(
        self,
        name: str,
        *,
        tags: Iterable[str] = (),
        address: str = "",
        node_meta: dict[str, str] | None = None,
        connect: bool = False,
    ) -> Answer[list[ServiceNode]]:
        """Instances of a service, or of any that has `address`, with their nodes' data, flat."""
        t = self._tables()
        if address and not name:
            return self._at_address(t, address)
        keys, names = self._instances(t, name, connect)
        index = self._service_index(t, name, names, connect, checks=False)
        rows = []
        for key in keys:
            node, service = t.nodes[key[0]], t.services[key[0]][key[1]]
            if not has_tags(service, tags) or not has_meta(node.meta, node_meta):
                continue
            if address and not _has_address(service, address):
                continue
            rows.append(_service_node(node, service))
        return Answer(index, rows, self._service_watch(name, names, connect))

    def _at_address(self, t: Tables, address: str) -> Answer[list[ServiceNode]]:
        rows = [
            _service_node(t.nodes[key], instances[at])
            for key, instances in sorted(t.services.items())
            for at in sorted(instances)
            if _has_address(instances[at], address)
        ]
        return Answer(max(t.max_index(NODES, SERVICES), 1), rows, self._watch(NODES, SERVICES))

    def check_service_nodes(
        self, name: str, *, tags: Iterable[str] = (), connect: bool = False
    ) -> Answer[list[CheckServiceNode]]:
        """Instances of a service with node and checks; `connect`: what answers for it in the mesh.

        Sleeps through changes of other services: it wakes by the index of this one alone.
        """
        t = self._tables()
        keys, names = self._instances(t, name, connect)
        index = self._service_index(t, name, names, connect, checks=True)
        tags = tuple(tags)
        rows = [
            _check_service_node(t, key)
            for key in keys
            if not tags or has_tags(t.services[key[0]][key[1]], tags)
        ]
        return Answer(index, rows, self._service_watch(name, names, connect))

    @staticmethod
    def _instances(
        t: Tables, name: str, connect: bool
    ) -> tuple[list[InstanceKey], dict[str, None]]:
        groups = t.connect_names if connect else t.service_names
        keys = sorted(groups.get(name.lower(), ()))
        if connect:  # terminating gateways answer for services without proxies
            for at in sorted(t.gateway_names.get(name.lower(), ())):
                if t.gateway_services[at].gateway_kind == TERMINATING_GATEWAY:
                    keys += sorted(t.service_names.get(at[0], ()))
        return keys, {t.services[node][service].service: None for node, service in keys}

    def _service_watch(self, name: str, names: Iterable[str], connect: bool) -> Watch:
        own: list[Hashable] = [("connect" if connect else "service", name.lower())]
        if connect:
            own.append(GATEWAY_SERVICES)
        return self._watch(*own, *(("service", other.lower()) for other in names))

    @staticmethod
    def _service_index(
        t: Tables, name: str, names: dict[str, None], connect: bool, *, checks: bool
    ) -> int:
        """Of the named services the highest; of a missing one, when a service last vanished."""
        tables = (NODES, SERVICES, CHECKS) if checks else (NODES, SERVICES)
        least = 1
        if connect:
            behind = (t.gateway_services[at] for at in t.gateway_names.get(name.lower(), ()))
            least = max((one.modify_index for one in behind), default=1)
        if not names and EXTINCTION in t.index:
            return max(t.index[EXTINCTION], least)
        found = [
            t.index.get(service_index(one)) or t.max_index(*tables) for one in names or (name,)
        ]
        return max(*found, least)

    def service_dump(self, kind: str | None = None) -> Answer[list[CheckServiceNode]]:
        """All instances with nodes and checks, or those of one kind ("" is typical)."""
        t = self._tables()
        if kind is None:
            keys = sorted((node, at) for node, inner in t.services.items() for at in inner)
            index = t.max_index(NODES, SERVICES, CHECKS)
            watch = self._watch(NODES, SERVICES, CHECKS)
        else:
            keys = sorted(t.service_kinds.get(kind, ()))
            index = t.max_index(kind_index(kind))
            watch = self._watch(("kind", kind))
        return Answer(max(index, 1), [_check_service_node(t, key) for key in keys], watch)

    # --- checks

    def node_checks(self, node: str) -> Answer[list[HealthCheck]]:
        t = self._tables()
        checks = t.checks.get(node.lower(), {})
        rows = [checks[key] for key in sorted(checks)]
        watch = self._watch(("node-checks", node.lower()))
        return Answer(max(t.max_index(CHECKS), 1), rows, watch)

    def service_checks(
        self, name: str, node_meta: dict[str, str] | None = None
    ) -> Answer[list[HealthCheck]]:
        """The checks of all instances of a service."""
        t = self._tables()
        keys = sorted(t.check_services.get(name.lower(), ()))
        rows = [
            t.checks[node][check] for node, check in keys if has_meta(t.nodes[node].meta, node_meta)
        ]
        keys_: list[Hashable] = [("check-service", name.lower())]
        index = t.max_index(CHECKS)
        if node_meta:
            index = t.index.get(service_index(name)) or t.max_index(NODES, SERVICES, CHECKS)
            keys_.append(NODES)
        return Answer(max(index, 1), rows, self._watch(*keys_))

    def checks_in_state(
        self, state: str, node_meta: dict[str, str] | None = None
    ) -> Answer[list[HealthCheck]]:
        """All checks of one status, or of any."""
        t = self._tables()
        rows = [
            t.checks[node][key]
            for node in sorted(t.checks)
            if has_meta(t.nodes[node].meta, node_meta)
            for key in sorted(t.checks[node])
            if state in {ANY_STATE, t.checks[node][key].status}
        ]
        watch = self._watch(CHECKS, NODES) if node_meta else self._watch(CHECKS)
        return Answer(max(t.max_index(CHECKS), 1), rows, watch)

    # --- dumps

    def node_dump(self, name: str | None = None) -> Answer[list[NodeInfo]]:
        """All nodes with everything on them, or one."""
        t = self._tables()
        if name is None:
            keys = sorted(t.nodes)
            watch = self._watch(NODES, SERVICES, CHECKS)
        else:
            key = name.lower()
            keys = [key] if key in t.nodes else []
            watch = self._watch(("node", key), ("node-services", key), ("node-checks", key))
        rows = [_node_info(t, key) for key in keys]
        return Answer(max(t.max_index(NODES, SERVICES, CHECKS), 1), rows, watch)


def _node_info(t: Tables, key: str) -> NodeInfo:
    node, services, checks = t.nodes[key], t.services.get(key, {}), t.checks.get(key, {})
    return NodeInfo(
        node.id,
        node.node,
        node.address,
        node.tagged_addresses,
        node.meta,
        [services[at] for at in sorted(services)] or None,
        [checks[at] for at in sorted(checks)] or None,
    )


def _check_service_node(t: Tables, key: InstanceKey) -> CheckServiceNode:
    """Checks of the node come first, then those of the instance."""
    checks = t.checks.get(key[0])
    rows: list[HealthCheck] | None = None
    if checks:
        ordered = [checks[at] for at in sorted(checks)] if len(checks) > 1 else checks.values()
        rows = [check for check in ordered if not check.service_id]
        rows += [check for check in ordered if check.service_id.lower() == key[1]]
    return CheckServiceNode(t.nodes[key[0]], t.services[key[0]][key[1]], rows or None)


def _service_node(node: Node, service: NodeService) -> ServiceNode:
    return ServiceNode(
        node.id,
        node.node,
        node.address,
        node.datacenter,
        node.tagged_addresses,
        node.meta,
        service.kind,
        service.id,
        service.service,
        service.tags or [],
        service.address,
        service.tagged_addresses or None,
        service.weights or Weights(),
        service.meta or {},
        service.port,
        service.enable_tag_override,
        service.proxy,
        service.connect,
        service.create_index,
        service.modify_index,
    )
