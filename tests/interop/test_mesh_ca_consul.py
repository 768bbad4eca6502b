"""The mesh's CA among real Consul's servers and clients: whoever signs, whoever asks.

Two datacenters in plain WAN federation, the primary of one kind, the secondary of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, ready, until
from mesh_ca_support import accepted, new_key
from quorum_support import voters

pytestmark = [*needs_consul, pytest.mark.timeout(120)]

LEAF = "/v1/agent/connect/ca/leaf/"
ROOTS = "/v1/connect/ca/roots"
STALE = f"{ROOTS}?stale"
CONFIG = "/v1/connect/ca/configuration"
MASTER = "11111111-2222-3333-4444-555555555555"
ACL = {
    "enabled": True, "default_policy": "deny", "enable_token_replication": True,
    "tokens": dict.fromkeys(("master", "replication", "agent", "default"), MASTER),
}  # fmt: skip
"""Everything is denied; agents, and requests without a token, have the master's rights."""


@contextmanager
def _federation(
    path: Path, primary: tuple[str, ...], secondary: tuple[str, ...]
) -> Iterator[tuple[AgentProcess, AgentProcess, Agents]]:
    agents = Agents(path)
    common = {"primary_datacenter": "dc1", "connect": {"enabled": True}, "acl": ACL}
    try:
        one = agents.server(primary, "p0", datacenter="dc1", **common)
        two = agents.server(
            secondary, "s0", datacenter="dc2", retry_join_wan=[one.address],
            retry_interval_wan="1s", **common,
        )  # fmt: skip
        yield ready(one), ready(two), agents
    finally:
        agents.close()


def _roots(agent: AgentProcess) -> dict[str, Any]:
    found: dict[str, Any] = agent.get(ROOTS)
    return found


def _active(agent: AgentProcess) -> dict[str, Any]:
    roots = _roots(agent)
    return {root["ID"]: root for root in roots["Roots"]}[roots["ActiveRootID"]]  # type: ignore[no-any-return]


def _pem(agent: AgentProcess) -> str:
    return "".join(root["RootCert"] for root in _roots(agent)["Roots"])


@pytest.mark.parametrize(("primary", "secondary"), [(OURS, THEIRS), (THEIRS, OURS)])
def test_a_secondary_of_the_other_kind(
    tmp_path: Path, primary: tuple[str, ...], secondary: tuple[str, ...]
) -> None:
    with _federation(tmp_path, primary, secondary) as (one, two, agents):
        client_kind = OURS if secondary is THEIRS else THEIRS
        client = agents.client(
            client_kind, "c0", two, datacenter="dc2", primary_datacenter="dc1", acl=ACL
        )
        until(lambda: _active(two)["IntermediateCerts"], 40)
        assert _roots(two)["TrustDomain"] == _roots(one)["TrustDomain"]
        ready(client)
        old = until(lambda: client.get(LEAF + "web"), 20)
        assert accepted(old, _pem(one))
        for agent in (one, two, client):
            for target in (LEAF + "web", CONFIG):
                assert agent.ask("GET", f"{target}?token=none")[0] == 403
        old_pem, first = _pem(one), _active(one)["ID"]
        config = one.get(CONFIG)
        config["Config"]["PrivateKey"] = new_key()
        one.put(CONFIG, config)
        assert _active(one)["ID"] != first
        until(lambda: _active(two)["ID"] == _active(one)["ID"], 30)
        until(lambda: len(_active(two)["IntermediateCerts"]) >= 2, 30)
        assert accepted(old, _pem(two))
        fresh = until(lambda: client.get(LEAF + "db"), 20)
        assert accepted(fresh, old_pem)
        assert accepted(fresh, _active(one)["RootCert"])
        assert "refused to sign" not in two.log()


QUICK = {
    "connect": {"enabled": True}, "autopilot": {"server_stabilization_time": "200ms"},
    "retry_interval": "1s", "retry_interval_wan": "1s",
}  # fmt: skip


def _rotate(agent: AgentProcess) -> str:
    """By a new key; the new root's id."""
    before = _active(agent)["ID"]
    config = agent.get(CONFIG)
    config["Config"]["PrivateKey"] = new_key()
    agent.put(CONFIG, config)
    after = str(_active(agent)["ID"])
    assert after != before
    return after


def _reinforced(
    agents: Agents, first: AgentProcess, kind: tuple[str, ...], **config: Any
) -> list[AgentProcess]:
    """Two servers of `kind` beside `first`, started."""
    return [
        agents.make(
            kind, f"{first.name}-{n}", server=True, retry_join=[first.address], **config
        ).start()
        for n in "ab"
    ]  # fmt: skip


def _are_voters(first: AgentProcess, others: list[AgentProcess]) -> None:
    until(lambda: voters(first) == {first.name, *(s.name for s in others)}, 60)


def _led(servers: list[AgentProcess]) -> None:
    for server in servers:
        # Answered by a leader that has established itself, and by no other
        until(lambda s=server: s.ask("GET", "/v1/kv/x?consistent")[0] == 404, 40)


@pytest.mark.parametrize(("first", "then"), [(OURS, THEIRS), (THEIRS, OURS)])
def test_whoever_takes_over_carries_on(
    tmp_path: Path, first: tuple[str, ...], then: tuple[str, ...]
) -> None:
    """The root rotates in mixed quorums; then leadership of both goes to the other kind, and it
    rotates again.
    """
    agents = Agents(tmp_path)
    common = {"primary_datacenter": "dc1", **QUICK}
    try:
        one = ready(agents.server(first, "p0", datacenter="dc1", **common))
        in_dc2 = {"datacenter": "dc2", "retry_join_wan": [one.address], **common}
        two = ready(agents.server(first, "s0", **in_dc2))
        until(lambda: _active(two)["IntermediateCerts"], 40)
        firsts = _reinforced(agents, one, then, datacenter="dc1", **common)
        in_dc2["retry_join_wan"] = [one.address, firsts[0].address]
        seconds = _reinforced(agents, two, then, **in_dc2)
        _are_voters(one, firsts)
        _are_voters(two, seconds)
        _rotate(one)
        until(lambda: _active(two)["ID"] == _active(one)["ID"], 30)
        until(lambda: len(_active(two)["IntermediateCerts"]) >= 2, 30)
        for leader, others in ((one, firsts), (two, seconds)):
            for other in others:
                until(lambda s=other, of=leader: s.get(STALE) == of.get(ROOTS))
        signer = _active(two)["SigningKeyID"]
        first_leaf, second_leaf = (until(lambda s=s: s.get(LEAF + "web")) for s in (one, two))
        one.stop()
        two.stop()
        _led([*firsts, *seconds])
        assert _active(seconds[0])["SigningKeyID"] == signer, "it must go on with what there is"
        trusted = _pem(firsts[0])
        for leaf in (first_leaf, second_leaf, *(s.get(LEAF + "db") for s in (*firsts, *seconds))):
            assert accepted(leaf, trusted)
        rotated = _rotate(firsts[0])
        until(lambda: _active(seconds[0])["ID"] == rotated, 40)
        for leaf in (first_leaf, second_leaf):
            assert accepted(leaf, _pem(firsts[1]))
        for server in (*firsts, *seconds):
            assert accepted(until(lambda s=server: s.get(LEAF + "new")), trusted)
    finally:
        agents.close()
