"""`operator` beside real Consul: its command line on ours, ours on its, the same HTTP answers."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator

import pytest
from agent_support import OURS, THEIRS, AgentProcess, both_alone, needs_consul, until

pytestmark = needs_consul

LINES = (
    "operator raft list-peers", "operator raft list-peers -stale", "operator raft remove-peer",
    "operator raft remove-peer -id=x -address=y", "operator raft remove-peer -id=x",
    "operator raft remove-peer -address=1.2.3.4:5", "operator autopilot get-config",
    "operator autopilot set-config -max-trailing-logs=99 -last-contact-threshold=1500ms",
    "operator autopilot get-config -stale",
    "operator autopilot set-config -cleanup-dead-servers=false -min-quorum=3",
    "operator autopilot set-config -server-stabilization-time=1m -upgrade-version-tag=v",
    "operator autopilot get-config", "operator autopilot set-config -cleanup-dead-servers",
    "operator raft list-peers -datacenter=nowhere",
)  # fmt: skip

HTTP = (
    ("GET", "/v1/operator/raft/configuration", ""),
    ("GET", "/v1/operator/raft/configuration?stale&pretty", ""),
    ("DELETE", "/v1/operator/raft/peer", ""),
    ("DELETE", "/v1/operator/raft/peer?id=a&address=b", ""),
    ("DELETE", "/v1/operator/raft/peer?id=a", ""),
    ("DELETE", "/v1/operator/raft/peer?address=b", ""),
    ("GET", "/v1/operator/raft/peer", ""),
    ("GET", "/v1/operator/autopilot/configuration", ""),
    ("PUT", "/v1/operator/autopilot/configuration", "{}"),
    ("GET", "/v1/operator/autopilot/configuration", ""),
    (
        "PUT", "/v1/operator/autopilot/configuration",
        '{"CleanupDeadServers":true,"LastContactThreshold":"200ms","MaxTrailingLogs":250,'
        '"ServerStabilizationTime":10000000000}',
    ),
    ("GET", "/v1/operator/autopilot/configuration", ""),
    ("PUT", "/v1/operator/autopilot/configuration?cas=1", "{}"),
    ("PUT", "/v1/operator/autopilot/configuration?cas=x", "{}"),
    ("PUT", "/v1/operator/autopilot/configuration", "{"),
    ("PUT", "/v1/operator/autopilot/configuration", ""),
    ("PUT", "/v1/operator/autopilot/configuration", '{"No":1}'),
    ("PUT", "/v1/operator/autopilot/configuration", '{"LastContactThreshold":"x"}'),
    ("DELETE", "/v1/operator/autopilot/configuration", ""),
    ("PUT", "/v1/operator/autopilot/health", ""),
    ("GET", "/v1/operator/autopilot/health", ""),
    ("GET", "/v1/operator/autopilot/health?pretty", ""),
)  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    """Ours and a real one, each a server alone, healthy."""
    with both_alone(tmp_path_factory.mktemp("operator")) as pair:
        for agent in pair:
            until(lambda agent=agent: agent.get("/v1/operator/autopilot/health")["Healthy"])
        yield pair


def plain(text: str, address: str) -> str:
    text = text.replace(address, "ADDRESS")
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "ID", text)
    text = re.sub(r"20\d\d-\d\d-\d\dT[\d:]+Z", "TIME", text)
    return re.sub(r'("\w*Index|"LastTerm)":( ?)[0-9]+', r'\1":\2N', text)


def ask(agent: AgentProcess, method: str, target: str, body: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(agent.address, 8500, timeout=10)
    try:
        connection.request(method, target, body)
        answer = connection.getresponse()
        text = plain(answer.read().decode(), agent.address)
        return answer.status, answer.getheader("Content-Type", ""), text
    finally:
        connection.close()


def test_the_same_from_either_command_line_on_either_agent(
    both: tuple[AgentProcess, AgentProcess],
) -> None:
    for line in LINES:
        shown = []
        for agent in both:
            for command in (OURS, THEIRS):
                status, out, err = agent.cli(command, *line.split())
                err = err.partition("\nUsage:")[0].strip()  # helps are each program's own
                shown.append((status, plain(out, agent.address), plain(err, agent.address)))
        assert shown == [shown[-1]] * 4, line


def test_the_same_http_answers(both: tuple[AgentProcess, AgentProcess]) -> None:
    for method, target, body in HTTP:
        ours, theirs = (ask(agent, method, target, body) for agent in both)
        assert ours == theirs, (method, target, body)
