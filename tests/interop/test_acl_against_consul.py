# ruff: noqa: E501 - tables of requests, one a line
"""Management of ACLs: the same requests and commands to ours and to a real agent, default deny.

Costs one agent of each kind, about 8 s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from acl_support import MASTER, acl_ready, acls, call, cli, plain
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul

pytestmark = needs_consul

Pair = tuple[AgentProcess, AgentProcess]
MANAGEMENT = "00000000-0000-0000-0000-000000000001"
ANONYMOUS = "00000000-0000-0000-0000-000000000002"
NOBODY = "0b151993-fa8a-3f54-f2ca-aa45dc2b8ff8"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Ours and a real one, each a server alone."""
    agents = Agents(tmp_path_factory.mktemp("acl"))
    try:
        ours, theirs = (
            agents.make(command, name, server=True, bootstrap=True, **acls())
            for command, name in ((OURS, "ours"), (THEIRS, "theirs"))
        )
        for agent in (theirs, ours):
            agent.config["node_name"] = "vm"
            agent.start()
        yield acl_ready(ours), acl_ready(theirs)
    finally:
        agents.close()


@pytest.fixture(autouse=True)
def empty(both: Pair) -> None:
    """Without what other tests have left."""
    for agent in both:
        for noun, plural, field in (
            ("token", "tokens", "AccessorID"), ("role", "roles", "ID"), ("policy", "policies", "ID"),
        ):  # fmt: skip
            for row in json.loads(call(agent, "GET", f"/v1/acl/{plural}")[2]):
                call(agent, "DELETE", f"/v1/acl/{noun}/{row[field]}")


Step = tuple[str, str, Any]


def _puts(target: str, *bodies: Any) -> list[Step]:
    return [("PUT", target, body) for body in bodies]


def _gets(*targets: str) -> list[Step]:
    return [("GET", target, None) for target in targets]


def _deletes(*targets: str) -> list[Step]:
    return [("DELETE", target, None) for target in targets]


