"""What config entries make of sidecars and gateways: our client beside a real one, on a real server.

Costs two agents of Consul's and one of ours, about 5 s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, ready, until

pytestmark = needs_consul

PROXY: dict[str, Any] = {
    "Name": "web-proxy", "Kind": "connect-proxy", "Port": 7777,
    "Proxy": {"DestinationServiceName": "web", "DestinationServiceID": "web-1",
              "Config": {"own": 1, "deep": {"x": 0}, "none": ""},
              "Upstreams": [{"DestinationName": "up", "LocalBindPort": 1, "Config": {"a": "b"}},
                            {"DestinationName": "query", "DestinationType": "prepared_query",
                             "LocalBindPort": 2}]},
}  # fmt: skip
ENTRIES: tuple[dict[str, Any], ...] = (
    # First: what a real client once knew of an upstream it never forgets
    {"Kind": "service-defaults", "Name": "up", "Protocol": "http2"},
    {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http", "own": 2, "n": 5,
     "none": "x", "deep": {"x": 1, "y": [1, 2]}}, "MeshGateway": {"Mode": "local"}},
    {"Kind": "service-defaults", "Name": "web", "Protocol": "grpc", "MeshGateway": {"Mode": "remote"},
     "Expose": {"Checks": True, "Paths": [{"Path": "/p", "LocalPathPort": 1, "ListenerPort": 2}]}},
)  # fmt: skip


def shown(agent: AgentProcess, service: str) -> Any:
    """The registration as the agent shows it; the hash is each agent's own affair."""
    found = agent.get(f"/v1/agent/service/{service}")
    del found["ContentHash"]
    return found


def test_both_clients_show_the_same(tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    try:
        server = agents.server(THEIRS, "server", connect={"enabled": True})
        ready(server)
        pair = [
            ready(agents.client(command, name, server, enable_central_service_config=True))
            for command, name in ((OURS, "ours"), (THEIRS, "theirs"))
        ]
        gateway = {"Name": "gw", "Kind": "mesh-gateway", "Port": 1}
        for agent in pair:
            agent.put("/v1/agent/service/register", PROXY | {"ID": "before"})
            agent.put("/v1/agent/service/register", gateway)
        for entry in ENTRIES:
            assert server.put("/v1/config", entry) is True
        for agent in pair:
            agent.put("/v1/agent/service/register", PROXY | {"ID": "after"})
        for agent in pair:
            until(lambda agent=agent: "grpc" in str(shown(agent, "before")))
            until(lambda agent=agent: "local" in str(shown(agent, "gw")))
        for service in ("before", "after", "gw"):
            assert shown(pair[0], service) == shown(pair[1], service)
        assert server.put("/v1/config", ENTRIES[2] | {"Protocol": "tcp"}) is True
        for agent in pair:
            until(lambda agent=agent: "grpc" not in str(shown(agent, "before")))
        assert shown(pair[0], "before") == shown(pair[1], "before")
        rows = until(lambda: server.get("/v1/catalog/service/web-proxy"))
        until(lambda: "grpc" not in str(server.get("/v1/catalog/service/web-proxy")))
        assert len(rows) == 4
    finally:
        agents.close()
