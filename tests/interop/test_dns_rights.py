"""DNS and prepared queries where everything is denied that no token allows, beside a real agent."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from agent_support import OURS, THEIRS, Agents, needs_consul, until
from dns_support import Ask, exchange, plain

pytestmark = needs_consul
MASTER = "6bd2d3c0-6b7f-4c2e-b2a6-b9c8b8b9b900"
SOME = "6bd2d3c0-6b7f-4c2e-b2a6-b9c8b8b9b901"
RULES = """
node "n1" { policy = "read" }
node "n2" { policy = "read" }
service "web" { policy = "read" }
service "dark" { policy = "read" }
query "mine" { policy = "write" }
query "read" { policy = "read" }
"""
CATALOG = (
    ("n1", "10.1.0.1", "web"), ("n1", "10.1.0.1", "secret"), ("n2", "10.1.0.2", "web"),
    ("hidden", "10.1.0.3", "web"), ("hidden", "10.1.0.3", "dark"),
)  # fmt: skip
QUERIES: tuple[dict[str, Any], ...] = (
    {"Name": "mine", "Service": {"Service": "web"}, "Token": MASTER},
    {"Name": "read-it", "Service": {"Service": "secret"}, "Token": MASTER},
    {"Name": "read-web", "Service": {"Service": "web"}},
    {"Name": "other", "Service": {"Service": "secret"}},
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    agents = Agents(tmp_path_factory.mktemp("rights"))
    acl = {"enabled": True, "default_policy": "deny",
           "tokens": {"master": MASTER, "agent": MASTER}}  # fmt: skip
    try:
        pair = [agents.make(p, n, ports={"dns": 8600}, acl=acl)
                for p, n in ((OURS, "ours"), (THEIRS, "theirs"))]  # fmt: skip
        for agent in pair:
            agent.config["node_name"] = "vm"
            del agent.config["data_dir"]
            agent.start("-dev")
        for agent in pair:
            until(lambda a=agent: "serfHealth" in str(a.get(_as("/v1/health/node/vm"))))
            _fill(agent)
        yield pair
    finally:
        agents.close()


def _as(path: str, token: str = MASTER) -> str:
    return f"{path}{'&' if '?' in path else '?'}token={token}"


def _fill(agent: Any) -> None:
    for node, address, service in CATALOG:
        agent.put(_as("/v1/catalog/register"),
                  {"Node": node, "Address": address, "Service": {"Service": service, "Port": 1}})  # fmt: skip
    policy = agent.put(_as("/v1/acl/policy"), {"Name": "some", "Rules": RULES})["ID"]
    agent.put(_as("/v1/acl/token"), {"SecretID": SOME, "Policies": [{"ID": policy}]})
    for query in QUERIES:
        assert agent.ask("POST", _as("/v1/query"), query)[0] == 200


def test_the_default_tokens_rights_decide(pair: list[Any]) -> None:
    names = ("web.service", "secret.service", "dark.service", "n1.node", "hidden.node", "vm.node",
             "consul.service", "mine.query", "read-it.query", "read-web.query", "other.query",
             "nope.query")  # fmt: skip
    different = []
    for token in ("", SOME):
        for agent in pair:
            agent.put(_as("/v1/agent/token/default"), {"Token": token})
        asks = [
            Ask(f"{name}.consul", kind) for name, kind in itertools.product(names, ("A", "SRV"))
        ]
        asks += [Ask("1.0.1.10.in-addr.arpa", "PTR"), Ask("3.0.1.10.in-addr.arpa", "PTR"),
                 Ask("consul", "NS")]  # fmt: skip
        for ask in asks:
            ours, theirs = (plain(exchange(a.address, ask.packed()), a.address) for a in pair)
            if ours != theirs:
                different.append((token, ask, ours, theirs))
    assert not different, "\n".join(map(str, different))


def test_rights_to_queries_are_those_of_consul(pair: list[Any]) -> None:
    ids = [{q["Name"]: q["ID"] for q in agent.get(_as("/v1/query"))} for agent in pair]
    different = []
    for token, name in itertools.product(("anonymous", SOME, MASTER), ids[0]):
        for method, path, body in (
            ("GET", "/v1/query", None),
            ("GET", "/v1/query/{id}", None),
            ("GET", "/v1/query/{id}/execute", None),
            ("GET", "/v1/query/{id}/explain", None),
            ("PUT", "/v1/query/{id}", {"Name": name, "Service": {"Service": "web"}, "Token": "x"}),
            ("PUT", "/v1/query/{id}", {"Name": "mine-too", "Service": {"Service": "web"}}),
            ("POST", "/v1/query", {"Name": f"no-{name}", "Service": {"Service": "web"}}),
        ):
            if token == MASTER and method != "GET":
                continue
            seen = [
                _seen(agent.ask(method, _as(path.format(id=known[name]), token), body))
                for agent, known in zip(pair, ids, strict=True)
            ]
            if seen[0] != seen[1]:
                different.append((token, name, method, path, *seen))
    assert not different, "\n".join(map(str, different))


def _seen(answer: tuple[int, dict[str, str], bytes]) -> Any:
    status, _, body = answer
    try:
        shown = json.loads(body)
    except ValueError:
        return status, body
    if isinstance(shown, dict):
        rows = [row["Node"]["Node"] for row in shown.get("Nodes", ())]
        return status, sorted(rows), shown.get("Query", {}).get("Token")
    return status, sorted((one["Name"], one["Token"]) for one in shown)
