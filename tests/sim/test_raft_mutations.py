"""The simulation finds planted bugs: each within a bounded number of runs that are right without.

A mutation that is not caught any more says that the simulation has become blind somewhere, or that
the core does not need what was taken out.
"""

from __future__ import annotations

import pytest
from raft_mutations import MUTATIONS, Mutation, plant

from proconsul.core.raft.types import RaftError
from proconsul.testing.raftsim.world import run_seed

SEEDS = range(1, 61)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_planted_bug_is_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(mutation, monkeypatch)
    for seed in SEEDS:
        try:
            run_seed(seed, focus=mutation.focus)
        except (AssertionError, RaftError) as found:
            print(f"seed {seed}: {found}")
            break
    else:
        pytest.fail(f"not found in {len(SEEDS)} runs: {mutation.name}")
    monkeypatch.undo()
    run_seed(seed, focus=mutation.focus)
