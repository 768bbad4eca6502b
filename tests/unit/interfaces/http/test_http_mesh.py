"""Config entries, intentions, chains and gateways' services over HTTP: what is asked, and its form.

Every text is compared with Consul's in tests/interop/test_mesh_config_against_consul.py.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from http_asking import ask, get, make, put
from http_fake_agent import META, FakeAgent

from proconsul.domain import intention as ixn
from proconsul.domain.catalog import ServiceName
from proconsul.domain.config_entry_forms import from_map
from proconsul.domain.config_entry_messages import ConfigEntryResponse, IndexedConfigEntries
from proconsul.domain.config_entry_rules import normalize
from proconsul.domain.discovery_chain.types import (
    CompiledDiscoveryChain,
    DiscoveryChainResponse,
    DiscoveryGraphNode,
    DiscoveryResolver,
)
from proconsul.domain.errors import DomainError
from proconsul.domain.gateways import GatewayService, IndexedGatewayServices

IXN = "/v1/connect/intentions"
ENTRY = normalize(from_map({"Kind": "service-defaults", "Name": "web", "Protocol": "HTTP"}))


def test_an_entry_is_written() -> None:
    api, agent = make()
    agent.answers["ConfigEntry.Apply"] = True
    body = {"kind": "proxy-defaults", "config": {"n": 1}}
    assert put(api, "/v1/config?dc=dc2&cas=0&token=t", body).body == b"true"
    ((_, request),) = agent.calls
    assert (request.op, request.datacenter, request.token) == ("upsert-cas", "dc2", "t")
    assert request.entry.config == {"n": 1.0}
    assert isinstance(request.entry.config["n"], float), "as Go decodes it"
    put(api, "/v1/config", body)
    assert agent.calls[-1][1].op == "upsert"


@pytest.mark.parametrize(
    ("target", "body", "status", "text"),
    [
        ("/v1/config", "", 400, b"Bad request: Request decoding failed: EOF"),
        ("/v1/config", "5", 400,
         b"Bad request: Request decoding failed: '' expected a map, got 'float64'"),
        ("/v1/config?cas=x", {"Kind": "service-defaults"}, 500,
         b'strconv.ParseUint: parsing "x": invalid syntax'),
        (f"{IXN}/x", '{"Bogus": 1}', 400,
         b'Bad request: Request decode failed: json: unknown field "Bogus"'),
    ],
)  # fmt: skip
def test_bodies_that_mean_nothing(target: str, body: Any, status: int, text: bytes) -> None:
    api, agent = make()
    answer = put(api, target, body)
    assert (answer.status, answer.body) == (status, text)
    assert agent.calls == []


def test_entries_are_read_and_deleted() -> None:
    api, agent = make()
    agent.answers["ConfigEntry.Get"] = ConfigEntryResponse(entry=ENTRY, **META)
    answer = get(api, "/v1/config/service-defaults/a/b?stale")
    assert json.loads(answer.body)["Protocol"] == "http"
    assert b"X-Consul-Index: 7" in answer.head
    request = agent.calls[-1][1]
    assert (request.kind, request.name, request.allow_stale) == ("service-defaults", "a/b", True)
    agent.answers["ConfigEntry.Get"] = ConfigEntryResponse(**META)
    answer = get(api, "/v1/config/service-defaults/web")
    assert (answer.status, answer.body) == (
        404, b'Config entry not found for "service-defaults" / "web"',
    )  # fmt: skip
    agent.answers["ConfigEntry.List"] = IndexedConfigEntries(entries=(ENTRY,), **META)
    assert [row["Name"] for row in json.loads(get(api, "/v1/config/service-defaults").body)] == [
        "web"
    ]
    agent.answers["ConfigEntry.Delete"] = None
    answer = asyncio.run(ask(api, "DELETE", "/v1/config/service-defaults/web"))
    assert (answer.status, answer.body) == (200, b"{}")
    assert agent.calls[-1][1].entry.name == "web"
    for path, status in (("/v1/config/service-defaults", 404), ("/v1/config/x/y", 400)):
        assert asyncio.run(ask(api, "DELETE", path)).status == status


def with_intention() -> tuple[Any, FakeAgent, ixn.Intention]:
    api, agent = make()
    one = ixn.Intention(id="i", source_name="a", destination_name="b", action="allow")
    one = ixn.with_hash(ixn.completed(one.created(10**18)))
    agent.answers["Intention.Apply"] = "i"
    agent.answers["Intention.Get"] = ixn.IndexedIntentions(intentions=[one], **META)
    agent.answers["Intention.List"] = ixn.IndexedIntentions(intentions=[one], **META)
    return api, agent, one


def test_intentions() -> None:
    api, agent, _ = with_intention()
    body = json.dumps({"SourceName": "a", "SourceNS": "n", "Hash": "x", "CreatedAt": "y"})
    answer = asyncio.run(ask(api, "POST", IXN, body))
    assert json.loads(answer.body) == {"ID": "i"}
    request = agent.calls[-1][1]
    assert (request.op, request.intention.source_namespace) == ("create", "n")
    put(api, f"{IXN}/i", "{}")
    assert (agent.calls[-1][1].op, agent.calls[-1][1].intention.id) == ("update", "i")
    assert asyncio.run(ask(api, "DELETE", f"{IXN}/i")).body == b"true"
    shown = json.loads(get(api, f"{IXN}/i").body)
    assert list(shown)[:4] == ["ID", "Description", "SourceNS", "SourceName"]
    assert shown["CreatedAt"] == "2001-09-09T01:46:40Z"
    assert len(shown["Hash"]) == 44
    assert json.loads(get(api, IXN).body) == [shown]


def test_intentions_that_are_not_there() -> None:
    api, agent, _ = with_intention()
    for text, status in (("Intention not found", 404), ("index error: UUID must", 400), ("x", 500)):
        agent.answers["Intention.Get"] = DomainError(text)
        answer = get(api, f"{IXN}/i")
        assert answer.status == status
        assert answer.body.endswith(text.encode())


def test_matches_and_checks() -> None:
    api, agent, one = with_intention()
    agent.answers["Intention.Match"] = ixn.IndexedIntentionMatches(matches=[[one], None], **META)
    found = json.loads(get(api, f"{IXN}/match?by=source&name=z&name=n/a").body)
    assert list(found) == ["n/a", "z"], "in the order of Go's maps"
    assert (found["n/a"], len(found["z"])) == (None, 1)
    entries = agent.calls[-1][1].match.entries
    assert [(e.namespace, e.name) for e in entries] == [("default", "z"), ("n", "a")]
    agent.answers["Intention.Check"] = ixn.IntentionQueryCheckResponse(True)
    answer = get(api, f"{IXN}/check?source=n/a&destination=b")
    assert answer.body == b'{"Allowed":true}'
    query = agent.calls[-1][1].check
    assert (query.source_namespace, query.source_name, query.source_type) == ("n", "a", "consul")
    for path in ("match", "match?by=x&name=a", "match?by=source", "match?by=source&name=a/b/c",
                 "check", "check?source=a", "check?source=a&destination=b/c/d"):  # fmt: skip
        assert get(api, f"{IXN}/{path}").status == 500


def test_chains() -> None:
    api, agent = make()
    node = DiscoveryGraphNode("resolver", "a", resolver=DiscoveryResolver(True, 5 * 10**9, "t"))
    chain = CompiledDiscoveryChain(
        "a", "default", "dc1", "", "tcp", "resolver:a", {"resolver:a": node}
    )
    agent.answers["DiscoveryChain.Get"] = DiscoveryChainResponse(chain=chain, **META)
    found = json.loads(get(api, "/v1/discovery-chain/a?compile-dc=dc2").body)["Chain"]
    assert found["Nodes"]["resolver:a"]["Resolver"] == {
        "ConnectTimeout": "5s", "Default": True, "Target": "t",
    }  # fmt: skip
    assert agent.calls[-1][1].evaluate_in_datacenter == "dc2"
    body = json.dumps({"override_connect_timeout": "7s", "OverrideMeshGateway": {"Mode": "local"}})
    assert asyncio.run(ask(api, "POST", "/v1/discovery-chain/a", body)).status == 200
    request = agent.calls[-1][1]
    assert (request.override_connect_timeout_ns, request.override_mesh_gateway.mode) == (
        7 * 10**9,
        "local",
    )
    wrong = json.dumps({"OverrideMeshGateway": {"Mode": "x"}})
    answer = asyncio.run(ask(api, "POST", "/v1/discovery-chain/a", wrong))
    assert (answer.status, answer.body) == (400, b"Invalid OverrideMeshGateway.Mode parameter")
    assert get(api, "/v1/discovery-chain/").status == 400


def test_services_behind_gateways() -> None:
    api, agent = make()
    row = GatewayService(ServiceName("g"), ServiceName("s"), "ingress-gateway", 80, "http")
    agent.answers["Catalog.GatewayServices"] = IndexedGatewayServices(services=[row], **META)
    assert json.loads(get(api, "/v1/catalog/gateway-services/g").body) == [
        {"Gateway": {"Name": "g"}, "Service": {"Name": "s"}, "GatewayKind": "ingress-gateway",
         "Port": 80, "Protocol": "http", "CreateIndex": 0, "ModifyIndex": 0},
    ]  # fmt: skip
    agent.answers["Catalog.GatewayServices"] = IndexedGatewayServices(**META)
    assert get(api, "/v1/catalog/gateway-services/x").body == b"null"
    assert get(api, "/v1/catalog/gateway-services/").status == 400
