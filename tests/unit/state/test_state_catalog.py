from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proconsul.domain.catalog import (
    DeregisterRequest,
    HealthCheck,
    NodeService,
    RegisterRequest,
)
from proconsul.domain.messages import MessageType, encode_command
from proconsul.state.errors import StateError
from proconsul.state.fsm import Fsm


class World:
    def __init__(self) -> None:
        self.fsm = Fsm()
        self.index = 9

    @property
    def catalog(self) -> Any:
        return self.fsm.store.catalog

    def register(self, node: str, service: NodeService | None = None, **fields: Any) -> object:
        request = RegisterRequest(node=node, address="1.2.3.4", service=service, **fields)
        return self._apply(MessageType.REGISTER, request)

    def deregister(self, node: str, **fields: Any) -> object:
        return self._apply(MessageType.DEREGISTER, DeregisterRequest(node=node, **fields))

    def _apply(self, type_: MessageType, request: object) -> object:
        self.index += 1
        return self.fsm.apply(self.index, encode_command(type_, request))


@pytest.fixture
def world() -> World:
    return World()


def _service(name: str, **fields: Any) -> NodeService:
    return NodeService(id=name, service=name, **fields)


def test_empty_answers_have_index_1(world: World) -> None:
    assert world.catalog.nodes()[:2] == (1, [])
    assert world.catalog.services()[:2] == (1, {})
    assert world.catalog.check_service_nodes("web")[:2] == (1, [])
    assert world.catalog.service_dump("mesh-gateway")[:2] == (1, [])


def test_a_node_that_does_not_change_keeps_its_index(world: World) -> None:
    world.register("n")
    world.register("N", skip_node_update=True, service=_service("web"))
    assert world.catalog.nodes().index == 10
    assert world.catalog.node("N").value.modify_index == 10


def test_each_service_has_its_own_index_and_wakes_alone(world: World) -> None:
    world.register("n", _service("web"))
    world.register("m", _service("db"))
    woken: list[str] = []
    world.catalog.check_service_nodes("web").watch.add(lambda: woken.append("web"))
    world.catalog.check_service_nodes("none").watch.add(lambda: woken.append("none"))
    world.register("m", _service("db", port=1))
    assert not woken
    assert world.catalog.check_service_nodes("web").index == 10
    assert world.catalog.check_service_nodes("db").index == 12
    world.register("n", check=HealthCheck(node="n", check_id="serfHealth", status="passing"))
    assert woken == ["web"]
    assert world.catalog.check_service_nodes("web").index == 13


def test_last_instance_going_leaves_the_extinction_index(world: World) -> None:
    world.register("n", _service("web"))
    woken: list[int] = []
    world.catalog.check_service_nodes("web").watch.add(lambda: woken.append(1))
    world.deregister("n", service_id="web")
    assert woken == [1]
    assert world.catalog.check_service_nodes("web")[:2] == (11, [])
    world.register("n", _service("other"))
    assert world.catalog.check_service_nodes("web").index == 11


def test_node_and_instance_checks_come_together(world: World) -> None:
    checks = [
        HealthCheck(node="n", check_id="serfHealth", status="passing"),
        HealthCheck(node="n", check_id="a-web", service_id="web", status="critical"),
        HealthCheck(node="n", check_id="a-db", service_id="db"),
    ]
    world.register("n", _service("web", tags=["V1"]))
    world.register("n", _service("db"), checks=checks)
    (row,) = world.catalog.check_service_nodes("WEB", tags=["v1"]).value
    assert [check.check_id for check in row.checks] == ["serfHealth", "a-web"]
    assert row.checks[1].service_tags == ["V1"]
    assert row.is_critical
    assert world.catalog.check_service_nodes("web", tags=["v2"]).value == []
    statuses = [check.status for check in world.catalog.checks_in_state("critical").value]
    assert statuses == ["critical", "critical"]
    assert len(world.catalog.service_checks("web").value) == 1


def test_deleting_a_node_deletes_everything_on_it(world: World) -> None:
    check = HealthCheck(node="n", check_id="c", service_id="web")
    world.register("n", _service("web"), check=check, id="11111111-2222-3333-4444-555555555555")
    world.deregister("n")
    assert world.catalog.nodes()[:2] == (11, [])
    assert world.catalog.node_dump().value == []
    assert world.catalog.checks_in_state("any").value == []
    assert world.catalog.node_by_id("11111111-2222-3333-4444-555555555555").value is None


