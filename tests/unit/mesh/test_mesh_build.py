"""Catalog view -> snapshot."""

from __future__ import annotations

from typing import Any

import pytest

from proconsul.domain.catalog import (
    CheckServiceNode,
    ConnectProxyConfig,
    HealthCheck,
    Node,
    NodeService,
    ServiceAddress,
    Weights,
)
from proconsul.mesh.build import CatalogGateways, GatewayView, fresher, mesh_gateway_snapshot
from proconsul.mesh.snapshot import Bind, Endpoint, MeshGatewaySnapshot, RemoteDatacenter


def instance(
    host: str, port: int = 8443, index: int = 1, status: str = "passing", **service: Any
) -> CheckServiceNode:
    return CheckServiceNode(
        node=Node(node=f"n-{host}", address="10.9.9.9", tagged_addresses={"wan": "10.8.8.8"}),
        service=NodeService(
            **{
                "service": "mesh-gateway",
                "address": host,
                "port": port,
                "modify_index": index,
                **service,
            }
        ),
        checks=[HealthCheck(check_id="c", status=status, modify_index=index)],
    )


def gateway(config: dict[str, Any] | None = None, **service: Any) -> NodeService:
    return NodeService(
        **{
            "kind": "mesh-gateway",
            "service": "mesh-gateway",
            "id": "gw",
            "address": "10.0.0.1",
            "port": 8443,
            "proxy": ConnectProxyConfig(config=config),
            **service,
        }
    )


def view(**changes: Any) -> GatewayView:
    base: dict[str, Any] = {
        "service": gateway(),
        "datacenter": "dc1",
        "domain": "consul.",
        "trust_domain": "t.consul",
        "federation": {},
        "catalog": {},
        "servers": (),
        "services": {},
    }
    return GatewayView(**(base | changes))


def build(**changes: Any) -> MeshGatewaySnapshot:
    return mesh_gateway_snapshot(view(**changes))


def test_empty_view_still_has_a_listener() -> None:
    snapshot = build()
    assert snapshot.binds == (Bind("default", "10.0.0.1", 8443),)
    assert not snapshot.wan_federation
    assert snapshot.domain == "consul"
    assert snapshot.proxy_id == "gw"


def test_remote_gateways_by_wan_address_and_server_traffic_to_those_that_expose() -> None:
    meta = {"consul-wan-federation": "1"}
    tagged = {"wan": ServiceAddress(address="192.0.2.1", port=9443)}
    nodes = [
        instance("10.2.0.1", meta=meta, tagged_addresses=tagged),
        instance("10.2.0.2"),
        instance("", meta=meta),
        instance("10.2.0.4", status="critical", meta=meta),
    ]
    (remote,) = build(federation={"dc2": nodes, "dc1": nodes}).datacenters
    everything = (
        Endpoint("10.2.0.2", 8443),
        Endpoint("10.2.0.4", 8443, healthy=False),
        Endpoint("10.8.8.8", 8443),
        Endpoint("192.0.2.1", 9443),
    )
    exposing = tuple(e for e in everything if e.host != "10.2.0.2")
    assert remote == RemoteDatacenter("dc2", everything, exposing)


def test_order_does_not_matter() -> None:
    nodes = [instance(f"10.2.0.{n}") for n in range(1, 5)]
    one = build(federation={"dc2": nodes, "dc3": nodes}, servers=nodes, services={"a": nodes})
    other = build(
        federation={"dc3": nodes[::-1], "dc2": nodes[2:] + nodes[:3]},
        servers=nodes[::-1],
        services={"a": nodes[::-1]},
    )
    assert one == other


def test_local_parts_by_lan_address_and_health() -> None:
    snapshot = build(
        servers=[instance("", 8300), instance("10.1.0.2", 8300, status="critical")],
        services={
            "web": [
                instance("10.1.0.5", 80, weights=Weights(passing=7, warning=0)),
                instance("10.1.0.6", 80, status="warning", weights=Weights(passing=7, warning=2)),
                instance("10.1.0.7", 80, status="warning", weights=Weights(passing=7)),
            ],
            "none": [],
        },
        service=gateway({"connect_timeout_ms": "250"}, meta={"consul-wan-federation": "1"}),
    )
    assert snapshot.wan_federation
    assert snapshot.connect_timeout_s == 0.25
    assert [s.endpoint for s in snapshot.servers] == [
        Endpoint("10.9.9.9", 8300),
        Endpoint("10.1.0.2", 8300, healthy=False),
    ]
    (web,) = snapshot.services
    assert web.endpoints[0] == Endpoint("10.1.0.5", 80, weight=7)
    assert web.endpoints[1] == Endpoint("10.1.0.6", 80, weight=2)
    assert web.endpoints[2] == Endpoint("10.1.0.7", 80, healthy=False, weight=1)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"envoy_gateway_no_default_bind": True}, {"10.0.0.1:8443"}),
        (
            {"envoy_gateway_no_default_bind": "true", "envoy_gateway_bind_tagged_addresses": 1},
            {"10.0.0.1:8443", "192.0.2.1:443"},
        ),
        (
            {"envoy_mesh_gateway_bind_addresses": {"a": {"Address": "10.5.5.5", "Port": 1.0}}},
            {"10.0.0.1:8443", "10.5.5.5:1"},
        ),
        (
            {
                "envoy_gateway_no_default_bind": True,
                "envoy_gateway_bind_addresses": [{"a": {"address": "::1", "port": "77"}}],
            },
            {"::1:77"},
        ),
        ({"envoy_gateway_bind_addresses": {"a": "nonsense"}}, {"10.0.0.1:8443", "0.0.0.0:8443"}),
    ],
)
def test_binds(config: dict[str, Any], expected: set[str]) -> None:
    tagged = {
        "lan": ServiceAddress(address="10.0.0.1", port=8443),
        "wan": ServiceAddress(address="192.0.2.1", port=443),
        "name": ServiceAddress(address="gw.example.com", port=443),
    }
    snapshot = build(service=gateway(config, tagged_addresses=tagged))
    assert {f"{b.host}:{b.port}" for b in snapshot.binds} == expected


def test_fresher_of_catalog_and_federation_state() -> None:
    old, new = [instance("10.2.0.1", index=5)], [instance("10.2.0.2", index=9)]
    assert fresher(None, None) == ()
    assert fresher(old, None) is old
    assert fresher(None, CatalogGateways(new, 9)) is new
    assert fresher(old, CatalogGateways(new, 12)) is new
    # The catalog has seen everything up to 12, so what it lacks has been deregistered.
    assert fresher(new, CatalogGateways(old, 12)) is old
    # Its answer of 7 is older than the registration that the federation state knows.
    assert fresher(new, CatalogGateways(old, 7)) is new
    # Nobody follows the catalog any more: removals come by the federation state only.
    assert fresher(old, CatalogGateways(old + old, 12, live=False)) is old
    assert fresher(old, CatalogGateways(new, 12, live=False)) is new
    # An empty answer may be a lack of rights.
    assert fresher(old, CatalogGateways((), 12)) is old