POLICIES = [
    *_gets("policies", "roles", "tokens", "replication", "token/self"), ("PUT", "bootstrap", None),
    *_puts("policy", {"Name": "p1", "Rules": 'node_prefix "" { policy = "read" }', "Description": "d<>&"},
           {"Name": "p1"}, {"Name": "p 1"}, {}, {"Name": "x", "ID": "y"}, '{"Namespace":"x"}', '{"Name":1}', "[]", "", "null",
           {"Name": "bad", "Rules": 'node "" { policy = "foo" }'}),
    *_puts("policy/{p1}", {"Name": MANAGEMENT, "ID": "zz"}, {"Name": "p1", "Datacenters": ["dc1", "dc2"]},
           {"Name": "global-management"}, {"Name": "p1", "Rules": 'key "" { policy = "read" }'}),
    *_puts("policy/" + MANAGEMENT, {"Name": "global-management", "Rules": ""}, {"Name": "global-management", "Datacenters": []}),
    *_puts("policy/" + NOBODY, {"Name": "zz"}), *_puts("policy/abc", {"Name": "x"}),
    *_gets("policy/{p1}", "policy/name/P1", "policy/name/", "policy/", "policy/xx", "policy/name/none", "policies", "policies?pretty"),
    *_deletes("policy/" + MANAGEMENT, "policy/", "policy/xx", "policy/" + NOBODY),
]  # fmt: skip
ROLES = [
    *_puts("role",
           {"Name": "r1", "Policies": [{"Name": "p1"}, {"ID": "{p1}"}], "NodeIdentities": [{"NodeName": "n", "Datacenter": "dc1"}] * 2,
            "ServiceIdentities": [{"ServiceName": "web"}, {"ServiceName": "api", "Datacenters": ["dc2", "dc1"]},
                                  {"ServiceName": "web", "Datacenters": ["dc1"]}]},
           {"Name": "r1"}, {"Name": "r9", "Policies": [{"Name": "nope"}]}, {"Name": "r9", "Policies": [{"ID": NOBODY}]},
           {"Name": "r9", "ServiceIdentities": [{"ServiceName": "A b"}]}, {"Name": "r9", "NodeIdentities": [{"NodeName": "n"}]},
           {"Name": "r9", "NodeIdentities": [{"NodeName": "N", "Datacenter": "x"}]}, {"Name": "r9", "ServiceIdentities": [{}]},
           {"Name": "r 9"}, {}, ""),
    *_puts("role/{r1}", {"Name": "r1x", "Policies": [{"ID": "{p1}"}]}, {"ID": "q", "Name": "r1x"}),
    *_puts("role/" + NOBODY, {"Name": "r1y"}), *_puts("role/x", {"Name": "r1y"}),
    *_gets("role/{r1}", "role/name/R1X", "role/name/zz", "role/name/", "role/", "roles?policy={p1}", "roles?policy=" + NOBODY, "roles"),
]  # fmt: skip
TOKENS = [
    *_puts("token", {"Description": "t1", "Policies": [{"Name": "p1"}], "Roles": [{"Name": "r1x"}],
                     "ServiceIdentities": [{"ServiceName": "web"}]},
           {"Description": "ttl", "ExpirationTTL": "1h"}, {"ExpirationTTL": "1s"}, {"ExpirationTTL": "100h"}, {"ExpirationTTL": "-1h"},
           {"ExpirationTime": "2020-01-01T00:00:00Z"}, {"ExpirationTime": "2020-01-01T00:00:00Z", "ExpirationTTL": "1h"},
           {"ExpirationTTL": 3600000000000, "Local": True}, {"Policies": [{"Name": "none"}]}, {"Policies": [{"ID": "none"}]},
           {"Policies": [{"ID": NOBODY}]}, {"Roles": [{"Name": "none"}]}, {"Roles": [{"ID": NOBODY}]}, {"AccessorID": "x"},
           {"SecretID": "x"}, {"AccessorID": "{t1}"}, {"SecretID": "{s1}"}, {"SecretID": "{t1}"}, {"AccessorID": ANONYMOUS},
           {"SecretID": "00000000-0000-0000-0000-000000000009"}, {"AuthMethod": "x"}, {"Rules": "x"}, '{"Type":"x"}', '{"Foo":1}',
           "[]", "", '{"Description":1}', '{"Local":"x"}', '{"Policies":[{"Foo":1}]}', '{"ExpirationTime":"x"}',
           '{"ExpirationTTL":"x"}', '{"Hash":1}', {"ServiceIdentities": [{"ServiceName": "x", "Datacenters": ["dc1"]}], "Local": True}),
    *_gets("token/{t1}", "token/", "token/xyz", "token/" + NOBODY, "token/{t1}?pretty"),
    *_puts("token/{t1}", {"Description": "t1b"}, {"SecretID": "other"}, {"Local": True}, {"AuthMethod": "a"}, {"ExpirationTTL": "1h"},
           {"ExpirationTime": "2030-01-01T00:00:00Z"}, {"AccessorID": "nope"}, {"Rules": "a"}, {"Policies": [{"Name": "p1"}]}),
    *_puts("token/nope", {}), *_puts("token/" + NOBODY, {}),
    *_puts("token/{t1}/clone", {}, {"Description": "copy"}, ""), *_puts(f"token/{NOBODY}/clone", {}),
    *_gets("tokens?policy={p1}&role={r1}", "tokens?authmethod=x"),
    *_deletes("token/x", "token/" + ANONYMOUS, "token/", "token/" + NOBODY),
    *_deletes("role/{r1}", "role/{r1}", "role/xx"), *_gets("token/{t1}"), *_deletes("policy/{p1}"), *_gets("token/{t1}"),
]  # fmt: skip
REST = [
    *_gets("auth-methods", "auth-method/x", "binding-rules", "binding-rule/x", "binding-rule/" + NOBODY, "auth-method/", "policy"),
    *_puts("create", {"ID": "leg", "Name": "leg", "Rules": 'key "a" { policy = "read" }'}, {"Type": "x"}, '{"Foo":1}'),
    *_gets("info/leg", "info/", "info/none"), *_puts("update", {"ID": "leg", "Name": "leg2", "Type": "client"}, {"Name": "leg2"}),
    ("PUT", "clone/none", None), ("PUT", "destroy/leg", None), ("PUT", "destroy/anonymous", None), ("PUT", "destroy/", None),
    ("POST", "rules/translate", 'agent "" { policy = "read" }\n\nkey "a" {\n  policy = "write"\n}'), ("POST", "tokens", None),
    *_gets("rules/translate/" + ANONYMOUS),
]  # fmt: skip


