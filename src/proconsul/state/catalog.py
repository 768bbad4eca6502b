"""Writes to nodes, services and checks (`agent/consul/state/catalog.go`, `catalog_oss.go`).

Index semantics: besides the tables' indexes there is one per service name and one per service
kind, raised by whatever shows in a health query for it (the service, its checks, its node and
the node's checks). They are what blocking queries wait on. When the last instance of a service
goes, its index goes too, and `service_last_extinction` takes its place.
"""

from __future__ import annotations

from msgspec.structs import replace

from proconsul.domain.catalog import (
    CONNECT_PROXY,
    CRITICAL,
    DEFAULT_WEIGHTS,
    SERF_CHECK_ID,
    HealthCheck,
    Node,
    NodeService,
    RegisterRequest,
)
from proconsul.domain.validate import check_service_meta
from proconsul.state import gateways, sessions
from proconsul.state.errors import MISSING_NODE, MISSING_SERVICE, StateError
from proconsul.state.tables import (
    CHECKS,
    COORDINATES,
    EXTINCTION,
    NODES,
    SERVICES,
    InstanceKey,
    Tables,
    Transaction,
)


def service_index(name: str) -> str:
    """The index table's key of a service name."""
    return f"service.{name}"


def kind_index(kind: str) -> str:
    """The index table's key of a service kind."""
    return f"service_kind.{kind or 'typical'}"


def ensure_registration(tx: Transaction, request: RegisterRequest) -> None:
    """Register a node and what comes with it; what does not change is left alone."""
    existing = tx.t.nodes.get(request.node.lower())
    if request.changes_node(existing):
        node = request.as_node()
        if not tx.preserve:
            node = replace(node, create_index=0, modify_index=0)
        try:
            ensure_node(tx, node)
        except StateError as error:
            raise StateError(f"failed inserting node: {error}") from error
    if request.service is not None:
        current = get_service(tx.t, request.node, request.service.id)
        if current is None or not current.is_same(request.service):
            try:
                ensure_service(tx, request.node, request.service)
            except StateError as error:
                raise StateError(f"failed inserting service: {error}") from error
    for check in ([request.check] if request.check else []) + (request.checks or []):
        if check.node != request.node:
            raise StateError(f'check node "{check.node}" does not match node "{request.node}"')
        try:
            ensure_check(tx, check)
        except StateError as error:
            raise StateError(f'failed inserting check: {error} on node "{check.node}"') from error


# --- nodes


def ensure_node(tx: Transaction, node: Node) -> None:
    """Insert or update; a known ID under a new name renames the node.

    Raises `StateError` if the name belongs to another, healthy node.
    """
    t = tx.t
    existing: Node | None = None
    if node.id:
        key = t.node_ids.get(node.id.lower())
        if key is not None:
            existing = t.nodes[key]
            if existing.node != node.node:
                reason = _name_conflict(t, node, clash_without_id=False)
                if reason:
                    raise StateError(
                        f'Error while renaming Node ID: "{node.id}" ({node.address}): {reason}'
                    )
                delete_node(tx, existing.node)
        else:
            reason = _name_conflict(t, node, clash_without_id=True)
            if reason:
                raise StateError(f'Error while renaming Node ID: "{node.id}": {reason}')
    key = node.node.lower()
    if existing is None:
        existing = t.nodes.get(key)
    if existing is not None:
        if node.is_same(existing):
            return
        node = replace(node, create_index=existing.create_index, modify_index=tx.index)
    elif not tx.preserve or node.create_index == 0:
        node = replace(node, create_index=tx.index, modify_index=tx.index)
    stored = t.nodes.get(key)
    if stored is not None and stored.id and stored.id.lower() != node.id.lower():
        tx.remove(t.node_ids, stored.id.lower())
    if node.id:
        tx.put(t.node_ids, node.id.lower(), key)
    t.node_views.keep(key)
    if stored is None:
        tx.add_sorted(t.node_keys, key)
    tx.put(t.nodes, key, node)
    tx.bump(NODES)
    tx.touch(NODES, ("node", key))
    _raise_services_of_node(tx, key)


