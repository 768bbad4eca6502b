"""What a token may write to the catalog, and see of it (agent/consul/acl.go, the lower half).

Without ACLs nothing is vetted at all: some of these checks refuse for other reasons than rights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from proconsul.domain import catalog as c
from proconsul.domain.acl import AllowAll, Authorizer
from proconsul.domain.errors import PermissionDeniedError
from proconsul.rpc.endpoints.base import RequestError
from proconsul.state.catalog_queries import CatalogQueries

CONSUL_SERVICE = "consul"


def unrestricted(may: Authorizer) -> bool:
    """Whether ACLs are off."""
    return isinstance(may, AllowAll)


def require(allowed: bool) -> None:
    """Raises `PermissionDeniedError` unless allowed."""
    if not allowed:
        raise PermissionDeniedError


# --- writes


def vet_service(service: c.NodeService, may: Authorizer) -> None:
    """The service itself, and what a proxy stands for. The servers' own one is vetted later."""
    if service.service != CONSUL_SERVICE:
        require(may.service_write(service.service))
    if service.kind == c.CONNECT_PROXY:
        require(may.service_write(service.proxy.destination_service_name))


def vet_register(request: c.RegisterRequest, may: Authorizer, catalog: CatalogQueries) -> None:
    """Raises unless all that a registration changes may be written. `check` must be in `checks`."""
    if unrestricted(may):
        return
    known = catalog.node_services(request.node).value
    node = None if known is None else known.node
    services = (None if known is None else known.services) or {}
    if node is None or _changes_node(request, node):
        require(may.node_write(request.node))
    if (service := request.service) is not None:
        require(may.service_write(service.service))
        other = services.get(service.id)
        if other is not None:
            require(may.service_write(other.service))
    for check in request.checks or ():
        _vet_check(check, request, services, may)


def _vet_check(
    check: c.HealthCheck,
    request: c.RegisterRequest,
    services: dict[str, c.NodeService],
    may: Authorizer,
) -> None:
    if check.node != request.node:
        raise RequestError(
            f"Node '{check.node}' for check '{check.check_id}' doesn't match register request "
            f"node '{request.node}'"
        )
    if not check.service_id:
        require(may.node_write(request.node))
        return
    if request.service is not None and request.service.id == check.service_id:
        return
    other = services.get(check.service_id)
    if other is None:
        raise RequestError(f"Unknown service '{check.service_id}' for check '{check.check_id}'")
    require(may.service_write(other.service))


def _changes_node(request: c.RegisterRequest, node: c.Node) -> bool:
    """Agents repeat what is known of their node with every service: that needs no right."""
    if request.skip_node_update:
        return False
    given = (request.id, request.node, request.address, request.datacenter)
    maps = (request.tagged_addresses or {}, request.node_meta or {})
    known = (node.id, node.node, node.address, node.datacenter)
    return given != known or maps != (node.tagged_addresses or {}, node.meta or {})


def vet_deregister(request: c.DeregisterRequest, may: Authorizer, catalog: CatalogQueries) -> None:
    """Raises unless the node, or else the very service or check, may be written."""
    if unrestricted(may) or may.node_write(request.node):
        return
    if request.service_id:
        known = catalog.node_services(request.node).value
        service = ((known.services if known else None) or {}).get(request.service_id)
        if service is None:
            raise RequestError(f"Unknown service '{request.service_id}'")
        require(may.service_write(service.service))
    elif request.check_id:
        checks = catalog.node_checks(request.node).value
        check = next((one for one in checks if one.check_id == request.check_id), None)
        if check is None:
            raise RequestError(f"Unknown check '{request.check_id}'")
        require(bool(check.service_id) and may.service_write(check.service_name))
    else:
        raise PermissionDeniedError


# --- reads


def sees_service(may: Authorizer, service: str) -> bool:
    """Whatever has no service is not hidden on account of it."""
    return not service or may.service_read(service)


def sees_check(may: Authorizer, check: c.HealthCheck) -> bool:
    """Its node and, if it is of one, its service."""
    return may.node_read(check.node) and sees_service(may, check.service_name)


def allowed_instances(
    rows: Iterable[c.CheckServiceNode], may: Authorizer
) -> list[c.CheckServiceNode]:
    """Those whose node and service the caller may read."""
    if unrestricted(may):
        return list(rows)
    return [r for r in rows if may.node_read(r.node.node) and sees_service(may, r.service.service)]


def allowed_service_nodes(rows: list[c.ServiceNode], may: Authorizer) -> list[c.ServiceNode]:
    """As `allowed_instances`."""
    if unrestricted(may):
        return rows
    return [r for r in rows if may.node_read(r.node) and sees_service(may, r.service_name)]


def allowed_dump(rows: Iterable[c.NodeInfo], may: Authorizer) -> list[c.NodeInfo]:
    """Nodes that the caller may read, with what it may read of them."""
    if unrestricted(may):
        return list(rows)
    return [_allowed_parts(row, may) for row in rows if may.node_read(row.node)]


def _allowed_parts(row: c.NodeInfo, may: Authorizer) -> c.NodeInfo:
    changes: dict[str, Any] = {}
    if row.services:
        changes["services"] = [s for s in row.services if sees_service(may, s.service)]
    if row.checks:
        changes["checks"] = [s for s in row.checks if sees_service(may, s.service_name)]
    return replace(row, **changes)


def allowed_node_services(found: c.NodeServices | None, may: Authorizer) -> c.NodeServices | None:
    """The node's services, or None if the node itself is hidden.

    Consul 1.8 asks for the right to read services named as the services' ids are; so do we.
    """
    if found is None or found.node is None or unrestricted(may):
        return found
    if not may.node_read(found.node.node):
        return None
    services = found.services or {}
    return replace(found, services={i: s for i, s in services.items() if sees_service(may, i)})