def test_name_conflicts(world: World) -> None:
    alive = HealthCheck(node="n", check_id="serfHealth", status="passing")
    world.register("n", id="id-1", check=alive)
    refused = world.register("N", id="id-2")
    assert isinstance(refused, StateError)
    assert "Node name N is reserved by node id-1 with name n (1.2.3.4)" in str(refused)
    assert len(world.catalog.nodes().value) == 1
    dead = HealthCheck(node="n", check_id="serfHealth", status="critical")
    world.register("n", id="id-1", check=dead)
    assert world.register("n", id="id-2") is None
    assert world.catalog.node_by_id("id-1").value is None
    assert world.catalog.node_by_id("id-2").value.node == "n"


def test_rename_keeps_the_create_index(world: World) -> None:
    world.register("old", _service("web"), id="id-1")
    world.register("new", id="id-1")
    (node,) = world.catalog.nodes().value
    assert (node.node, node.create_index, node.modify_index) == ("new", 10, 11)
    assert world.catalog.services().value == {}


def test_a_refused_registration_leaves_no_trace(world: World) -> None:
    before = b"".join(world.fsm.snapshot())
    bad = HealthCheck(node="n", check_id="c", service_id="missing")
    result = world.register("n", _service("web"), check=bad)
    assert str(result) == 'failed inserting check: Missing service registration on node "n"'
    assert b"".join(world.fsm.snapshot()) == before


def test_reserved_metadata_is_for_gateways(world: World) -> None:
    meta = {"consul-wan-federation": "1"}
    assert isinstance(world.register("n", _service("web", meta=meta)), StateError)
    gateway = _service("gw", kind="mesh-gateway", meta=meta)
    assert world.register("n", gateway) is None
    (row,) = world.catalog.service_dump("mesh-gateway").value
    assert row.service.weights.passing == 1


def test_gateways_wake_by_kind(world: World) -> None:
    woken: list[int] = []
    world.catalog.service_dump("mesh-gateway").watch.add(lambda: woken.append(1))
    world.register("n", _service("web"))
    assert not woken
    world.register("n", _service("gw", kind="mesh-gateway"))
    assert woken == [1]


def test_connect_instances(world: World) -> None:
    proxy = _service("web-proxy", kind="connect-proxy")
    proxy = msgspec.structs.replace(
        proxy, proxy=msgspec.structs.replace(proxy.proxy, destination_service_name="web")
    )
    woken: list[int] = []
    world.catalog.check_service_nodes("web", connect=True).watch.add(lambda: woken.append(1))
    world.register("n", proxy)
    assert woken == [1]
    (row,) = world.catalog.check_service_nodes("web", connect=True).value
    assert row.service.id == "web-proxy"


def test_renamed_service_wakes_both_names(world: World) -> None:
    world.register("n", NodeService(id="s", service="old"))
    woken: list[str] = []
    world.catalog.check_service_nodes("old").watch.add(lambda: woken.append("old"))
    world.catalog.check_service_nodes("new").watch.add(lambda: woken.append("new"))
    world.register("n", NodeService(id="s", service="new"))
    assert sorted(woken) == ["new", "old"]
    assert world.catalog.services().value == {"new": []}


def test_node_services_by_id_prefix(world: World) -> None:
    world.register("n", _service("web"), id="abcd-1")
    world.register("m", id="abcd-2")
    assert world.catalog.node_services("abcd-1").value.node.node == "n"
    assert world.catalog.node_services("abcd").value is None
    assert list(world.catalog.node_services("n").value.services) == ["web"]


def test_a_check_that_does_not_change_raises_an_index_and_wakes_nobody(world: World) -> None:
    check = HealthCheck(node="n", check_id="c", name="c", status="passing")
    world.register("n")
    world.register("n", check=check)
    before = world.catalog.node_checks("n")
    woken: list[str] = []
    before.watch.add(lambda: woken.append("checks"))
    world.register("n", check=check)
    assert world.catalog.node_checks("n").index == before.index + 1
    assert not woken
    world.register("n", check=msgspec.structs.replace(check, status="critical"))
    assert woken == ["checks"]
