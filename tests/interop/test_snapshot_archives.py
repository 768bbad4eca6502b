"""Snapshots beside real Consul: each program's command line on either, each other's archives."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_support import OURS, THEIRS, AgentProcess, Agents, needs_consul, ready, until

pytestmark = needs_consul

VARIES = {"Date", "X-Consul-Index", "Content-Length", "Transfer-Encoding"}
PROGRAMS = {"ours": OURS, "theirs": THEIRS}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, AgentProcess]]:
    """Ours and a real one, each a server alone, with a disk."""
    agents = Agents(tmp_path_factory.mktemp("snapshots"))
    try:
        pair = {name: agents.server(command, name) for name, command in PROGRAMS.items()}
        for agent in pair.values():
            ready(agent)
        yield pair
    finally:
        agents.close()


def values(agent: AgentProcess) -> dict[str, str]:
    found = agent.ask("GET", "/v1/kv/?recurse")
    return {row["Key"]: row["Value"] for row in agent.get("/v1/kv/?recurse")} if found[2] else {}


def wipe(agent: AgentProcess) -> None:
    assert agent.ask("DELETE", "/v1/kv/?recurse")[0] == 200


def saved(agent: AgentProcess, path: Path, command: tuple[str, ...] = OURS) -> Path:
    status, out, err = agent.cli(command, "snapshot", "save", str(path))
    assert (status, err) == (0, ""), err
    assert re.fullmatch(r"Saved and verified snapshot to index \d+\n", out)
    return path


@pytest.mark.parametrize("source", PROGRAMS)
@pytest.mark.parametrize("target", PROGRAMS)
def test_every_archive_on_every_server(
    both: dict[str, AgentProcess], tmp_path: Path, source: str, target: str
) -> None:
    giver, taker = both[source], both[target]
    for agent in (giver, taker):
        wipe(agent)
    for i in range(20):
        giver.put(f"/v1/kv/{source}-{target}/{i}", "x" * i * 100)
    expected = values(giver)
    # Save and restore by the other's command line than the server's.
    path = saved(giver, tmp_path / "archive", OURS if source == "theirs" else THEIRS)
    taker.put("/v1/kv/after", "goes away")
    status, out, err = taker.cli(
        OURS if target == "theirs" else THEIRS, "snapshot", "restore", str(path)
    )
    assert (status, out, err) == (0, "Restored snapshot\n", "")
    assert values(taker) == expected
    taker.put("/v1/kv/more", "writes go on")
    if target == "ours":
        # It registers itself again, though the restored catalog may never have heard of it; a
        # real one does so with its next reconciliation, within a minute.
        until(lambda: taker.get(f"/v1/catalog/node/{taker.name}"))
    both_inspect = [taker.cli(c, "snapshot", "inspect", str(path)) for c in (OURS, THEIRS)]
    assert both_inspect[0] == both_inspect[1]
    assert both_inspect[0][0] == 0


def test_a_restored_state_survives_a_restart(both: dict[str, AgentProcess], tmp_path: Path) -> None:
    ours, theirs = both["ours"], both["theirs"]
    theirs.put("/v1/kv/restart", "yes")
    path = saved(theirs, tmp_path / "archive")
    assert ours.cli(OURS, "snapshot", "restore", str(path))[0] == 0
    ours.put("/v1/kv/behind", "1")
    expected = values(ours)
    ours.stop()
    ready(ours.start())
    assert values(ours) == expected
    assert "restart" in expected


def damaged(path: Path) -> dict[str, bytes]:
    whole = path.read_bytes()
    tar = gzip.decompress(whole)
    flipped = bytearray(tar)
    flipped[tar.index(b"state.bin") + 512 + 3] ^= 1
    at = tar.index(b"SHA256SUMS")
    return {
        "no archive": b"this is no archive at all",
        "nothing": b"",
        "cut": whole[: len(whole) // 2],
        "cut at the end": whole[:-4],
        "a changed byte": gzip.compress(bytes(flipped)),
        "no sums": gzip.compress(tar[:at] + bytes(1024)),
        "another file": gzip.compress(tar[:at] + tar[at:].replace(b"SHA256SUMS", b"SHA256SUMX")),
        "bytes behind": gzip.compress(tar + b"more"),
        "gzip of nothing": gzip.compress(b""),
    }


def test_damaged_archives_are_refused_alike_and_change_nothing(
    both: dict[str, AgentProcess], tmp_path: Path
) -> None:
    ours, theirs = both["ours"], both["theirs"]
    for agent in (ours, theirs):
        wipe(agent)
        agent.put("/v1/kv/kept", "1")
    path = saved(ours, tmp_path / "archive", THEIRS)
    before = values(ours)
    for name, data in damaged(path).items():
        bad = tmp_path / "bad"
        bad.write_bytes(data)
        inspected = [ours.cli(c, "snapshot", "inspect", str(bad)) for c in (OURS, THEIRS)]
        assert inspected[0][0] == inspected[1][0] == 1, name
        answers = [a.ask("PUT", "/v1/snapshot", data) for a in (ours, theirs)]
        assert answers[0][0] == answers[1][0] == 500, name
        # Which file is missed first is up to Go's map.
        mine, real = (re.sub('missing for ".*"', "", a[2].decode()) for a in answers)
        assert mine == real or ("tar header" in real and "tar" in mine), name
        assert values(ours) == before, name
        assert not [r for r in inspected if "Error verifying snapshot: " not in r[2]], name


@pytest.mark.parametrize("line", [
    "snapshot save", "snapshot save a b", "snapshot restore", "snapshot restore /none",
    "snapshot inspect", "snapshot inspect a b", "snapshot inspect /none",
    "snapshot save -datacenter=nowhere x",
])  # fmt: skip
def test_refusals(both: dict[str, AgentProcess], line: str) -> None:
    shown = [a.cli(c, *line.split()) for a in both.values() for c in PROGRAMS.values()]
    assert shown == [shown[-1]] * 4


def test_http_head(both: dict[str, AgentProcess]) -> None:
    for target in ("/v1/snapshot", "/v1/snapshot?stale"):
        heads = []
        for agent in both.values():
            status, headers, body = agent.ask("GET", target)
            assert body[:2] == b"\x1f\x8b"
            heads.append((status, {k: v for k, v in headers.items() if k not in VARIES}))
        assert heads[0] == heads[1]
    answers = [a.ask("PUT", "/v1/snapshot?stale", b"x") for a in both.values()]
    assert answers[0][0] == answers[1][0] == 500
    assert answers[0][2] == answers[1][2]
    answers = [a.ask("POST", "/v1/snapshot", b"x") for a in both.values()]
    assert answers[0][0] == answers[1][0] == 405
    assert answers[0][2] == answers[1][2]
