"""Agents take over each other's data directory: services, checks, maintenance, what TTL checks said."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, until

pytestmark = needs_consul
SERVICE = {
    "Name": "web", "ID": "w\u00fc/1", "Port": 80, "Tags": ["b"], "Meta": {"k": "v"}, "Address": "10.0.0.1",
    "Weights": {"Passing": 3, "Warning": 2}, "EnableTagOverride": True, "Token": "secret",
    "TaggedAddresses": {"wan": {"Address": "9.9.9.9", "Port": 1}},
    "Checks": [
        {"TTL": "10m", "CheckID": "beats", "Name": "n", "Notes": "note"},
        {"HTTP": "http://127.0.0.1:1/", "Interval": "1h", "Timeout": "3s", "Header": {"A": ["b"]}},
        {"TCP": "127.0.0.1:1", "Interval": "1h", "FailuresBeforeCritical": 9},
    ],
}  # fmt: skip
PROXY = {
    "Name": "side", "Kind": "connect-proxy", "Port": 1,
    "Proxy": {
        "DestinationServiceName": "web", "Config": {"a": [1, "x"]}, "Mode": "",
        "Upstreams": [{"DestinationName": "db", "LocalBindPort": 99, "Config": {"b": 1.5}}],
        "MeshGateway": {"Mode": "local"}, "Expose": {"Paths": [{"Path": "/x", "ListenerPort": 7}]},
    },
}  # fmt: skip


def _start(agents: Agents, command: tuple[str, ...], path: Path, name: str) -> AgentProcess:
    agent = agents.make(command, name, node_name="vm", leave_on_terminate=False)
    agent.config |= {"data_dir": str(path / "data"), "enable_script_checks": True}
    agent.start()
    until(partial(agent.get, "/v1/agent/self"))
    return agent


def _shown(agent: AgentProcess) -> Any:
    services, checks = agent.get("/v1/agent/services"), agent.get("/v1/agent/checks")
    for check in checks.values():
        if check["CheckID"] != "beats":  # the others are run again
            del check["Output"]
    return services, checks


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_registrations_are_taken_over(tmp_path: Path, first: str) -> None:
    agents = Agents(tmp_path)
    programs = (THEIRS, OURS) if first == "theirs" else (OURS, THEIRS)
    try:
        before = _start(agents, programs[0], tmp_path, "before")
        before.put("/v1/agent/service/register", SERVICE)
        proxy = {**PROXY, "Proxy": {k: v for k, v in PROXY["Proxy"].items() if k != "Mode"}}  # type: ignore[attr-defined]
        before.put("/v1/agent/service/register", proxy)
        for check in (
            {"Name": "disk", "Args": ["sh", "-c", "exit 2"], "Interval": "1h", "Notes": "x"},
            {"Name": "alias", "AliasService": "nowhere", "ServiceID": "side"},
            {"Name": "gone", "TTL": "1h"},
        ):
            before.put("/v1/agent/check/register", check)
        before.put("/v1/agent/check/deregister/gone")
        before.put("/v1/agent/check/warn/beats?note=so-so")
        before.put("/v1/agent/maintenance?enable=true&reason=r")
        before.put("/v1/agent/service/maintenance/side?enable=true")
        shown = _shown(before)
        before.stop(signal.SIGKILL)
        after = _start(agents, programs[1], tmp_path, "after")
        assert len(shown[1]) == 7
        assert _shown(after) == shown
        after.put("/v1/agent/service/deregister/w%C3%BC%2F1")
        after.put("/v1/agent/service/deregister/side")
        after.put("/v1/agent/maintenance?enable=false")
        after.stop(signal.SIGKILL)
        left = _start(agents, programs[0], tmp_path, "again")
        assert left.get("/v1/agent/services") == {}
        assert set(left.get("/v1/agent/checks")) == {"disk"}
        wanted = ("cannot restore", "Failed decoding", "Failed to restore")
        for agent in agents.all:
            assert not [x for x in agent.log().splitlines() if any(w in x for w in wanted)]
    finally:
        agents.close()
