"""Raft's committed entries bound to the state machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from proconsul.state.fsm import Fsm
from proconsul.state.store import Store

RESTORE_CHUNK = 1 << 20


class RaftFsm:
    """The `drivers.raft` view of `state.fsm.Fsm`."""

    def __init__(self) -> None:
        self._fsm = Fsm()

    @property
    def store(self) -> Store:
        """What commands have made of the state; one object for the server's life."""
        return self._fsm.store

    def apply(self, index: int, data: bytes) -> object:
        """See `drivers.raft.applier.Fsm.apply`."""
        return self._fsm.apply(index, data)

    def snapshot(self) -> Iterator[bytes]:
        """See `drivers.raft.applier.Fsm.snapshot`."""
        return self._fsm.snapshot()

    def restore(self, reader: BinaryIO) -> None:
        """See `drivers.raft.applier.Fsm.restore`."""
        self._fsm.restore(iter(lambda: reader.read(RESTORE_CHUNK), b""))
