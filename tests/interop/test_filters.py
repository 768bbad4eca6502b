"""`?filter=` beside a real agent's: the same rows, and the same words about what is no filter."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from agent_support import AgentProcess, both_alone, needs_consul, until

pytestmark = needs_consul

UUID_CHARS = 36
NODES = [
    {"Node": "n1", "Address": "10.0.0.1", "NodeMeta": {"rack": "7", "a-b": "c d"}},
    {"Node": "n2", "Address": "10.0.0.2", "TaggedAddresses": {"wan": "3.3.3.3", "lan": "10.0.0.2"}},
    {"Node": "n3", "Address": "10.1.0.3", "NodeMeta": {"rack": "8"}},
]
SERVICES = [
    ("n1", {"Service": "web", "ID": "w1", "Port": 80, "Tags": ["a", "v1"], "Meta": {"k": "v"}}),
    ("n1", {"Service": "web", "ID": "w2", "Port": 81, "Weights": {"Passing": 9, "Warning": 2},
            "TaggedAddresses": {"wan": {"Address": "9.9.9.9", "Port": 1}}}),
    ("n2", {"Service": "web", "ID": "w3", "Port": 0, "Tags": [], "EnableTagOverride": True}),
    ("n2", {"Service": "side", "Kind": "connect-proxy", "Port": 1, "Proxy": {
        "DestinationServiceName": "web", "Upstreams": [
            {"DestinationName": "db", "LocalBindPort": 99},
            {"DestinationName": "mq", "LocalBindPort": 98}], "MeshGateway": {"Mode": "local"}}}),
]  # fmt: skip
CHECKS = [
    {"Node": "n1", "CheckID": "c1", "Name": "Check One", "Status": "passing", "ServiceID": "w1"},
    {"Node": "n1", "CheckID": "c2", "Name": "Zwei", "Status": "warning", "Output": "so\nso\u00fc"},
    {"Node": "n2", "CheckID": "c3", "Name": "Drei", "Status": "critical", "ServiceID": "w3"},
]

ON_NODES = (
    'Node == "n1"', "Node == n1", "Node != n1", "Node==n1 or Node==n2",
    'Node == "n1" and Meta.rack == 7', "not Node == n1", "not not Node == n1",
    "not (Node == n1 or Node == n2)", "Node matches `^n[12]$`", "Node not matches `1`",
    "Node contains `n`", "`2` in Node", "`2` not in Node", "rack in Meta", 'Meta contains "a-b"',
    'Meta["a-b"] == "c d"', 'Meta[ "rack" ] != "7"', "Meta.rack == 7", "Meta.x != 1",
    "Meta.rack matches `[78]`", "Meta.rack not matches `7`", "Meta.x matches `7`", "Meta is empty",
    "Meta is not empty", "TaggedAddresses.wan == `3.3.3.3`", "TaggedAddresses is not empty",
    "Datacenter == dc1", "(Node == n1)", "((Node == n1))", " Node == n1 ",
    "(Node == n1) and (Node != n2)", "Node == n1 or Node == n2 and Node == n3", "Node == -1",
    "Node == 1.5", "Node\t==\nn1", 'Node == ""', 'Node == "\\x6e1"', 'Node == "n\\u0031"', "not == n1",
    "Address matches `^10\\.0\\.`",
)  # fmt: skip
WRONG = (
    "", "Node", "Node = n1", "Nod == n1", "Node.x == n1", "node == n1", "Node == n1)", "(Node == n1",
    "((Node == n1)", "Node == n1 and", "and Node == n1", "Node == n1 xor Node == n2", "Node is",
    "Node is not", "Node is empty", "Meta == 1", "Meta.rack is empty", "Meta.a.b == 1", "Node == 3x",
    "Node == 01", "Node == 1.", 'Node == "a', "Node == `a", "Node[3] == a", 'Node["x" == a', 'Node["x"',
    "Node[", "3 == Node", "3 in 4", "`a` in", "`a` not in `b`", "Node matches `(`", "Node matches `a**`",
    'Node == "\\q"', 'Node == "a\nb"', "CreateIndex == 1", "ModifyIndex == 1", "Node == n1 Node == n2",
    "not", "not Node", "()", "(", ")", "Node contains", "Node == \u00fc", "\u00fc == Node",
    'Node == "\u00fc" x', "Node == n1 or", "Meta[`a`]b == 1",
    "Node == n1 and (Node == n2 or Node == 3x)", "Node matches `[z-a]`", "Node matches `\\8`",
    "x\n y\n  z",
)  # fmt: skip
ON_SERVICES = (
    "ServicePort == 80", "ServicePort != 80", "ServicePort == 0x50", 'ServicePort == "0x50"',
    "ServicePort == abc", "ServicePort == `1_000`", "ServicePort == 99999999999999999999",
    "ServicePort in ServiceTags", "v1 in ServiceTags", "ServiceTags contains a",
    "ServiceTags not contains a", "ServiceTags is empty", "ServiceTags is not empty", "ServiceTags == a",
    "ServiceMeta.k == v", "ServiceWeights.Passing == 9", "ServiceWeights is empty",
    "ServiceEnableTagOverride == true", "ServiceEnableTagOverride == maybe",
    "ServiceEnableTagOverride != T", "ServiceTaggedAddresses.wan.Port == 1",
    "ServiceTaggedAddresses.wan.Address contains 9", "NodeMeta.rack == 7",
    "ServiceTaggedAddresses.x.Port != 1", "ServiceKind == ``", "ServiceProxy.Config is empty",
    "ServiceConnect.Native == false", "ServiceProxy.MeshGateway.Mode == ``",
    "ServiceConnect.SidecarService is empty",
)  # fmt: skip
ON_HEALTH = (
    "Service.Port == 80", "Node.Meta.rack == 7", "Checks is empty", "Checks.Status == passing",
    "Checks.Status != passing", "not Checks.Status == passing", "passing in Checks.Status",
    "Checks.Name contains e", "Checks.ServiceTags contains a", "Checks.Definition.HTTP == ``",
    "Service.Weights.Warning == 2", "Service is empty",
)  # fmt: skip
ON_CHECKS = (
    "Status == warning", "ServiceID is empty", "ServiceID == ``", "Output matches `(?s)o.s.\u00fc`",
    "Name matches `(?i)ONE`",
)  # fmt: skip
ON_NODE = (
    "Kind == `connect-proxy`", "Proxy.Upstreams.DestinationName == db",
    "Proxy.Upstreams.LocalBindPort != 99", "Proxy.Upstreams is empty", "Proxy.Upstreams == 1",
    "Proxy.Expose.Checks == false", "Proxy.DestinationServiceName == web",
    "Proxy.Expose.Paths.Path == x", "Proxy.Upstreams.Config is empty",
)  # fmt: skip
ON_INTENTIONS = (
    "SourceName == web", "SourceName != web", "Precedence == 9", "Precedence == 8", "Action in SourceName",
    "deny in Action", "Meta.a == b", "Meta is empty", "CreatedAt == 1", "Hash is empty", "ID == x",
    "SourceType == consul", "Description matches `^d`", "DefaultAddr == ``", "DestinationNS == default",
)  # fmt: skip
ON_AGENT_SERVICES = (
    "Service == api",
    "Port == 1 or Tags contains x",
    "Nope == 1",
    "ID ==",
    "Meta.x != y",
)
ON_AGENT_CHECKS = ("Status == passing", "Nope == 1", "Status ==", "ServiceTags contains x")
CASES = (
    *(("/v1/catalog/nodes", e) for e in (*ON_NODES, *WRONG)),
    *(("/v1/catalog/service/web", e) for e in ON_SERVICES),
    *(("/v1/health/service/web", e) for e in ON_HEALTH),
    *(("/v1/health/state/any", e) for e in ON_CHECKS),
    ("/v1/health/node/n1", "CheckID == c1"),
    ("/v1/health/checks/web", "CheckID == c1"),
    *(("/v1/catalog/node/n2", e) for e in ON_NODE),
    ("/v1/catalog/node-services/n2", ON_NODE[0]),
    ("/v1/catalog/services", "Nonsense =="),
    *(
        ("/v1/internal/ui/nodes", e)
        for e in ("Node == n1", "Services.Port == 80", "Checks is empty")
    ),
    *(("/v1/connect/intentions", e) for e in ON_INTENTIONS),
    *(
        ("/v1/agent/services", e)
        for e in (
            "Service == api",
            "Port == 1 or Tags contains x",
            "Nope == 1",
            "ID ==",
            "Meta.x != y",
        )
    ),
    *(
        ("/v1/agent/checks", e)
        for e in ("Status == passing", "Nope == 1", "Status ==", "ServiceTags contains x")
    ),
)


def _register(agent: AgentProcess, request: dict[str, Any]) -> None:
    agent.put("/v1/catalog/register", {**request, "SkipNodeUpdate": True})


def _synced(agent: AgentProcess) -> bool:
    return len(agent.get("/v1/catalog/service/web")) == len(SERVICES)


@pytest.fixture(scope="module")
def agents(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    with both_alone(tmp_path_factory.mktemp("filters")) as pair:
        for agent in pair:
            for node in NODES:
                agent.put("/v1/catalog/register", node)
            for name, service in SERVICES:
                _register(agent, {"Node": name, "Service": service})
            for check in CHECKS:
                _register(agent, {"Node": check["Node"], "Check": check})
            for name in ("api", "web"):
                agent.put(
                    "/v1/agent/service/register",
                    {
                        "Name": name,
                        "Port": 1,
                        "Tags": ["x"],
                        "Meta": {"x": "y"},
                        "Check": {"TTL": "1h", "Status": "passing"},
                    },
                )
            for source, action in (("web", "allow"), ("*", "deny")):
                intention = {"SourceName": source, "DestinationName": "db", "Action": action}
                body = {**intention, "Description": f"d{action}", "Meta": {"a": action[:1]}}
                assert agent.ask("POST", "/v1/connect/intentions", body)[0] == 200
            until(partial(agent.get, "/v1/health/checks/api"))
            until(partial(_synced, agent))
        yield pair


def _known(value: Any) -> Any:
    """What both agents must have alike: of answers, no indexes and no id of the node itself."""
    if isinstance(value, dict):
        gone = {"CreateIndex", "ModifyIndex", "CreatedAt", "UpdatedAt", "Hash"}
        return {k: _known(v) for k, v in value.items() if k not in gone and not _is_node_id(k, v)}
    if isinstance(value, list):
        return sorted((_known(one) for one in value), key=json.dumps)
    return value


def _is_node_id(key: str, value: Any) -> bool:
    return key == "ID" and len(value) == UUID_CHARS


def _answer(agent: AgentProcess, path: str, expression: str) -> tuple[int, Any]:
    status, _, body = agent.ask("GET", f"{path}?filter={urllib.parse.quote(expression)}")
    if status != 200:
        return status, body.decode()
    rows = json.loads(body)
    if isinstance(rows, list):
        # The agents' own nodes differ in address, meta and ids.
        rows = [r for r in rows if "127." not in json.dumps(r)]
    return status, _known(rows)


@pytest.mark.parametrize("path", sorted({path for path, _ in CASES}))
def test_same_rows_and_errors(agents: tuple[AgentProcess, AgentProcess], path: str) -> None:
    ours, theirs = agents
    wrong, kinds = [], set()
    for expression in (e for p, e in CASES if p == path):
        one, other = _answer(ours, path, expression), _answer(theirs, path, expression)
        kinds.add(other[0])
        if one != other:
            wrong.append(f"{expression!r}\n  ours   {one}\n  theirs {other}")
    assert not wrong, "\n".join(wrong)
    assert 200 in kinds
