"""Network coordinates and the mesh CA's roots.

After `agent/coordinate_endpoint.go` and `connect_ca_endpoint.go`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from proconsul.domain.base import bytes_of
from proconsul.domain.connect import CARoot, IndexedCARoots
from proconsul.domain.coordinate import CoordinateUpdateRequest, IndexedCoordinates, NodeCoordinate
from proconsul.domain.options import DCSpecificRequest, NodeSpecificRequest
from proconsul.drivers.http import Response
from proconsul.interfaces.http.api import Answer, HttpApi
from proconsul.interfaces.http.catalog import decode_body
from proconsul.interfaces.http.errors import HttpError, bad_request
from proconsul.interfaces.http.options import query_options
from proconsul.interfaces.http.query import Ask, parse_bool
from proconsul.interfaces.http.views import datacenter_maps, node_coordinate
from proconsul.services.agent.cache_types import CA_ROOTS
from proconsul.wire.gotime import decode_time, format_time


def _require_coordinates(api: HttpApi) -> None:
    if api.config.coordinates_disabled:
        raise HttpError(401, "Coordinate support disabled")


async def coordinate_update(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/coordinate/update, for nodes without an agent"""
    _require_coordinates(api)
    request = decode_body(ask, CoordinateUpdateRequest)
    request = replace(
        request,
        datacenter=ask.first("dc") or request.datacenter or api.config.datacenter,
        token=api.token(ask),
    )
    await api.agent.rpc("Coordinate.Update", request)
    return Response()


async def coordinate_datacenters(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/coordinate/datacenters"""
    _require_coordinates(api)
    found = await api.agent.rpc("Coordinate.ListDatacenters", None)
    return api.json(ask, datacenter_maps(found or ()))


def coordinate_nodes(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/coordinate/nodes"""
    _require_coordinates(api)
    request = DCSpecificRequest(**query_options(ask, api.config))

    def render(out: IndexedCoordinates) -> Response:
        return api.json(ask, _of_segment(ask, out.coordinates), api.meta(out))

    return api.query("Coordinate.ListNodes", request, render, level=False)


def coordinate_node(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/coordinate/node/:node"""
    _require_coordinates(api)
    request = NodeSpecificRequest(node=ask.rest, **query_options(ask, api.config))

    def render(out: IndexedCoordinates) -> Response:
        found = _of_segment(ask, out.coordinates)
        return api.json(ask, found, api.meta(out)) if found else Response(404)

    return api.query("Coordinate.Node", request, render, level=False)


def _of_segment(ask: Ask, rows: list[NodeCoordinate] | None) -> list[Any]:
    every, segment = not ask.has("segment"), ask.first("segment")
    return [node_coordinate(row) for row in rows or () if every or row.segment == segment]


def ca_roots(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/connect/ca/roots: JSON, or with `?pem=true` the certificates alone."""
    request = DCSpecificRequest(**query_options(ask, api.config))
    pem = parse_bool(ask.first("pem")) if ask.first("pem") else False
    if pem is None:
        raise bad_request("Bad request: The 'pem' query parameter must be a boolean value")

    def render(out: IndexedCARoots) -> Response:
        if not pem:
            return api.json(ask, _roots(out), api.meta(out))
        chain = "".join(
            text for root in out.roots or () for text in (root.root_cert, *_others(root))
        )
        head = b"Content-Type: application/pem-certificate-chain\r\n"
        return Response(200, chain.encode(), api.meta(out) + head)

    return api.query("ConnectCA.Roots", request, render, level=False)


def agent_ca_roots(api: HttpApi, ask: Ask) -> Answer:
    """GET /v1/agent/connect/ca/roots: the same from the agent's cache."""
    request = DCSpecificRequest(**query_options(ask, api.config))

    def render(out: IndexedCARoots) -> Response:
        return api.json(ask, _roots(out), api.meta(out))

    return api.cached(CA_ROOTS, request, render)


def _time(raw: Raw) -> str:
    return format_time(decode_time(bytes_of(raw)))


def _others(root: CARoot) -> list[str]:
    return root.intermediate_certs or []


def _roots(out: IndexedCARoots) -> dict[str, Any]:
    roots = [
        {
            "ID": root.id,
            "Name": root.name,
            "SerialNumber": root.serial_number,
            "SigningKeyID": root.signing_key_id,
            "ExternalTrustDomain": root.external_trust_domain,
            "NotBefore": _time(root.raw_not_before),
            "NotAfter": _time(root.raw_not_after),
            "RootCert": root.root_cert,
            "IntermediateCerts": root.intermediate_certs,
            "Active": root.active,
            "PrivateKeyType": root.private_key_type,
            "PrivateKeyBits": root.private_key_bits,
            "CreateIndex": root.create_index,
            "ModifyIndex": root.modify_index,
        }
        for root in out.roots or ()
    ]
    return {"ActiveRootID": out.active_root_id, "TrustDomain": out.trust_domain, "Roots": roots}
