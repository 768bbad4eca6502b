"""What the process itself costs, under go-metrics' names where Python has the same thing.

`num_goroutines` are asyncio tasks, `sys_bytes` is resident memory, `heap_objects` are blocks of
Python's allocator, and a pause is one run of the cyclic collector. Nothing corresponds to Go's
`alloc_bytes`, `malloc_count` and `free_count`: Python counts those only when traced, at great cost.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from proconsul.drivers.memory import Trimmer, system_heap

if TYPE_CHECKING:
    from proconsul.util.metrics import Metrics

INTERVAL_S = 10.0
_STATM = Path("/proc/self/statm")


class RuntimeMetrics:
    """`run` measures until it is cancelled. One per process: the collector's hooks are global."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._trimmer = Trimmer(system_heap())
        self._began_ns = self._paused_ns = self._runs = 0

    async def run(self) -> None:
        """Measure every `INTERVAL_S`, and give back memory that became free."""
        gc.callbacks.append(self._collected)
        try:
            while True:
                self._measure()
                await asyncio.sleep(INTERVAL_S)
                _ = await self._trimmer.look()
        finally:
            gc.callbacks.remove(self._collected)

    def _measure(self) -> None:
        gauge = self._metrics.gauge
        gauge("consul.runtime.num_goroutines", len(asyncio.all_tasks()))
        gauge("consul.runtime.heap_objects", sys.getallocatedblocks())
        gauge("consul.runtime.total_gc_runs", self._runs)
        gauge("consul.runtime.total_gc_pause_ns", self._paused_ns)
        if (resident := resident_bytes()) is not None:
            gauge("consul.runtime.sys_bytes", resident)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        del info
        if phase == "start":
            self._began_ns = time.perf_counter_ns()
            return
        pause_ns = time.perf_counter_ns() - self._began_ns
        self._runs += 1
        self._paused_ns += pause_ns
        self._metrics.sample("consul.runtime.gc_pause_ns", pause_ns)


def resident_bytes() -> int | None:
    """Memory of this process; None where /proc does not tell."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