def _filled(value: Any, saved: dict[str, str]) -> Any:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    for name, found in saved.items():
        text = text.replace(f"{{{name}}}", found)
    return text


def _played(agent: AgentProcess, steps: list[Step], saved: dict[str, str]) -> list[Any]:
    played, ids = [], dict[str, str]()
    for method, target, body in steps:
        path = f"/v1/acl/{_filled(target, saved)}"
        status, head, text = call(agent, method, path, _filled(body, saved))
        if status == 200 and method == "PUT" and isinstance(body, dict):
            row = json.loads(text)
            saved.setdefault(
                str(body.get("Name") or body.get("Description")),
                row.get("ID") or row.get("AccessorID"),
            )
            if body.get("Description") == "t1":
                saved["s1"] = row["SecretID"]
        played.append(((method, target, body), status, head, plain(text, ids)))
    return played


def test_the_same_answers(both: Pair) -> None:
    steps = POLICIES + ROLES + TOKENS + REST
    ours, theirs = (_played(agent, steps, {}) for agent in both)
    assert not _different(ours, theirs)


def _different(ours: list[Any], theirs: list[Any]) -> list[Any]:
    return [(mine, real) for mine, real in zip(ours, theirs, strict=True) if mine != real]


def test_the_agents_own_tokens(both: Pair) -> None:
    for target, body in (
        ("foo", '{"Token":"x"}'), ("agent", json.dumps({"Token": MASTER})), ("acl_agent_master_token", '{"Token":"x"}'),
        ("agent", ""), ("agent", '{"Foo":1}'), ("agent", '{"Token":1}'), ("", "{}"),
    ):  # fmt: skip
        ours, theirs = (call(agent, "PUT", f"/v1/agent/token/{target}", body) for agent in both)
        assert ours == theirs, (target, body)
    # What opens an agent's own endpoints opens nothing else.
    for path, status in (("/v1/agent/self", 200), ("/v1/acl/policies", 403)):
        assert [call(agent, "GET", path, token="x")[0] for agent in both] == [status] * 2, path


def test_who_may_not_manage(both: Pair) -> None:
    for agent in both:
        call(agent, "PUT", "/v1/acl/policy", {"Name": "reader", "Rules": 'acl = "read"'})
        body = {
            "Policies": [{"Name": "reader"}],
            "SecretID": "8e151993-fa8a-3f54-f2ca-aa45dc2b8ff8",
        }
        assert call(agent, "PUT", "/v1/acl/token", body)[0] == 200
    for token in ("", "none", "8e151993-fa8a-3f54-f2ca-aa45dc2b8ff8"):
        for method, target, body in (
            *_gets("policies", "tokens", "roles", "token/" + ANONYMOUS, "token/self", "list", "binding-rules", "replication"),
            *_puts("policy", {"Name": "x"}), *_puts("token", {}), *_puts("role", {"Name": "x"}), *_deletes("token/" + NOBODY),
            ("PUT", "bootstrap", None), ("PUT", "create", "{}"), ("POST", "rules/translate", ""),
        ):  # fmt: skip
            found = [call(agent, method, f"/v1/acl/{target}", body, token) for agent in both]
            ours, theirs = ((status, head, len(plain(text))) for status, head, text in found)
            if target == "tokens":
                ours, theirs = ours[:2], theirs[:2]
            assert ours == theirs, (token, method, target, found)


