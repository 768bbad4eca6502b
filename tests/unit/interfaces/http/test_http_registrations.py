"""Registrations, and what an agent says of itself. Texts and shapes are of Consul 1.8.7."""

from __future__ import annotations

import asyncio
import json

import pytest
from http_asking import ask, get, make, put

from proconsul.domain import catalog as c
from proconsul.domain.errors import DomainError


def test_catalog_register() -> None:
    api, agent = make()
    agent.answers["Catalog.Register"] = None
    body = {
        "node": "n1", "Address": "1.1.1.1", "NodeMeta": {"a": "b"},
        "Service": {"Service": "web", "Proxy": {"destination_service_name": "x"}},
        "Check": {"Name": "c", "Definition": {"Interval": "10s", "Timeout": 5}},
    }  # fmt: skip
    assert put(api, "/v1/catalog/register", body).body == b"true"
    request = agent.calls[-1][1]
    assert (request.node, request.datacenter, request.node_meta) == ("n1", "dc1", {"a": "b"})
    assert request.check.definition.interval_ns == 10**10
    assert request.check.definition.timeout_ns == 5
    assert request.service.proxy.destination_service_name == "x"
    agent.answers["Catalog.Register"] = DomainError("Must provide node")
    refused = put(api, "/v1/catalog/register", "{}")
    assert (refused.status, refused.body) == (500, b"Must provide node")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "Request decode failed: EOF"),
        ("{", "Request decode failed: unexpected EOF"),
        ("{}", "Missing service name"),
        (
            '{"Name":5}',
            "Request decode failed: "
            "json: cannot unmarshal number into Go struct field .Name of type string",
        ),
        ('{"Name":"a","Bogus":1}', 'Request decode failed: json: unknown field "Bogus"'),
        (
            '{"Name":"a","Port":"80"}',
            "Request decode failed: "
            "json: cannot unmarshal string into Go struct field .Port of type int",
        ),
        (
            '{"Name":"a","Check":{"Interval":"x"}}',
            'Request decode failed: time: invalid duration "x"',
        ),
        (
            '{"Name":"b","Check":{"HTTP":"http://x"}}',
            "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks",
        ),
        (
            '{"Name":"b","Check":{"Interval":"1s","TTL":"1s"}}',
            "Invalid check: Interval and TTL cannot both be specified",
        ),
        (
            '{"Name":"b","Check":{"Status":"bad","TTL":"1s"}}',
            "Status for checks must 'passing', 'warning', 'critical'",
        ),
        ('{"Name":"b","Address":"0.0.0.0"}', "Invalid service address"),
        (
            '{"Name":"b","Weights":{"Passing":-1,"Warning":1}}',
            "Invalid Weights: Passing must be greater than 0",
        ),
        (
            '{"Name":"b","Meta":{"a b":"1"}}',
            "Invalid Service Meta: Couldn't load metadata pair ('a b', '1'): "
            "Key contains invalid characters",
        ),
        (
            '{"Name":"b","Kind":"mesh-gateway"}',
            "1 error occurred:\n\t* Port must be non-zero for a mesh-gateway\n\n",
        ),
        (
            '{"Name":"b","Kind":"connect-proxy"}',
            "2 errors occurred:\n\t* Proxy.DestinationServiceName must be non-empty for Connect "
            "proxy services\n\t* Port must be set for a Connect proxy\n\n",
        ),
    ],
)
def test_registrations_that_are_refused(body: str, text: str) -> None:
    answer = put(make()[0], "/v1/agent/service/register", body)
    assert (answer.status, answer.body.decode()) == (400, text)


