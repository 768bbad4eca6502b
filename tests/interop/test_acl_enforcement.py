"""Who may do what: the same requests with the same tokens, to a real server and to ours.

Both have the same policies and tokens, made over HTTP, and deny by default. Every request is sent with
every token: status and body must be equal, which makes sure of what is refused and of what is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from acl_matrix import (
    AGENT_MASTER,
    CLIENT_READS,
    CLIENT_WRITES,
    FAR,
    MASTER,
    MORE,
    POLICIES,
    READS,
    RULE_TEXTS,
    SECRETS,
    STATUS_ONLY,
    TOKENS,
    UNKNOWN,
    WRITES,
)
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, until

from proconsul.testing.trees import differences

pytestmark = needs_consul


class Server:
    """One of both, with what must not be compared replaced."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent = agent

    def ask(self, method: str, path: str, token: str, body: Any = None) -> tuple[int, Any]:
        """Status and body."""
        secret = SECRETS[token]
        if secret:
            path += ("&" if "?" in path else "?") + f"token={secret}"
        status, _, answer = self.agent.ask(method, f"/v1/{path}", body)
        if method == "GET" and path.partition("?")[0] in STATUS_ONLY:
            return status, "" if status == 200 else answer.decode()
        # A real client says of an error that it came by RPC, ours does not.
        text = answer.decode(errors="replace").replace("rpc error making call: ", "")
        text = re.sub(r"127\.\d+\.\d+\.\d+", "<address>", text)
        text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", text)
        try:
            return status, _plain(json.loads(text))
        except ValueError:
            return status, text if status != 200 else "<text>"

    def put(self, path: str, body: Any, method: str = "PUT") -> None:
        """With all rights; must succeed."""
        status, _, answer = self.agent.ask(method, f"/v1/{path}?token={MASTER}", body)
        assert status == 200, (path, answer)

    def post(self, path: str, body: Any) -> None:
        """As `put`."""
        self.put(path, body, "POST")

    def fill(self) -> None:
        """Policies, tokens, and things to see."""
        for name, rules in POLICIES.items():
            elsewhere = {"Datacenters": ["dc2"]} if name == "elsewhere" else {}
            self.put("acl/policy", {"Name": name, "Rules": rules, **elsewhere})
        self.put("acl/role", {"Name": "operators", "Policies": [{"Name": "operates"}]})
        for name, token in TOKENS.items():
            self.put("acl/token", {"SecretID": SECRETS[name], **token})
        for key in ("web/a", "web/locked", "other", "list/x"):
            self.put(f"kv/{key}", "1")
        self.put("catalog/register", {**FAR, "Service": {"ID": "web1", "Service": "web"}})
        self.put("catalog/register", {**FAR, "Service": {"ID": "db1", "Service": "db"},
                                      "Check": {"CheckID": "disk", "Name": "disk"}})  # fmt: skip
        for name in ("web", "db"):
            check = {"CheckID": name, "TTL": "1h", "Status": "passing"}
            self.put("agent/service/register", {"ID": f"{name}1", "Name": name, "Check": check})
        self.put("session/create", {"Name": "s"})
        self.put("config", {"Kind": "service-defaults", "Name": "web", "Protocol": "http"})
        for source, destination in (("db", "web"), ("*", "db")):
            ends = {"SourceName": source, "DestinationName": destination}
            self.post("connect/intentions", {**ends, "Action": "allow"})
        self.post("query", {"Name": "q", "Token": UNKNOWN, "Service": {"Service": "web"}})


VOLATILE = frozenset(
    [
        "CreateIndex",
        "ModifyIndex",
        "LockIndex",
        "Index",
        "PrimaryModifyIndex",
        "Hash",
        "CreateTime",
        "UpdatedAt",
        "CreatedAt",
        "Coord",
        "Vec",
        "Tags",
        "ContentHash",
        "RootCert",
        "SigningKeyID",
        "SerialNumber",
        "NotBefore",
        "NotAfter",
        "Output",
        "LTime",
        "Meta",
    ]
)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: "" if k in VOLATILE else _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return sorted((_plain(one) for one in value), key=repr)
    return value


ACL = {"enabled": True, "default_policy": "deny"}
AGENT_TOKENS = {"agent": MASTER, "agent_master": AGENT_MASTER}


