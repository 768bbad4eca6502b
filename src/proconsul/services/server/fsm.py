"""Raft's committed entries bound to the state machine."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO

from proconsul.state.fsm import Fsm
from proconsul.state.store import Store

RESTORE_CHUNK = 256 << 10
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
