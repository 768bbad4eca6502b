"""`/v1/acl/` and the agent's own tokens on an agent in memory."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from http_asking import ask, get, make, put
from http_fake_agent import FakeAgent

from proconsul.domain import acl_requests as r
from proconsul.domain import acl_types as t
from proconsul.domain.base import raw_bytes
from proconsul.interfaces.http.api import HttpApi
from proconsul.wire.gotime import encode_time

TOKEN = t.ACLToken(
    accessor_id="a", secret_id="s", description="<d>", policies=[t.ACLLink("p", "n")],
    service_identities=[t.ACLServiceIdentity("web"), t.ACLServiceIdentity("db", ["dc1"])],
    raw_create_time=raw_bytes(encode_time(1_600_000_000_500_000_000)), raw_hash=raw_bytes(b"h"),
    raw_expiration_time=raw_bytes(encode_time(1_700_000_000_000_000_000)), modify_index=3,
)  # fmt: skip


class Agent(FakeAgent):
    """With tokens of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: dict[str, str] = {}

    async def set_token(self, name: str, token: str) -> bool:
        if name != "agent":
            return False
        self.tokens[name] = token
        return True


def _api(**answers: Any) -> tuple[HttpApi, Agent]:
    agent = Agent()
    agent.answers |= {f"ACL.{method}": answer for method, answer in answers.items()}
    return make(agent, acls_enabled=True, primary_datacenter="dc0")[0], agent


def test_without_acls_all_of_it_is_off() -> None:
    api, agent = make(Agent())
    for method, target in (
        ("GET", "/v1/acl/tokens"), ("PUT", "/v1/acl/bootstrap"), ("GET", "/v1/acl/replication"),
        ("PUT", "/v1/agent/token/agent"), ("DELETE", "/v1/acl/policy/x"),
    ):  # fmt: skip
        answer = asyncio.run(ask(api, method, target))
        assert (answer.status, answer.body) == (401, b"ACL support disabled")
    assert agent.calls == []


def test_a_token_is_shown_as_go_shows_it() -> None:
    api, agent = _api(TokenRead=r.ACLTokenResponse(token=TOKEN, index=9, known_leader=True))
    answer = get(api, "/v1/acl/token/a?dc=dc2", x_consul_token="q")
    assert answer.status == 200
    assert b"X-Consul-Index: 9\r\n" in answer.head
    assert answer.body == (
        b'{"AccessorID":"a","SecretID":"s","Description":"\\u003cd\\u003e",'
        b'"Policies":[{"ID":"p","Name":"n"}],'
        b'"ServiceIdentities":[{"ServiceName":"web"},{"ServiceName":"db","Datacenters":["dc1"]}],'
        b'"Local":false,"ExpirationTime":"2023-11-14T22:13:20Z",'
        b'"CreateTime":"2020-09-13T12:26:40.5Z","Hash":"aA==","CreateIndex":0,"ModifyIndex":3}'
    )
    method, request = agent.calls[0]
    assert method == "ACL.TokenRead"
    assert (request.token_id, request.token_id_type) == ("a", t.ID_ACCESSOR)
    assert (request.token, request.datacenter) == ("q", "dc2")
    get(api, "/v1/acl/token/self", x_consul_token="q")
    assert (agent.calls[1][1].token_id, agent.calls[1][1].token_id_type) == ("q", t.ID_SECRET)


def test_what_is_not_there() -> None:
    api, _ = _api(TokenRead=r.ACLTokenResponse(index=4), RoleRead=r.ACLRoleResponse(index=4))
    token, role = get(api, "/v1/acl/token/a"), get(api, "/v1/acl/role/a")
    assert (token.status, token.body, role.status, role.body) == (403, b"ACL not found", 404, b"")
    assert b"X-Consul-Index: 4" in token.head
    assert b"X-Consul-Index" not in role.head


