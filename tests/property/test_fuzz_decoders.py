"""A bounded fuzz run over every decoder of bytes from outside (`fuzz_targets`).

Only the declared errors may escape, and neither time nor memory may run away. The run is the same
every time; `make fuzz SECONDS=60` goes on with random seeds, which it prints:

    FUZZ_SECONDS   of all decoders together; without it each gets a fixed number of inputs
    FUZZ_SEED      the first seed, to repeat a failure
"""

from __future__ import annotations

import gc
import logging
import os
import random
import sys
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz_inputs import Target, inputs
from fuzz_targets import structs_of_domain, targets

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "interfaces" / "http"))

INPUTS = 500
CPU_S_MAX = 1.0
"""For one input of at most 64 KiB, of a process that traces its memory."""
PEAK_BYTES_MAX = 64 << 20
_TARGETS = targets()
_SECONDS = float(os.environ.get("FUZZ_SECONDS", "0")) / len(_TARGETS)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Complaints about noise are right, and cost more than what they are about."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(120 + 2 * _SECONDS)
@pytest.mark.parametrize("target", _TARGETS, ids=lambda target: target.name)
def test_hostile_bytes(target: Target) -> None:
    if target.traced:
        tracemalloc.start()
    try:
        _run(target, int(INPUTS * target.weight))
    finally:
        tracemalloc.stop()
        gc.collect()  # complaints of finalizers belong to this decoder, not to the next


def _run(target: Target, count: int) -> None:
    if not _SECONDS:
        _fuzz(target, count, seed=zlib.crc32(target.name.encode()))
        return
    deadline = time.monotonic() + _SECONDS
    seed = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(1 << 32))
    while time.monotonic() < deadline:
        print(f"FUZZ_SEED={seed} {target.name}")
        _fuzz(target, count, seed)
        seed += 1


def _fuzz(target: Target, count: int, seed: int) -> None:
    for data in inputs(target.samples, count, seed):
        if target.traced:
            tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        started = time.thread_time()
        try:
            target.run(data)
        except target.errors:
            pass
        except Exception as error:  # noqa: BLE001 - that is what is sought
            pytest.fail(f"seed {seed}, {_shown(data)}: {type(error).__name__}: {error!s:.300}")
        took = time.thread_time() - started
        peak = tracemalloc.get_traced_memory()[1] - before
        assert took < CPU_S_MAX, f"seed {seed}: {took:.1f} s for {_shown(data)}"
        assert peak < PEAK_BYTES_MAX, f"seed {seed}: {peak >> 20} MiB for {_shown(data)}"


def _shown(data: bytes) -> str:
    return f"{len(data)} bytes {data[:600].hex()}"


def test_samples_are_valid() -> None:
    """Mutating what is refused anyway would test little."""
    for target in _TARGETS:
        accepted = 0
        for sample in target.samples:
            try:
                target.run(sample)
                accepted += 1
            except target.errors:
                pass
        assert accepted, target.name


def test_the_table_has_every_struct() -> None:
    assert len(structs_of_domain()) > 40
