"""Why a write into the log fails where Raft itself has nothing to say.

Apart from what raises them: clients know the errors by their texts, but run no Raft.
"""

from __future__ import annotations

from proconsul.core.raft.types import RaftError


class Halted(RaftError):
    """The state machine or the disk failed: this server has to be restarted."""


class WriteHeldUp(RaftError):
    """A full disk has come between: the write may happen later."""

    safe_to_retry = False


class ApplyTimeout(RaftError):
    """The deadline passed first: the call may or may not take effect."""

    def __init__(self, what: str) -> None:
        super().__init__(f"timed out waiting for raft {what}")
