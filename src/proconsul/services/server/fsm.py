"""Raft's committed entries bound to the state machine."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO

from proconsul.domain.messages import IGNORE_UNKNOWN_TYPE_FLAG, MessageType
from proconsul.state.fsm import Fsm
from proconsul.state.store import Store
from proconsul.util.metrics import Metrics

RESTORE_CHUNK = 256 << 10
_TIMERS: dict[int, str] = {
    MessageType.REGISTER: "consul.fsm.register",
    MessageType.DEREGISTER: "consul.fsm.deregister",
    MessageType.KVS: "consul.fsm.kvs",
    MessageType.SESSION: "consul.fsm.session",
    MessageType.TOMBSTONE: "consul.fsm.tombstone",
    MessageType.COORDINATE_BATCH_UPDATE: "consul.fsm.coordinate.batch-update",
    MessageType.TXN: "consul.fsm.txn",
    MessageType.AUTOPILOT: "consul.fsm.autopilot",
    MessageType.CONNECT_CA: "consul.fsm.ca",
    MessageType.FEDERATION_STATE: "consul.fsm.federation_state",
}
FREEZE_BYTES_MIN = 8 << 20
"""Snapshots from this size on are worth a full collection."""


class RaftFsm:
    """The `drivers.raft` view of `state.fsm.Fsm`."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._fsm = Fsm()
        self._metrics = metrics

    @property
    def store(self) -> Store:
        """What commands have made of the state; one object for the server's life."""
        return self._fsm.store

    def apply(self, index: int, data: bytes, extensions: bytes = b"", term: int = 0) -> object:
        """See `drivers.raft.applier.Fsm.apply`."""
        if self._metrics is None:
            return self._fsm.apply(index, data, extensions, term)
        started = time.perf_counter()
        result = self._fsm.apply(index, data, extensions, term)
        timer = _TIMERS.get(data[0] & ~IGNORE_UNKNOWN_TYPE_FLAG) if data else None
        if timer is not None:
            self._metrics.sample(timer, (time.perf_counter() - started) * 1000)
        return result

    def snapshot(self) -> Iterator[bytes]:
        """See `drivers.raft.applier.Fsm.snapshot`."""
        return self._fsm.snapshot()

    def restore(self, reader: BinaryIO) -> Generator[None, None, Callable[[], Iterator[None]]]:
        """See `drivers.raft.applier.Fsm.restore`."""
        size = reader.seek(0, os.SEEK_END)
        reader.seek(0)

        def pieces() -> Iterator[bytes]:
            while piece := reader.read(RESTORE_CHUNK):
                yield piece

        # What was restored mostly stays: collections need not look at it again. Collected before,
        # since garbage that is frozen is never freed, and afterwards there is so much more to see.
        large = size >= FREEZE_BYTES_MIN
        if large:
            gc.collect()
        replace = yield from self._fsm.restore_steps(pieces())
        if large:
            gc.freeze()
        return replace
