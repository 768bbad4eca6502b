"""`connect.sidecar_service` within a registration: short for a proxy that stands before the service.

After `agent/sidecar_service.go`. The nested definition never reaches the catalog: it becomes a service of its
own, which goes when the service it belongs to goes.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from proconsul.domain.catalog import CONNECT_PROXY, NodeService
from proconsul.domain.definitions import CheckType, DefinitionError, ServiceDefinition
from proconsul.domain.go_decode import decode_service_definition
from proconsul.domain.validate import check_service_meta
from proconsul.util.address import host_port

LISTENING_INTERVAL_NS = 10_000_000_000
_LOCALHOST = "127.0.0.1"


def sidecar_id(service_id: str) -> str:
    """The id of a service's sidecar."""
    return f"{service_id}-sidecar-proxy"


def expanded(
    definition: ServiceDefinition, known: Mapping[str, NodeService], ports: tuple[int, int]
) -> list[ServiceDefinition]:
    """The service, and its sidecar if it defines one, on the first of `ports` that is free.

    `known` are the services registered here, by id. Raises `DefinitionError`, `GoDecodeError`.
    """
    service = definition.service
    nested = service.connect.sidecar_service
    if nested is None:
        return [definition]
    own = replace(service, connect=replace(service.connect, sidecar_service=None))
    given = decode_service_definition(nested)
    if given.service.meta and (wrong := check_service_meta(given.service.kind, given.service.meta)):
        raise DefinitionError(wrong)
    sidecar = _sidecar(service, given.service)
    sidecar = replace(
        sidecar, port=sidecar.port if sidecar.port > 0 else _port(sidecar.id, known, ports)
    )
    checks = given.checks or _default_checks(service, sidecar)
    return [
        replace(definition, service=own),
        ServiceDefinition(sidecar, checks, given.token or definition.token),
    ]


def _sidecar(service: NodeService, given: NodeService) -> NodeService:
    proxy = given.proxy
    return replace(
        given,
        id=sidecar_id(service.id),
        kind=given.kind or CONNECT_PROXY,
        service=given.service or f"{service.service}-sidecar-proxy",
        address=given.address or service.address,
        meta=given.meta or (dict(service.meta) if service.meta else given.meta),
        tags=given.tags or (list(service.tags) if service.tags else given.tags),
        locally_registered_as_sidecar=True,
        proxy=replace(
            proxy,
            destination_service_name=proxy.destination_service_name or service.service,
            destination_service_id=proxy.destination_service_id or service.id,
            local_service_address=proxy.local_service_address or _LOCALHOST,
            local_service_port=proxy.local_service_port
            if proxy.local_service_port > 0
            else service.port,
        ),
    )


def _port(own_id: str, known: Mapping[str, NodeService], ports: tuple[int, int]) -> int:
    """The one that it has already, or the lowest that no other service has."""
    first, last = ports
    if first < 1 or last < 1:
        raise DefinitionError(
            "no port provided for sidecar_service and auto-assignment disabled in config"
        )
    taken = set()
    for service in known.values():
        if first <= service.port <= last:
            if service.id == own_id:
                return service.port
            taken.add(service.port)
    for port in range(first, last + 1):
        if port not in taken:
            return port
    raise DefinitionError(
        "no port provided for sidecar_service and none left in the configured range "
        f"[{first}, {last}]"
    )


def _default_checks(service: NodeService, sidecar: NodeService) -> tuple[CheckType, ...]:
    return (
        CheckType(
            name="Connect Sidecar Listening",
            tcp=host_port((sidecar.proxy.local_service_address, sidecar.port)),
            interval_ns=LISTENING_INTERVAL_NS,
        ),
        CheckType(name=f"Connect Sidecar Aliasing {service.id}", alias_service=service.id),
    )
