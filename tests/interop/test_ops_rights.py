"""Rights on operators' endpoints: with each token our agent answers as a real one does."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, until

pytestmark = needs_consul

MASTER = "11111111-2222-3333-4444-555555555555"
KEY = base64.b64encode(b"k" * 16).decode()
RULES = {
    "reads keys of gossip": 'keyring = "read"',
    "writes keys of gossip": 'keyring = "write"',
    "fires events": 'event_prefix "ok" { policy = "write" }',
    "reads events": 'event_prefix "ok" { policy = "read" }',
    "reads agents": 'agent_prefix "" { policy = "read" }',
    "reads nodes": 'node_prefix "" { policy = "read" }',
    "writes nodes": 'node_prefix "" { policy = "write" } service_prefix "web" { policy = "write" }',
    "writes keys": 'key_prefix "a" { policy = "write" } key "b" { policy = "read" }',
    "reads services": 'service_prefix "db" { policy = "read" } node_prefix "" { policy = "read" }',
}
TXN = "/v1/txn"


def kv(verb: str, key: str, **fields: Any) -> dict[str, Any]:
    return {"KV": {"Verb": verb, "Key": key, **fields}}


REQUESTS: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/v1/operator/keyring", None), ("POST", "/v1/operator/keyring", {"Key": KEY}),
    ("PUT", "/v1/event/fire/ok-1", "x"), ("PUT", "/v1/event/fire/no-1", "x"),
    ("GET", "/v1/event/list", None), ("GET", "/v1/agent/monitor?loglevel=x", None),
    ("PUT", TXN, [kv("get", "a"), kv("get", "b")]),
    ("PUT", TXN, [kv("set", "a", Value="aGk="), kv("set", "b", Value="aGk=")]),
    ("PUT", TXN, [kv("set", "a", Value="aGk="), kv("get", "b")]),
    ("PUT", TXN, [kv("check-index", "b", Index=1)]), ("PUT", TXN, [kv("check-not-exists", "zz")]),
    ("PUT", TXN, [kv("delete-tree", "a")]), ("PUT", TXN, [kv("get-tree", "")]),
    ("PUT", TXN, [
        {"Node": {"Verb": "set", "Node": {"Node": "q", "Address": "1.1.1.1"}}},
        {"Service": {"Verb": "set", "Node": "q", "Service": {"Service": "web"}}},
        {"Service": {"Verb": "set", "Node": "q", "Service": {"Service": "db"}}},
        {"Check": {"Verb": "set", "Check": {"Node": "q", "Name": "c"}}},
    ]),
    ("PUT", TXN, [
        {"Node": {"Verb": "get", "Node": {"Node": "n1"}}},
        {"Service": {"Verb": "get", "Node": "n1", "Service": {"ID": "db"}}},
    ]),
    ("PUT", "/v1/coordinate/update", {
        "Node": "n1", "Coord": {"Vec": [0] * 8, "Error": 1.5, "Adjustment": 0, "Height": 1e-5},
    }),
    ("GET", "/v1/internal/ui/nodes", None), ("GET", "/v1/internal/ui/services", None),
    ("GET", "/v1/internal/ui/node/n1", None), ("GET", "/v1/catalog/connect/db", None),
    ("GET", "/v1/health/connect/db", None), ("GET", "/v1/health/ingress/db", None),
)  # fmt: skip
_SHOWN = frozenset({"Content-Type", "X-Consul-Effective-Consistency"})


class Secured:
    """An agent that denies by default, and its tokens by what they may."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent = agent
        self.tokens = {"nothing": "", "all": MASTER, "none such": MASTER.replace("1", "9")}

    def ask(self, method: str, target: str, body: Any, token: str) -> tuple[int, Any, bytes]:
        separator = "&" if "?" in target else "?"
        return self.agent.ask(method, f"{target}{separator}token={token}", body)

    def ready(self) -> bool:
        """Both the leader and the agent itself have told the catalog of the node."""
        told = self.ask("GET", "/v1/internal/ui/node/vm", None, MASTER)[2]
        return all(word in told for word in (b"serfHealth", b"wan_ipv4", b"raft_version"))

    def fill(self) -> None:
        for number, (name, rules) in enumerate(RULES.items()):
            policy = {"Name": f"p{number}", "Rules": rules}
            assert self.ask("PUT", "/v1/acl/policy", policy, MASTER)[0] == 200
            made = self.ask("PUT", "/v1/acl/token", {"Policies": [{"Name": f"p{number}"}]}, MASTER)
            self.tokens[name] = json.loads(made[2])["SecretID"]
        node = {"Node": "n1", "Address": "10.0.0.1", "Service": {"Service": "db"}}
        assert self.ask("PUT", "/v1/catalog/register", node, MASTER)[0] == 200

    def plain(self, method: str, target: str, body: Any, name: str) -> tuple[int, Any, str]:
        """An answer without what differs from agent to agent."""
        status, headers, raw = self.ask(method, target, body, self.tokens[name])
        text = raw.decode().replace(self.agent.address, "ADDRESS")
        text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "ID", text)
        text = re.sub(r'((?:Index|LTime|LastContact)": ?|modify index )\d+', r"\1N", text)
        return status, {k: v for k, v in headers.items() if k in _SHOWN}, text


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Secured]]:
    """Ours and a real one."""
    agents = Agents(tmp_path_factory.mktemp("rights"))
    acl = {
        "enabled": True,
        "default_policy": "deny",
        "tokens": {"master": MASTER, "agent": MASTER},
    }
    try:
        pair = [
            Secured(agents.server(command, name, node_name="vm", encrypt=KEY, acl=acl))
            for name, command in (("ours", OURS), ("theirs", THEIRS))
        ]
        for one in pair:
            until(one.ready, 40)
            until(lambda one=one: one.fill() is None, 40)  # type: ignore[misc]
        yield pair
    finally:
        agents.close()


def test_each_token_may_the_same(both: list[Secured]) -> None:
    ours, theirs = both
    for name in ours.tokens:
        for method, target, body in REQUESTS:
            expected = theirs.plain(method, target, body, name)
            assert ours.plain(method, target, body, name) == expected, (name, method, target, body)
