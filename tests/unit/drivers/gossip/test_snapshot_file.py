"""The snapshot file: appends, compaction, torn lines, unwritable places."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proconsul.drivers.gossip import snapshot_file
from proconsul.drivers.gossip.snapshot_file import SnapshotFile
from proconsul.util.errors import ConfigError


def test_lines_survive_and_a_torn_one_is_skipped(tmp_path: Path):
    path = tmp_path / "serf" / "local.snapshot"

    async def scenario() -> None:
        file = SnapshotFile(path, rejoin_after_leave=False)
        assert (await file.load()).alive == {}
        file.append(["alive: a 10.0.0.1:8301", "clock: 7"])
        await file.aclose()
        with path.open("ab") as raw:
            raw.write(b"alive: torn 10.0.")
        again = SnapshotFile(path, rejoin_after_leave=False)
        state = await again.load()
        assert (state.alive, state.clock) == ({"a": "10.0.0.1:8301"}, 7)
        again.append(["event-clock: 3"])
        await again.flush(durable=False)
        assert path.read_text().endswith("alive: torn 10.0.\nevent-clock: 3\n")
        await again.aclose()

    asyncio.run(scenario())


def test_appends_reach_the_disk_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot_file, "FLUSH_S", 0.01)
    path = tmp_path / "s"

    async def scenario() -> None:
        file = SnapshotFile(path, rejoin_after_leave=False)
        await file.load()
        file.append(["clock: 1"])
        async with asyncio.timeout(5):
            while path.read_text() != "clock: 1\n":  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.01)
        await file.aclose()

    asyncio.run(scenario())


def test_a_long_file_is_rewritten_from_the_state(tmp_path: Path):
    path = tmp_path / "s"
    path.write_text("".join(f"clock: {n}\n" for n in range(20_000)) + "alive: a 1.2.3.4:5\n")

    async def scenario() -> None:
        file = SnapshotFile(path, rejoin_after_leave=False)
        state = await file.load()
        file.append([state.joined("b", ("::1", 9))])
        await file.flush(durable=False)
        assert path.read_text().splitlines() == [
            "alive: a 1.2.3.4:5", "alive: b [::1]:9", "clock: 19999", "event-clock: 0",
            "query-clock: 0",
        ]  # fmt: skip
        await file.aclose()

    asyncio.run(scenario())


def test_a_place_that_is_no_file_is_refused_by_name(tmp_path: Path):
    async def scenario() -> None:
        with pytest.raises(ConfigError, match=str(tmp_path)):
            await SnapshotFile(tmp_path, rejoin_after_leave=False).load()

    asyncio.run(scenario())


def test_a_failing_disk_is_survived_and_healed_by_a_rewrite(tmp_path: Path):
    path = tmp_path / "dir" / "s"

    async def scenario() -> None:
        file = SnapshotFile(path, rejoin_after_leave=False)
        state = await file.load()
        path.unlink()
        path.parent.rmdir()
        file.append([state.joined("a", ("1.2.3.4", 5))])
        await file.flush(durable=True)
        path.parent.mkdir()
        await file.aclose()
        assert path.read_text().startswith("alive: a 1.2.3.4:5\n")

    asyncio.run(scenario())
