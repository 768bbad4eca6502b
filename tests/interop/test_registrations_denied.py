"""Clients whose tokens may not register everything: a real one and ours do and say the same.

The server is a real one, and denies by default. The agent's token speaks for the node, the default
one for what is registered without a token, a registration's own for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, until

pytestmark = needs_consul
MASTER = "7f9b1d2e-0000-4000-8000-000000000001"
AGENT = "7f9b1d2e-0000-4000-8000-000000000002"
USER = "7f9b1d2e-0000-4000-8000-000000000003"
OWN = "7f9b1d2e-0000-4000-8000-000000000004"
RULES = {
    AGENT: 'node_prefix "" { policy = "write" } service_prefix "" { policy = "read" }',
    USER: 'service "web" { policy = "write" } node_prefix "" { policy = "write" }',
    OWN: 'service "db" { policy = "write" }',
}
SERVICES = [
    {"name": "web", "check": {"ttl": "1h"}},
    {"name": "db", "token": OWN, "check": {"ttl": "1h"}},
    {"name": "denied", "check": {"ttl": "1h"}},
]


@pytest.fixture(scope="module")
def agents(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[AgentProcess, AgentProcess, AgentProcess]]:
    made = Agents(tmp_path_factory.mktemp("denied"))
    acl: dict[str, Any] = {"enabled": True, "default_policy": "deny"}
    try:
        tokens = {"master": MASTER, "agent": MASTER}
        server = made.server(THEIRS, "srv", acl={**acl, "tokens": tokens})
        until(partial(_master, server, "/v1/acl/token/self"))
        for secret, rules in RULES.items():
            name = secret[-1]
            _put(server, "/v1/acl/policy", {"Name": name, "Rules": rules})
            _put(server, "/v1/acl/token", {"SecretID": secret, "Policies": [{"Name": name}]})
        clients = [
            made.client(program, name, server, services=SERVICES,
                        acl={**acl, "tokens": {"agent": AGENT, "default": USER}})
            for program, name in ((THEIRS, "real"), (OURS, "mine"))
        ]  # fmt: skip
        for client in clients:
            until(partial(_master, server, f"/v1/catalog/node/{client.name}"))
        yield server, clients[0], clients[1]
    finally:
        made.close()


def _master(agent: AgentProcess, target: str) -> Any:
    return agent.get(f"{target}{'&' if '?' in target else '?'}token={MASTER}")


def _put(agent: AgentProcess, target: str, body: Any = None) -> tuple[int, bytes]:
    status, _, answer = agent.ask("PUT", f"{target}?token={MASTER}", body)
    return status, answer


def _services(server: AgentProcess, node: str) -> dict[str, Any]:
    return dict(_master(server, f"/v1/catalog/node/{node}")["Services"])


def _blocked(client: AgentProcess) -> set[str]:
    """What the log says of ACLs, without ids of tokens that later versions add."""
    lines = re.findall(r"((?:Service|Check) (?:de)?registration|Deregistration) blocked by ACLs: (\S+)",
                       client.log())  # fmt: skip
    return {what for _, what in lines}


def test_what_may_be_registered_is(
    agents: tuple[AgentProcess, AgentProcess, AgentProcess],
) -> None:
    server, *clients = agents
    for client in clients:
        until(partial(_has_settled, server, client))
        checks = _master(server, f"/v1/health/node/{client.name}")
        assert {c["CheckID"] for c in checks} == {"serfHealth", "service:web", "service:db"}
    assert _blocked(clients[0]) == _blocked(clients[1])
    # What is blocked is not sent again with every other change.
    for client in clients:
        before = client.log().count("blocked by ACLs")
        assert _put(client, "/v1/agent/check/warn/service:web")[0] == 200
        until(partial(_warns, server, client))
        assert client.log().count("blocked by ACLs") == before, client.name


def _has_settled(server: AgentProcess, client: AgentProcess) -> bool:
    """Whether it sent what it may, and was refused the rest."""
    sent = set(_services(server, client.name)) == {"web", "db"}
    return sent and "service=denied" in _blocked(client)


def _warns(server: AgentProcess, client: AgentProcess) -> bool:
    checks = _master(server, f"/v1/health/node/{client.name}")
    return {"service:web": "warning"}.items() <= {c["CheckID"]: c["Status"] for c in checks}.items()


def test_each_is_deregistered_with_its_token(
    agents: tuple[AgentProcess, AgentProcess, AgentProcess],
) -> None:
    server, *clients = agents
    for client in clients:
        for name in ("web", "db", "denied"):
            assert _put(client, f"/v1/agent/service/deregister/{name}")[0] == 200
    # With the right to write the service, whoever's node it is.
    until(lambda: [_services(server, client.name) for client in clients] == [{}, {}])