def test_service_registration_in_snake_case() -> None:
    api, agent = make()
    body = {
        "name": "a", "port": 80, "check": {"ttl": "10s", "deregister_critical_service_after": "1m"},
        "checks": [{"args": ["x"], "interval": 10**9, "ServiceID": "ignored"}],
        "tagged_addresses": {"wan": {"address": "1.2.3.4", "port": 5}}, "enable_tag_override": True,
        "token": "t",
    }  # fmt: skip
    assert put(api, "/v1/agent/service/register?replace-existing-checks", body).status == 200
    definition, how = agent.calls[-1][1]
    assert how == {"persist": True, "replace_existing_checks": True, "token": ""}
    assert definition.token == "t"
    assert [check.kind for check in definition.checks] == ["ttl", "script"]
    assert definition.checks[0].deregister_critical_service_after_ns == 60 * 10**9
    answer = get(api, "/v1/agent/services")
    assert answer.body == (
        b'{"a":{"ID":"a","Service":"a","Tags":[],"Meta":{},"Port":80,"Address":"",'
        b'"TaggedAddresses":{"wan":{"Address":"1.2.3.4","Port":5}},'
        b'"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":true}}'
    )


def test_checks_of_the_agent() -> None:
    api, agent = make()
    for body, text in (
        ("{}", b"Missing check name"),
        ('{"Name":"x"}', b"Invalid check: TTL must be > 0 for TTL checks"),
        ('{"Name":"x","Status":"q"}', b"Bad check status"),
    ):
        assert put(api, "/v1/agent/check/register", body).body == text
    refused = put(api, "/v1/agent/check/register", '{"Name":"x","TTL":"15s","service_id":"q"}')
    assert (refused.status, refused.body) == (500, b'ServiceID "q" does not exist')
    assert (
        put(api, "/v1/agent/check/register", {"id": "i", "Name": "x", "TTL": "15s"}).status == 200
    )
    assert put(api, "/v1/agent/check/warn/i?note=hm").status == 200
    shown = json.loads(get(api, "/v1/agent/checks").body)["i"]
    assert (shown["Status"], shown["Output"], shown["Type"]) == ("warning", "hm", "ttl")
    bad = put(api, "/v1/agent/check/update/i", '{"Status":"foo"}')
    assert bad.body == b"Invalid check status: 'foo'"
    assert put(api, "/v1/agent/check/update/i", '{"Status":"passing","Output":"o"}').status == 200
    assert agent.local_checks["i"].status == "passing"


def test_local_service_health() -> None:
    api, agent = make()
    agent.local["a"] = c.NodeService(id="a", service="web")
    agent.local_checks["c"] = c.HealthCheck(check_id="c", service_id="a", status="warning")
    answer = get(api, "/v1/agent/health/service/id/a")
    assert answer.status == 429
    assert b"X-Consul-Reason: warning\r\n" in answer.head
    text = get(api, "/v1/agent/health/service/name/web?format=text")
    assert (text.status, text.body) == (429, b"warning")
    missing = get(api, "/v1/agent/health/service/id/b")
    assert missing.status == 404
    assert missing.body == b'{"AggregatedStatus":"critical","Service":null,"Checks":null}'


def test_agent_service_blocks_by_hash() -> None:
    async def run() -> None:
        api, agent = make()
        agent.local["a"] = c.NodeService(id="a", service="web")
        first = await ask(api, "GET", "/v1/agent/service/a")
        content_hash = json.loads(first.body)["ContentHash"]
        assert f"X-Consul-Contenthash: {content_hash}".encode() in first.head
        waiting = asyncio.create_task(
            ask(api, "GET", f"/v1/agent/service/a?hash={content_hash}&wait=5s")
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        agent.local["a"] = c.NodeService(id="a", service="web", port=1)
        agent.changed.set()
        assert json.loads((await waiting).body)["Port"] == 1

    asyncio.run(run())


def test_members_and_self() -> None:
    api, _ = make()
    shown = json.loads(get(api, "/v1/agent/members?wan=1").body)[0]
    assert list(shown) == [
        "Name", "Addr", "Port", "Tags", "Status", "ProtocolMin", "ProtocolMax", "ProtocolCur",
        "DelegateMin", "DelegateMax", "DelegateCur",
    ]  # fmt: skip
    assert json.loads(get(api, "/v1/agent/self").body)["Member"]["Name"] == "n1"
