"""What a leader knows of one follower, and which entries a quorum holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from proconsul.core.raft.membership import voters

if TYPE_CHECKING:
    from proconsul.wire.raft import Configuration, Server

BACKOFF_S_MIN = 0.01
BACKOFF_S_MAX = 2.0
"""The reference goes up to 10 s, which delays a returning server for no gain."""


class Flow(Enum):
    """How entries travel to a follower."""

    PROBE = auto()
    """One AppendEntries at a time, to find where the logs agree."""
    PIPELINE = auto()
    """They agree: many at a time."""
    SNAPSHOT = auto()
    """The entries it needs are gone: a snapshot is on its way."""


@dataclass(slots=True)
class Progress:
    """One follower, in one term of leadership. Invariant: `match < next`."""

    server: Server
    next: int
    last_contact: float
    heartbeat_at: float
    match: int = 0
    """The follower's log agrees with ours up to here."""
    flow: Flow = Flow.PROBE
    epoch: int = 0
    """Answers to appends of an earlier epoch say nothing about the log any more."""
    inflight: int = 0
    heartbeats: int = 0
    """Heartbeats under way."""
    failures: int = 0
    refusals: int = 0
    """Appends it would not take, wherever they begin, since `match` last grew."""
    retry_at: float = 0.0
    commit_sent: int = 0
    commit_at: float | None = None
    """When the commit index must be told, if no append does it before."""
    verified: int = 0
    """The latest verification this follower has confirmed."""
    stop_at: int | None = None
    """It was removed: replicate up to here, then forget it."""

    def restart(self, next_index: int) -> None:
        """Go back to probing from `next_index`."""
        self.epoch += 1
        self.flow, self.next, self.inflight = Flow.PROBE, max(next_index, 1), 0
        self.commit_sent = 0

    def probe(self) -> None:
        """Go back to probing, no further than needed: a needless snapshot may be large."""
        self.restart(self.match + 1 if self.flow is Flow.PIPELINE else self.next)

    def failed(self, now: float) -> float:
        """Count a failure; returns when to try again (10 ms, doubling to 2 s)."""
        self.failures += 1
        delay = BACKOFF_S_MIN * (1 << min(max(self.failures - 2, 0), 10))
        self.retry_at = now + min(delay, BACKOFF_S_MAX)
        return self.retry_at


@dataclass(slots=True)
class Commitment:
    """Which index a quorum of the voters holds; `start_index` is the first of the leader's term.

    Nothing is committed by counting until an entry of the leader's own term is (Raft 5.4.2).
    """

    start_index: int
    matches: dict[str, int] = field(default_factory=dict)
    index: int = 0

    def configure(self, configuration: Configuration) -> None:
        """Count these voters from now on."""
        self.matches = {s.id: self.matches.get(s.id, 0) for s in voters(configuration)}
        self._recalculate()

    def match(self, server_id: str, index: int) -> None:
        """A server holds the log durably up to `index`. Nonvoters do not count."""
        if index > self.matches.get(server_id, index):
            self.matches[server_id] = index
            self._recalculate()

    def _recalculate(self) -> None:
        if self.matches:
            held = sorted(self.matches.values())[(len(self.matches) - 1) // 2]
            if held >= self.start_index:
                self.index = max(self.index, held)
