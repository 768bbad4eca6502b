"""The key-value store (`agent/consul/state/kvs.go`, `graveyard.go`).

A deletion leaves a tombstone, so that the index of a prefix never goes backwards; tombstones are
reaped by a command of the leader.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from proconsul.domain.kv import DirEntry
from proconsul.state.errors import StateError
from proconsul.state.tables import KVS, TOMBSTONES, Tables, Transaction, successor
from proconsul.state.watch import Answer, Watch, WatchRegistry, kv_key, kv_prefix_key


def _same(a: DirEntry, b: DirEntry) -> bool:
    return (
        a.lock_index == b.lock_index
        and a.flags == b.flags
        and a.session == b.session
        and a.value == b.value
    )


def set_entry(tx: Transaction, entry: DirEntry, *, update_session: bool = False) -> DirEntry:
    """Write a key and return its row; the lock stays whose it is unless `update_session`.

    Writing what is there already changes nothing, not even the index.
    """
    existing = tx.t.kvs.get(entry.key)
    session = entry.session
    if not update_session:
        session = existing.session if existing else ""
    row = DirEntry(
        entry.lock_index,
        entry.key,
        entry.flags,
        entry.raw_value.copy(),  # a view would keep the whole command alive
        session,
        existing.create_index if existing else tx.index,
        tx.index,
    )
    if existing is not None and _same(existing, row):
        return existing
    insert(tx, row)
    tx.bump(KVS)
    return row


def insert(tx: Transaction, row: DirEntry) -> None:
    """Put a finished row; the caller sets the table's index."""
    existing = tx.t.kvs.get(row.key)
    if existing is None:
        tx.add_sorted(tx.t.kv_keys, row.key)
    elif existing.session and existing.session != row.session:
        tx.ungroup(tx.t.session_keys, existing.session, row.key)
    if row.session:
        tx.put(tx.group(tx.t.session_keys, row.session), row.key, None)
    tx.t.kv_views.keep(row.key)
    tx.put(tx.t.kvs, row.key, row)
    tx.touch(kv_key(row.key))


def set_cas(tx: Transaction, entry: DirEntry) -> DirEntry | None:
    """Write if the key's modify index is `entry.modify_index` (0: if it does not exist)."""
    existing = tx.t.kvs.get(entry.key)
    if entry.modify_index != (existing.modify_index if existing else 0):
        return None
    return set_entry(tx, entry)


def delete(tx: Transaction, key: str) -> None:
    row = tx.t.kvs.get(key)
    if row is None:
        return
    add_tombstone(tx, key, tx.index)
    _drop(tx, row)
    tx.bump(KVS)


def _drop(tx: Transaction, row: DirEntry) -> None:
    if row.session:
        tx.ungroup(tx.t.session_keys, row.session, row.key)
    tx.t.kv_views.keep(row.key)
    tx.remove(tx.t.kvs, row.key)
    tx.discard_sorted(tx.t.kv_keys, row.key)
    tx.touch(kv_key(row.key))


def delete_cas(tx: Transaction, key: str, modify_index: int) -> bool:
    """Delete if the modify index fits. A key that is not there counts as deleted."""
    row = tx.t.kvs.get(key)
    if row is None:
        return True
    if row.modify_index != modify_index:
        return False
    delete(tx, key)
    return True


def delete_tree(tx: Transaction, prefix: str) -> None:
    """Delete all keys with `prefix`, leaving one tombstone (none for the whole store)."""
    keys = tx.t.kv_keys.with_prefix(prefix)
    if not keys:
        return
    for key in keys:
        _drop(tx, tx.t.kvs[key])
    if prefix:
        add_tombstone(tx, prefix, tx.index)
    tx.bump(KVS)


def add_tombstone(tx: Transaction, key: str, index: int) -> None:
    tx.t.tombstone_views.keep(key)
    if key not in tx.t.tombstones:
        tx.add_sorted(tx.t.tombstone_keys, key)
    tx.put(tx.t.tombstones, key, index)
    if tx.preserve:
        tx.raise_to(TOMBSTONES, index)
    else:
        tx.bump(TOMBSTONES, index)


