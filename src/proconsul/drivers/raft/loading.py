"""What a server finds on its disk when it starts: term and vote, and the snapshot that goes with the log.

A snapshot is durable before the log is cut off for it, so a crash leaves each possible pair of the
two. And a snapshot from outside, which a leader puts behind its log, may never have had a quorum:
what a later leader has written meanwhile tells.
"""

from __future__ import annotations

import logging

from proconsul.core.raft.log import Log
from proconsul.core.raft.types import HardState
from proconsul.drivers.raft.snapshots import (
    FileSnapshotStore,
    Snapshot,
    SnapshotError,
    snapshot_directories,
)
from proconsul.drivers.raft.store import Store, StoreError

log = logging.getLogger("proconsul.raft")


def load(store: Store, snapshots: FileSnapshotStore) -> tuple[Snapshot | None, HardState, Log]:
    """The snapshot to start from, term and vote, and the log. Blocks.

    Deletes a snapshot that never had a quorum. Raises `StoreError`, `SnapshotError`, or `Compacted`
    if log and snapshot do not fit.
    """
    snapshot, hard = _choose(store, snapshots), store.hard_state()
    index, term = (snapshot.meta.index, snapshot.meta.term) if snapshot else (0, 0)
    if hard.term < term:
        raise StoreError(
            f"the raft log beside {snapshots.path} is older than the latest snapshot, this "
            "server's term and vote are lost: restore the raft directory from a backup, or move "
            "it away to let this server fetch its state from the other servers"
        )
    return snapshot, hard, Log(store, index, term)


def _choose(store: Store, snapshots: FileSnapshotStore) -> Snapshot | None:
    apart: Snapshot | None = None
    for snapshot in snapshots.intact():
        meta = snapshot.meta
        if _contradicted(store, snapshot):
            log.warning("snapshot %s never had a quorum, deleted", snapshot.path)
            snapshots.delete(snapshot)
        elif store.first_index() > meta.index + 1 and _last_term(store) >= meta.term:
            apart = apart or snapshot  # its log is gone: the log may belong to another
        else:
            return snapshot
    if apart is not None:
        return apart
    if store.first_index() != 1 and snapshot_directories(snapshots.path):
        # Starting without one would lose committed state.
        raise SnapshotError(
            f"no snapshot in {snapshots.path} is intact: restore the directory from a backup, or "
            "move the raft directory away to let this server fetch its state from the others"
        )
    return None


def _contradicted(store: Store, snapshot: Snapshot) -> bool:
    """Whether the log is of a later leader that did not have the snapshot's last entry.

    Whoever leads a later term has all that is committed. So if this log has its entries, yet ends
    before the snapshot's last one or has another in its place, that one never was.
    """
    meta, last = snapshot.meta, store.last_index()
    if not last or _last_term(store) <= meta.term:
        return False
    if last <= meta.index:
        return True
    entry = store.get(meta.index)
    return entry is not None and entry.term != meta.term


def _last_term(store: Store) -> int:
    entry = store.get(store.last_index())
    return 0 if entry is None else entry.term
