"""Coordinates, federation, operators: endpoints on a real state without Raft."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from endpoint_support import ServerInMemory, only_ok, registration

from proconsul.domain import catalog as c
from proconsul.domain import coordinate as co
from proconsul.domain import federation as f
from proconsul.domain import operator as op
from proconsul.domain import options as o
from proconsul.domain.base import NIL
from proconsul.domain.errors import PermissionDeniedError
from proconsul.rpc.endpoints import internal
from proconsul.rpc.endpoints.base import RequestError
from proconsul.rpc.methods import Empty
from proconsul.util.errors import ProconsulError


def test_coordinates_are_gathered_and_written_in_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(internal, "COORDINATE_BATCH", 2)
    monkeypatch.setattr(internal, "COORDINATE_BATCHES_MAX", 2)
    server, good = ServerInMemory(), co.Coordinate([0.0] * 8, 1.5, 0.0, 1e-5)
    for bad, text in ((None, "invalid"), (co.Coordinate([float("nan")] * 8), "invalid"),
                      (co.Coordinate([0.0]), "incompatible")):  # fmt: skip
        with pytest.raises(RequestError, match=f"{text} coordinate"):
            server.call("Coordinate.Update", co.CoordinateUpdateRequest(node="n", coord=bad))
    with pytest.raises(PermissionDeniedError):
        server.call(
            "Coordinate.Update", co.CoordinateUpdateRequest(node="n", coord=good), only_ok()
        )
    for number in range(6):
        name = f"ok-{number}"
        server.call("Catalog.Register", registration(node=name))
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
    server = ServerInMemory()
    gateway = c.CheckServiceNode(
        c.Node(node="ok-node"), c.NodeService(service="ok-gw", kind=c.MESH_GATEWAY), []
    )
    hidden = c.CheckServiceNode(c.Node(node="other"), c.NodeService(service="gw"), [])
    for name, rows, time in (("dc1", [gateway, hidden], NIL), ("dc2", [hidden], f.ZERO_TIME)):
        state = f.FederationState(datacenter=name, mesh_gateways=rows, raw_updated_at=time)
        request = f.FederationStateRequest(op=f.FEDERATION_UPSERT, state=state)
        with pytest.raises(PermissionDeniedError):
            server.call("FederationState.Apply", request, only_ok())
        assert server.call("FederationState.Apply", request) is True
    got = server.call("FederationState.Get", f.FederationStateQuery(datacenter="dc1")).state
    assert got.raw_updated_at == f.raw_time(1_600_000_000_000_000_000)
    listed = server.call("FederationState.List", o.DCSpecificRequest()).states
    assert [s.datacenter for s in listed] == ["dc1", "dc2"]
    gateways = server.call("FederationState.ListMeshGateways", o.DCSpecificRequest(), only_ok())
    assert {d: [r.node.node for r in rows] for d, rows in gateways.datacenter_nodes.items()} == {
        "dc1": ["ok-node"]
    }
    server.call(
        "FederationState.Apply",
        f.FederationStateRequest(op=f.FEDERATION_DELETE, state=f.FederationState(datacenter="dc2")),
    )
    assert len(server.call("FederationState.List", o.DCSpecificRequest()).states) == 1


def test_peers_are_removed_by_address_or_id() -> None:
    server = ServerInMemory()
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
    server = ServerInMemory()
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
        ServerInMemory().call(method, request_, only_ok())


def test_status_and_operator() -> None:
    server = ServerInMemory()
    dc = o.DCSpecificRequest()
    assert server.call("Status.Ping", None) == Empty()
    assert server.call("Status.Leader", dc) == "127.0.0.1:8300"
    assert server.call("Status.Peers", dc) == ["127.0.0.1:8300"]
    assert server.call("Status.RaftStats", None).last_index == 3
    assert server.call("Operator.RaftGetConfiguration", dc).servers
    assert server.call("Operator.ServerHealth", dc).healthy
    assert server.call("Catalog.ListDatacenters", o.DatacentersRequest()) == ["dc1"]
