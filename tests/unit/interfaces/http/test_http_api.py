"""The endpoints against an agent in memory. Texts and shapes were taken from Consul 1.8.7."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from http_asking import ask, get, make, put
from http_fake_agent import META, dc1_state, web_instance
from msgspec.structs import replace

from proconsul.domain import catalog as c
from proconsul.domain import federation as f
from proconsul.drivers.http import Request


@pytest.mark.parametrize(
    ("method", "target", "status", "text"),
    [
        ("POST", "/v1/kv/x", 405, "method POST not allowed"),
        ("HEAD", "/v1/kv/x", 405, "method HEAD not allowed"),
        ("GET", "/v1/agent/join/1.2.3.4", 405, "method GET not allowed"),
        ("GET", "/v1", 404, ""),
        ("GET", "/v1/catalog/nodes/", 404, ""),
        ("GET", "/", 200, "Consul Agent"),
        ("GET", "/v1/kv/a%00b", 400, ""),
        ("GET", "/v1/kv/a%zz", 400, "400 Bad Request"),
        ("GET", "/v1/kv/x?a=%zz", 500, ""),
        ("GET", "/v1/kv/", 400, "Missing key name"),
        ("PUT", "/v1/kv/", 400, "Missing key name"),
        ("DELETE", "/v1/kv/", 400, "Missing key name"),
        ("GET", "/v1/kv/x?wait=abc", 400, "Invalid wait time"),
        ("GET", "/v1/kv/x?index=-1", 400, "Invalid index"),
        (
            "GET", "/v1/kv/x?stale&consistent", 400,
            "Cannot specify ?stale with ?consistent, conflicting semantics.",
        ),
        (
            "GET", "/v1/kv/x?cached&consistent", 400,
            "Cannot specify ?cached with ?consistent, conflicting semantics.",
        ),
        ("GET", "/v1/kv/x?max_stale=foo", 400, 'Invalid max_stale value "foo"'),
        ("GET", "/v1/kv/x?dc=nope", 500, "No path to datacenter"),
        ("PUT", "/v1/kv/x?cas=abc", 500, 'strconv.ParseUint: parsing "abc": invalid syntax'),
        ("PUT", "/v1/kv/x?flags=zz", 500, 'strconv.ParseUint: parsing "zz": invalid syntax'),
        ("PUT", "/v1/kv/x?cas=1&acquire=a", 400, "Conflicting flags: acquire=a&cas=1"),
        ("DELETE", "/v1/kv/x?cas=1&recurse", 400, "Conflicting flags: cas=1&recurse="),
        ("GET", "/v1/catalog/node/", 400, "Missing node name"),
        ("GET", "/v1/catalog/service/", 400, "Missing service name"),
        ("GET", "/v1/health/state/", 400, "Missing check state"),
        ("GET", "/v1/internal/federation-state/", 400, "Bad request: Missing datacenter name"),
        ("GET", "/v1/agent/service/foo", 404, "unknown service ID: foo"),
        (
            "GET", "/v1/agent/members?wan=1&segment=a", 400,
            "Cannot provide a segment with wan=true",
        ),
        (
            "GET", "/v1/agent/members?segment=a", 500,
            "Network segments are not supported in this version of Consul",
        ),
        ("PUT", "/v1/agent/service/maintenance/", 400, "Missing service ID"),
        ("PUT", "/v1/agent/service/maintenance/a", 400, "Missing value for enable"),
        ("PUT", "/v1/agent/service/maintenance/a?enable=q", 400, 'Invalid value for enable: "q"'),
        (
            "PUT", "/v1/agent/service/maintenance/a?enable=true", 404,
            'No service registered with ID "a"',
        ),
        ("PUT", "/v1/agent/check/pass/x", 500, 'CheckID "x" does not have associated TTL'),
        ("PUT", "/v1/agent/check/update/x", 400, "Request decode failed: EOF"),
        ("PUT", "/v1/agent/force-leave/x", 500, "agent: No node found with name 'x'"),
        ("PUT", "/v1/agent/service/deregister/x", 200, ""),
        ("GET", "/v1/agent/health/service/id/", 500, "Bad request: Missing serviceID"),
        (
            "GET", "/v1/agent/metrics?format=prometheus", 415,
            "Prometheus is not enabled since its retention time is not positive",
        ),
        ("GET", "/v1/agent/metrics?token=bad", 403, "ACL not found"),
    ],
)  # fmt: skip
def test_texts(method: str, target: str, status: int, text: str) -> None:
    answer = asyncio.run(ask(make()[0], method, target))
    assert (answer.status, answer.body.decode()) == (status, text)
    assert (b"Content-Type: text/plain" in answer.head) == bool(text)


def test_kv_round_trip() -> None:
    api, _ = make()
    assert get(api, "/v1/kv/a").status == 404
    assert put(api, "/v1/kv/a?flags=42", b"he<llo").body == b"true"
    answer = get(api, "/v1/kv/a")
    assert answer.body == (
        b'[{"LockIndex":0,"Key":"a","Flags":42,"Value":"aGU8bGxv","CreateIndex":8,"ModifyIndex":8}]'
    )
    assert b"X-Consul-Index: 8\r\nX-Consul-Knownleader: true\r\nX-Consul-Lastcontact: 0\r\n" in (
        answer.head
    )
    assert get(api, "/v1/kv/a?raw").body == b"he<llo"
    assert get(api, "/v1/kv/a?pretty").body.startswith(b'[\n    {\n        "LockIndex": 0,')
    assert put(api, "/v1/kv/a?cas=1", b"x").body == b"false"
    assert put(api, "/v1/kv/a?cas=8", b"").body == b"true"
    assert json.loads(get(api, "/v1/kv/a").body)[0]["Value"] is None
    assert get(api, "/v1/kv/?keys").body == b'["a"]'
    assert get(api, "/v1/kv/zz?keys").status == 404
    assert asyncio.run(ask(api, "DELETE", "/v1/kv/?recurse")).body == b"true"
    assert get(api, "/v1/kv/?keys").body == b"[]"
    assert get(api, "/v1/kv/?recurse").status == 404


@pytest.mark.parametrize(("flag", "op"), [("acquire", "lock"), ("release", "unlock")])
def test_locks_are_taken_and_given_back(flag: str, op: str) -> None:
    api, agent = make()
    seen: list[Any] = []

    async def rpc(method: str, request: Any) -> bool:
        seen.append((method, request.op, request.dir_ent.session))
        return False

    agent.rpc = rpc  # type: ignore[method-assign]
    assert put(api, f"/v1/kv/a?{flag}=abc", b"x").body == b"false"
    assert seen == [("KVS.Apply", op, "abc")]


def test_value_limit_with_and_without_length() -> None:
    api, _ = make(kv_value_bytes_max=10)
    text = b"Request body(11 bytes) too large, max size: 10 bytes."
    late = put(api, "/v1/kv/a", b"x" * 11)
    assert late.status == 413
    assert late.body.startswith(text)
    early = Request("PUT", b"/v1/kv/a", ("", 0))
    early.content_length = 11
    refused = api.admit(early)
    assert refused is not None
    assert refused.body.startswith(text)


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("//v1/kv/x", "/v1/kv/x"),
        ("/v1/kv/a//b?x=1", "/v1/kv/a/b?x=1"),
        ("/v1/kv/../x", "/v1/x"),
        ("/v1/kv", "/v1/kv/"),
    ],
)
def test_redirects_of_unclean_paths(target: str, location: str) -> None:
    answer = get(make()[0], target)
    assert answer.status == 301
    assert f"Location: {location}\r\n".encode() in answer.head
    assert f'<a href="{location}">Moved Permanently</a>.\n\n'.encode() == answer.body


def test_options_and_allow() -> None:
    api, _ = make()
    answer = asyncio.run(ask(api, "OPTIONS", "/v1/kv/x"))
    assert answer.status == 200
    assert b"Allow: OPTIONS,GET,PUT,DELETE\r\n" in answer.head
    assert b"Allow: OPTIONS,GET\r\n" in asyncio.run(ask(api, "POST", "/v1/catalog/nodes")).head


def test_query_options_reach_the_rpc() -> None:
    api, agent = make()
    agent.answers["Health.ServiceNodes"] = c.IndexedCheckServiceNodes(**META)
    get(
        api,
        "/v1/health/service/web?dc=dc2&index=5&wait=10s&stale&tag=a&tag=b&node-meta=k:v&node-meta=z"
        "&near=_agent",
        X_Consul_Token="secret",
        Cache_Control="max-age=3, stale-if-error=4",
    )
    _, request = agent.calls[-1]
    assert request == type(request)(
        datacenter="dc2", service_name="web", min_query_index=5, max_query_time_ns=10**10,
        allow_stale=True, service_tags=["a", "b"], tag_filter=True, token="secret",
        node_meta_filters={"k": "v", "z": ""}, max_age_ns=3 * 10**9, stale_if_error_ns=4 * 10**9,
        source=type(request.source)(datacenter="dc2", node="n1", ip="127.0.0.1"),
    )  # fmt: skip


def test_no_token_is_so_long() -> None:
    api, agent = make()
    answer = get(api, "/v1/catalog/nodes", X_Consul_Token="x" * 1025)
    assert (answer.status, answer.body) == (403, b"ACL not found")
    assert not agent.calls


@pytest.mark.parametrize(
    ("target", "headers", "token"),
    [
        ("/v1/kv/x?token=q", {"X_Consul_Token": "h"}, "q"),
        ("/v1/kv/x", {"X_Consul_Token": "h", "Authorization": "Bearer b"}, "h"),
        ("/v1/kv/x", {"Authorization": "bearer  b c"}, "b"),
        ("/v1/kv/x", {"Authorization": "Basic b"}, "default"),
        ("/v1/kv/x", {}, "default"),
    ],
)
def test_tokens(target: str, headers: dict[str, str], token: str) -> None:
    api, agent = make(default_token=lambda: "default")
    get(api, target, **headers)
    assert agent.calls[-1][1].token == token


def test_health_service_shape_and_filter() -> None:
    api, agent = make()
    rows = [web_instance(), web_instance(status="critical")]
    agent.answers["Health.ServiceNodes"] = c.IndexedCheckServiceNodes(nodes=rows, **META)
    answer = get(api, "/v1/health/service/web?passing=false")
    assert b"X-Consul-Effective-Consistency: leader\r\n" in answer.head
    first = json.loads(answer.body)[0]
    assert answer.body.startswith(
        b'[{"Node":{"ID":"","Node":"n1","Address":"1.1.1.1","Datacenter":"dc1",'
        b'"TaggedAddresses":null,"Meta":null,"CreateIndex":5,"ModifyIndex":5},'
        b'"Service":{"ID":"web","Service":"web","Tags":[],"Address":"","Meta":null,"Port":80,'
        b'"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,'
        b'"Proxy":{"MeshGateway":{},"Expose":{}},"Connect":{},"CreateIndex":5,"ModifyIndex":5},'
        b'"Checks":[{"Node":"n1","CheckID":"c","Name":"c","Status":"passing","Notes":"",'
        b'"Output":"","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"","Definition":{},'
        b'"CreateIndex":5,"ModifyIndex":5}]}'
    )
    assert first["Checks"][0]["Status"] == "passing"
    assert len(json.loads(get(api, "/v1/health/service/web?passing").body)) == 1
    bad = get(api, "/v1/health/service/web?passing=x")
    assert (bad.status, bad.body) == (400, b"Invalid value for ?passing")


def test_wan_addresses_are_announced_and_not_used_yet() -> None:
    api, agent = make(translate_wan_addrs=True)
    row = web_instance()
    far = replace(row.node, tagged_addresses={"wan": "192.0.2.9"}, datacenter="dc2")
    agent.answers["Health.ServiceNodes"] = c.IndexedCheckServiceNodes(
        nodes=[replace(row, node=far)], **META
    )
    answer = get(api, "/v1/health/service/web?dc=dc2")
    assert b"X-Consul-Translate-Addresses: true\r\n" in answer.head
    assert json.loads(answer.body)[0]["Node"]["Address"] == far.address


def test_encodings_are_shared_and_never_stale() -> None:
    api, agent = make()
    agent.answers["Health.ServiceNodes"] = c.IndexedCheckServiceNodes(
        nodes=[web_instance()], **META
    )
    first = get(api, "/v1/health/service/web")
    assert get(api, "/v1/health/service/web?index=3&token=x").body == first.body
    assert api.encodings.hits == 1
    # The same index, but other content: as after a restore.
    agent.answers["Health.ServiceNodes"] = c.IndexedCheckServiceNodes(
        nodes=[web_instance(tags=["new"])], **META
    )
    assert b'"Tags":["new"]' in get(api, "/v1/health/service/web").body


def test_answers_older_than_max_stale_are_asked_of_the_leader() -> None:
    api, agent = make()
    agent.answers["Catalog.ListNodes"] = c.IndexedNodes(last_contact_ns=10**10, **META)
    answer = get(api, "/v1/catalog/nodes?max_stale=5s")
    assert [call[1].allow_stale for call in agent.calls] == [True, False]
    assert b"X-Consul-Lastcontact: 10000\r\n" in answer.head
    assert answer.body == b"[]"


def test_federation_states() -> None:
    api, agent = make()
    agent.answers["FederationState.Get"] = f.FederationStateResponse(state=dc1_state(), **META)
    assert get(api, "/v1/internal/federation-state/dc1").body == (
        b'{"State":{"Datacenter":"dc1","UpdatedAt":"2023-11-14T22:13:20.000000005Z",'
        b'"PrimaryModifyIndex":3,"CreateIndex":3,"ModifyIndex":3},"Index":7,"LastContact":0,'
        b'"KnownLeader":true,"ConsistencyLevel":""}'
    )
    request = agent.calls[-1][1]
    assert (request.datacenter, request.target_datacenter) == ("dc1", "dc1")
    agent.answers["FederationState.Get"] = f.FederationStateResponse(**META)
    assert get(api, "/v1/internal/federation-state/dc9").status == 404
    agent.answers["FederationState.List"] = f.IndexedFederationStates(**META)
    assert get(api, "/v1/internal/federation-states").body == b"[]"
    agent.answers["FederationState.ListMeshGateways"] = c.DatacenterIndexedCheckServiceNodes(
        datacenter_nodes={"dc2": [web_instance()], "dc1": None}, **META
    )
    shown = json.loads(get(api, "/v1/internal/federation-states/mesh-gateways").body)
    assert list(shown) == ["dc1", "dc2"]
    assert shown["dc1"] == []
    assert get(api, "/v1/internal/federation-status").body == b'{"Datacenters":[]}'


def test_gzip_and_configured_headers() -> None:
    api, _ = make(response_headers={"X-Frame-Options": "DENY"}, translate_wan_addrs=True)
    answer = get(api, "/v1/agent/members", Accept_Encoding="br, gzip;q=0.5")
    assert json.loads(gzip.decompress(answer.body))[0]["Name"] == "n1"
    assert b"Content-Encoding: gzip\r\n" in answer.head
    assert b"X-Frame-Options: DENY\r\nX-Consul-Translate-Addresses: true\r\n" in answer.head
    plain = get(api, "/v1/agent/members", Accept_Encoding="gzip;q=0")
    assert b"Content-Encoding" not in plain.head


def test_filters_that_make_no_sense_are_refused() -> None:
    api, _ = make()
    assert get(api, "/v1/agent/services?filter=a").status == 500


def test_metrics_count_requests() -> None:
    api, _ = make(prometheus_retention_s=60.0)
    get(api, "/v1/kv/a")
    names = [one["Name"] for one in json.loads(get(api, "/v1/agent/metrics").body)["Samples"]]
    assert "consul.http.GET.v1.kv._" in names
    assert (
        b"consul_http_GET_v1_kv___count 1" in get(api, "/v1/agent/metrics?format=prometheus").body
    )


def test_write_access_and_blocked_endpoints() -> None:
    from ipaddress import ip_network

    api, _ = make(allow_write_from=(ip_network("10.0.0.0/8"),), block_endpoints=("/v1/agent",))
    refused = put(api, "/v1/kv/a", b"x")
    assert (refused.status, refused.body) == (403, b"Access is restricted")
    assert get(api, "/v1/agent/self").body == b"Endpoint is blocked by agent configuration"
    assert get(api, "/v1/kv/?keys").status == 200


def test_keys_that_are_not_utf8_do_not_break_json() -> None:
    api, _ = make(unprintable_paths_allowed=True)
    assert put(api, "/v1/kv/%ff", b"x").status == 200
    answer = get(api, "/v1/kv/%ff")
    assert answer.status == 200
    assert json.loads(answer.body)[0]["Key"] == "\ufffd"
