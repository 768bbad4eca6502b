"""`PreparedQuery.*`: rights, what is chosen and in which order, failing over."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from endpoint_support import ServerInMemory, only_ok
from msgspec.structs import replace

from proconsul.domain import catalog as c
from proconsul.domain import coordinate as co
from proconsul.domain import options as o
from proconsul.domain import prepared_query as q
from proconsul.domain.acl import AllowAll, Authorizer
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.rpc.endpoints import prepared_query
from proconsul.rpc.endpoints.base import RequestError
from proconsul.rpc.endpoints.prepared_query import REDACTED, QueryNotFoundError
from proconsul.rpc.table import EndpointTable
from proconsul.util.errors import ProconsulError

TEMPLATE = q.QueryTemplateOptions(type=q.NAME_PREFIX_MATCH)


class QueryServerInMemory(ServerInMemory):
    """With other datacenters, of which `remote` has instances; tokens `ok` and `all`."""

    def __init__(self) -> None:
        super().__init__()
        ids = count(1)
        self.table = EndpointTable(
            [
                *self.table,
                *prepared_query.endpoints(self, lambda: f"00000000-0000-4000-8000-{next(ids):012}"),
            ]
        )
        self.asked: list[tuple[str, Any]] = []
        self.remote: set[str] = set()

    def datacenters(self) -> list[str]:
        return ["dc1", "near", "far", "broken"]

    async def call_datacenter(self, method: str, datacenter: str, request: Any) -> Any:
        assert method == "PreparedQuery.ExecuteRemote"
        self.asked.append((datacenter, request))
        if datacenter == "broken":
            raise ProconsulError("no way there")
        rows = [c.CheckServiceNode()] if datacenter in self.remote else []
        return q.PreparedQueryExecuteResponse(nodes=rows, datacenter=datacenter)

    def resolve_token(self, token: str) -> Authorizer | None:
        return {"ok": only_ok(), "all": AllowAll()}.get(token)

    async def resolve_token_later(self, _token: str) -> Authorizer:
        return only_ok()

    def create(self, may: Authorizer | None = None, **fields: Any) -> str:
        fields.setdefault("service", q.ServiceQuery(service="ok-web"))
        request = q.PreparedQueryRequest(op=q.CREATE, query=q.PreparedQuery(**fields))
        return str(self.call("PreparedQuery.Apply", request, may))

    def execute(
        self, name: str, may: Authorizer | None = None, **fields: Any
    ) -> q.PreparedQueryExecuteResponse:
        request = q.PreparedQueryExecuteRequest(query_id_or_name=name, **fields)
        answer: q.PreparedQueryExecuteResponse = self.call("PreparedQuery.Execute", request, may)
        return answer

    def instance(self, node: str, **fields: Any) -> None:
        service = c.NodeService(id="w", service="ok-web", port=80)
        check = c.HealthCheck(node=node, check_id="c", service_id="w", status="passing")
        register = c.RegisterRequest(
            datacenter="dc1", node=node, address=f"10.0.0.{node[-1]}",
            service=replace(service, **fields.pop("service", {})),
            checks=[replace(check, **fields.pop("check", {}))], **fields,
        )  # fmt: skip
        self.call("Catalog.Register", register)


def nodes(answer: q.PreparedQueryExecuteResponse) -> list[str]:
    return [row.node.node for row in answer.nodes or ()]


@pytest.fixture
def server() -> QueryServerInMemory:
    """Three instances, of which one is to be warned of, and a sick one."""
    server = QueryServerInMemory()
    server.instance("ok-1", service={"tags": ["A", "b"]}, node_meta={"rack": "1"})
    server.instance("ok-2", service={"tags": ["a"], "meta": {"v": "2"}})
    server.instance("ok-3", check={"status": "warning"})
    server.instance("ok-4", check={"status": "critical"})
    return server


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "123"),
        ({"only_passing": True}, "12"),
        ({"ignore_check_ids": ["c"]}, "1234"),
        ({"tags": ["a"]}, "12"),
        ({"tags": ["A", "!B"]}, "2"),
        ({"tags": ["!a"]}, "3"),
        ({"node_meta": {"rack": "1"}}, "1"),
        ({"service_meta": {"v": "2"}}, "2"),
        ({"connect": True}, ""),
    ],
)
def test_what_a_query_wants(
    server: QueryServerInMemory, wanted: dict[str, Any], found: str
) -> None:
    server.create(name="x", service=q.ServiceQuery(service="ok-web", **wanted))
    assert sorted(nodes(server.execute("x"))) == [f"ok-{number}" for number in found]
    assert nodes(server.execute("x", connect=True)) == []


def test_limits_and_shuffling(server: QueryServerInMemory) -> None:
    server.create(name="x", dns=q.QueryDNSOptions("7s"))
    firsts = {nodes(server.execute("x", limit=1))[0] for _ in range(50)}
    assert firsts == {"ok-1", "ok-2", "ok-3"}
    answer = server.execute("x", limit=2)
    assert (len(answer.nodes or ()), answer.service, answer.dns.ttl) == (2, "ok-web", "7s")
    assert (answer.datacenter, answer.failovers, answer.known_leader) == ("dc1", 0, True)


def test_instances_near_a_node_come_first(server: QueryServerInMemory) -> None:
    for number, place in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 0.0)):
        coord = co.Coordinate([place], 0.1, 0.0, 0.001)
        row = co.NodeCoordinate(node=f"ok-{number}", coord=coord)
        server.index += 1
        from proconsul.domain.messages import encode_command

        data = encode_command(MessageType.COORDINATE_BATCH_UPDATE, [row])
        server.fsm.apply(server.index, data)
    server.create(name="x", service=q.ServiceQuery(service="ok-web", near="ok-4"))
    here = o.QuerySource(datacenter="dc1", node="ok-3")
    assert nodes(server.execute("x", agent=here)) == ["ok-2", "ok-3", "ok-1"]
    source = o.QuerySource(datacenter="dc1", node="ok-1")
    assert nodes(server.execute("x", source=source)) == ["ok-1", "ok-3", "ok-2"]
    elsewhere = o.QuerySource(datacenter="dc2", node="ok-1")
    orders = {tuple(nodes(server.execute("x", source=elsewhere))) for _ in range(30)}
    assert len(orders) > 1
    for near, first in (("_agent", "ok-3"), ("_ip", "ok-1")):
        server.create(name=near, service=q.ServiceQuery(service="ok-web", near=near))
        source = o.QuerySource(ip="10.0.0.1")
        assert nodes(server.execute(near, agent=here, source=source))[0] == first
    assert len(nodes(server.execute("_ip", agent=here))) == 3


def test_failing_over(server: QueryServerInMemory) -> None:
    sick = q.ServiceQuery(service="none")
    for name, failover in (
        ("no", q.QueryDatacenterOptions()),
        ("nearest", q.QueryDatacenterOptions(1)),
        ("named", q.QueryDatacenterOptions(1, ["broken", "dc1", "none", "near", "far"])),
    ):
        server.create(name=name, service=replace(sick, failover=failover))
    assert server.execute("no").failovers == 0
    answer = server.execute("nearest", limit=3, connect=True, token="t", allow_stale=True)
    assert (answer.failovers, answer.datacenter, answer.nodes) == (1, "near", [])
    (datacenter, request), *_ = server.asked
    assert (datacenter, request.datacenter, request.query.name) == ("near", "near", "nearest")
    assert (request.limit, request.connect, request.token, request.allow_stale) == (
        3, True, "t", True,
    )  # fmt: skip
    server.remote = {"far"}
    answer = server.execute("named")
    assert (answer.failovers, answer.datacenter) == (3, "far")
    assert [name for name, _ in server.asked] == ["near", "near", "broken", "far"]


def test_execution_for_another_datacenter(server: QueryServerInMemory) -> None:
    query = q.PreparedQuery(service=q.ServiceQuery(service="ok-web"))
    request = q.PreparedQueryExecuteRemoteRequest(query=query, limit=2, require_consistent=True)
    answer = server.call("PreparedQuery.ExecuteRemote", request)
    assert len(answer.nodes) == 2
    assert server.consistent == 1
    server.instance("bad5")
    answer = server.call("PreparedQuery.ExecuteRemote", replace(request, limit=0), only_ok())
    assert sorted(nodes(answer)) == ["ok-1", "ok-2", "ok-3"]


def test_the_querys_own_token_decides(server: QueryServerInMemory) -> None:
    server.instance("bad5")
    for token, number in (("", 3), ("all", 4), ("ok", 3), ("unknown", 3)):
        server.create(name=f"ok{token}", token=token)
        assert len(nodes(server.execute(f"ok{token}", only_ok()))) == number


def test_rights_to_queries(server: QueryServerInMemory) -> None:
    mine, other = server.create(name="ok-x", token="secret"), server.create(name="other")
    with pytest.raises(PermissionDeniedError):
        server.create(only_ok(), name="bad")
    with pytest.raises(PermissionDeniedError):
        server.create(only_ok(), name="", template=TEMPLATE)
    listed = server.call("PreparedQuery.List", o.DCSpecificRequest(), only_ok()).queries
    assert [(one.id, one.token) for one in listed] == [(mine, REDACTED)]
    assert len(server.call("PreparedQuery.List", o.DCSpecificRequest()).queries) == 2
    get = q.PreparedQuerySpecificRequest(query_id=other)
    for method, request in (
        ("PreparedQuery.Get", get),
        ("PreparedQuery.Explain", q.PreparedQueryExecuteRequest(query_id_or_name="other")),
    ):
        with pytest.raises(PermissionDeniedError):
            server.call(method, request, only_ok())
    assert server.call("PreparedQuery.Get", get).queries[0].name == "other"
    for op, query in (
        (q.DELETE, q.PreparedQuery(id=other)),
        (q.UPDATE, q.PreparedQuery(id=other, name="ok-now")),
    ):
        with pytest.raises(PermissionDeniedError):
            server.call(
                "PreparedQuery.Apply", q.PreparedQueryRequest(op=op, query=query), only_ok()
            )


def test_what_is_refused(server: QueryServerInMemory) -> None:
    with pytest.raises(QueryNotFoundError, match="Query not found"):
        server.execute("nope")
    with pytest.raises(RequestError, match="Must be bound to a session"):
        server.create()
    with pytest.raises(RequestError, match=r"failed compiling template: .*not supported"):
        server.create(name="x", template=TEMPLATE, service=q.ServiceQuery(service="${1 + 1}"))
    query = q.PreparedQuery(id=server.create(name="there"))
    with pytest.raises(RequestError, match="Unknown prepared query operation: "):
        server.call("PreparedQuery.Apply", q.PreparedQueryRequest(op="what", query=query))
