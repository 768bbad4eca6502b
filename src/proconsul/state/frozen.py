"""Reading a large table as it was at one moment, while it goes on changing.

Nothing is copied beforehand. A reader walks the table in order of its keys; whoever is about to
change a row that a reader has not come to yet hands it the old one first (copy on write). So taking
a snapshot of a million rows costs neither the writers nor the event loop a pause.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from proconsul.state.sorted_keys import SortedKeys

V = TypeVar("V")
Get = Callable[[str], V | None]


class View(Generic[V]):
    """The rows of one moment, in order of their keys. Iterate once."""

    __slots__ = ("__weakref__", "_at", "_before", "_changed", "_done", "_get", "_keys")

    def __init__(self, get: Get[V], keys: SortedKeys) -> None:
        self._get, self._keys = get, keys
        self._before: dict[str, V | None] = {}
        """What rows that were changed since were then; None if they did not exist."""
        self._changed = SortedKeys()
        """The keys of `_before`: all behind `_at`."""
        self._at: str | None = None
        """Everything up to here has been read."""
        self._done = False

    def keep(self, key: str) -> None:
        """The row of `key` is about to change."""
        if self._done or key in self._before or (self._at is not None and key <= self._at):
            return
        self._before[key] = self._get(key)
        self._changed.add(key)

    def __iter__(self) -> Iterator[tuple[str, V]]:
        while keys := self._keys.after(self._at):
            self._at = keys[-1]
            # A list, since rows may change from one step of this iterator to the next.
            yield from self._read(keys, self._changed.take_to(self._at))
        self._done = True
        last = list(self._changed)
        yield from self._read([], last)

    def _read(self, keys: list[str], changed: list[str]) -> list[tuple[str, V]]:
        get, before = self._get, self._before
        if changed:
            keys = sorted({*keys, *changed})
        rows = ((key, before.pop(key) if key in before else get(key)) for key in keys)
        return [(key, row) for key, row in rows if row is not None]


class Views(Generic[V]):
    """The readers of one table, whose rows `get` gives, None if there is none.

    A reader that is dropped is forgotten.
    """

    __slots__ = ("_get", "_keys", "_views")

    def __init__(self, get: Get[V], keys: SortedKeys) -> None:
        self._get, self._keys = get, keys
        self._views: list[weakref.ref[View[V]]] = []

    def __bool__(self) -> bool:
        return bool(self._views)

    def open(self) -> View[V]:
        """Read the table as it is now."""
        view = View(self._get, self._keys)
        self._views.append(weakref.ref(view, self._views.remove))
        return view

    def keep(self, key: str) -> None:
        """To be called before the row of `key` is inserted, replaced or removed."""
        for ref in tuple(self._views):
            view = ref()
            if view is not None:
                view.keep(key)
