"""Reads of rows that are kept as they came: config entries and intentions (`state/rows`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proconsul.state.rows import INTENTIONS, Row
from proconsul.state.tables import CONFIG_ENTRIES, Tables
from proconsul.state.watch import Answer, Watch, WatchRegistry


class MeshQueries:
    """Rows are maps with byte keys, text as bytes."""

    __slots__ = ("_tables", "_watches")

    def __init__(self, tables: Callable[[], Tables], watches: WatchRegistry) -> None:
        self._tables = tables
        self._watches = watches

    def config_entries(self, kind: str = "") -> Answer[list[Row]]:
        """Those of one kind, or all, by kind and name."""
        t = self._tables()
        rows = [t.config_entries[key] for key in sorted(t.config_entries) if kind in ("", key[0])]
        watch = Watch(self._watches, (CONFIG_ENTRIES,))
        return Answer(max(t.max_index(CONFIG_ENTRIES), 1), rows, watch)

    def config_entry(self, kind: str, name: str) -> Row | None:
        """One entry as of now."""
        return self._tables().config_entries.get((kind, name))

    def intentions(self) -> Answer[list[Row]]:
        """All of them, those that decide first come first."""
        t = self._tables()
        rows = sorted(t.opaque.get(INTENTIONS.record, {}).values(), key=_precedence)
        watch = Watch(self._watches, (INTENTIONS.table,))
        return Answer(max(t.max_index(INTENTIONS.table), 1), rows, watch)


def _precedence(row: Row) -> tuple[Any, ...]:
    """Consul's `IntentionPrecedenceSorter`: by precedence, then by names."""
    names = (b"SourceNS", b"SourceName", b"DestinationNS", b"DestinationName")
    return (-row.get(b"Precedence", 0), *(row.get(name, b"") for name in names))
