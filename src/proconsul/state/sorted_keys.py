"""A sorted set of strings for prefix scans over a million keys.

A list of sorted chunks, each at most `2 * _CHUNK` long, located by their largest keys: insertion
and removal move one chunk's pointers only, a scan is a slice per chunk.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

_CHUNK = 512


class SortedKeys:
    """Sorted, without duplicates. The order is that of code points, which is UTF-8's order."""

    __slots__ = ("_chunks", "_last", "_size")

    def __init__(self, keys: Iterable[str] = ()) -> None:
        ordered = sorted(set(keys))
        self._chunks = [ordered[i : i + _CHUNK] for i in range(0, len(ordered), _CHUNK)]
        self._last = [chunk[-1] for chunk in self._chunks]
        self._size = len(ordered)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        for chunk in self._chunks:
            yield from chunk

    def __contains__(self, key: str) -> bool:
        place = bisect_left(self._last, key)
        if place == len(self._chunks):
            return False
        chunk = self._chunks[place]
        return chunk[bisect_left(chunk, key)] == key

    def add(self, key: str) -> None:
        """Insert a key that may be there already."""
        if not self._chunks:
            self._chunks.append([key])
            self._last.append(key)
            self._size = 1
            return
        place = min(bisect_left(self._last, key), len(self._chunks) - 1)
        chunk = self._chunks[place]
        at = bisect_left(chunk, key)
        if at < len(chunk) and chunk[at] == key:
            return
        insort(chunk, key, at)
        self._size += 1
        self._last[place] = chunk[-1]
        if len(chunk) > 2 * _CHUNK:
            tail = chunk[_CHUNK:]
            del chunk[_CHUNK:]
            self._chunks.insert(place + 1, tail)
            self._last[place] = chunk[-1]
            self._last.insert(place + 1, tail[-1])

    def extend(self, keys: list[str]) -> None:
        """Insert many; in ascending order behind all others, as snapshots have them, it is cheap."""
        if not keys:
            return
        ordered = sorted(keys)
        if ordered != keys or (self._last and keys[0] <= self._last[-1]):
            for key in keys:
                self.add(key)
            return
        if len(set(keys)) < len(keys):
            keys = list(dict.fromkeys(keys))
        for i in range(0, len(keys), _CHUNK):
            chunk = keys[i : i + _CHUNK]
            self._chunks.append(chunk)
            self._last.append(chunk[-1])
        self._size += len(keys)

    def after(self, key: str | None) -> list[str]:
        """The next few keys behind `key`, or the first ones; empty at the end."""
        if key is None:
            return self._chunks[0].copy() if self._chunks else []
        place = bisect_right(self._last, key)
        if place == len(self._chunks):
            return []
        chunk = self._chunks[place]
        return chunk[bisect_right(chunk, key) :]

    def take_to(self, key: str) -> list[str]:
        """Remove the keys up to and with `key`, and return them in order."""
        place = bisect_right(self._last, key)
        taken = [one for chunk in self._chunks[:place] for one in chunk]
        del self._chunks[:place]
        del self._last[:place]
        if self._chunks:
            chunk = self._chunks[0]
            end = bisect_right(chunk, key)
            taken += chunk[:end]
            del chunk[:end]
        self._size -= len(taken)
        return taken

    def shrink(self) -> bool:
        """Drop some of the keys, to spread the end of a large set; False if there are none left."""
        if self._chunks:
            self._size -= len(self._chunks.pop())
            self._last.pop()
        return bool(self._chunks)

    def discard(self, key: str) -> None:
        """Remove a key that may be missing."""
        place = bisect_left(self._last, key)
        if place == len(self._chunks):
            return
        chunk = self._chunks[place]
        at = bisect_left(chunk, key)
        if chunk[at] != key:
            return
        del chunk[at]
        self._size -= 1
        if chunk:
            self._last[place] = chunk[-1]
        else:
            del self._chunks[place]
            del self._last[place]

    def with_prefix(self, prefix: str) -> list[str]:
        """All keys that start with `prefix`, in order."""
        if not prefix:
            return [key for chunk in self._chunks for key in chunk]
        found: list[str] = []
        place = bisect_left(self._last, prefix)
        while place < len(self._chunks):
            chunk = self._chunks[place]
            start = bisect_left(chunk, prefix)
            if chunk[-1].startswith(prefix):
                found += chunk[start:]
                place += 1
                continue
            end = start
            while end < len(chunk) and chunk[end].startswith(prefix):
                end += 1
            found += chunk[start:end]
            break
        return found
