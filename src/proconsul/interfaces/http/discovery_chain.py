"""`/v1/discovery-chain` (`agent/discovery_chain_endpoint.go`)."""

from __future__ import annotations

from typing import Any

from msgspec import field

from proconsul.domain.base import GoStruct
from proconsul.domain.catalog import MeshGatewayConfig
from proconsul.domain.config_entry_forms import view
from proconsul.domain.discovery_chain.types import CompiledDiscoveryChain, DiscoveryChainResponse
from proconsul.domain.go_decode import GoDecodeError, parse_json, with_floats
from proconsul.domain.mesh_requests import DiscoveryChainRequest
from proconsul.domain.weak_decode import WeakDecodeError, kind_name, weak_decode
from proconsul.drivers.http import Response
from proconsul.interfaces.http.api import Answer, HttpApi
from proconsul.interfaces.http.errors import bad_request
from proconsul.interfaces.http.options import query_options
from proconsul.interfaces.http.query import Ask
from proconsul.services.agent.cache_types import DISCOVERY_CHAIN

_GATEWAY_MODES = frozenset({"", "none", "local", "remote"})


class _Overrides(GoStruct, frozen=True, gc=False):
    """What a proxy says of itself."""

    override_mesh_gateway: MeshGatewayConfig = field(default_factory=MeshGatewayConfig)
    override_protocol: str = ""
    override_connect_timeout_ns: int = 0


def read(api: HttpApi, ask: Ask) -> Answer:
    """GET and POST /v1/discovery-chain/:service"""
    options = query_options(ask, api.config)
    if not ask.rest:
        raise bad_request("Bad request: Missing chain name")
    overrides: dict[str, Any] = {}
    if ask.request.method == "POST":
        given = _decoded(ask.request.body)
        if given.override_mesh_gateway.mode not in _GATEWAY_MODES:
            raise bad_request("Invalid OverrideMeshGateway.Mode parameter")
        overrides = {name: getattr(given, name) for name in _Overrides.__struct_fields__}
    request = DiscoveryChainRequest(
        name=ask.rest, evaluate_in_datacenter=ask.first("compile-dc"), **overrides, **options
    )

    def render(out: DiscoveryChainResponse) -> Response:
        head = api.meta(out, request)
        if ask.request.method == "POST":
            return api.json(ask, _view(out.chain), head)
        return api.shared(ask, out, out.chain, _view, head)

    return api.query("DiscoveryChain.Get", request, render, cache=DISCOVERY_CHAIN)


def _decoded(body: bytes) -> _Overrides:
    try:
        raw = with_floats(parse_json(body)) or {}
        if not isinstance(raw, dict):
            raise GoDecodeError(
                f"json: cannot unmarshal {kind_name(raw)} into Go value of type "
                "map[string]interface {}"
            )
        return weak_decode(raw, _Overrides)[0]
    except (GoDecodeError, WeakDecodeError) as error:
        raise bad_request(f"Bad request: Request decoding failed: {error}") from None


def _view(chain: CompiledDiscoveryChain | None) -> dict[str, Any]:
    return {"Chain": None if chain is None else view(chain)}
