"""Freed memory goes back to the system."""

from __future__ import annotations

import asyncio
import ctypes

import pytest

from proconsul.drivers.memory import TRIM_BYTES_MIN, Trimmer, system_heap
from proconsul.drivers.runtime import resident_bytes

MB = 1 << 20


class FakeHeap:
    def __init__(self) -> None:
        self.free, self.trims = 8 * MB, 0

    def free_bytes(self) -> int:
        return self.free

    def trim(self) -> None:
        self.trims += 1


def test_it_trims_when_much_has_become_free_and_not_again() -> None:
    async def main() -> None:
        heap = FakeHeap()
        trimmer = Trimmer(heap)
        seen = []
        for free in (8, 20, 30, 30, 40, 2, 20, 17, 60):
            heap.free = free * MB
            seen.append(await trimmer.look())
        assert seen == [False, False, True, False, False, False, True, False, True]
        assert heap.trims == 3

    assert TRIM_BYTES_MIN == 16 * MB
    asyncio.run(main())


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert system_heap() is None
    assert asyncio.run(Trimmer(None).look()) is False


def test_what_is_freed_below_something_in_use_is_given_back() -> None:
    heap = system_heap()
    if heap is None:
        pytest.skip("the C library is not glibc 2.33 or newer")
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes, library.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    blocks = [library.malloc(64 * 1024) for _ in range(1000)]
    trimmer = Trimmer(heap)  # now, as what other tests left free may be in use again
    for block in blocks:
        ctypes.memset(block, 1, 64 * 1024)
    full = resident_bytes()
    for block in blocks[:-1]:
        library.free(block)
    assert asyncio.run(trimmer.look()) is True
    left = resident_bytes()
    library.free(blocks[-1])
    assert full is not None
    assert left is not None
    assert full - left > 40 * MB
