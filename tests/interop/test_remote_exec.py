"""Remote execution across real Consul and ours: either command, agents of both kinds."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, ready, until

pytestmark = needs_consul


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[AgentProcess]]:
    """A real server and a client of ours, both of which run commands; a third does not."""
    found = Agents(tmp_path_factory.mktemp("exec"))
    try:
        on = {"disable_remote_exec": False, "disable_host_node_id": True}
        server = found.server(THEIRS, "r1", **on)
        client = found.client(OURS, "c1", server, **on)
        silent = found.client(OURS, "c2", server, disable_host_node_id=True)
        for agent in (server, client, silent):
            ready(agent)
        until(lambda: set(client.members()) == {"r1", "c1", "c2"})
        yield [server, client, silent]
    finally:
        found.close()


def lines(text: str) -> list[str]:
    """Output without what differs from run to run; nodes answer in any order."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}|in [0-9.]+ seconds", "X", text)
    return sorted(text.splitlines())


def test_all_nodes_run_it_whoever_asks(agents: list[AgentProcess]) -> None:
    server, _, silent = agents
    results = [
        agent.cli(command, "exec", "-wait=500ms", "-verbose", "echo", "one;", "echo", "two", ">&2")
        for agent, command in ((server, THEIRS), (silent, OURS))
    ]
    for status, out, err in results:
        assert (status, err, lines(out)) == (0, "", lines(results[0][1]))
    for node in ("r1", "c1"):
        for line in (f"    {node}: one", f"    {node}: two", f"==> {node}: acknowledged"):
            assert line in results[0][1].splitlines()
    assert "2 / 2 node(s) completed / acknowledged" in results[0][1]
    assert "ignoring remote exec event, disabled" in silent.log()
    status, _, _ = server.ask("GET", "/v1/kv/_rexec?keys")
    assert status == 404, "nothing is left behind"


def test_failures_and_filters(agents: list[AgentProcess]) -> None:
    server, client, _ = agents
    for agent, command in ((server, THEIRS), (client, OURS)):
        args = ("exec", "-wait=500ms", "-node=^c", "-shell=false", "sh", "-c", "exit 7")
        status, out, err = agent.cli(command, *args)
        assert (status, err) == (2, "")
        assert "==> c1: finished with exit code 7" in out
        assert "1 / 1 node(s)" in out
        assert agent.cli(command, "exec", "-node=(", "x")[0] == 1
