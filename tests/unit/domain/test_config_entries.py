"""Config entries: decoding, rules, forms, messages, rights."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from typing_extensions import override

from proconsul.domain import config_entries as c
from proconsul.domain.acl import AllowAll
from proconsul.domain.base import decode, encode
from proconsul.domain.config_entry_forms import ConfigEntryError, from_map, view
from proconsul.domain.config_entry_messages import (
    ConfigEntryRequest,
    ConfigEntryResponse,
    IndexedConfigEntries,
    IndexedGenericConfigEntries,
    ServiceConfigResponse,
    UpstreamConfig,
    of_row,
    pack,
)
from proconsul.domain.config_entry_rules import (
    InvalidEntryError,
    can_read,
    can_write,
    normal_weight,
    normalize,
    related_services,
    validate,
)
from proconsul.domain.go_json import to_json
from proconsul.domain.mesh_requests import ServiceId
from proconsul.domain.weak_decode import WeakDecodeError
from proconsul.wire import msgpack

ROUTER: dict[str, Any] = {
    "Kind": "service-router", "Name": "web",
    "Routes": [{"Match": {"HTTP": {"PathPrefix": "/a", "Methods": ["get"]}},
                "Destination": {"Service": "api", "RequestTimeout": "3s", "NumRetries": 2}}],
}  # fmt: skip
SPLITTER = {"Kind": "service-splitter", "Name": "web",
            "Splits": [{"Weight": 33.33, "Service": "api"}, {"Weight": 66.67}]}  # fmt: skip
PROXY = {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http", "n": 1.5}}
RESOLVER = {"Kind": "service-resolver", "Name": "web", "Redirect": {"Service": "api"}}
INGRESS = {"Kind": "ingress-gateway", "Name": "in",
           "Listeners": [{"Port": 1, "Services": [{"Name": "web"}]}]}  # fmt: skip
EXIT = {"Kind": "terminating-gateway", "Name": "out", "Services": [{"Name": "web", "SNI": "x"}]}
SERVICE = {"Kind": "service-defaults", "Name": "web", "Protocol": "http"}
ALL = [ROUTER, SPLITTER, PROXY, RESOLVER, INGRESS, EXIT, SERVICE]


def made(raw: dict[str, Any]) -> c.ConfigEntry:
    entry = normalize(from_map(raw))
    validate(entry)
    return entry


# -- decoding and showing


def test_names_in_any_spelling_and_weak_types() -> None:
    entry = made(
        {"kind": "service-router", "name": "web", "routes": {"match": [{"http": {
            "path_prefix": "/", "QUERY_PARAM": [{"name": "q", "present": "true"}]}}],
            "destination": {"num_retries": "3", "retry_on_status_codes": 503,
                            "request_timeout": 1e9}}}
    )  # fmt: skip
    (route,) = view(entry)["Routes"]
    assert route == {
        "Match": {"HTTP": {"PathPrefix": "/", "QueryParam": [{"Name": "q", "Present": True}]}},
        "Destination": {"RequestTimeout": "1s", "NumRetries": 3, "RetryOnStatusCodes": [503]},
    }


def test_a_canonical_name_wins_over_an_alias() -> None:
    entry = from_map({"Kind": "service-defaults", "external_sni": "b", "ExternalSNI": "a"})
    assert view(entry)["ExternalSNI"] == "a"


def test_negative_numbers_of_unsigned_fields_stay_unsigned() -> None:
    raw = {"Kind": "service-router", "Name": "a", "Routes": [{"Destination": {"NumRetries": -1}}]}
    entry = from_map(raw)
    assert decode(encode(entry), c.ServiceRouterConfigEntry) == entry


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({}, "Payload does not contain a kind/Kind key at the top level"),
        ([], "'' expected a map, got 'slice'"),
        ({"Kind": 5}, "Kind value in payload is not a string"),
        ({"Kind": "x"}, "invalid config entry kind: x"),
        ({"Kind": "service-defaults", "X": 1},
         '1 error occurred:\n\t* invalid config key "X"\n\n'),
        ({"Kind": "service-resolver", "Subsets": {"a": {"Namespace": 1}}},
         '1 error occurred:\n\t* invalid config key "Subsets[a].Namespace", '
         "namespaces are a consul enterprise feature\n\n"),
        ({"Kind": "service-defaults", "Expose": {"Checks": "q"}},
         "1 error(s) decoding:\n\n* cannot parse 'Expose.Checks' as bool: "
         'strconv.ParseBool: parsing "q": invalid syntax'),
        ({"Kind": "service-defaults", "Name": {"a": 1}},
         "1 error(s) decoding:\n\n* 'Name' expected type 'string', got unconvertible type "
         "'map[string]interface {}'"),
    ],
)  # fmt: skip
def test_what_is_no_entry(raw: Any, text: str) -> None:
    with pytest.raises((ConfigEntryError, WeakDecodeError)) as caught:
        from_map(raw)
    assert str(caught.value) == text


def test_the_json_omits_what_go_omits() -> None:
    assert to_json(view(made(PROXY))) == (
        b'{"Kind":"proxy-defaults","Name":"global","Config":{"n":1.5,"protocol":"http"},'
        b'"MeshGateway":{},"Expose":{},"CreateIndex":0,"ModifyIndex":0}'
    )
    shown = view(made(RESOLVER | {"ConnectTimeout": "15s"}))
    assert list(shown)[:3] == ["ConnectTimeout", "Kind", "Name"], "Go's embedding writes it first"
    assert view(from_map({"Kind": "ingress-gateway"}))["Listeners"] is None


# -- rules


def test_weights_are_those_of_a_float32() -> None:
    assert [normal_weight(w) for w in (33.333, 0.005, 1e-9, 66.665)] == [
        33.33, 0.01, 0.0, 66.67,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (SPLITTER | {"Splits": [{"Weight": 99.99}]},
         "the sum of all split weights must be 100, not 99.989998"),
        (SPLITTER | {"Splits": [{"Weight": 50}, {"Weight": 50, "Service": "web"}]},
         'split destination occurs more than once: service="web", subset="", namespace=""'),
        (ROUTER | {"Name": ""}, "Name is required"),
        (RESOLVER | {"Failover": {"*": {"Service": "b"}}},
         "Redirect and Failover cannot both be set"),
        (RESOLVER | {"Redirect": None, "ConnectTimeout": "-1s"},
         "Bad ConnectTimeout '-1s', must be >= 0"),
        (INGRESS | {"Listeners": [{"Port": 1, "Protocol": "udp"}]},
         "protocol must be 'tcp', 'http', 'http2', or 'grpc'. 'udp' is an unsupported protocol"),
        (EXIT | {"Services": [{"Name": "a"}, {"Name": "a"}]},
         'Service "a" was specified more than once within a namespace'),
        (PROXY | {"Config": {"a": [1, {"b": None}]}}, "Config.a[1].b is null: leave it out"),
        (PROXY | {"Config": {"a": {1: 2}}}, "Config.a: 1 is a key and no text"),
        (PROXY | {"Config": {"a": [1, datetime(2020, 1, 1, tzinfo=UTC)]}},
         "Config.a[1] is neither text nor number, list nor map"),
        (SERVICE | {"Meta": {"k" * 129: ""}},
         f'1 error occurred:\n\t* Meta key "{"k" * 129}" exceeds maximum length 128\n\n'),
    ],
)  # fmt: skip
def test_what_must_not_be_written(raw: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidEntryError, match=f"^{re.escape(text)}$"):
        made(raw)


def test_normalisation() -> None:
    assert made(SERVICE | {"Protocol": "HTTP"}).protocol == "http"  # type: ignore[union-attr]
    assert made(PROXY | {"Name": "other"}).name == "global"
    route = view(made(ROUTER))["Routes"][0]
    assert route["Match"]["HTTP"]["Methods"] == ["GET"]
    assert route["Destination"]["Namespace"] == "default", "only beside methods, as in Consul"
    assert view(made(INGRESS))["Listeners"][0]["Protocol"] == "tcp"


def test_related_services() -> None:
    found = {raw["Kind"]: related_services(made(raw)) for raw in ALL}
    assert found["service-router"] == {"web", "api"}
    assert found["service-splitter"] == found["service-resolver"] == {"api"}
    assert found["ingress-gateway"] == {"web"}
    assert found["proxy-defaults"] == found["service-defaults"] == set()


class Limited(AllowAll):
    """A token with a few rights."""

    def __init__(self, reads: str = "", writes: str = "", *, operator: bool = False) -> None:
        self._reads, self._writes, self._operator = reads.split(), writes.split(), operator

    @override
    def service_read(self, service: str) -> bool:
        return service in self._reads

    @override
    def service_write(self, service: str) -> bool:
        return service in self._writes

    @override
    def operator_write(self) -> bool:
        return self._operator


def test_rights() -> None:
    router, service = made(ROUTER), made(SERVICE)
    assert not can_write(router, Limited("web", "web")), "it must read where the routes lead"
    assert can_write(router, Limited("web api", "web"))
    assert can_write(service, Limited("", "web"))
    assert not can_write(service, Limited("web", ""))
    for gateway in (made(INGRESS), made(EXIT), made(PROXY)):
        assert not can_write(gateway, Limited("in out web", "in out web global"))
        assert can_write(gateway, Limited(operator=True))
    assert can_read(made(PROXY), Limited())
    assert not can_read(router, Limited())


# -- messages


@pytest.mark.parametrize("raw", ALL, ids=[raw["Kind"] for raw in ALL])
def test_messages_carry_entries_of_every_kind(raw: dict[str, Any]) -> None:
    entry = made(raw)
    request = ConfigEntryRequest("upsert-cas", "dc2", entry, "secret")
    assert decode(encode(request), ConfigEntryRequest) == request
    for answer in (
        ConfigEntryResponse(entry=entry, index=5, known_leader=True),
        IndexedConfigEntries(kind=entry.kind, entries=(entry, entry), index=6),
        IndexedConfigEntries(entries=(entry,), index=6),
        IndexedGenericConfigEntries(entries=(entry, made(PROXY)), index=7),
    ):
        assert decode(encode(answer), type(answer)) == answer
    assert of_row(msgpack.unpack(encode(entry))) == entry


def test_proxy_defaults_marshal_themselves_within_the_message() -> None:
    inner = msgpack.unpack(pack(made(PROXY)))
    assert isinstance(inner, bytes)
    assert msgpack.unpack(inner)[b"Kind"] == b"proxy-defaults"


def test_no_entry_and_resolved_configuration() -> None:
    for answer in (
        ConfigEntryResponse(index=3),
        ServiceConfigResponse(
            index=4,
            proxy_config={"protocol": "http"},
            upstream_id_configs=[UpstreamConfig(ServiceId("a"), {"protocol": "tcp"})],
        ),
    ):
        assert decode(encode(answer), type(answer)) == answer
