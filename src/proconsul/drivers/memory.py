"""Giving freed memory back to the system, which glibc keeps for itself.

Large bodies and snapshots leave holes in the heap that `free` does not return. `malloc_trim` does, at
the price of faults when they are used again: so it is called only after much has become free since the
last time. `mallinfo2` (glibc 2.33) tells how much that is. Elsewhere all of this does nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Protocol

TRIM_BYTES_MIN = 16 << 20
"""What has to have become free since the last time."""


class Heap(Protocol):
    """The C library's."""

    def free_bytes(self) -> int:
        """Bytes that it holds and nobody uses, given back to the system or not."""
        ...

    def trim(self) -> None:
        """Give back what is free. May take milliseconds, and waits for nothing."""
        ...


class _MallInfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


class GlibcHeap:
    """Raises `AttributeError` at its making where the C library is another or an older one."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._info: Callable[[], _MallInfo2] = library.mallinfo2
        library.mallinfo2.restype = _MallInfo2
        self._trim: Callable[[int], int] = library.malloc_trim
        library.malloc_trim.argtypes = [ctypes.c_size_t]

    def free_bytes(self) -> int:
        return int(self._info().fordblks)

    def trim(self) -> None:
        self._trim(0)


class Trimmer:
    """`look` every few seconds; without `heap` it does nothing."""

    def __init__(self, heap: Heap | None) -> None:
        self._heap = heap
        self._mark = heap.free_bytes() if heap is not None else 0
        """Free bytes after the last trim, or fewer if some were used again."""

    async def look(self) -> bool:
        """Trim, on a thread, if much has become free; whether it did."""
        if self._heap is None:
            return False
        free = self._heap.free_bytes()
        self._mark = min(self._mark, free)
        if free < self._mark + TRIM_BYTES_MIN:
            return False
        await asyncio.to_thread(self._heap.trim)
        self._mark = self._heap.free_bytes()
        return True


def system_heap() -> Heap | None:
    """This process's, None where it cannot be asked."""
    try:
        return GlibcHeap()
    except AttributeError:
        return None
