"""Snapshots go on being taken, whatever one of them came to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from proconsul.drivers.raft.snapshots import SnapshotError
from proconsul.drivers.raft.snapshotter import Snapshotter


class _Rng:
    def uniform(self, low: float, high: float) -> float:
        return 0.001


@pytest.mark.parametrize("error", [OverflowError("a row"), SnapshotError("the disk")])
def test_the_loop_survives_a_snapshot_that_fails(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    state = SimpleNamespace(
        config=SimpleNamespace(snapshot_interval_s=1.0, snapshot_threshold=1),
        log=SimpleNamespace(snapshot_index=0),
    )
    engine: Any = SimpleNamespace(
        running=lambda: SimpleNamespace(state=state), applier=SimpleNamespace(index=5)
    )

    async def run() -> None:
        tried = 0
        again = asyncio.Event()

        async def take() -> None:
            nonlocal tried
            tried += 1
            if tried == 1:
                raise error
            again.set()

        snapshotter: Any = Snapshotter(engine, None, _Rng())  # type: ignore[arg-type]
        snapshotter.take = take
        looping = asyncio.get_running_loop().create_task(snapshotter.loop())
        async with asyncio.timeout(10):
            await again.wait()
        looping.cancel()
        await asyncio.wait([looping])

    asyncio.run(run())
    assert "failed to take snapshot" in caplog.text
