"""Snapshot -> Envoy resources. The golden file is rewritten with PROCONSUL_REWRITE_GOLDEN=1."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.mesh.gateway import mesh_gateway_resources
from proconsul.mesh.resources import ResourceSet
from proconsul.mesh.snapshot import (
    Bind,
    Endpoint,
    LocalService,
    MeshGatewaySnapshot,
    RemoteDatacenter,
    Server,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "envoy" / "mesh_gateway.json"
ADDRESSES = tuple(Endpoint(f"192.0.2.{n}", 8443) for n in (3, 1, 2))
SNAPSHOT = MeshGatewaySnapshot(
    proxy_id="gw",
    datacenter="dc1",
    domain="consul",
    trust_domain="1234.consul",
    binds=(Bind("wan", "192.0.2.9", 443), Bind("lan", "10.0.0.9", 8443)),
    datacenters=(
        RemoteDatacenter("dc3", (Endpoint("gw.dc3.example.com", 443),) * 2, ()),
        RemoteDatacenter("dc2", ADDRESSES, (replace(ADDRESSES[0], healthy=False), *ADDRESSES[1:])),
        RemoteDatacenter("dc1", ADDRESSES, ADDRESSES),
    ),
    servers=(
        Server("s2", Endpoint("10.0.0.2", 8300)),
        Server("S1", Endpoint("10.0.0.1", 8300, healthy=False)),
    ),
    services=(LocalService("web", (Endpoint("10.0.0.5", 20000, weight=9),)),),
    wan_federation=True,
)


def decoded(resources: ResourceSet) -> dict[str, Any]:
    def every(index: Any, kind: Any) -> dict[str, Any]:
        return {
            name: MessageToDict(kind.FromString(resource.body), preserving_proto_field_name=True)
            for name, resource in index.items()
        }

    return {
        "clusters": every(resources.clusters, cluster_pb2.Cluster),
        "endpoints": every(resources.endpoints, endpoint_pb2.ClusterLoadAssignment),
        "listeners": every(resources.listeners, listener_pb2.Listener),
    }


def server_names(resources: ResourceSet) -> dict[str, str]:
    """Server name -> cluster, of the first listener."""
    listener = next(iter(decoded(resources)["listeners"].values()))
    return {
        name: chain["filters"][0]["typed_config"]["cluster"]
        for chain in listener.get("filter_chains", ())
        for name in chain["filter_chain_match"]["server_names"]
    }


def test_golden() -> None:
    text = json.dumps(decoded(mesh_gateway_resources(SNAPSHOT)), indent=1, sort_keys=True) + "\n"
    if os.environ.get("PROCONSUL_REWRITE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_every_name_leads_where_it_should() -> None:
    resources = mesh_gateway_resources(SNAPSHOT)
    assert server_names(resources) == {
        "*.dc2.internal.1234.consul": "dc2.internal.1234.consul",
        "*.dc3.internal.1234.consul": "dc3.internal.1234.consul",
        "server.dc2.consul": "server.dc2.consul",
        "*.server.dc2.consul": "server.dc2.consul",
        "server.dc3.consul": "server.dc3.consul",
        "*.server.dc3.consul": "server.dc3.consul",
        "server.dc1.consul": "server.dc1.consul",
        "s1.server.dc1.consul": "s1.server.dc1.consul",
        "s2.server.dc1.consul": "s2.server.dc1.consul",
        "web.default.dc1.internal.1234.consul": "web.default.dc1.internal.1234.consul",
    }
    assert set(server_names(resources).values()) == set(resources.clusters)
    assert b"sni_cluster" not in b"".join(r.body for r in resources.listeners.values())


def test_servers_are_hidden_unless_exposed() -> None:
    names = server_names(mesh_gateway_resources(replace(SNAPSHOT, wan_federation=False)))
    assert not [name for name in names if "server" in name]
    assert "*.dc2.internal.1234.consul" in names


def test_listener_without_anything_behind_it() -> None:
    bare = replace(SNAPSHOT, datacenters=(), servers=(), services=(), wan_federation=False)
    resources = mesh_gateway_resources(bare)
    assert not resources.clusters
    assert server_names(resources) == {}
    assert len(resources.listeners) == 2
    # The first route changes filter chains alone, which Envoy does in place.
    empty, full = (decoded(mesh_gateway_resources(s))["listeners"] for s in (bare, SNAPSHOT))
    for name, listener in full.items():
        del listener["filter_chains"]
        assert listener == empty[name]


def test_host_names_go_into_the_cluster_together_with_addresses() -> None:
    mixed = (Endpoint("gw.example.com", 443), Endpoint("192.0.2.1", 443))
    snapshot = replace(SNAPSHOT, datacenters=(RemoteDatacenter("dc2", mixed, mixed),))
    resources = mesh_gateway_resources(snapshot)
    cluster = decoded(resources)["clusters"]["server.dc2.consul"]
    assert cluster["type"] == "STRICT_DNS"
    assert len(cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]) == 2
    assert "server.dc2.consul" not in resources.endpoints


def test_odd_names_and_addresses_do_not_spoil_the_rest() -> None:
    snapshot = replace(
        SNAPSHOT,
        servers=(
            Server("*", Endpoint("10.0.0.7", 8300)),
            Server("a b", Endpoint("10.0.0.7", 8300)),
            Server("", Endpoint("10.0.0.7", 8300)),
            Server("s1", Endpoint("", 8300)),
            Server("x.y", Endpoint("10.0.0.7", 0)),
            Server("s2", Endpoint("10.0.0.2", 8300)),
        ),
    )
    resources = mesh_gateway_resources(snapshot)
    local = {name for name in resources.clusters if name.endswith("server.dc1.consul")}
    assert local == {f"{n}server.dc1.consul" for n in ("", "s1.", "s2.", "x.y.")}


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_mere_reordering_gives_the_same_bytes(rng: random.Random) -> None:
    def shuffled(items: tuple[Any, ...]) -> tuple[Any, ...]:
        doubled = [*items, rng.choice(items)]
        rng.shuffle(doubled)
        return tuple(doubled)

    other = replace(
        SNAPSHOT,
        binds=shuffled(SNAPSHOT.binds),
        servers=shuffled(SNAPSHOT.servers),
        services=shuffled(SNAPSHOT.services),
        datacenters=shuffled(
            tuple(replace(dc, gateways=shuffled(dc.gateways)) for dc in SNAPSHOT.datacenters)
        ),
    )
    assert mesh_gateway_resources(other) == mesh_gateway_resources(SNAPSHOT)