def reap_tombstones(tx: Transaction, index: int) -> None:
    """Forget the tombstones up to `index`."""
    for key in [key for key, at in tx.t.tombstones.items() if at <= index]:
        tx.t.tombstone_views.keep(key)
        tx.remove(tx.t.tombstones, key)
        tx.discard_sorted(tx.t.tombstone_keys, key)


def lock(tx: Transaction, entry: DirEntry) -> DirEntry | None:
    """Write and take the key's lock for `entry.session`; None if another session holds it."""
    if not entry.session:
        raise StateError("missing session")
    if entry.session not in tx.t.sessions:
        raise StateError(f'invalid session "{entry.session}"')
    existing = tx.t.kvs.get(entry.key)
    lock_index = 1
    if existing is not None:
        if existing.session == entry.session:
            lock_index = existing.lock_index
        elif existing.session:
            return None
        else:
            lock_index = successor(existing.lock_index)
    return set_entry(tx, replace(entry, lock_index=lock_index), update_session=True)


def unlock(tx: Transaction, entry: DirEntry) -> DirEntry | None:
    """Write and release the lock; None if `entry.session` does not hold it."""
    if not entry.session:
        raise StateError("missing session")
    existing = tx.t.kvs.get(entry.key)
    if existing is None or existing.session != entry.session:
        return None
    freed = replace(entry, session="", lock_index=existing.lock_index)
    return set_entry(tx, freed, update_session=True)


class KvQueries:
    """Reads of the key-value store."""

    __slots__ = ("_tables", "_watches")

    def __init__(self, tables: Callable[[], Tables], watches: WatchRegistry) -> None:
        self._tables = tables
        self._watches = watches

    def get(self, key: str) -> Answer[DirEntry | None]:
        """One key. Its index is the row's own, or the store's while there is no row."""
        t = self._tables()
        row = t.kvs.get(key)
        index = row.modify_index if row else t.max_index(KVS, TOMBSTONES)
        return Answer(max(index, 1), row, Watch(self._watches, (kv_key(key),)))

    def entries(self, prefix: str) -> Answer[list[DirEntry]]:
        """All rows whose key starts with `prefix`, in order of keys."""
        t = self._tables()
        kvs = t.kvs
        rows = [kvs[key] for key in t.kv_keys.with_prefix(prefix)]
        index = max((row.modify_index for row in rows), default=0) if prefix else 0
        return Answer(
            self._prefix_index(t, prefix, index),
            rows,
            Watch(self._watches, (kv_prefix_key(prefix),)),
        )

    def keys(
        self,
        prefix: str,
        separator: str = "",
        readable: Callable[[str], bool] | None = None,
    ) -> Answer[list[str]]:
        """Keys with `prefix`; with a separator, only up to its first occurrence after it.

        Keys that are not `readable` are as if they were not there, but for the index.
        """
        t = self._tables()
        keys = t.kv_keys.with_prefix(prefix)
        kvs = t.kvs
        index = max((kvs[key].modify_index for key in keys), default=0) if prefix else 0
        if readable is not None:
            keys = [key for key in keys if readable(key)]
        if separator:
            cut: list[str] = []
            for key in keys:
                at = key.find(separator, len(prefix))
                short = key if at < 0 else key[: at + len(separator)]
                if not cut or cut[-1] != short:
                    cut.append(short)
            keys = cut
        return Answer(
            self._prefix_index(t, prefix, index),
            keys,
            Watch(self._watches, (kv_prefix_key(prefix),)),
        )

    @staticmethod
    def _prefix_index(t: Tables, prefix: str, index: int) -> int:
        if prefix:
            stones = (t.tombstones[key] for key in t.tombstone_keys.with_prefix(prefix))
            index = max(index, max(stones, default=0))
        return index or t.max_index(KVS, TOMBSTONES) or 1
