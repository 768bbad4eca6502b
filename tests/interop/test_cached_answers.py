"""`?cached` beside a real agent's: bodies, X-Cache, Age, and what Cache-Control changes."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator

import pytest
from agent_support import AgentProcess, both_alone, needs_consul, until

pytestmark = needs_consul
HEADERS = ("X-Cache", "Age", "X-Consul-Effective-Consistency")
Answer = tuple[int, dict[str, str | None], bytes]


@pytest.fixture(scope="module")
def agents(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    with both_alone(tmp_path_factory.mktemp("cached")) as pair:
        yield pair


def ask(agent: AgentProcess, target: str, control: str = "") -> Answer:
    connection = http.client.HTTPConnection(agent.address, 8500, timeout=10)
    try:
        connection.request("GET", target, headers={"Cache-Control": control} if control else {})
        response = connection.getresponse()
        body = response.read()
        return response.status, {name: response.getheader(name) for name in HEADERS}, body
    finally:
        connection.close()


CONTROLS = ("", "", "max-age=1", "must-revalidate", "max-age=0")
TARGETS = (
    "/v1/catalog/datacenters?cached",
    "/v1/catalog/services?cached",
    "/v1/catalog/service/consul?cached&stale",
    "/v1/health/service/consul?cached&passing",
    "/v1/health/service/none?cached",
    "/v1/discovery-chain/web?cached",
    "/v1/query/none/execute?cached",
    "/v1/catalog/datacenters",
    "/v1/catalog/nodes?cached",
    "/v1/catalog/node/vm?cached",
    "/v1/health/node/vm?cached",
    "/v1/health/state/any?cached",
    "/v1/kv/x?cached",
    "/v1/agent/connect/ca/roots",
    "/v1/connect/ca/roots?cached",
)


@pytest.mark.parametrize("target", TARGETS)
def test_same_headers_and_errors(agents: tuple[AgentProcess, AgentProcess], target: str) -> None:
    answers = [[ask(agent, target, control)[:2] for control in CONTROLS] for agent in agents]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("target", "control"),
    [
        ("/v1/health/service/web?cached&consistent", ""),
        ("/v1/health/service/web?cached&filter=Nope+==+1", ""),
        ("/v1/health/service/web?cached", "max-age=x"),
        ("/v1/health/service/web?cached", "stale-if-error=-"),
        ("/v1/health/service/web?cached&passing=maybe", ""),
        ("/v1/catalog/service/web?cached&dc=nowhere", ""),
        ("/v1/catalog/service/?cached", ""),
    ],
)
def test_same_errors(agents: tuple[AgentProcess, AgentProcess], target: str, control: str) -> None:
    ours, theirs = (ask(agent, target, control) for agent in agents)
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1]
    if "nowhere" not in target:  # ours says which datacenter it does not know
        assert ours[2] == theirs[2]


@pytest.mark.parametrize("which", [0, 1], ids=["ours", "theirs"])
def test_changes_arrive_and_wake_who_waits(
    agents: tuple[AgentProcess, AgentProcess], which: int
) -> None:
    agent, target = agents[which], "/v1/health/service/news?cached"
    assert ask(agent, target)[2].strip() == b"[]"
    index = agent.index(target)
    found: list[Answer] = []
    waiting = threading.Thread(
        target=lambda: found.append(ask(agent, f"{target}&index={index}&wait=8s"))
    )
    waiting.start()
    time.sleep(0.05)
    agent.put("/v1/agent/service/register", {"Name": "news"})
    waiting.join()
    ((status, headers, body),) = found
    assert (status, headers["X-Cache"], headers["Age"]) == (200, "MISS", None)
    assert b"news" in body
    until(lambda: b"news" in ask(agent, target)[2])
    assert ask(agent, target)[1]["X-Cache"] == "HIT"


def test_waiting_ends_in_time(agents: tuple[AgentProcess, AgentProcess]) -> None:
    for agent in agents:
        target = "/v1/catalog/service/later?cached"
        ask(agent, target)
        index = agent.index(target)
        started = time.monotonic()
        status, headers, body = ask(agent, f"{target}&index={index}&wait=200ms")
        assert (status, headers["X-Cache"], body.strip()) == (200, "MISS", b"[]")
        assert time.monotonic() - started < 3
