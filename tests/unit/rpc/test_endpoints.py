"""Catalog, health and keys on a real state without Raft: what is refused, written, filtered."""

from __future__ import annotations

from typing import Any

import pytest
from endpoint_support import ServerInMemory, filled, only_ok, registration

from proconsul.domain import catalog as c
from proconsul.domain import federation as f
from proconsul.domain import kv
from proconsul.domain import options as o
from proconsul.domain.acl import Authorizer
from proconsul.domain.errors import PermissionDeniedError
from proconsul.rpc.endpoints.base import RequestError
from proconsul.util.errors import ProconsulError

NODE_ID = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"node": ""}, "Must provide node"),
        ({"id": "nope"}, "Bad node ID: uuid string is wrong length"),
        ({"id": "1" * 36}, "Bad node ID: uuid is improperly formatted"),
        (
            {"id": NODE_ID[:-1] + "x"},
            "Bad node ID: encoding/hex: invalid byte: U\\+0078 'x'",
        ),
        ({"address": ""}, "Must provide address if SkipNodeUpdate is not set"),
        ({"service": c.NodeService(id="x")}, "Must provide service name with ID"),
        ({"service": c.NodeService(service="x", address="0.0.0.0")}, "Invalid service address"),
        ({"service": c.NodeService(service="x", address="[::]")}, "Invalid service address"),
        (
            {"service": c.NodeService(service="x", kind=c.MESH_GATEWAY)},
            "1 error occurred:\n\t\\* Port must be non-zero for a mesh-gateway",
        ),
        ({"service": c.NodeService(service="x", kind=c.CONNECT_PROXY)}, "2 errors occurred"),
        (
            {"service": c.NodeService(service="x", meta={"a b": ""})},
            "failed inserting service: Invalid Service Meta for node ok-node and serviceID x",
        ),
        (
            {"check": c.HealthCheck(node="other", check_id="x")},
            'check node "other" does not match node "ok-node"',
        ),
        (
            {"check": c.HealthCheck(check_id="x", service_id="none", status=c.PASSING)},
            "failed inserting check",
        ),
    ],
)
def test_registrations_that_make_no_sense(fields: dict[str, Any], text: str) -> None:
    server = ServerInMemory()
    with pytest.raises(ProconsulError, match=text):
        server.call("Catalog.Register", registration(**fields))


def test_registrations_are_completed() -> None:
    server = ServerInMemory()
    definition = c.HealthCheckDefinition(tcp="x:1", interval_ns=1)
    checks = [c.HealthCheck(name="n", definition=definition), c.HealthCheck(check_id="m", type="x")]
    service = c.NodeService(service="web")
    server.call(
        "Catalog.Register",
        registration(id=NODE_ID, service=service, checks=checks, check=c.HealthCheck(name="last")),
    )
    found = server.call("Health.NodeChecks", o.NodeSpecificRequest(node="ok-node"))
    rows = {k.check_id: (k.node, k.type) for k in found.health_checks}
    assert rows == {"n": ("ok-node", "tcp"), "m": ("ok-node", "x"), "last": ("ok-node", "")}
    services = server.call("Catalog.NodeServices", o.NodeSpecificRequest(node="ok-node"))
    assert set(services.node_services.services) == {"web"}
    assert (services.index, services.known_leader, services.last_contact_ns) == (11, True, 5)


@pytest.mark.parametrize(
    ("definition", "kind"),
    [
        ({"grpc": "x", "interval_ns": 1}, "grpc"),
        ({"http": "x", "interval_ns": 1}, "http"),
        ({"ttl_ns": 1}, "ttl"),
        ({"tcp": "x", "interval_ns": 1}, "tcp"),
        ({"alias_service": "x"}, "alias"),
        ({"script_args": ["x"], "docker_container_id": "y", "interval_ns": 1}, "docker"),
        ({"script_args": ["x"], "interval_ns": 1}, "script"),
        ({"http": "x"}, ""),
    ],
)
def test_types_of_checks_registered_by_definition(definition: dict[str, Any], kind: str) -> None:
    assert c.HealthCheckDefinition(**definition).kind == kind


