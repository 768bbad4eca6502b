"""Transactions, events, keys, `?near` and overviews: our agent answers as a real one does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from agent_support import AgentProcess, both_alone, needs_consul, until

pytestmark = needs_consul

TXN = "/v1/txn"
KEYS = "/v1/operator/keyring"


def kv(verb: str, key: str, **fields: Any) -> dict[str, Any]:
    return {"KV": {"Verb": verb, "Key": key, **fields}}


def node(verb: str, **fields: Any) -> dict[str, Any]:
    return {"Node": {"Verb": verb, "Node": fields}}


def service(verb: str, on: str, **fields: Any) -> dict[str, Any]:
    return {"Service": {"Verb": verb, "Node": on, "Service": fields}}


def check(verb: str, **fields: Any) -> dict[str, Any]:
    return {"Check": {"Verb": verb, "Check": fields}}


CHECK = {
    "Node": "t1", "CheckID": "c1", "Name": "c", "Status": "passing", "ServiceID": "w1",
    "Definition": {"HTTP": "http://x", "Interval": "10s", "Timeout": "1s"},
}  # fmt: skip
REQUESTS: tuple[tuple[str, str, Any], ...] = (
    *(
        ("PUT", TXN, body)
        for body in (
            "[]", "", "{", "{}", "null", [{"X": 1}], [{}], [{"KV": None}],
            [kv("set", "a", Value="aGk=", Flags=3)], [kv("get", "a")],
            [kv("get", "a"), kv("get", "none")], [kv("get", "none"), kv("set", "b", Value="")],
            [kv("set", "b", Value=None)], [kv("get", "b")], [kv("get-tree", "")],
            [kv("bogus", "a")], [kv("set", "")], [kv("set", "c", Value="!!")],
            [kv("cas", "a", Value="eA==", Index=0)], [kv("check-index", "a", Index=1)],
            [kv("check-not-exists", "zz")], [kv("set", "d", Bogus=1)], [kv("get", "a")] * 65,
            [kv("set", "big", Value="A" * 600_000)], [node("set", Node="t1", Address="10.0.0.1")],
            [node("get", Node="t1")], [node("get", Node="t9")], [node("set", Node="")],
            [node("set", Node="q", ID="bad", Address="1.1.1.1")],
            [service("set", "t1", ID="w1", Service="web", Port=80, Tags=["a"])],
            [service("get", "t1", ID="w1")], [service("set", "t1", ID="x")],
            [service("set", "t1", Service="db", Address="0.0.0.0")],
            [service("set", "t9", Service="db")], [check("set", **CHECK)],
            [check("get", Node="t1", CheckID="c1")],
            [check("set", Node="t1", Name="named", Status="warning")],
            [check("set", Node="t1", Name="named", Status="bogus")],
            [
                check("delete", Node="t1", CheckID="c1"), service("delete", "t1", ID="w1"),
                node("delete", Node="t1"),
            ],
            [kv("delete", "a"), kv("delete-tree", "b")], [{"KV": {"Flags": -1}}],
        )
    ),
    ("PUT", f"{TXN}?dc=none", [kv("get", "a")]), ("PUT", f"{TXN}?consistent", [kv("get", "a")]),
    ("PUT", f"{TXN}?stale", [kv("get", "a")]), ("GET", TXN, None),
    ("PUT", f"{TXN}?stale&consistent", [kv("get", "a")]),
    ("GET", KEYS, None), ("POST", KEYS, None), ("POST", KEYS, {}), ("POST", KEYS, {"x": 1}),
    ("GET", f"{KEYS}?relay-factor=a", None), ("GET", f"{KEYS}?relay-factor=7", None),
    ("PUT", f"{KEYS}?local-only=1", {"Key": "a"}), ("GET", f"{KEYS}?local-only=x", None),
    ("PATCH", KEYS, None), ("POST", KEYS, {"Key": "a!"}), ("POST", KEYS, {"Key": 5}),
    ("POST", KEYS, []),
    ("GET", "/v1/event/list?name=none", None), ("PUT", "/v1/event/fire/", None),
    ("GET", "/v1/event/list?name=none&index=1&wait=10ms", None),
    ("GET", "/v1/event/list?index=a", None), ("PUT", "/v1/event/fire/x?tag=a", None),
    ("PUT", "/v1/event/fire/x?node=(", None), ("PUT", "/v1/event/fire/x?dc=none", None),
    ("PUT", "/v1/event/fire/x?node=v.*&service=web&tag=a", "pay"),
    ("PUT", "/v1/event/fire/" + "x" * 600, None), ("GET", "/v1/event/fire/a", None),
    ("PUT", "/v1/coordinate/update", {"Node": "n0", "Coord": {"Vec": [0, 0]}}),
    ("PUT", "/v1/coordinate/update", "{"), ("PUT", "/v1/coordinate/update", {"X": 1}),
    ("GET", "/v1/agent/monitor?loglevel=x", None),
    *(
        ("GET", f"/v1/{path}", None)
        for path in (
            "internal/ui/node/", "internal/ui/node/n0", "internal/ui/node/n9",
            "internal/ui/node/none", "internal/ui/services", "internal/ui/nodes",
            "internal/ui/services?filter=Service.Service==db", "catalog/connect/db",
            "catalog/connect/", "health/connect/db?near=n0", "health/connect/db?passing",
            "internal/ui/gateway-services-nodes/ig", "internal/ui/gateway-services-nodes/tg",
            "internal/ui/gateway-services-nodes/", "catalog/gateway-services/ig",
            "health/connect/", "health/ingress/db", "health/ingress/", "coordinate/node/n1",
        )
    ),
    *(
        ("GET", f"/v1/{path}?near={near}", None)
        for path in (
            "catalog/nodes", "catalog/service/db", "health/service/db", "health/state/warning",
            "health/checks/db",
        )
        for near in ("n0", "n1", "n9", "none", "_agent")
    ),
)  # fmt: skip
_OWN = frozenset({"Date", "Content-Length", "X-Consul-Index", "Transfer-Encoding", "Connection"})


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    """Ours and a real one, each with the same nodes at the same places."""
    with both_alone(tmp_path_factory.mktemp("ops-http")) as pair:
        for agent in pair:
            _fill(agent)
        for agent in pair:
            until(lambda agent=agent: len(agent.get("/v1/coordinate/nodes")) == 4, 40)  # type: ignore[misc]
        yield pair


def _fill(agent: AgentProcess) -> None:
    agent.put("/v1/config", {"Kind": "service-defaults", "Name": "db", "Protocol": "http"})
    listeners = [
        {"Port": 8080, "Protocol": "http", "Services": [{"Name": "db"}]},
        {"Port": 9000, "Protocol": "tcp", "Services": [{"Name": "tc"}]},
    ]
    agent.put("/v1/config", {"Kind": "ingress-gateway", "Name": "ig", "Listeners": listeners})
    behind = [{"Name": "db", "CAFile": "/a"}, {"Name": "none"}]
    agent.put("/v1/config", {"Kind": "terminating-gateway", "Name": "tg", "Services": behind})
    own = {"Vec": [0.0] * 8, "Error": 1.5, "Adjustment": 0, "Height": 1e-5}
    agent.put("/v1/coordinate/update", {"Node": "vm", "Coord": own})
    for number, (status, seconds) in enumerate(
        (("passing", 0.05), ("warning", 0.01), ("warning", 0.03))
    ):
        name = f"n{number}"
        meta = {"external-source": "k8s"} if number else {}
        service = {"Service": "db", "Tags": ["b", f"t{number % 2}"], "Meta": meta}
        check = {"Name": "c", "Status": status, "ServiceID": "db"}
        place = {"Node": name, "Address": f"10.0.0.{number}", "Service": service, "Check": check}
        agent.put("/v1/catalog/register", place)
        vector = [seconds] + [0] * 7
        coordinate = {"Vec": vector, "Error": 1.5, "Adjustment": 0, "Height": 1e-5}
        agent.put("/v1/coordinate/update", {"Node": name, "Coord": coordinate})
    proxy = {
        "Kind": "connect-proxy", "Service": "db-proxy", "Port": 9,
        "Proxy": {"DestinationServiceName": "db"},
    }  # fmt: skip
    agent.put("/v1/catalog/register", {"Node": "n0", "Address": "10.0.0.0", "Service": proxy})
    agent.put("/v1/catalog/register", {"Node": "n9", "Address": "10.0.0.9", "Service": proxy})


def plain(agent: AgentProcess, method: str, target: str, body: Any) -> tuple[int, Any, str]:
    """Status, headers and body, without what differs from agent to agent."""
    status, headers, raw = agent.ask(method, target, body)
    text = raw.decode().replace(agent.address, "ADDRESS")
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "ID", text)
    text = re.sub(r'("(?:CreateIndex|ModifyIndex|LockIndex|Index|LastContact)": )\d+', r"\1N", text)
    text = re.sub(r"current modify index \d+", "current modify index N", text)
    return status, {k: v for k, v in headers.items() if k not in _OWN}, text


def test_the_same_requests_get_the_same_answers(both: tuple[AgentProcess, AgentProcess]) -> None:
    ours, theirs = both
    for method, target, body in REQUESTS:
        expected = plain(theirs, method, target, body)
        shown = json.dumps(body)[:100]
        assert plain(ours, method, target, body) == expected, (method, target[:80], shown)
