"""Typed reads of what is kept as it came: config entries and intentions (`state/rows`)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from proconsul.domain.base import decode
from proconsul.domain.config_entries import ConfigEntry
from proconsul.domain.config_entry_messages import of_row
from proconsul.domain.intention import Intention, ordered
from proconsul.state.rows import INTENTIONS, Row
from proconsul.state.tables import CONFIG_ENTRIES, Tables
from proconsul.state.watch import Answer, Watch, WatchRegistry
from proconsul.wire import msgpack

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class _Structs(Generic[K, T]):
    """Rows as structs, each made once: a row is never changed, only replaced."""

    __slots__ = ("_known", "_make")

    def __init__(self, make: Callable[[Row], T]) -> None:
        self._make = make
        self._known: dict[K, tuple[Row, T]] = {}

    def of(self, key: K, row: Row) -> T:
        known = self._known.get(key)
        if known is None or known[0] is not row:
            known = self._known[key] = (row, self._make(row))
        return known[1]

    def of_all(self, rows: Mapping[K, Row], keys: Iterable[K]) -> list[T]:
        """Those of `keys`; what is not among all the `rows` any more is forgotten."""
        if len(self._known) > 2 * len(rows) + 16:
            self._known = {key: known for key, known in self._known.items() if key in rows}
        return [self.of(key, rows[key]) for key in keys]


class MeshQueries:
    """The log has only entries of kinds that 1.8 knows: the state refuses others."""

    __slots__ = ("_entries", "_intentions", "_tables", "_watches")

    def __init__(self, tables: Callable[[], Tables], watches: WatchRegistry) -> None:
        self._tables = tables
        self._watches = watches
        self._entries: _Structs[tuple[str, str], ConfigEntry] = _Structs(of_row)
        self._intentions: _Structs[str, Intention] = _Structs(_intention)

    def config_entries(self, kind: str = "") -> Answer[list[ConfigEntry]]:
        """Those of one kind, or all, by kind and name."""
        t = self._tables()
        keys = sorted(key for key in t.config_entries if kind in ("", key[0]))
        return self._entries_answer(self._entries.of_all(t.config_entries, keys))

    def config_entry(self, kind: str, name: str) -> Answer[ConfigEntry | None]:
        """One entry."""
        key = (kind, name)
        row = self._tables().config_entries.get(key)
        return self._entries_answer(None if row is None else self._entries.of(key, row))

    def _entries_answer(self, value: T) -> Answer[T]:
        t = self._tables()
        watch = Watch(self._watches, (CONFIG_ENTRIES,))
        return Answer(max(t.max_index(CONFIG_ENTRIES), 1), value, watch)

    def intentions(self) -> Answer[list[Intention]]:
        """All of them, those that decide first come first."""
        rows = self._tables().opaque.get(INTENTIONS.record, {})
        return self._intentions_answer(ordered(self._intentions.of_all(rows, rows)))

    def intention(self, intention_id: str) -> Answer[Intention | None]:
        """One by its id."""
        key = intention_id.lower()
        row = self._tables().opaque.get(INTENTIONS.record, {}).get(key)
        return self._intentions_answer(None if row is None else self._intentions.of(key, row))

    def _intentions_answer(self, value: T) -> Answer[T]:
        t = self._tables()
        watch = Watch(self._watches, (INTENTIONS.table,))
        return Answer(max(t.max_index(INTENTIONS.table), 1), value, watch)


def _intention(row: Row) -> Intention:
    return decode(msgpack.pack(row), Intention)