COMMANDS = (
    "policy create -name c1 -description d<x> -valid-datacenter dc1 -valid-datacenter dc2 -rules @RULES -meta",
    "policy create -name c1", "policy create", "policy list", "policy list -format=json", "policy list -meta", "policy read -name c1",
    "policy read -id PID8 -format json", "policy read", "policy read -name nope", "policy read -id ffffffff",
    "policy update -name c1 -description new", "policy update -id PID8 -rules - -meta", "policy update -name c1 -no-merge",
    "role create -name c1 -policy-name c1 -service-identity web -service-identity db:dc1,dc2 -node-identity n:dc1",
    "role create -name c1 -policy-name c1", "role create -name c2", "role create", "role create -name c3 -service-identity a:b:c",
    "role create -name c3 -node-identity a", "role list", "role list -format=json", "role read -name c1 -meta", "role read -name no",
    "role read -id RID8 -format=json", "role update -id RID8 -description x -service-identity web:dc9", "role update",
    "role update -id ffffffff", "token create -description t -policy-name c1 -role-name c1 -service-identity web", "token create",
    "token create -policy-id PID8 -expires-ttl 1h -format=json", "token create -policy-name c1 -local -meta",
    "token create -policy-name c1 -accessor x", "token create -node-identity n:dc1", "token read -id TID8", "token read -id anonymous",
    "token read -self -format=json", "token read", "token read -id zzzzzz", "token read -id anonymous -format foo",
    "token update -id TID8 -description u -policy-name global-management -merge-policies",
    "token update -id TID8 -role-name c1 -merge-roles -merge-service-identities -service-identity api", "token update -id TID8",
    "token update", "token update -id TID8 -upgrade-legacy -policy-name c1", "token clone -id TID8 -description cl", "token clone",
    "token delete -id TID8", "token delete", "token delete -id anonymous", "role delete -name c1", "role delete -name c1", "role delete",
    "policy delete -name c1", "policy delete", "policy delete -name global-management", "bootstrap", "set-agent-token agent " + MASTER,
    "set-agent-token foo x", "set-agent-token", "set-agent-token agent", "set-agent-token foo", "set-agent-token agent a b",
    "set-agent-token master @/nonexistent", "auth-method list", "auth-method list -format=json", "auth-method read -name x",
    "auth-method read", "binding-rule list", "binding-rule list -method x -format json", "binding-rule read", "binding-rule read -id zz",
    "translate-rules -", "translate-rules", "translate-rules a b", "translate-rules -token-accessor anonymous",
    "translate-rules -token-secret -token-accessor x", "translate-rules @/nonexistent",
)  # fmt: skip
STDIN = """agent "" {
  policy = "read"
}
key "a" { policy = "write" }
service "x" {
 policy="read"
 intentions = "write"
}
keyring = "read"
"""


def _commanded(agent: AgentProcess, command: tuple[str, ...], rules: Path) -> list[Any]:
    parts = {"RULES": str(rules), "PID8": "?", "RID8": "?", "TID8": "?"}
    done = []
    for line in COMMANDS:
        args = line
        for name, value in parts.items():
            args = args.replace(name, value)
        stdin = STDIN if args.endswith(" -") or " - " in args else ""
        status, out, err = cli(agent, command, "acl", *args.split(), stdin=stdin)
        for name, prefix in (
            ("PID8", "policy create"),
            ("RID8", "role create"),
            ("TID8", "token create"),
        ):
            if line.startswith(prefix) and parts[name] == "?":
                found = re.search(r"ID: +([0-9a-f]{8})-", out)
                parts[name] = found[1] if found else "?"
        done.append((line, status, plain(out), plain(err).replace(agent.address, "ADDRESS")))
    return done


def test_the_same_commands(both: Pair, tmp_path: Path) -> None:
    rules = tmp_path / "rules.hcl"
    rules.write_text('node_prefix "" { policy = "read" }\n')
    ours, theirs = both
    expected = _commanded(theirs, THEIRS, rules)
    for agent, command in ((ours, THEIRS), (theirs, OURS)):
        assert not _different(_commanded(agent, command, rules), expected), command[-1]
