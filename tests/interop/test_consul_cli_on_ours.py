"""Consul's own command line asks our agent, and gets what it gets from a real one."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from agent_support import (
    DYING,
    OURS,
    THEIRS,
    AgentProcess,
    Agents,
    both_alone,
    needs_consul,
    ready,
    until,
)

pytestmark = needs_consul

SAME = (
    "members", "members -detailed", "members -wan", "members -status=failed",
    "catalog datacenters", "catalog nodes", "catalog nodes -detailed", "catalog nodes -service web",
    "catalog services", "catalog services -tags", "catalog services -node=x", "kv put a b",
    "kv get a", "kv get -detailed a", "kv get -recurse a", "kv get -keys", "kv export", "kv delete a",
    "kv get a", "operator raft list-peers", "operator raft list-peers -stale",
    "operator autopilot get-config", "force-leave none", "reload",
    "services register -name web -port 80 -tag a -meta k=v", "services deregister -id web",
    "services deregister -id none", "maint", "maint -enable -reason x", "maint", "maint -disable",
    "maint", "rtt x", "version",
)  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    """Ours and a real one, each a server alone."""
    with both_alone(tmp_path_factory.mktemp("cli")) as pair:
        yield pair


def shown(agent: AgentProcess, line: str) -> tuple[int, str, str]:
    """Status and output, without what differs from agent to agent."""
    status, out, err = agent.cli(THEIRS, *line.split())

    def plain(text: str) -> str:
        text = text.replace(agent.address, "ADDRESS")
        text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "ID", text)
        text = re.sub(r"^vm +[0-9a-f]{8} ", "vm ID ", text, flags=re.MULTILINE)
        return re.sub(r"(CreateIndex|ModifyIndex)(\W+)[0-9]+", r"\1\2N", text)

    return status, plain(out), plain(err)


def test_the_same_output_and_status(both: tuple[AgentProcess, AgentProcess]) -> None:
    for line in SAME:
        ours, theirs = (shown(agent, line) for agent in both)
        assert ours == theirs, line


def test_info_has_the_same_sections(both: tuple[AgentProcess, AgentProcess]) -> None:
    ours, theirs = (set(re.findall(r"^(\S+):$", a.cli(THEIRS, "info")[1], re.M)) for a in both)
    assert ours >= theirs - {"runtime"}, "Go's runtime is not ours"


def test_join_and_leave(tmp_path_factory: pytest.TempPathFactory) -> None:
    agents = Agents(tmp_path_factory.mktemp("join"))
    try:
        server = ready(agents.server(OURS, "srv", **DYING))
        client = agents.make(OURS, "cli", **DYING).start()
        until(lambda: client.get("/v1/agent/self"))
        assert client.cli(THEIRS, "join", server.address) == (
            0, "Successfully joined cluster by contacting 1 nodes.\n", "",
        )  # fmt: skip
        assert client.cli(THEIRS, "join", "127.0.0.1:1")[0] == 1
        ready(client)
        client.stop()
        until(lambda: server.members()["cli"] == 4, 40)
        assert server.cli(THEIRS, "force-leave", "cli") == (0, "", "")
        until(lambda: server.members()["cli"] == 3)
        client.start()
        until(lambda: client.get("/v1/agent/self"))
        client.cli(THEIRS, "join", server.address)
        until(lambda: server.members()["cli"] == 1)
        assert client.cli(THEIRS, "leave") == (0, "Graceful leave complete\n", "")
        assert client.wait_exit() == 0
        until(lambda: server.members()["cli"] == 3)
    finally:
        agents.close()
