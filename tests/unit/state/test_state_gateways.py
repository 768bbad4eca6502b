"""The table of services behind gateways: what writes to it, what reads it."""

from __future__ import annotations

from typing import Any

from proconsul.domain.base import encode
from proconsul.domain.catalog import DeregisterRequest, NodeService, RegisterRequest
from proconsul.domain.config_entry_forms import from_map
from proconsul.domain.config_entry_messages import ConfigEntryRequest
from proconsul.domain.config_entry_rules import normalize
from proconsul.domain.messages import MessageType, encode_command
from proconsul.state.fsm import Fsm

EDGE = {"Kind": "ingress-gateway", "Name": "edge", "Listeners": [
    {"Port": 80, "Protocol": "http", "Services": [{"Name": "*"}]},
    {"Port": 90, "Protocol": "tcp", "Services": [{"Name": "db"}]}]}  # fmt: skip
EXIT = {"Kind": "terminating-gateway", "Name": "exit", "Services": [
    {"Name": "*", "SNI": "all"}, {"Name": "old", "SNI": "own"}]}  # fmt: skip
HTTP = {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}}


class World:
    """A state machine and the index of its last command."""

    def __init__(self) -> None:
        self.fsm, self.index = Fsm(), 10

    def apply(self, type_: MessageType, request: Any) -> Any:
        self.index += 1
        return self.fsm.apply(self.index, encode_command(type_, request))

    def entry(self, raw: dict[str, Any], op: str = "upsert") -> Any:
        request = ConfigEntryRequest(op, "dc1", normalize(from_map(raw)))
        return self.apply(MessageType.CONFIG_ENTRY, request)

    def register(self, name: str, kind: str = "") -> None:
        service = NodeService(id=name, service=name, kind=kind)
        request = RegisterRequest(node="n", address="1.1.1.1", service=service)
        assert self.apply(MessageType.REGISTER, request) is None

    def deregister(self, name: str) -> None:
        self.apply(MessageType.DEREGISTER, DeregisterRequest(node="n", service_id=name))

    def behind(self, gateway: str) -> dict[str, tuple[int, bool, int, int]]:
        rows = self.fsm.store.ingress.services_of(gateway).value
        return {
            f"{r.service.name}:{r.port}": (r.port, r.from_wildcard, r.create_index, r.modify_index)
            for r in rows
        }

    def names(self, gateway: str) -> list[str]:
        return sorted(self.behind(gateway))


def test_wildcards_lead_to_what_is_there_and_to_what_comes() -> None:
    w = World()
    w.register("web")
    w.register("consul")
    w.register("side", "connect-proxy")
    assert w.entry(EXIT) is True
    written = w.index
    assert w.behind("exit") == {
        "old:0": (0, False, written, written),
        "web:0": (0, True, written, written),
    }
    answer = w.fsm.store.ingress.services_of("exit")
    w.register("new")
    assert w.behind("exit")["new:0"] == (0, True, w.index, w.index)
    fired: list[int] = []
    answer.watch.add(lambda: fired.append(1))
    assert fired == [1], "whoever waited is woken"
    w.deregister("new")
    assert w.names("exit") == ["old:0", "web:0"]
    w.register("old")
    assert w.behind("exit")["old:0"][1], "a wildcard takes over what was named, as in Consul"


def test_wildcards_of_listeners_hide_other_protocols() -> None:
    w = World()
    w.register("web")
    w.register("db")
    w.entry(HTTP)
    w.entry({"Kind": "service-defaults", "Name": "db", "Protocol": "tcp"})
    assert w.entry(EDGE) is True
    assert w.names("edge") == ["db:90", "web:80"]
    w.entry({"Kind": "service-defaults", "Name": "db", "Protocol": "http"})
    assert w.names("edge") == ["db:80", "db:90", "web:80"], "a tcp listener may lead there still"


def test_an_equal_entry_changes_nothing_and_another_one_everything() -> None:
    w = World()
    w.register("web")
    w.entry(EXIT)
    before = w.behind("exit")
    w.entry(EXIT | {"Meta": {"a": "b"}})
    assert w.behind("exit") == before
    w.entry(EXIT | {"Services": [{"Name": "other"}]})
    assert w.behind("exit") == {"other:0": (0, False, w.index, w.index)}
    index = w.fsm.store.ingress.services_of("exit").index
    w.entry(EXIT, "delete")
    assert w.names("exit") == []
    assert w.fsm.store.ingress.services_of("exit").index > index


def test_gateways_answer_for_their_services() -> None:
    w = World()
    w.entry(HTTP)
    w.entry(EDGE | {"Listeners": [{"Port": 8, "Protocol": "http", "Services": [{"Name": "web"}]}]})
    w.entry(EXIT)
    w.register("edge", "ingress-gateway")
    w.register("exit", "terminating-gateway")
    store = w.fsm.store
    assert [r.service.id for r in store.ingress.gateways_of("web").value] == ["edge"]
    assert store.ingress.gateways_of("old").value == []
    found = store.catalog.check_service_nodes("old", connect=True)
    assert [r.service.id for r in found.value] == ["exit"]
    assert [r.service_id for r in store.catalog.service_nodes("old", connect=True).value] == [
        "exit"
    ]
    assert store.catalog.check_service_nodes("old").value == []


def test_it_is_derived_anew_from_a_snapshot() -> None:
    w = World()
    w.register("web")
    w.entry(EXIT)
    before = w.behind("exit")
    again = World()
    again.fsm.restore(list(w.fsm.snapshot()))
    assert again.behind("exit") == before
    again.register("late")
    assert "late:0" in again.names("exit")


def test_entries_as_the_log_has_them_are_refused_as_a_whole() -> None:
    """A service's chain that would break leaves the gateway's services as they were."""
    w = World()
    w.entry(HTTP)
    w.entry(EDGE | {"Listeners": [{"Port": 8, "Protocol": "http", "Services": [{"Name": "web"}]}]})
    before = w.behind("edge")
    wrong = [{"Port": 8, "Protocol": "tcp", "Services": [{"Name": "web"}]}]
    assert "does not match" in str(w.entry(EDGE | {"Listeners": wrong}))
    assert w.behind("edge") == before
    assert encode(ConfigEntryRequest("upsert", "dc1", normalize(from_map(EDGE))))


def test_an_entry_without_a_name_is_refused_as_by_memdb() -> None:
    """Real servers of the same quorum do not have it either."""
    w = World()
    refused = w.entry({**EDGE, "Name": ""})
    assert str(refused) == "failed inserting config entry: object missing primary index"
    assert not w.fsm.store.mesh.config_entries("ingress-gateway").value
    assert not w.behind("")