def _is_synced(one: Server) -> bool:
    """Whether the agent has told the catalog all: its node, services and checks, in any order."""
    found = str(one.ask("GET", "internal/federation-states", "master")) + str(
        one.ask("GET", "health/state/passing", "master")
    )
    found += str(one.ask("GET", "catalog/node/vm", "master"))
    return all(part in found for part in ("dc1", "'web'", "'db'", "web1", "db1", "lan_ipv4"))


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    made = Agents(tmp_path_factory.mktemp("acl"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def servers(agents: Agents) -> tuple[Server, Server]:
    config = {
        "node_name": "vm",
        "node_id": "00000000-0000-0000-0000-111111111111",
        "acl": {**ACL, "tokens": {"master": MASTER, **AGENT_TOKENS}},
        "connect": {"enabled": True},
        "disable_coordinates": True,
    }
    pair = [
        Server(agents.server(command, name, **config))
        for command, name in ((OURS, "ours"), (THEIRS, "theirs"))
    ]
    for one in pair:
        until(lambda one=one: "serfHealth" in str(one.ask("GET", "health/node/vm", "master")))
        one.fill()
    for one in pair:
        until(lambda one=one: _is_synced(one))
    return pair[0], pair[1]


def _unlike(servers: tuple[Server, Server], method: str, path: str, body: Any = None) -> list[str]:
    found = []
    for token in SECRETS:
        ours, theirs = (one.ask(method, path, token, body) for one in servers)
        if unlike := differences(list(ours), list(theirs)):
            found.append(f"{method} {path} {body or ''} as {token!r}: {'; '.join(unlike)}"[:400])
    return found


def test_reads_show_the_same_to_everyone(servers: tuple[Server, Server]) -> None:
    unlike = [line for path in READS for line in _unlike(servers, "GET", path)]
    unlike += [line for path in STATUS_ONLY for line in _unlike(servers, "GET", path)]
    assert not unlike, "\n".join(unlike)


def test_policies_are_read_alike(servers: tuple[Server, Server]) -> None:
    unlike = []
    for number, rules in enumerate(RULE_TEXTS):
        policy = {"Name": f"rules-{number}", "Rules": rules}
        ours, theirs = (one.ask("PUT", "acl/policy", "master", policy) for one in servers)
        if ours != theirs:
            unlike.append(f"{rules!r}\n  ours   {ours}\n  theirs {theirs}")
    assert not unlike, "\n".join(unlike)


def test_everything_else_is_refused_alike(servers: tuple[Server, Server]) -> None:
    unlike = [line for request in MORE for line in _unlike(servers, *request)]
    assert not unlike, "\n".join(unlike)


def test_writes_are_refused_alike(servers: tuple[Server, Server]) -> None:
    unlike = [line for path, body in WRITES for line in _unlike(servers, "PUT", path, body)]
    assert not unlike, "\n".join(unlike)


def test_clients_judge_by_what_servers_of_the_other_kind_say(
    agents: Agents, servers: tuple[Server, Server]
) -> None:
    """A real client of our server, and ours of a real one, which must be out of legacy mode."""
    config = {
        "node_name": "vm2",
        "node_id": "00000000-0000-0000-0000-222222222222",
        "acl": {**ACL, "tokens": AGENT_TOKENS},
        "disable_coordinates": True,
    }
    clients = [
        Server(agents.client(command, name, to.agent, **config))
        for command, name, to in (
            (THEIRS, "their client", servers[0]),
            (OURS, "our client", servers[1]),
        )
    ]
    for client in clients:
        until(lambda c=client: "web" in str(c.ask("GET", "catalog/services", "master")))
        # Real ones are slow to leave legacy mode, in which every other token is unknown.
        until(lambda c=client: _acls(c) == {"1"})
        until(lambda c=client: c.ask("GET", "agent/self", "empty") == (403, "Permission denied"))
        check = {"CheckID": "web", "TTL": "1h", "Status": "passing"}
        client.put("agent/service/register", {"ID": "web1", "Name": "web", "Check": check})
        until(lambda c=client: "vm2" in str(c.ask("GET", "health/service/web", "master")))
    pair = clients[0], clients[1]
    # What a real client says of an error that came by RPC is left out of every comparison.
    real, ours = (one.agent.ask("GET", f"/v1/kv/a?token={UNKNOWN}")[2] for one in pair)
    assert (real, ours) == (b"rpc error making call: ACL not found", b"ACL not found")
    unlike = [line for path in CLIENT_READS for line in _unlike(pair, "GET", path)]
    unlike += [line for path, body in CLIENT_WRITES for line in _unlike(pair, "PUT", path, body)]
    assert not unlike, "\n".join(unlike)


def _acls(client: Server) -> set[str]:
    """The ACL modes that members show."""
    status, _, answer = client.agent.ask("GET", f"/v1/agent/members?token={MASTER}")
    assert status == 200
    return {member["Tags"]["acls"] for member in json.loads(answer)}


@pytest.mark.parametrize(
    ("first", "second"), [(THEIRS, OURS), (OURS, THEIRS)], ids=["theirs leads", "ours leads"]
)
def test_servers_of_one_quorum_leave_legacy_mode_and_know_the_same_tokens(
    agents: Agents, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    tokens = {"master": MASTER, "agent": MASTER}
    name = "their lead" if first is THEIRS else "our lead"
    config = {"acl": {**ACL, "tokens": tokens}, "disable_coordinates": True}
    leader = Server(agents.server(first, name, **config))
    until(lambda: leader.ask("GET", "acl/token/self", "master")[0] == 200)
    joins = [leader.agent.address]
    follower = Server(
        agents.server(second, f"{name} follower", bootstrap=False, retry_join=joins, **config)
    )
    until(lambda: len(leader.ask("GET", "status/peers", "master")[1]) == 2)
    leader.put("acl/policy", {"Name": "reads", "Rules": POLICIES["reads"]})
    leader.put("acl/token", {"SecretID": SECRETS["reads"], "Policies": [{"Name": "reads"}]})
    for server in (leader, follower):
        until(lambda s=server: _acls(s) == {"1"})
        until(lambda s=server: len(s.ask("GET", "catalog/nodes?stale", "reads")[1]) == 2)
        assert server.ask("GET", "catalog/nodes?stale", "") == (200, [])
        refusal = server.ask("GET", "catalog/nodes?stale", "unknown")
        assert refusal == (403, "ACL not found")


EXPECTED = {
    token: dict(
        zip(
            ("catalog/nodes", "kv/web/x", "kv/x", "acl/policies", "agent/self"),
            answers,
            strict=True,
        )
    )
    for token, answers in {
        "reads": (200, 403, 403, 403, 403),
        "elsewhere": (200, 403, 403, 200, 403),
        "role": (200, 404, 403, 403, 403),
        "empty": (200, 403, 403, 403, 403),
        "": (200, 403, 403, 403, 403),
        "unknown": (403, 403, 403, 403, 403),
        "root": (500, 500, 500, 500, 500),
    }.items()
}


@pytest.mark.parametrize(
    ("first", "second"), [(THEIRS, OURS), (OURS, THEIRS)], ids=["their primary", "our primary"]
)
def test_a_secondary_without_tokens_of_its_own_asks_the_primary(
    agents: Agents, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    name = "their" if first is THEIRS else "our"
    tokens = {"master": MASTER, "agent": MASTER}
    config = {"primary_datacenter": "dc1", "disable_coordinates": True}
    primary = Server(
        agents.server(first, f"{name} primary", **config, acl={**ACL, "tokens": tokens})
    )
    until(lambda: primary.ask("GET", "acl/token/self", "master")[0] == 200)
    for policy in ("reads", "elsewhere", "web"):
        here = {"Datacenters": ["dc2"]} if policy == "elsewhere" else {}
        primary.put("acl/policy", {"Name": policy, "Rules": POLICIES[policy], **here})
    primary.put("acl/role", {"Name": "webs", "Policies": [{"Name": "web"}]})
    for token in ("reads", "elsewhere"):
        link = {"Policies": [{"Name": token}]}
        primary.put("acl/token", {"SecretID": SECRETS[token], **link})
    primary.put("acl/token", {"SecretID": SECRETS["role"], "Roles": [{"Name": "webs"}]})
    primary.put("acl/token", {"SecretID": SECRETS["empty"]})
    secondary = Server(
        agents.server(
            second,
            f"{name} primary's secondary",
            datacenter="dc2",
            retry_join_wan=[primary.agent.address],
            acl={**ACL, "tokens": {"agent": MASTER, "replication": MASTER}},
            **config,
        )
    )
    until(lambda: len(secondary.ask("GET", "catalog/nodes", "master")[1]) == 1, 30)
    # The primary keeps back policies that do not count in itself: they must have been replicated
    until(lambda: secondary.ask("GET", "acl/replication", "master")[1]["ReplicatedIndex"], 30)
    for token in ("reads", "elsewhere", "role", "empty", "", "unknown", "root"):
        for path in ("catalog/nodes", "kv/web/x", "kv/x", "acl/policies", "agent/self"):
            far = primary.ask("GET", f"{path}{'&' if '?' in path else '?'}dc=dc2", token)
            near = secondary.ask("GET", path, token)
            assert EXPECTED[token][path] == near[0], (path, token, near)
            assert path.startswith("agent") or far == near, (path, token, far)
