"""Whole servers of ours on a disk that is really full (a small tmpfs), and crashes around it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_support import OURS, AgentProcess, Agents, ready, until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root"),
]
ROOM = 24 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


def _fill(disk: Path, left: int = 0) -> Path:
    """Take all room there is but `left` bytes."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass
    os.truncate(filler, filler.stat().st_size - left)
    return filler


def _put(agent: AgentProcess, number: int, acknowledged: dict[str, bytes]) -> tuple[int, bytes]:
    key, value = f"key/{number}", b"%d:" % number + bytes([number % 251]) * 60_000
    status, _, body = agent.ask("PUT", f"/v1/kv/{key}", value)
    if status == 200:
        acknowledged[key] = value
    return status, body


def _holds(agent: AgentProcess, acknowledged: dict[str, bytes]) -> bool:
    for key, value in acknowledged.items():
        status, _, body = agent.ask("GET", f"/v1/kv/{key}?raw&consistent")
        assert (status, body) == (200, value), (key, status, body[:200])
    return True


def test_a_full_disk_stops_writes_alone_and_loses_nothing(disk: Path, tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    acknowledged: dict[str, bytes] = {}
    try:
        agent = ready(agents.server(OURS, "one", data_dir=str(disk / "data")))
        for number in range(20):
            assert _put(agent, number, acknowledged)[0] == 200
        filler = _fill(disk)
        refusals = 0
        for number in range(20, 60):
            status, body = _put(agent, number, acknowledged)
            if status != 200:
                refusals += 1
                assert status == 500
                assert str(disk / "data" / "raft").encode() in body, body
                assert b"disk is full" in body, body
        assert refusals > 20
        assert _holds(agent, acknowledged)
        assert any("its disk is full" in line for line in agent.complaints())

        filler.unlink()
        until(lambda: _put(agent, 100, acknowledged)[0] == 200)
        for number in range(101, 110):
            assert _put(agent, number, acknowledged)[0] == 200
        assert _holds(agent, acknowledged)

        # Once more, with room for a part of a write, and killed while it is full: a start needs no
        # room, and finds everything.
        filler = _fill(disk, left=3 * 4096)
        for number in range(120, 150):
            status, body = _put(agent, number, acknowledged)
            assert status == 200 or b"disk is full" in body, body
        assert "raft halted" not in agent.log()
        agent.stop()
        agent.start()
        until(lambda: _holds(agent, acknowledged))
        filler.unlink()
        until(lambda: _put(agent, 200, acknowledged)[0] == 200)
        agent.stop()
        agent.start()
        until(lambda: _holds(agent, acknowledged))
    finally:
        agents.close()
