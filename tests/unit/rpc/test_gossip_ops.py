"""Key operations and events by RPC: rights, fan-out, refusals; `?near`; transactions on the catalog."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from endpoint_support import ServerInMemory, only_ok, registration
from msgspec import Raw

from proconsul.domain import catalog as c
from proconsul.domain import coordinate as co
from proconsul.domain import kv, ops, txn
from proconsul.domain import options as o
from proconsul.domain import session as s
from proconsul.domain.acl import AllowAll, Authorizer
from proconsul.domain.base import raw_bytes
from proconsul.domain.errors import DomainError, PermissionDeniedError
from proconsul.domain.messages import MessageType
from proconsul.rpc.dialer import Hop, HopError
from proconsul.rpc.endpoints import ops as endpoints
from proconsul.rpc.endpoints import txn as txn_endpoints
from proconsul.rpc.endpoints.base import RequestError
from proconsul.rpc.endpoints.internal import COORDINATE_BATCH, COORDINATE_BATCHES_MAX
from proconsul.rpc.methods import METHODS
from proconsul.rpc.outcome import may_repeat
from proconsul.rpc.table import Call, EndpointTable


class Gossip:
    """Pools that answer with what they were asked."""

    def __init__(self, *, wan: bool = True, broken: str = "") -> None:
        self.events: list[tuple[str, bytes]] = []
        self._wan, self._broken = wan, broken

    async def operate_lan(self, request: ops.KeyringRequest) -> ops.KeyringResponse:
        return ops.KeyringResponse(datacenter="dc1", keys={request.operation: 1})

    async def operate_wan(self, request: ops.KeyringRequest) -> ops.KeyringResponse | None:
        return ops.KeyringResponse(wan=True, datacenter="dc1") if self._wan else None

    async def operate_remote(
        self, datacenter: str, request: ops.KeyringRequest
    ) -> ops.KeyringResponses:
        assert request.forwarded
        if datacenter == self._broken:
            raise HopError(Hop.DIAL, datacenter, "unreachable")
        return ops.KeyringResponses(responses=[ops.KeyringResponse(datacenter=datacenter)])

    def remote_datacenters(self) -> list[str]:
        return ["dc2", "dc3"]

    async def user_event(self, name: str, payload: bytes) -> None:
        self.events.append((name, payload))


def call(gossip: Gossip, method: str, request: Any, may: Authorizer | None = None) -> Any:
    table = EndpointTable(endpoints.endpoints(ServerInMemory(), gossip))
    handler = table[method].handler
    return asyncio.run(handler(request, Call(may or AllowAll(), None)))  # type: ignore[arg-type]


def keyring(gossip: Gossip, may: Authorizer | None = None, **fields: Any) -> list[tuple[str, bool]]:
    request = ops.KeyringRequest(**{"operation": "list", **fields})
    answer = call(gossip, "Internal.KeyringOperation", request, may)
    return [(row.datacenter, row.wan) for row in answer.responses]


def test_all_pools_of_all_datacenters_are_asked() -> None:
    everywhere = [("dc1", True), ("dc1", False), ("dc2", False), ("dc3", False)]
    assert keyring(Gossip()) == everywhere
    assert keyring(Gossip(), operation="install", key="k") == everywhere
    here = [("dc1", False)]
    assert keyring(Gossip(), local_only=True) == here
    assert keyring(Gossip(), forwarded=True) == here
    assert keyring(Gossip(wan=False)) == here


def test_a_datacenter_that_cannot_be_asked_fails_all_and_nothing_is_repeated() -> None:
    with pytest.raises(RequestError, match="unreachable") as caught:
        keyring(Gossip(broken="dc3"))
    method = METHODS["Internal.KeyringOperation"]
    assert not may_repeat(method, caught.value)
    assert may_repeat(method, HopError(Hop.DIAL, "dc3", "unreachable"))


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        ("list", "Reading keyring denied by ACLs"),
        ("use", "Modifying keyring denied due to ACLs"),
        ("melt", "Invalid keyring operation"),
    ],
)
def test_who_may_see_and_change_keys(operation: str, text: str) -> None:
    with pytest.raises(DomainError, match=text):
        keyring(Gossip(), only_ok(), operation=operation)


def test_only_lists_are_local() -> None:
    with pytest.raises(RequestError, match="LocalOnly can only be used for List operations"):
        keyring(Gossip(), operation="use", local_only=True)


def test_an_event_goes_to_gossip_if_it_may() -> None:
    gossip = Gossip()
    request = ops.EventFireRequest(name="ok-go", payload=raw_bytes(b"all of it"))
    call(gossip, "Internal.EventFire", request, only_ok())
    assert gossip.events == [("consul:event:ok-go", b"all of it")]
    with pytest.raises(PermissionDeniedError):
        call(gossip, "Internal.EventFire", ops.EventFireRequest(name="no"), only_ok())


# --- near


def far(node: str, seconds: float, segment: str = "") -> co.NodeCoordinate:
    return co.NodeCoordinate(node, segment, co.Coordinate([seconds] + [0.0] * 7, 1.0, 0.0, 1e-5))


def placed(*rows: co.NodeCoordinate) -> ServerInMemory:
    server = ServerInMemory()
    for node in ("a", "b", "c", "d"):
        service = c.NodeService(id="web", service="web")
        check = c.HealthCheck(check_id="up", name="up", status=c.PASSING, service_id="web")
        server.call("Catalog.Register", registration(node=node, service=service, check=check))
    asyncio.run(server.apply(MessageType.COORDINATE_BATCH_UPDATE, list(rows), may_ignore=True))
    return server


def order(server: ServerInMemory, source: o.QuerySource) -> list[list[str]]:
    """The nodes in the order of each kind of answer."""
    about = o.ServiceSpecificRequest(service_name="web", source=source)
    state = o.ChecksInStateRequest(state="passing", source=source)
    every = o.DCSpecificRequest(source=source)
    return [
        [row.node for row in server.call("Catalog.ListNodes", every).nodes],
        [row.node for row in server.call("Catalog.ServiceNodes", about).service_nodes],
        [row.node.node for row in server.call("Health.ServiceNodes", about).nodes],
        [row.node for row in server.call("Health.ServiceChecks", about).health_checks],
        [row.node for row in server.call("Health.ChecksInState", state).health_checks],
    ]


def test_the_nearest_come_first_and_the_unknown_last() -> None:
    server = placed(far("a", 0.3), far("b", 0.1), far("C", 0.2))
    near_b = o.QuerySource("dc1", node="B")
    assert order(server, near_b) == [["b", "c", "a", "d"]] * 5
    as_it_is = [["a", "b", "c", "d"]] * 5
    for source in (o.QuerySource("dc1", node="d"), o.QuerySource("dc2", node="b"), o.QuerySource()):
        assert order(server, source) == as_it_is


def test_only_one_segment_is_compared() -> None:
    server = placed(far("a", 0.0, "x"), far("b", 0.1, "x"), far("b", 0.9), far("c", 0.0, "y"))
    assert order(server, o.QuerySource("dc1", node="a"))[0] == ["a", "b", "c", "d"]
    assert order(server, o.QuerySource("dc1", node="c"))[0] == ["c", "a", "b", "d"]


def test_a_missing_coordinate_is_invalid() -> None:
    with pytest.raises(RequestError, match="invalid coordinate"):
        placed().call("Coordinate.Update", co.CoordinateUpdateRequest(node="a"))


def test_updates_beyond_the_limit_are_refused_as_they_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = placed()
    for number in range(COORDINATE_BATCH * COORDINATE_BATCHES_MAX + 3):
        coord = far("", number / 1000).coord
        server.call("Coordinate.Update", co.CoordinateUpdateRequest(node=f"n{number}", coord=coord))
    server.call("Coordinate.Update", co.CoordinateUpdateRequest(node="n0", coord=far("", 9).coord))

    async def flush() -> None:
        flushing = asyncio.ensure_future(server.coordinates.flush_forever(0.0))
        async with asyncio.timeout(10):
            while "number_discarded=3" not in caplog.text:  # noqa: ASYNC110 - a line of the log
                await asyncio.sleep(0)
        flushing.cancel()

    asyncio.run(flush())


# --- transactions on the catalog


def apply(server: ServerInMemory, *parts: txn.TxnOp, may: Authorizer | None = None) -> Any:
    table = EndpointTable(txn_endpoints.endpoints(server))
    handler = table["Txn.Apply"].handler
    request = txn.TxnRequest(datacenter="dc1", ops=list(parts))
    return asyncio.run(handler(request, Call(may or AllowAll(), None)))  # type: ignore[arg-type]


def node_op(name: str, verb: str = "set", **fields: Any) -> txn.TxnOp:
    return txn.TxnOp(node=txn.TxnNodeOp(verb, c.Node(node=name, address="10.0.0.1", **fields)))


def service_op(node: str, name: str, verb: str = "set", **fields: Any) -> txn.TxnOp:
    service = c.NodeService(service=name, **fields)
    return txn.TxnOp(service=txn.TxnServiceOp(verb, node, service))


def check_op(verb: str = "set", **fields: Any) -> txn.TxnOp:
    return txn.TxnOp(check=txn.TxnCheckOp(verb, c.HealthCheck(**fields)))


def test_what_writes_the_catalog_gets_the_defaults_of_a_registration() -> None:
    answer = apply(
        ServerInMemory(),
        node_op("ok-n"),
        service_op("ok-n", "ok-web"),
        check_op(node="ok-n", name="ok-check", status="passing"),
        may=only_ok(),
    )
    assert not answer.errors
    node, service, check = answer.results
    assert (node.node.node, service.service.id) == ("ok-n", "ok-web")
    assert check.check.check_id == "ok-check"


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (node_op(""), "Must provide node"),
        (node_op("ok-n", id="x"), "Bad node ID: uuid string is wrong length"),
        (node_op("n"), "Permission denied"),
        (service_op("ok-n", "", id="x"), "Must provide service name with ID"),
        (service_op("ok-n", "ok-web", address="0.0.0.0"), "Invalid service address"),
        (service_op("ok-n", "web"), "Permission denied"),
        (check_op(node="n", name="c"), "Permission denied"),
        (check_op(node="ok-n", service_id="w", service_name="w"), "Permission denied"),
    ],
)
def test_why_an_operation_is_refused(part: txn.TxnOp, text: str) -> None:
    answer = apply(ServerInMemory(), node_op("ok-first"), part, may=only_ok())
    assert answer.results is None
    assert answer.errors == [txn.TxnError(1, text)]


def test_results_are_filtered_by_what_may_be_read() -> None:
    server = ServerInMemory()
    apply(
        server,
        node_op("n"),
        service_op("n", "web"),
        check_op(node="n", check_id="c", status="passing"),
    )
    asked = (
        node_op("n", "get"),
        service_op("n", "", "get", id="web"),
        check_op("get", node="n", check_id="c"),
    )
    assert len(apply(server, *asked).results) == 3
    assert apply(server, *asked, may=only_ok()).results == []


@pytest.mark.parametrize("body", [5, {"Op": "create", "Intention": {"ID": "i"}}])
def test_nobody_changes_intentions_by_a_transaction(body: Any) -> None:
    part = txn.TxnOp(intention=Raw(msgspec.msgpack.encode(body)))
    answer = apply(ServerInMemory(), part)
    assert [one.what for one in answer.errors] == ["intentions cannot be changed in a transaction"]


def test_a_transaction_ends_sessions_for_who_may_write_them_and_leaves_their_locks() -> None:
    server = ServerInMemory()
    node = c.RegisterRequest(
        node="n",
        address="10.0.0.1",
        check=c.HealthCheck(node="n", check_id="serfHealth", status="passing"),
    )
    asyncio.run(server.apply(MessageType.REGISTER, node))
    request = s.SessionRequest(op="create", session=s.Session(id="5e55", node="n"))
    asyncio.run(server.apply(MessageType.SESSION, request))
    lock = kv.KVSRequest(op="lock", dir_ent=kv.DirEntry(key="k", session="5e55"))
    assert asyncio.run(server.apply(MessageType.KVS, lock)) is True
    end = txn.TxnOp(session=txn.TxnSessionOp("delete", s.Session(id="5e55")))
    refused = apply(server, end, may=only_ok())
    assert [one.what for one in refused.errors] == ["Permission denied"]
    assert not apply(server, end).errors
    row = server.store.kv.get("k").value
    assert server.store.sessions.get("5e55").value is None
    assert row is not None
    assert row.session == "5e55"
    again = apply(server, txn.TxnOp(kv=txn.TxnKVOp("set", kv.DirEntry(key="other"))), end)
    assert [one.what for one in again.errors] == [
        "failed to delete session: failed deleting session: not found"
    ]
    assert server.store.kv.get("other").value is None


def test_what_reads_alone_does_not_write() -> None:
    server = ServerInMemory()
    handler = EndpointTable(txn_endpoints.endpoints(server))["Txn.Read"].handler
    parts = [
        txn.TxnOp(kv=txn.TxnKVOp("check-not-exists", kv.DirEntry(key="k"))),
        txn.TxnOp(kv=txn.TxnKVOp("set", kv.DirEntry(key="k"))),
    ]
    answer = asyncio.run(handler(txn.TxnReadRequest(ops=parts), Call(AllowAll(), None)))  # type: ignore[arg-type]
    assert [(one.op_index, one.what) for one in answer.errors] == [
        (1, "cannot write in a read-only transaction")
    ]


def test_a_value_that_is_no_bytes_never_gets_into_the_log() -> None:
    server = ServerInMemory()
    entry = kv.DirEntry(key="k", raw_value=Raw(b"\x05"))
    answer = apply(server, txn.TxnOp(kv=txn.TxnKVOp("set", entry)))
    assert [one.what for one in answer.errors] == ["the value must be bytes"]
    handler = server.table["KVS.Apply"].handler
    request = kv.KVSRequest(op="set", dir_ent=entry)
    with pytest.raises(RequestError, match="the value must be bytes"):
        asyncio.run(handler(request, Call(AllowAll(), None)))  # type: ignore[arg-type]
