"""AutoEncrypt between ours and real Consul: clients without certificates join secured servers.

The servers demand certificates of everybody, and their own are verified by name.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, ready, until
from mesh_ca_support import new_key

from proconsul.testing.certs import TestAuthority

MASTER, AGENT = ("11111111-2222-3333-4444-55555555555" + digit for digit in "56")

pytestmark = [*needs_consul, pytest.mark.timeout(120)]


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    made = Agents(tmp_path)
    yield made
    made.close()


def _acl(token: str) -> dict[str, Any]:
    """Nothing is allowed without a token; `token` is the agent's own, and of who shows none."""
    tokens = {"agent": token, "default": token}
    if token == MASTER:
        tokens["master"] = MASTER
    return {"enabled": True, "default_policy": "deny", "tokens": tokens}


def _may_be(server: AgentProcess, node: str) -> None:
    """Give the token of client agents the right to be `node`, and to read and write a key."""
    rules = (
        f'node "{node}" {{ policy = "write" }} node_prefix "" {{ policy = "read" }} '
        'agent_prefix "" { policy = "read" } key "by-tls" { policy = "write" }'
    )
    server.put("/v1/acl/policy", {"Name": node, "Rules": rules})
    server.put("/v1/acl/token", {"SecretID": AGENT, "Policies": [{"Name": node}]})


def _server(agents: Agents, kind: tuple[str, ...], **config: Any) -> tuple[AgentProcess, str]:
    files = TestAuthority(agents.path).server("any", "dc1")
    server = agents.server(
        kind, "s0", ca_file=files.ca, cert_file=files.certificate, key_file=files.key,
        verify_incoming=True, verify_outgoing=True, verify_server_hostname=True,
        auto_encrypt={"allow_tls": True}, acl=_acl(MASTER), **config,
    )  # fmt: skip
    return ready(server), files.ca


def _names_on_https(agent: AgentProcess, ca_pem: str) -> set[str]:
    """The names in the certificate that HTTPS shows, which must be valid for `localhost`."""
    context = ssl.create_default_context(cadata=ca_pem)
    with (
        socket.create_connection((agent.address, 8501), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        found = secure.getpeercert()
    assert found is not None
    return {str(value) for _, value in found["subjectAltName"]}  # type: ignore[misc]


@pytest.mark.parametrize(("server_kind", "client_kind"), [(OURS, THEIRS), (THEIRS, OURS)])
def test_a_client_of_the_other_kind(
    agents: Agents, server_kind: tuple[str, ...], client_kind: tuple[str, ...]
) -> None:
    server, ca_file = _server(agents, server_kind)
    until(lambda: server.get("/v1/connect/ca/roots")["Roots"])
    _may_be(server, "c0")
    client = agents.client(
        client_kind, "c0", server, ca_file=ca_file, verify_outgoing=True,
        verify_server_hostname=True, ports={"https": 8501, "dns": -1}, acl=_acl(AGENT),
        auto_encrypt={"tls": True, "dns_san": ["node.example"], "ip_san": ["10.9.8.7"]},
    )  # fmt: skip
    ready(client)
    assert client.put("/v1/kv/by-tls", "x") is True
    roots = client.get("/v1/connect/ca/roots")
    names = _names_on_https(client, roots["Roots"][0]["RootCert"])
    trust = roots["TrustDomain"]
    assert f"spiffe://{trust}/agent/client/dc/dc1/id/c0" in names
    assert {"localhost", "node.example", "127.0.0.1", "10.9.8.7"} <= names
    config = server.get("/v1/connect/ca/configuration")
    config["Config"]["PrivateKey"] = new_key()
    server.put("/v1/connect/ca/configuration", config)
    assert len(server.get("/v1/connect/ca/roots")["Roots"]) == 2
    assert client.get("/v1/kv/by-tls")
    assert not [x for x in client.complaints() if "rpc" in x.lower()], client.complaints()


def test_who_may_not_be_a_node_gets_no_certificate(agents: Agents) -> None:
    """Until the rights are given: the client asks again."""
    server, ca_file = _server(agents, OURS)
    _may_be(server, "another")
    client = agents.client(
        OURS, "c0", server, ca_file=ca_file, auto_encrypt={"tls": True}, acl=_acl(AGENT)
    )
    until(lambda: "AutoEncrypt.Sign RPC failed" in client.log())
    assert "Permission denied" in client.log()
    policy = server.get("/v1/acl/policy/name/another")
    server.put(f"/v1/acl/policy/{policy['ID']}", policy | {"Rules": 'node "c0" {policy = "write"}'})
    until(lambda: "automatically upgraded to TLS" in client.log())
