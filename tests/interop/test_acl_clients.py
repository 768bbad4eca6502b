"""Client agents judge tokens by what servers of the other kind tell them. Default deny.

Costs two agents of each kind, about 10 s.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from acl_support import MASTER, acl_ready, acls, answer, call
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, until

pytestmark = needs_consul

Pair = tuple[AgentProcess, AgentProcess]
WEB = 'service "web" { policy = "write" } node "c1" { policy = "read" }'


@pytest.fixture(scope="module", params=["theirs-on-ours", "ours-on-theirs"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """A server and a client of the other kind."""
    first, second = (OURS, THEIRS) if request.param == "theirs-on-ours" else (THEIRS, OURS)
    agents = Agents(tmp_path_factory.mktemp("acl"))
    try:
        server = acl_ready(agents.server(first, "s1", **acls(agent=MASTER)))
        identity = {"NodeIdentities": [{"NodeName": "c1", "Datacenter": "dc1"}]}
        own = answer(server, "PUT", "/v1/acl/token", identity)["SecretID"]
        config = acls(agent=own)
        config["acl"] |= {"token_ttl": "100ms", "policy_ttl": "100ms", "role_ttl": "100ms"}
        client = agents.client(second, "c1", server, **config)
        yield server, acl_ready(client)
    finally:
        agents.close()


def test_what_a_token_may_do_at_a_client(pair: Pair) -> None:
    server, client = pair
    policy = answer(server, "PUT", "/v1/acl/policy", {"Name": "web", "Rules": WEB})
    answer(server, "PUT", "/v1/acl/role", {"Name": "r", "Policies": [{"Name": "web"}]})
    token = answer(server, "PUT", "/v1/acl/token", {"Roles": [{"Name": "r"}]})
    secret = token["SecretID"]

    def may(method: str, path: str, body: object = None) -> int:
        return call(client, method, path, body, secret)[0]

    web, db = ({"Name": name, "Port": 1} for name in ("web", "db"))
    until(lambda: may("PUT", "/v1/agent/service/register", web) == 200)
    assert may("PUT", "/v1/agent/service/register", db) == 403
    assert may("GET", "/v1/agent/self") == 403
    assert may("PUT", "/v1/kv/a", "1") == 403
    assert list(answer(client, "GET", "/v1/agent/services", token=secret)) == ["web"]
    # Consul's client is in legacy mode for a moment, and then asks otherwise.
    until(lambda: answer(client, "GET", "/v1/agent/services", token="") == {})
    assert call(client, "GET", "/v1/agent/services", token="none")[::2] == (403, "ACL not found")
    rules = WEB + ' agent "c1" { policy = "read" } key "a" { policy = "write" }'
    path = f"/v1/acl/policy/{policy['ID']}"
    answer(server, "PUT", path, {"Name": "web", "Rules": rules})
    until(lambda: may("GET", "/v1/agent/self") == 200)
    assert may("PUT", "/v1/kv/a", "1") == 200
    answer(server, "DELETE", f"/v1/acl/token/{token['AccessorID']}")
    until(lambda: may("GET", "/v1/agent/self") == 403)
    assert may("PUT", "/v1/kv/a", "1") == 403


def test_the_clients_own_tokens(pair: Pair) -> None:
    server, client = pair
    until(lambda: answer(server, "GET", "/v1/catalog/node/c1") is not None)
    service = {"Name": "late", "Port": 2}
    answer(client, "PUT", "/v1/agent/service/register", service)
    answer(client, "PUT", "/v1/agent/token/default", {"Token": MASTER})
    until(lambda: answer(server, "GET", "/v1/catalog/service/late"))
    assert len(answer(client, "GET", "/v1/agent/services", token="")) >= 1
    answer(client, "PUT", "/v1/agent/token/default", {"Token": ""})
    until(lambda: answer(client, "GET", "/v1/agent/services", token="") == {})


def test_management_through_a_client(pair: Pair) -> None:
    server, client = pair
    token = answer(client, "PUT", "/v1/acl/token", {"Description": "t"})
    assert answer(server, "GET", f"/v1/acl/token/{token['AccessorID']}") == token
    assert len(answer(client, "GET", "/v1/acl/tokens")) == len(
        answer(server, "GET", "/v1/acl/tokens")
    )
    status, _, text = call(client, "PUT", "/v1/acl/bootstrap", token="")
    assert status == 403
    assert "ACL bootstrap no longer allowed" in text
    assert answer(client, "GET", "/v1/acl/replication")["Enabled"] is False
    assert answer(client, "DELETE", f"/v1/acl/token/{token['AccessorID']}") is True
