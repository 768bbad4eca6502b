"""Raft's committed entries bound to the state machine."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import BinaryIO

from proconsul.state.fsm import Fsm
from proconsul.state.store import Store

RESTORE_CHUNK = 1 << 20
FREEZE_BYTES_MIN = 8 << 20
"""Snapshots from this size on are worth a full collection."""


class RaftFsm:
    """The `drivers.raft` view of `state.fsm.Fsm`."""

    def __init__(self) -> None:
        self._fsm = Fsm()

    @property
    def store(self) -> Store:
        """What commands have made of the state; one object for the server's life."""
        return self._fsm.store

    def apply(self, index: int, data: bytes, extensions: bytes = b"", term: int = 0) -> object:
        """See `drivers.raft.applier.Fsm.apply`."""
        return self._fsm.apply(index, data, extensions, term)

    def snapshot(self) -> Iterator[bytes]:
        """See `drivers.raft.applier.Fsm.snapshot`."""
        return self._fsm.snapshot()

    def restore(self, reader: BinaryIO) -> None:
        """See `drivers.raft.applier.Fsm.restore`."""
        size = 0

        def pieces() -> Iterator[bytes]:
            nonlocal size
            while piece := reader.read(RESTORE_CHUNK):
                size += len(piece)
                yield piece

        self._fsm.restore(pieces())
        if size >= FREEZE_BYTES_MIN:
            # What was restored mostly stays: collections need not look at it again. Collected
            # first, since garbage that is frozen is never freed.
            gc.collect()
            gc.freeze()
