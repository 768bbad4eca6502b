"""`sidecar_service` becomes a proxy of its own."""

from __future__ import annotations

from typing import Any

import pytest

from proconsul.domain.catalog import NodeService, ServiceConnect
from proconsul.domain.definitions import DefinitionError, ServiceDefinition
from proconsul.domain.go_decode import decode_service_definition
from proconsul.services.agent.sidecars import expanded

PORTS = (21000, 21001)


def definition(sidecar: dict[str, Any] | None, **fields: Any) -> ServiceDefinition:
    service = NodeService(
        id="web1", service="web", port=80, connect=ServiceConnect(sidecar_service=sidecar), **fields
    )
    return ServiceDefinition(service, token="t")


def test_a_service_without_one_stays_as_it_is() -> None:
    given = definition(None)
    assert expanded(given, {}, PORTS) == [given]


def test_an_empty_one_stands_before_the_service_with_its_tags_and_meta() -> None:
    own, sidecar = expanded(
        definition({}, tags=["a"], meta={"k": "v"}, address="10.0.0.1"), {}, PORTS
    )
    assert own.service.connect.sidecar_service is None
    assert own.service.id == "web1"
    service, proxy = sidecar.service, sidecar.service.proxy
    assert (service.kind, service.id, service.service) == (
        "connect-proxy", "web1-sidecar-proxy", "web-sidecar-proxy",
    )  # fmt: skip
    assert (service.port, service.address, service.tags, service.meta) == (
        21000, "10.0.0.1", ["a"], {"k": "v"},
    )  # fmt: skip
    assert (proxy.destination_service_name, proxy.destination_service_id) == ("web", "web1")
    assert (proxy.local_service_address, proxy.local_service_port) == ("127.0.0.1", 80)
    assert [(check.name, check.tcp, check.alias_service) for check in sidecar.checks] == [
        ("Connect Sidecar Listening", "127.0.0.1:21000", ""),
        ("Connect Sidecar Aliasing web1", "", "web1"),
    ]
    assert sidecar.token == "t"
    assert service.locally_registered_as_sidecar


def test_what_it_says_itself_counts() -> None:
    given = {
        "Name": "mine", "Port": 9, "Token": "other", "Tags": ["b"], "Meta": {"x": "y"},
        "Check": {"TTL": "10s"}, "Proxy": {"LocalServicePort": 81},
    }  # fmt: skip
    _, sidecar = expanded(definition(given, tags=["a"], meta={"k": "v"}), {}, PORTS)
    service = sidecar.service
    assert (service.service, service.port, service.tags, service.meta) == (
        "mine",
        9,
        ["b"],
        {"x": "y"},
    )
    assert (sidecar.token, service.proxy.local_service_port) == ("other", 81)
    assert [check.ttl_ns for check in sidecar.checks] == [10_000_000_000]


def test_ports_are_given_once_and_kept() -> None:
    other = NodeService(id="x", service="x", port=21000)
    mine = NodeService(id="web1-sidecar-proxy", service="y", port=21001)
    _, first = expanded(definition({}), {"x": other}, PORTS)
    assert first.service.port == 21001
    _, again = expanded(definition({}), {"x": other, mine.id: mine}, PORTS)
    assert again.service.port == 21001


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ((21000, 21000), "none left in the configured range [21000, 21000]"),
        ((0, 0), "auto-assignment disabled in config"),
    ],
)
def test_no_port_left(ports: tuple[int, int], text: str) -> None:
    other = NodeService(id="x", service="x", port=21000)
    with pytest.raises(DefinitionError) as caught:
        expanded(definition({}), {"x": other}, ports)
    assert text in str(caught.value)


def test_reserved_metadata_is_refused() -> None:
    with pytest.raises(DefinitionError):
        expanded(definition({"Meta": {"consul-x": "1"}}), {}, PORTS)


def test_numbers_of_a_registration_arrive() -> None:
    upstream = {"DestinationName": "db", "LocalBindPort": 9191, "Config": {"connect_timeout_ms": 5}}
    body = {
        "Name": "web",
        "Connect": {"SidecarService": {"Port": 20000, "Proxy": {"Upstreams": [upstream]}}},
    }
    _, sidecar = expanded(decode_service_definition(body), {}, PORTS)
    assert sidecar.service.port == 20000
    given = (sidecar.service.proxy.upstreams or [])[0]
    assert given.local_bind_port == 9191
    assert isinstance(
        (given.config or {})["connect_timeout_ms"], float
    )  # as Go decodes free-form data
