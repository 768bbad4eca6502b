"""Raft under faults: safety at every step, linearizable histories, progress once the faults end.

`make sim RUNS=n` makes more runs than CI does, from a random seed on; `SEED=n` repeats one.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from proconsul.testing.raftsim.world import World, run_seed

RUNS = int(os.environ.get("PROCONSUL_SIM_RUNS", "1000"))
BASE_SEED = int(os.environ.get("PROCONSUL_SIM_SEED", "20260"))
VIRTUAL_S = 30.0
TESTS = min(40, RUNS)


@pytest.mark.timeout(60 + 5 * RUNS // TESTS)
@pytest.mark.parametrize("part", range(TESTS))
def test_safety_under_faults(part: int) -> None:
    seeds = range(BASE_SEED + part, BASE_SEED + RUNS, TESTS)
    print(f"seeds {seeds}")
    reports = [run_seed(seed, VIRTUAL_S) for seed in seeds]
    # A world may be unable to do anything for its whole time; many may not
    if len(reports) >= 20:
        assert sum(report.operations > 50 and report.reads > 10 for report in reports) > 10
        assert sum(report.terms for report in reports) > 5 * len(reports)
        assert sum(report.unknown for report in reports) > len(reports)
        print(f"longest until all was well again: {max(r.healed_s for r in reports)} s")


def test_a_seed_decides_everything() -> None:
    program = (
        "from proconsul.testing.raftsim.world import run_seed; "
        f"print(run_seed({BASE_SEED}, 10).fingerprint)"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": salt},
            capture_output=True, text=True, check=True,
        ).stdout
        for salt in ("1", "2")
    }  # fmt: skip
    assert len(prints) == 1


def test_an_idle_cluster_keeps_its_leader_and_is_quiet() -> None:
    world = World(BASE_SEED, names=5, peaceful=True)
    world.time.run(5)
    leader = world.leader()
    assert leader is not None
    terms = len(world.checks.leaders)
    before = world.time.count
    world.time.run(60)
    assert world.leader() is leader
    assert len(world.checks.leaders) == terms
    per_second = (world.time.count - before) / 60
    print(f"{per_second:.0f} simulated events/s")
    assert per_second < 400