@pytest.mark.parametrize(
    "fields",
    [
        {"node": "other"},
        {"service": c.NodeService(service="db")},
        {"service": c.NodeService(service="consul")},
        {
            "service": c.NodeService(
                service="ok-proxy",
                kind=c.CONNECT_PROXY,
                port=1,
                proxy=c.ConnectProxyConfig(destination_service_name="db"),
            )
        },
        {"node": "other", "skip_node_update": True, "check": c.HealthCheck(check_id="x")},
    ],
)
def test_registrations_need_write_rights(fields: dict[str, Any]) -> None:
    server = ServerInMemory()
    with pytest.raises(PermissionDeniedError):
        server.call("Catalog.Register", registration(**fields), only_ok())
    allowed = c.NodeService(service="ok-web")
    server.call("Catalog.Register", registration(service=allowed), only_ok())


def test_deregistrations() -> None:
    server = filled()
    with pytest.raises(RequestError, match="Must provide node"):
        server.call("Catalog.Deregister", c.DeregisterRequest())
    with pytest.raises(PermissionDeniedError):
        server.call("Catalog.Deregister", c.DeregisterRequest(node="other"), only_ok())
    server.call("Catalog.Deregister", c.DeregisterRequest(node="ok-node"), only_ok())
    assert server.store.catalog.node("ok-node").value is None


def test_answers_show_only_what_may_be_read() -> None:
    server, may = filled(), only_ok()
    dc, web = o.DCSpecificRequest(), o.ServiceSpecificRequest(service_name="ok-web")
    db, node = o.ServiceSpecificRequest(service_name="db"), o.NodeSpecificRequest(node="ok-node")
    other = o.NodeSpecificRequest(node="other")

    def ask(method: str, request: Any) -> Any:
        return server.call(method, request, may)

    assert [n.node for n in ask("Catalog.ListNodes", dc).nodes] == ["ok-node"]
    assert set(ask("Catalog.ListServices", dc).services) == {"ok-web"}
    assert [s.name for s in ask("Catalog.ServiceList", dc).services] == ["ok-web"]
    assert [r.node for r in ask("Catalog.ServiceNodes", web).service_nodes] == ["ok-node"]
    assert not ask("Catalog.ServiceNodes", db).service_nodes
    assert set(ask("Catalog.NodeServices", node).node_services.services) == {"ok-web"}
    assert ask("Catalog.NodeServices", other).node_services is None
    listed = ask("Catalog.NodeServiceList", node).node_services
    assert [s.service for s in listed.services] == ["ok-web"]
    assert ask("Catalog.NodeServiceList", other).node_services.node is None
    state = o.ChecksInStateRequest(state="any")
    assert [k.service_name for k in ask("Health.ChecksInState", state).health_checks] == ["ok-web"]
    assert [k.node for k in ask("Health.ServiceChecks", web).health_checks] == ["ok-node"]
    assert [r.node.node for r in ask("Health.ServiceNodes", web).nodes] == ["ok-node"]
    connect = o.ServiceSpecificRequest(service_name="db", connect=True)
    assert not ask("Health.ServiceNodes", connect).nodes
    assert [d.node for d in ask("Internal.NodeDump", dc).dump] == ["ok-node"]
    assert not ask("Internal.NodeInfo", other).dump
    dump = o.ServiceDumpRequest()
    assert {r.service.service for r in ask("Internal.ServiceDump", dump).nodes} == {"ok-web"}
    for method in ("FederationState.List", "Operator.RaftGetConfiguration"):
        with pytest.raises(PermissionDeniedError):
            ask(method, dc)
    with pytest.raises(PermissionDeniedError):
        ask("Operator.AutopilotGetConfiguration", dc)
    with pytest.raises(PermissionDeniedError):
        ask("FederationState.Get", f.FederationStateQuery(datacenter="dc1"))
    with pytest.raises(PermissionDeniedError):
        ask("Coordinate.Node", other)


