"""Sessions beside real Consul: the same answers, and one quorum of both in which they live on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, both_alone, needs_consul, ready, until

pytestmark = needs_consul

BODIES = (
    "", "{}", '{"Name":"n","TTL":"30s","Behavior":"delete","LockDelay":"5s"}', '{"LockDelay":7}',
    '{"LockDelay":0}', '{"LockDelay":5000000000}', '{"Checks":[]}', '{"NodeChecks":[]}',
    '{"Checks":null}', '{"Checks":["none"]}', '{"NodeChecks":["serfHealth"],"Checks":["serfHealth"]}',
    '{"Node":"none"}', '{"TTL":"1s"}', '{"TTL":"x"}', '{"TTL":"25h"}', '{"Behavior":"x"}', "{",
    '{"Unknown":1}', '{"Name":1}', '{"Node":""}', '{"TTL":"0s"}', "[]", '{"name":"lower"}',
)  # fmt: skip
REQUESTS = (
    ("GET", "/v1/session/list"), ("GET", "/v1/session/list?pretty"), ("GET", "/v1/session/node/vm"),
    ("GET", "/v1/session/node/none"), ("GET", "/v1/session/node/"), ("GET", "/v1/session/info/"),
    ("GET", "/v1/session/info/none"), ("PUT", "/v1/session/renew/none"),
    ("PUT", "/v1/session/renew/"), ("PUT", "/v1/session/destroy/none"),
    ("PUT", "/v1/session/destroy/"), ("GET", "/v1/session/create"), ("PUT", "/v1/session/list"),
    ("PUT", "/v1/kv/k?acquire=none"), ("PUT", "/v1/kv/k?release=none"),
    ("PUT", "/v1/kv/k?acquire=a&release=b"),
)  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    with both_alone(tmp_path_factory.mktemp("sessions")) as pair:
        yield pair


def ask(agent: AgentProcess, method: str, target: str, body: str = "") -> tuple[int, str, str]:
    status, headers, answer = agent.ask(method, target, body)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "ID", answer.decode())
    text = re.sub(r'("\w*Index"):( ?)[0-9]+', r"\1:\2N", text)
    return status, headers.get("Content-Type", ""), text


def test_the_same_answers(both: tuple[AgentProcess, AgentProcess]) -> None:
    for body in BODIES:
        created = [ask(agent, "PUT", "/v1/session/create", body) for agent in both]
        if created[1][0] == 400:  # the texts of Go's decoder have more of Go in them than we copy
            created = [(c[0], c[1], c[2].partition(":")[0]) for c in created]
        assert created[0] == created[1], body
        shown = [sorted(a.get("/v1/session/list"), key=lambda s: s["CreateIndex"]) for a in both]
        for rows in shown:
            for row in rows:
                row.update(ID="", CreateIndex=0, ModifyIndex=0)
        assert shown[0] == shown[1], body
    for agent in both:
        for row in agent.get("/v1/session/list"):
            agent.put(f"/v1/session/destroy/{row['ID']}")
        agent.put("/v1/session/create", {"Name": "only"})
    for method, target in REQUESTS:
        ours, theirs = (ask(agent, method, target) for agent in both)
        assert ours == theirs, (method, target)
    for agent in both:
        (only,) = agent.get("/v1/session/list")
        assert agent.put(f"/v1/kv/k?acquire={only['ID']}", "x") is True
        assert agent.put(f"/v1/session/renew/{only['ID']}")[0]["Name"] == "only"
    assert ask(both[0], "GET", "/v1/kv/k") == ask(both[1], "GET", "/v1/kv/k")


def create(agent: AgentProcess, **fields: Any) -> str:
    return str(agent.put("/v1/session/create", fields)["ID"])


def session(agent: AgentProcess, session_id: str) -> Any:
    return agent.get(f"/v1/session/info/{session_id}")


def test_sessions_live_on_when_either_program_takes_over(tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    try:
        theirs = [
            agents.server(
                THEIRS, name, bootstrap_expect=3, retry_interval="1s", session_ttl_min="1s"
            )
            for name in ("t1", "t2")
        ]
        ours = agents.server(
            OURS, "o1", bootstrap_expect=3, retry_interval="1s", session_ttl_min="1s",
            retry_join=[theirs[0].address],
        )  # fmt: skip
        everyone = [*theirs, ours]
        for agent in everyone:
            agent.cli(OURS, "join", theirs[0].address)
        for agent in everyone:
            ready(agent, 40)
        kept = create(theirs[0], Name="kept", TTL="1h")
        by_ours = create(ours, Name="by-ours", TTL="1h", Behavior="delete")
        short = create(theirs[1], Name="short", TTL="2s", LockDelay="1s")
        assert ours.put(f"/v1/kv/lock/kept?acquire={kept}", "1") is True
        assert theirs[0].put(f"/v1/kv/lock/ours?acquire={by_ours}", "1") is True
        assert ours.put(f"/v1/kv/lock/short?acquire={short}", "1") is True
        # Leadership goes round until ours has it.
        for _ in range(12):
            leader = next(a for a in everyone if f"{a.address}:8300" == ours.leader())
            if leader is ours:
                break
            leader.stop()
            rest = [a for a in everyone if a is not leader]
            until(lambda rest=rest: rest[0].leader() in {f"{a.address}:8300" for a in rest}, 40)
            leader.start()
            until(lambda leader=leader: leader.leader() == ours.leader() != "", 40)
        assert ours.leader() == f"{ours.address}:8300"
        # What has no end stays, what has one ends by our clock, and its lock is free.
        until(lambda: not session(theirs[0], short), 40)
        for agent in everyone:
            until(lambda agent=agent: session(agent, kept)[0]["Name"] == "kept")
            assert session(agent, by_ours)[0]["Name"] == "by-ours"
        held = json.loads(theirs[0].ask("GET", "/v1/kv/lock/kept")[2])[0]
        assert held["Session"] == kept
        assert theirs[0].put(f"/v1/session/renew/{kept}")[0]["ID"] == kept
        free = create(theirs[1], Name="free")
        until(lambda: theirs[1].put(f"/v1/kv/lock/short?acquire={free}", "2") is True, 40)
        theirs[0].put(f"/v1/session/destroy/{by_ours}")
        until(lambda: theirs[1].ask("GET", "/v1/kv/lock/ours")[0] == 404)
    finally:
        agents.close()
