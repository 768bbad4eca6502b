"""What the process costs, in its metrics."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import pytest

from proconsul.drivers import runtime
from proconsul.drivers.runtime import RuntimeMetrics, resident_bytes
from proconsul.util.metrics import Metrics


def test_gauges_of_the_process_and_pauses_of_the_collector() -> None:
    metrics = Metrics()

    async def main() -> None:
        task = asyncio.create_task(RuntimeMetrics(metrics).run())
        await asyncio.sleep(0)
        gc.collect()
        task.cancel()
        await asyncio.wait([task])

    hooks = len(gc.callbacks)
    asyncio.run(main())
    assert len(gc.callbacks) == hooks
    summary = metrics.summary()
    gauges = {entry["Name"]: entry["Value"] for entry in summary["Gauges"]}
    assert gauges["consul.runtime.num_goroutines"] == 2
    assert gauges["consul.runtime.heap_objects"] > 1000
    assert gauges["consul.runtime.sys_bytes"] > 1 << 20
    (pause,) = summary["Samples"]
    assert pause["Name"] == "consul.runtime.gc_pause_ns"
    assert pause["Count"] >= 1
    assert pause["Sum"] > 0


def test_where_proc_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime, "_STATM", tmp_path / "statm")
    assert resident_bytes() is None
    (tmp_path / "statm").write_text("1 2 3")
    assert resident_bytes() == 2 * os.sysconf("SC_PAGE_SIZE")