def test_queries_are_narrowed_down() -> None:
    server = filled()
    zone = {"zone": "other"}
    web = o.ServiceSpecificRequest(service_name="ok-web", node_meta_filters=zone)
    assert [r.node.node for r in server.call("Health.ServiceNodes", web).nodes] == ["other"]
    for tags, count in ((["v1"], 2), (["v2"], 0)):
        tagged = o.ServiceSpecificRequest(service_name="ok-web", tag_filter=True, service_tags=tags)
        assert len(server.call("Catalog.ServiceNodes", tagged).service_nodes) == count
        old = o.ServiceSpecificRequest(service_name="ok-web", tag_filter=True, service_tag=tags[0])
        assert len(server.call("Health.ServiceNodes", old).nodes) == count
    kind = o.ServiceDumpRequest(service_kind=c.MESH_GATEWAY, use_service_kind=True)
    assert not server.call("Internal.ServiceDump", kind).nodes


@pytest.mark.parametrize(
    ("method", "request_", "text"),
    [
        ("Catalog.ServiceNodes", o.ServiceSpecificRequest(), "Must provide service name"),
        ("Catalog.NodeServices", o.NodeSpecificRequest(), "Must provide node"),
        ("Catalog.NodeServiceList", o.NodeSpecificRequest(), "Must provide node"),
        ("Health.ServiceNodes", o.ServiceSpecificRequest(), "Must provide service name"),
        (
            "Health.ServiceChecks",
            o.ServiceSpecificRequest(service_name="x", tag_filter=True),
            "Tag filtering is not supported",
        ),
        ("Catalog.ListNodes", o.DCSpecificRequest(filter="Nod == x"), 'Selector "Nod"'),
        ("KVS.Apply", kv.KVSRequest(op=kv.KV_SET), "Must provide key"),
        (
            "KVS.Apply",
            kv.KVSRequest(op="nonsense", dir_ent=kv.DirEntry.of("a")),
            "Invalid KVS operation 'nonsense'",
        ),
        ("FederationState.Apply", f.FederationStateRequest(), "missing federation state"),
        (
            "FederationState.Apply",
            f.FederationStateRequest(op="x", state=f.FederationState(datacenter="dc1")),
            "Invalid federation state operation: x",
        ),
    ],
)
def test_questions_that_make_no_sense(method: str, request_: Any, text: str) -> None:
    with pytest.raises(ProconsulError, match=text):
        ServerInMemory().call(method, request_)


def test_keys() -> None:
    server, may = ServerInMemory(), only_ok()

    def put(op_: str, key: str, may: Authorizer | None = None, **entry: Any) -> bool:
        request = kv.KVSRequest(op=op_, dir_ent=kv.DirEntry.of(key, b"v", **entry))
        return bool(server.call("KVS.Apply", request, may))

    for key in ("ok/a", "ok/b/c", "no"):
        put(kv.KV_SET, key)
    assert put(kv.KV_CAS, "ok/a", modify_index=11, flags=1) is True
    assert put(kv.KV_CAS, "ok/a", modify_index=11) is False
    for operation in (kv.KV_SET, kv.KV_DELETE, kv.KV_DELETE_TREE):
        with pytest.raises(PermissionDeniedError):
            put(operation, "no", may)
    with pytest.raises(PermissionDeniedError):
        server.call("KVS.Get", kv.KeyRequest(key="no"), may)
    assert server.call("KVS.Get", kv.KeyRequest(key="none")).entries is None
    rows = server.call("KVS.List", kv.KeyRequest(key=""), may).entries
    assert [r.key for r in rows] == ["ok/a", "ok/b/c"]
    assert server.call("KVS.List", kv.KeyRequest(key="none")).entries is None
    keys = kv.KeyListRequest(prefix="ok/", separator="/")
    assert server.call("KVS.ListKeys", keys).keys == ["ok/a", "ok/b/"]
    put(kv.KV_DELETE_TREE, "")
    consistent = kv.KeyRequest(key="ok/a", require_consistent=True)
    assert server.call("KVS.Get", consistent).entries is None
    assert server.consistent == 1
    assert server.metrics.counter("consul.rpc.query") > 0
