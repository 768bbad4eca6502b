"""Endpoints on a real state without Raft: what they refuse, write, filter and answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from proconsul.domain import catalog as c
from proconsul.domain import connect as ca
from proconsul.domain import coordinate as co
from proconsul.domain import federation as f
from proconsul.domain import kv
from proconsul.domain import operator as op
from proconsul.domain import options as o
from proconsul.domain.acl import AllowAll, Authorizer
from proconsul.domain.autopilot import OperatorHealthReply
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.messages import IGNORE_UNKNOWN_TYPE_FLAG, MessageType, encode_command
from proconsul.rpc.blocking import BlockingLimits
from proconsul.rpc.endpoints import catalog, federation, health, internal, kvs, operator, status
from proconsul.rpc.endpoints.base import RequestError
from proconsul.rpc.endpoints.internal import Coordinates
from proconsul.rpc.methods import Empty, RaftStats
from proconsul.rpc.table import Call, EndpointTable
from proconsul.state.errors import StateError
from proconsul.state.fsm import Fsm
from proconsul.state.store import Store
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics

NODE_ID = "11111111-2222-3333-4444-555555555555"


class _Only:
    """May do everything with names that begin with `ok`, and nothing else."""

    def __getattr__(self, _right: str) -> Callable[..., bool]:
        return lambda *names: bool(names) and names[0].startswith("ok")


class _Server:
    """`EndpointServer` and `RaftView` whose writes are committed at once."""

    def __init__(self) -> None:
        self.fsm, self.index = Fsm(), 10
        self.metrics, self.rng = Metrics(), random.Random(0)
        self.datacenter, self.blocking_limits = "dc1", BlockingLimits()
        self.consistent = 0
        self.refuses = 0
        self.removed: list[str] = []
        self.coordinates = Coordinates(self, list)
        self.table = EndpointTable(
            [
                *catalog.endpoints(self, list),
                *health.endpoints(self),
                *kvs.endpoints(self),
                *internal.endpoints(self, self.coordinates),
                *federation.endpoints(self, lambda: 1_600_000_000_000_000_000),
                *status.endpoints(self),
                *operator.endpoints(self, self, self),
            ]
        )

    @property
    def store(self) -> Store:
        return self.fsm.store

    def contact(self) -> tuple[bool, int]:
        return True, 5

    def lock_delayed(self, key: str) -> bool:
        return key == "resting"

    async def consistent_read(self) -> None:
        self.consistent += 1

    async def apply(self, type_: MessageType, request: Any, *, may_ignore: bool = False) -> Any:
        if self.refuses:
            self.refuses -= 1
            raise ProconsulError("not now")
        self.index += 1
        data = encode_command(type_, request)
        if may_ignore:
            data = bytes((data[0] | IGNORE_UNKNOWN_TYPE_FLAG,)) + data[1:]
        result = self.fsm.apply(self.index, data)
        if isinstance(result, StateError):
            raise result
        return result

    def leader_address(self) -> str:
        return "127.0.0.1:8300"

    def peers(self) -> op.RaftConfigurationResponse:
        return op.RaftConfigurationResponse(
            servers=[op.RaftServer(address="127.0.0.1:8300", id="i")]
        )

    async def remove_peer(self, server_id: str, _deadline: float) -> None:
        if self.refuses:
            raise ProconsulError("not now")
        self.removed.append(server_id)

    def health(self) -> OperatorHealthReply:
        return OperatorHealthReply(healthy=True)

    def log_position(self) -> RaftStats:
        return RaftStats(last_index=3)

    def call(self, method: str, request: Any, may: Authorizer | None = None) -> Any:
        endpoint = self.table[method]
        call = Call(may if may is not None else AllowAll(), None)
        return asyncio.run(endpoint.handler(request, call))  # type: ignore[arg-type]


def _only() -> Authorizer:
    return _Only()  # type: ignore[return-value]


def _register(**fields: Any) -> c.RegisterRequest:
    given = {"datacenter": "dc1", "node": "ok-node", "address": "10.0.0.1", **fields}
    return c.RegisterRequest(**given)


def _filled() -> _Server:
    server = _Server()
    for node in ("ok-node", "other"):
        for name in ("ok-web", "db"):
            check = c.HealthCheck(
                check_id=f"{name}-up", name="up", status=c.PASSING, service_id=name
            )
            service = c.NodeService(id=name, service=name, port=80, tags=["v1"])
            server.call(
                "Catalog.Register",
                _register(node=node, service=service, check=check, node_meta={"zone": node}),
            )
    return server


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
    server = _Server()
    with pytest.raises(ProconsulError, match=text):
        server.call("Catalog.Register", _register(**fields))


def test_registrations_are_completed() -> None:
    server = _Server()
    definition = c.HealthCheckDefinition(tcp="x:1", interval_ns=1)
    checks = [c.HealthCheck(name="n", definition=definition), c.HealthCheck(check_id="m", type="x")]
    service = c.NodeService(service="web")
    server.call(
        "Catalog.Register",
        _register(id=NODE_ID, service=service, checks=checks, check=c.HealthCheck(name="last")),
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
    server = _Server()
    with pytest.raises(PermissionDeniedError):
        server.call("Catalog.Register", _register(**fields), _only())
    allowed = c.NodeService(service="ok-web")
    server.call("Catalog.Register", _register(service=allowed), _only())
    server.call("Catalog.Register", _register(service=c.NodeService(service="consul")), _only())


def test_deregistrations() -> None:
    server = _filled()
    with pytest.raises(RequestError, match="Must provide node"):
        server.call("Catalog.Deregister", c.DeregisterRequest())
    with pytest.raises(PermissionDeniedError):
        server.call("Catalog.Deregister", c.DeregisterRequest(node="other"), _only())
    server.call("Catalog.Deregister", c.DeregisterRequest(node="ok-node"), _only())
    assert server.store.catalog.node("ok-node").value is None


def test_answers_show_only_what_may_be_read() -> None:
    server, may = _filled(), _only()
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
    server = _filled()
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
        ("Catalog.ListNodes", o.DCSpecificRequest(filter="Node == x"), "filtering is not supp"),
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
        _Server().call(method, request_)


def test_keys() -> None:
    server, may = _Server(), _only()

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


def test_coordinates_are_gathered_and_written_in_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(internal, "COORDINATE_BATCH", 2)
    monkeypatch.setattr(internal, "COORDINATE_BATCHES_MAX", 2)
    server, good = _Server(), co.Coordinate([0.0] * 8, 1.5, 0.0, 1e-5)
    for bad, text in ((None, "invalid"), (co.Coordinate([float("nan")] * 8), "invalid"),
                      (co.Coordinate([0.0]), "incompatible")):  # fmt: skip
        with pytest.raises(RequestError, match=f"{text} coordinate"):
            server.call("Coordinate.Update", co.CoordinateUpdateRequest(node="n", coord=bad))
    with pytest.raises(PermissionDeniedError):
        server.call("Coordinate.Update", co.CoordinateUpdateRequest(node="n", coord=good), _only())
    for number in range(6):
        name = f"ok-{number}"
        server.call("Catalog.Register", _register(node=name))
        assert server.call(
            "Coordinate.Update", co.CoordinateUpdateRequest(node=name, coord=good)
        ) == Empty()  # fmt: skip

    async def flush(until: Callable[[], bool]) -> None:
        flushing = asyncio.get_running_loop().create_task(server.coordinates.flush_forever(0.001))
        while not until():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        flushing.cancel()
        await asyncio.wait([flushing])

    def stored() -> list[str]:
        rows = server.call("Coordinate.ListNodes", o.DCSpecificRequest()).coordinates
        return [r.node for r in rows]

    asyncio.run(flush(lambda: server.store.coordinates.all().value != []))
    assert stored() == ["ok-0", "ok-1", "ok-2", "ok-3"]  # what is too much waits for the next
    own = server.call("Coordinate.Node", o.NodeSpecificRequest(node="ok-1"))
    assert own.coordinates[0].coord == good
    server.refuses = 1
    server.call("Coordinate.Update", co.CoordinateUpdateRequest(node="ok-4", coord=good))
    asyncio.run(flush(lambda: server.refuses == 0))
    server.call("Coordinate.Update", co.CoordinateUpdateRequest(node="ok-5", coord=good))
    asyncio.run(flush(lambda: len(server.store.coordinates.all().value) == 5))
    assert stored()[-1] == "ok-5"


def test_federation_states_and_roots() -> None:
    server = _Server()
    gateway = c.CheckServiceNode(
        c.Node(node="ok-node"), c.NodeService(service="ok-gw", kind=c.MESH_GATEWAY), []
    )
    hidden = c.CheckServiceNode(c.Node(node="other"), c.NodeService(service="gw"), [])
    for name, rows in (("dc1", [gateway, hidden]), ("dc2", [hidden])):
        state = f.FederationState(datacenter=name, mesh_gateways=rows)
        request = f.FederationStateRequest(op=f.FEDERATION_UPSERT, state=state)
        with pytest.raises(PermissionDeniedError):
            server.call("FederationState.Apply", request, _only())
        assert server.call("FederationState.Apply", request) is True
    got = server.call("FederationState.Get", f.FederationStateQuery(datacenter="dc1")).state
    assert got.raw_updated_at == f.raw_time(1_600_000_000_000_000_000)
    listed = server.call("FederationState.List", o.DCSpecificRequest()).states
    assert [s.datacenter for s in listed] == ["dc1", "dc2"]
    gateways = server.call("FederationState.ListMeshGateways", o.DCSpecificRequest(), _only())
    assert {d: [r.node.node for r in rows] for d, rows in gateways.datacenter_nodes.items()} == {
        "dc1": ["ok-node"]
    }
    server.call(
        "FederationState.Apply",
        f.FederationStateRequest(op=f.FEDERATION_DELETE, state=f.FederationState(datacenter="dc2")),
    )
    assert len(server.call("FederationState.List", o.DCSpecificRequest()).states) == 1

    roots = server.call("ConnectCA.Roots", o.DCSpecificRequest())
    assert (roots.trust_domain, roots.active_root_id, roots.roots) == ("", "", [])
    config = ca.CAConfiguration(cluster_id="abc", provider="consul")
    row = ca.CARoot(id="r", active=True, signing_key="secret", signing_cert="x", root_cert="pem")
    for request in (
        ca.CARequest(op=ca.CA_SET_CONFIG, config=config),
        ca.CARequest(op=ca.CA_SET_ROOTS, index=server.store.connect.roots_index, roots=[row]),
    ):
        asyncio.run(server.apply(MessageType.CONNECT_CA, request))
    roots = server.call("ConnectCA.Roots", o.DCSpecificRequest())
    assert (roots.trust_domain, roots.active_root_id) == ("abc.consul", "r")
    assert (roots.roots[0].signing_key, roots.roots[0].signing_cert) == ("", "")


def test_peers_are_removed_by_address_or_id() -> None:
    server = _Server()
    by_id = op.RaftRemovePeerRequest(id="i")
    assert server.call("Operator.RaftRemovePeerByID", by_id) == Empty()
    by_address = op.RaftRemovePeerRequest(address="127.0.0.1:8300")
    assert server.call("Operator.RaftRemovePeerByAddress", by_address) == Empty()
    assert server.removed == ["i", "i"]
    absent = op.RaftRemovePeerRequest(address="1.2.3.4:1", id="x")
    for what, name in (("address", "Address"), ("id", "ID")):
        with pytest.raises(RequestError, match=f'{what} ".*" was not found in the Raft config'):
            server.call(f"Operator.RaftRemovePeerBy{name}", absent)
    server.refuses = 1
    with pytest.raises(ProconsulError, match="not now"):
        server.call("Operator.RaftRemovePeerByID", by_id)


def test_autopilot_is_configured() -> None:
    server = _Server()
    dc = o.DCSpecificRequest()
    with pytest.raises(RequestError, match="autopilot config not initialized yet"):
        server.call("Operator.AutopilotGetConfiguration", dc)
    write = op.AutopilotSetConfigRequest(config=op.DEFAULT_AUTOPILOT)
    assert server.call("Operator.AutopilotSetConfiguration", write) is False  # no CAS, no answer
    assert server.call("Operator.AutopilotGetConfiguration", dc).max_trailing_logs == 250
    stale = op.AutopilotSetConfigRequest(config=op.AutopilotConfig(modify_index=1), cas=True)
    assert server.call("Operator.AutopilotSetConfiguration", stale) is False
    fresh = op.AutopilotSetConfigRequest(config=op.AutopilotConfig(modify_index=11), cas=True)
    assert server.call("Operator.AutopilotSetConfiguration", fresh) is True


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Operator.RaftGetConfiguration", o.DCSpecificRequest()),
        ("Operator.RaftRemovePeerByAddress", op.RaftRemovePeerRequest()),
        ("Operator.RaftRemovePeerByID", op.RaftRemovePeerRequest()),
        ("Operator.AutopilotGetConfiguration", o.DCSpecificRequest()),
        ("Operator.AutopilotSetConfiguration", op.AutopilotSetConfigRequest()),
        ("Operator.ServerHealth", o.DCSpecificRequest()),
    ],
)
def test_operators_need_rights(method: str, request_: Any) -> None:
    with pytest.raises(PermissionDeniedError):
        _Server().call(method, request_, _only())


def test_status_and_operator() -> None:
    server = _Server()
    dc = o.DCSpecificRequest()
    assert server.call("Status.Ping", None) == Empty()
    assert server.call("Status.Leader", dc) == "127.0.0.1:8300"
    assert server.call("Status.Peers", dc) == ["127.0.0.1:8300"]
    assert server.call("Status.RaftStats", None).last_index == 3
    assert server.call("Operator.RaftGetConfiguration", dc).servers
    assert server.call("Operator.ServerHealth", dc).healthy
    assert server.call("Catalog.ListDatacenters", o.DatacentersRequest()) == ["dc1"]