def _name_conflict(t: Tables, node: Node, *, clash_without_id: bool) -> str | None:
    """Why `node` may not take its name. A failed or external holder of it gives way."""
    other = t.nodes.get(node.node.lower())
    if other is None or other.id == node.id or (not other.id and clash_without_id):
        return None
    serf = t.checks.get(other.node.lower(), {}).get(SERF_CHECK_ID.lower())
    if serf is None or serf.status == CRITICAL:
        return None
    return (
        f"Node name {node.node} is reserved by node {other.id} with name {other.node}"
        f" ({other.address})"
    )


def delete_node(tx: Transaction, name: str) -> None:
    """Remove a node with its services, checks, coordinates and sessions."""
    t, key = tx.t, name.lower()
    node = t.nodes.get(key)
    if node is None:
        return
    for service in list(t.services.get(key, {}).values()):
        _raise_service(tx, service)
        delete_service(tx, name, service.id)
    for check in list(t.checks.get(key, {}).values()):
        delete_check(tx, name, check.check_id)
    for at in [at for at in t.coordinates if at[0] == key]:
        tx.remove(t.coordinates, at)
        tx.bump(COORDINATES)
        tx.touch(COORDINATES, ("coordinate", key))
    t.node_views.keep(key)
    tx.discard_sorted(t.node_keys, key)
    tx.remove(t.nodes, key)
    if node.id and t.node_ids.get(node.id.lower()) == key:
        tx.remove(t.node_ids, node.id.lower())
    tx.bump(NODES)
    tx.touch(NODES, ("node", key))
    sessions.delete_of_node(tx, key)


# --- services


def get_service(t: Tables, node: str, service_id: str) -> NodeService | None:
    return t.services.get(node.lower(), {}).get(service_id.lower())


def ensure_service(tx: Transaction, node: str, service: NodeService) -> None:
    """Insert or update an instance. Raises `StateError` if its node is missing."""
    reason = check_service_meta(service.kind, service.meta)
    if reason:
        raise StateError(
            f"Invalid Service Meta for node {node} and serviceID {service.id}: {reason}"
        )
    if node.lower() not in tx.t.nodes:
        raise StateError(MISSING_NODE)
    if not service.id:
        raise StateError("failed inserting service: object missing primary index")
    gateways.service_written(tx, service)
    weights = service.weights
    row = replace(
        service,
        weights=weights if weights is not None and weights.is_valid() else DEFAULT_WEIGHTS,
        locally_registered_as_sidecar=False,
    )
    key = (node.lower(), service.id.lower())
    existing = get_service(tx.t, node, service.id)
    if existing is not None:
        if existing.is_same(row):
            return
        row = replace(
            row,
            create_index=existing.create_index,
            modify_index=existing.modify_index if tx.preserve else tx.index,
        )
        _unlink_service(tx, key, existing)
        if existing.service.lower() != row.service.lower():
            tx.touch(("service", existing.service.lower()))
    elif not tx.preserve:
        row = replace(row, create_index=tx.index, modify_index=tx.index)
    tx.t.node_views.keep(key[0])
    tx.put(tx.group(tx.t.services, key[0]), key[1], row)
    tx.put(tx.group(tx.t.service_names, row.service.lower()), key, None)
    tx.put(tx.group(tx.t.service_kinds, row.kind), key, None)
    target = connect_target(row)
    if target:
        tx.put(tx.group(tx.t.connect_names, target), key, None)
        tx.touch(("connect", target))
    tx.raise_to(SERVICES, row.modify_index) if tx.preserve else tx.bump(SERVICES)
    tx.touch(SERVICES, ("node-services", key[0]))
    _raise_service(tx, row, row.modify_index)


def connect_target(service: NodeService) -> str:
    """The service (lower case) that this instance answers for in the mesh, or ""."""
    if service.kind == CONNECT_PROXY:
        return service.proxy.destination_service_name.lower()
    return service.service.lower() if service.connect.native else ""


def _unlink_service(tx: Transaction, key: InstanceKey, row: NodeService) -> None:
    tx.ungroup(tx.t.service_names, row.service.lower(), key)
    tx.ungroup(tx.t.service_kinds, row.kind, key)
    target = connect_target(row)
    if target:
        tx.ungroup(tx.t.connect_names, target, key)
        tx.touch(("connect", target))


