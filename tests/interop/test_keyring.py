"""Gossip keys rotated through pools of real Consul and ours, LAN and WAN, begun from either side."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, ready, until

pytestmark = needs_consul

KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(1, 4)]
FILES = ("local.keyring", "remote.keyring")


class Federation(NamedTuple):
    """A real server with our client in dc1, our server with a real client in dc2."""

    theirs: AgentProcess
    our_client: AgentProcess
    ours: AgentProcess
    their_client: AgentProcess


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """All encrypted with the first key, joined over the WAN."""
    agents = Agents(tmp_path_factory.mktemp("keyring"))
    try:
        both = {"encrypt": KEYS[0], "disable_host_node_id": True}
        theirs = agents.server(THEIRS, "r1", datacenter="dc1", **both)
        ours = agents.server(OURS, "s2", datacenter="dc2", retry_join_wan=[theirs.address], **both)
        our_client = agents.client(OURS, "c1", theirs, datacenter="dc1", **both)
        their_client = agents.client(THEIRS, "c2", ours, datacenter="dc2", **both)
        found = Federation(theirs, our_client, ours, their_client)
        for agent in found:
            ready(agent)
        until(lambda: all(len(a.get("/v1/catalog/datacenters")) == 2 for a in found))
        yield found
    finally:
        agents.close()


def pools(agent: AgentProcess) -> dict[tuple[str, bool], tuple[dict[str, int], int]]:
    """(datacenter, WAN?) -> how many members have each key, and the number of members."""
    return {
        (row["Datacenter"], row["WAN"]): (row["Keys"], row["NumNodes"])
        for row in agent.get("/v1/operator/keyring")
    }


def refused(agent: AgentProcess) -> list[str]:
    """What the agent says of messages that it could not decrypt, or would not take."""
    return re.findall(r".*(?:decrypt|[Nn]o installed keys|not encrypted).*", agent.log())


def rotate(agent: AgentProcess, command: tuple[str, ...], old: str, new: str) -> None:
    """The three steps, by command line; each has to succeed on every member."""
    for action, key in (("install", new), ("use", new), ("remove", old)):
        status, out, err = agent.cli(command, "keyring", f"-{action}", key)
        assert (status, err) == (0, ""), (action, out, err)


def test_keys_are_rotated_from_both_sides(federation: Federation) -> None:
    theirs, _, ours, _ = federation
    for agent, command, old, new in (
        (theirs, THEIRS, KEYS[0], KEYS[1]),
        (ours, OURS, KEYS[1], KEYS[2]),
    ):
        rotate(agent, command, old, new)
        expected = {
            (agent.config["datacenter"], True): ({new: 2}, 2),
            ("dc1", False): ({new: 2}, 2),
            ("dc2", False): ({new: 2}, 2),
        }
        assert pools(agent) == expected
        for other in federation:
            path = other.path / "data/serf"
            files = [path / name for name in FILES if (path / name).exists()]
            assert len(files) == (2 if other in (theirs, ours) else 1)
            for file in files:
                assert file.read_text() == json.dumps([new], indent=2)
                assert file.stat().st_mode & 0o777 == 0o600
    assert {agent.name: refused(agent) for agent in federation} == {
        agent.name: [] for agent in federation
    }
    # Nobody was lost on the way, and all still hear each other
    for server in (theirs, ours):
        assert set(server.members().values()) == {1}
        wan = server.get("/v1/agent/members?wan=1")
        assert [member["Status"] for member in wan] == [1, 1]
    ours.put("/v1/event/fire/after", "x")
    theirs.put("/v1/event/fire/after", "x")
    for agent in federation:
        until(lambda agent=agent: agent.get("/v1/event/list?name=after"))  # type: ignore[misc]
    _the_file_wins_over_the_configured_key(federation)
    _a_refusal_is_told_by_all(federation)


def _the_file_wins_over_the_configured_key(federation: Federation) -> None:
    _, our_client, *_ = federation
    our_client.stop()
    our_client.start()
    until(lambda: our_client.members() == {"r1": 1, "c1": 1}, 30)
    assert "keyring doesn't include key provided with -encrypt" in our_client.log()


def _a_refusal_is_told_by_all(federation: Federation) -> None:
    theirs, _, ours, _ = federation
    answers = []
    for agent in (theirs, ours):
        status, _, body = agent.ask("DELETE", "/v1/operator/keyring", {"Key": KEYS[2]})
        lines = sorted(line.strip() for line in body.decode().splitlines())
        answers.append((status, [line for line in lines if "WAN" not in line]))
    assert answers[0][0] == answers[1][0] == 500
    assert len(answers[0][1]) == len(answers[1][1])
    assert answers[0] == answers[1]