def test_writes_stay_in_the_agents_datacenter_for_servers_to_send_on() -> None:
    api, agent = _api(
        TokenSet=TOKEN, TokenClone=TOKEN, PolicySet=t.ACLPolicy(), RoleSet=t.ACLRole()
    )
    body = {"Description": "x", "ExpirationTTL": "90s", "Hash": "ignored", "local": True}
    assert put(api, "/v1/acl/token?dc=dc9", body).status == 200
    assert put(api, "/v1/acl/token/a/clone", {}).status == 200
    assert put(api, "/v1/acl/policy/p", {"Name": "n"}).status == 200
    assert put(api, "/v1/acl/role/r", {"Name": "n"}).status == 200
    requests = [request for _, request in agent.calls]
    assert {request.datacenter for request in requests} == {"dc1"}
    assert requests[0].create
    expected = t.ACLToken(description="x", expiration_ttl_ns=90_000_000_000, local=True)
    assert requests[0].acl_token == expected
    ids = requests[1].acl_token.accessor_id, requests[2].policy.id, requests[3].role.id
    assert ids == ("a", "p", "r")


@pytest.mark.parametrize(
    ("target", "body", "text"),
    [
        ("token", "", "Token decoding failed: EOF"),
        ("token", '{"Type":"x"}', 'Token decoding failed: json: unknown field "Type"'),
        ("token/a", '{"AccessorID":"b"}', "Token Accessor ID in URL and payload do not match"),
        ("policy", '{"ID":"b"}', "Cannot specify the ID when creating a new policy"),
        ("policy/a", '{"ID":"b"}', "Policy ID in URL and payload do not match"),
        ("role/a", '{"ID":"b"}', "Role ID in URL and payload do not match"),
        ("role", '{"Namespace":"b"}', 'Role decoding failed: json: unknown field "Namespace" - '
         "Namespaces are a Consul Enterprise feature"),
    ],
)  # fmt: skip
def test_bodies_are_refused_in_consuls_words(target: str, body: str, text: str) -> None:
    answer = put(_api()[0], f"/v1/acl/{target}", body)
    assert (answer.status, answer.body.decode()) == (400, f"Bad request: {text}")


def test_legacy_tokens_are_the_primarys() -> None:
    acl = t.ACL(id="s", name="n", type=t.TYPE_CLIENT)
    api, agent = _api(Get=r.IndexedACLs(acls=[acl], index=3), Apply="new")
    assert json.loads(get(api, "/v1/acl/info/s?dc=dc9").body)[0]["ID"] == "s"
    assert json.loads(put(api, "/v1/acl/clone/s").body) == {"ID": "new"}
    assert put(api, "/v1/acl/update", {"Name": "x"}).body == b"ACL ID must be set"
    requests = [request for _, request in agent.calls]
    assert {request.datacenter for request in requests} == {"dc0"}
    assert requests[-1].acl == t.ACL(name="n", type=t.TYPE_CLIENT)


def test_secrets_in_paths_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    api, _ = _api()  # which answers nothing, so that all fails
    for target in ("/v1/acl/destroy/s3cret", "/v1/acl/clone/s3cret?token=s3cret"):
        assert put(api, target).status == 500
    assert "s3cret" not in caplog.text
    assert "/v1/acl/destroy/<hidden>" in caplog.text


def test_the_agents_own_tokens() -> None:
    api, agent = _api()
    assert put(api, "/v1/agent/token/agent", {"Token": "x"}).status == 200
    assert agent.tokens == {"agent": "x"}
    unknown = put(api, "/v1/agent/token/foo", {"Token": "x"})
    assert (unknown.status, unknown.body) == (404, b'Token "foo" is unknown')
    assert put(api, "/v1/agent/token/agent", '{"Foo":1}').status == 400
    for odd in ("1e308", "[null]", "true"):
        assert put(api, "/v1/agent/token/agent", odd).status == 400


def test_nobody_logs_in() -> None:
    api, agent = _api()
    answer = asyncio.run(ask(api, "POST", "/v1/acl/login", b"{}"))
    assert answer.status == 501
    assert put(api, "/v1/acl/auth-method/x", "{}").status == 501
    assert agent.calls == []