def delete_service(tx: Transaction, node: str, service_id: str) -> None:
    """Remove an instance and its checks."""
    t, key = tx.t, (node.lower(), service_id.lower())
    row = get_service(t, node, service_id)
    if row is None:
        return
    for check in list(t.checks.get(key[0], {}).values()):
        if check.service_id.lower() == key[1]:
            delete_check(tx, node, check.check_id)
    tx.bump(CHECKS)
    t.node_views.keep(key[0])
    tx.ungroup(t.services, key[0], key[1])
    _unlink_service(tx, key, row)
    tx.bump(SERVICES)
    tx.raise_to(kind_index(row.kind), tx.index)
    name = row.service.lower()
    tx.touch(SERVICES, ("node-services", key[0]), ("service", name), ("kind", row.kind))
    if name in t.service_names:
        tx.raise_to(service_index(row.service), tx.index)
    else:
        if service_index(row.service) in t.index:
            tx.remove(t.index, service_index(row.service))
        tx.bump(EXTINCTION)
        gateways.service_vanished(tx, row.service)


def _raise_service(tx: Transaction, row: NodeService, index: int | None = None) -> None:
    at = tx.index if index is None else index
    tx.raise_to(service_index(row.service), at)
    tx.raise_to(kind_index(row.kind), at)
    tx.touch(("service", row.service.lower()), ("kind", row.kind))


def _raise_services_of_node(tx: Transaction, key: str) -> None:
    for service in tx.t.services.get(key, {}).values():
        _raise_service(tx, service)


# --- checks


def get_check(t: Tables, node: str, check_id: str) -> HealthCheck | None:
    return t.checks.get(node.lower(), {}).get(check_id.lower())


def ensure_check(tx: Transaction, check: HealthCheck) -> None:
    """Insert or update. A critical one invalidates the sessions that depend on it.

    Raises `StateError` if its node or service is missing.
    """
    t, node = tx.t, check.node.lower()
    existing = get_check(t, check.node, check.check_id)
    if existing is not None:
        check = replace(
            check, create_index=existing.create_index, modify_index=existing.modify_index
        )
    elif not tx.preserve:
        check = replace(check, create_index=tx.index)
    if not check.status:
        check = replace(check, status=CRITICAL)
    if node not in t.nodes:
        raise StateError(MISSING_NODE)
    service = None
    if check.service_id:
        service = get_service(t, check.node, check.service_id)
        if service is None:
            raise StateError(MISSING_SERVICE)
        check = replace(check, service_name=service.service, service_tags=service.tags)
    modified = existing is None or not existing.is_same(check)
    if modified:
        if service is not None:
            _raise_service(tx, service)
        else:
            _raise_services_of_node(tx, node)
        if not tx.preserve:
            check = replace(check, modify_index=tx.index)
    if check.status == CRITICAL:
        sessions.delete_of_check(tx, node, check.check_id)
    if existing is not None:
        _unlink_check(tx, existing)
    key = (node, check.check_id.lower())
    t.node_views.keep(node)
    tx.put(tx.group(t.checks, node), key[1], check)
    if check.service_name:
        tx.put(tx.group(t.check_services, check.service_name.lower()), key, None)
    tx.bump(CHECKS)
    if modified:
        tx.touch(CHECKS, ("node-checks", node), ("check-service", check.service_name.lower()))


def _unlink_check(tx: Transaction, check: HealthCheck) -> None:
    if check.service_name:
        key = (check.node.lower(), check.check_id.lower())
        tx.ungroup(tx.t.check_services, check.service_name.lower(), key)
        tx.touch(("check-service", check.service_name.lower()))


def delete_check(tx: Transaction, node: str, check_id: str) -> None:
    """Remove a check and the sessions that depend on it."""
    key = node.lower()
    existing = get_check(tx.t, node, check_id)
    if existing is None:
        return
    if existing.service_id:
        service = get_service(tx.t, node, existing.service_id)
        if service is not None:
            _raise_service(tx, service)
    else:
        _raise_services_of_node(tx, key)
        tx.bump(SERVICES)
    _unlink_check(tx, existing)
    tx.t.node_views.keep(key)
    tx.ungroup(tx.t.checks, key, existing.check_id.lower())
    tx.bump(CHECKS)
    tx.touch(CHECKS, ("node-checks", key))
    sessions.delete_of_check(tx, key, check_id)
