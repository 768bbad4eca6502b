"""Typed reads of what is kept as it came: config entries and intentions (`state/rows`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from proconsul.domain.base import decode
from proconsul.domain.config_entries import ConfigEntry
from proconsul.domain.config_entry_messages import of_row
from proconsul.domain.intention import Intention, ordered
from proconsul.state.rows import INTENTIONS, Row
from proconsul.state.tables import CONFIG_ENTRIES, Tables
from proconsul.state.watch import Answer, Watch, WatchRegistry
from proconsul.wire import msgpack

T = TypeVar("T")


class MeshQueries:
    """The log has only entries of kinds that 1.8 knows: the state refuses others."""

    __slots__ = ("_tables", "_watches")

    def __init__(self, tables: Callable[[], Tables], watches: WatchRegistry) -> None:
        self._tables = tables
        self._watches = watches

    def config_entries(self, kind: str = "") -> Answer[list[ConfigEntry]]:
        """Those of one kind, or all, by kind and name."""
        t = self._tables()
        keys = sorted(key for key in t.config_entries if kind in ("", key[0]))
        return self._entries_answer([of_row(t.config_entries[key]) for key in keys])

    def config_entry(self, kind: str, name: str) -> Answer[ConfigEntry | None]:
        """One entry."""
        row = self._tables().config_entries.get((kind, name))
        return self._entries_answer(of_row(row) if row is not None else None)

    def _entries_answer(self, value: T) -> Answer[T]:
        t = self._tables()
        watch = Watch(self._watches, (CONFIG_ENTRIES,))
        return Answer(max(t.max_index(CONFIG_ENTRIES), 1), value, watch)

    def intentions(self) -> Answer[list[Intention]]:
        """All of them, those that decide first come first."""
        rows = self._tables().opaque.get(INTENTIONS.record, {})
        return self._intentions_answer(ordered(_intention(row) for row in rows.values()))

    def intention(self, intention_id: str) -> Answer[Intention | None]:
        """One by its id."""
        row = self._tables().opaque.get(INTENTIONS.record, {}).get(intention_id.lower())
        return self._intentions_answer(_intention(row) if row is not None else None)

    def _intentions_answer(self, value: T) -> Answer[T]:
        t = self._tables()
        watch = Watch(self._watches, (INTENTIONS.table,))
        return Answer(max(t.max_index(INTENTIONS.table), 1), value, watch)


def _intention(row: Row) -> Intention:
    return decode(msgpack.pack(row), Intention)
