"""Giving a stopped server new members by hand, after too many of the old ones were lost.

Follows `RecoverCluster` of hashicorp/raft: all of the log counts as committed, and becomes a snapshot
that has the new members. Blocks: before a `RaftNode` is started, on a worker thread.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from proconsul.core.raft.membership import check, of_entry
from proconsul.core.raft.types import Output, RaftError, SnapshotMeta
from proconsul.drivers.raft.loading import load
from proconsul.wire.raft import Configuration, LogType

if TYPE_CHECKING:
    from collections.abc import Generator

    from proconsul.core.raft.log import Log
    from proconsul.drivers.raft.applier import Fsm
    from proconsul.drivers.raft.snapshots import FileSnapshotStore
    from proconsul.drivers.raft.store import Store

log = logging.getLogger("proconsul.raft")


def has_state(store: Store, snapshots: FileSnapshotStore) -> bool:
    """Whether this server was ever part of a cluster."""
    return bool(store.last_index() or store.hard_state().term or snapshots.list())


def last_members(store: Store, snapshots: FileSnapshotStore) -> Configuration:
    """The newest configuration that this server knows, committed or not."""
    snapshot, _, raft_log = load(store, snapshots)
    found = snapshot.meta.configuration if snapshot is not None else Configuration()
    for index in _behind(raft_log):
        found = of_entry(raft_log.get(index)) or found
    return found


def recover(
    fsm: Fsm, store: Store, snapshots: FileSnapshotStore, configuration: Configuration
) -> int:
    """Make `configuration` the members; returns the index up to which the state was kept.

    `fsm` must be fresh, and is of no use afterwards. Raises `RaftError`, in which case nothing was
    changed, unless the disk fails while the log is cut off, which the next start makes good.
    """
    check(configuration)
    if not has_state(store, snapshots):
        raise RaftError(
            "refused to recover cluster with no initial state, this is probably an operator error"
        )
    snapshot, _, raft_log = load(store, snapshots)
    if snapshot is not None:
        with snapshots.open(snapshot) as reader:
            for _ in _result(fsm.restore(reader))():
                pass
    index, term = raft_log.snapshot_index, raft_log.snapshot_term
    for index in _behind(raft_log):
        entry = raft_log.get(index)
        term = entry.term
        if entry.type is LogType.COMMAND:
            fsm.apply(index, entry.data, entry.extensions, entry.term)
    sink = snapshots.create(SnapshotMeta(index, term, configuration, 1))
    try:
        for chunk in fsm.snapshot():
            sink.write(chunk)
        snapshots.reap(sink.commit())
    except BaseException:
        sink.abort()
        raise
    if last := store.last_index():
        # Its changes of members must not count any more.
        store.write([Output(1, delete_to=last)])
    return index


def _behind(raft_log: Log) -> range:
    """The indexes that the snapshot does not cover; none if the log contradicts it."""
    if raft_log.last_index and raft_log.discard_needed():
        return range(0)
    return range(raft_log.snapshot_index + 1, raft_log.last_index + 1)


def _result(steps: Generator[None, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value
