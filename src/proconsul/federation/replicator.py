"""The loop by which a secondary's leader keeps a copy of something that the primary owns.

`agent/consul/replication.go`: a blocking query in the primary, the difference to our own state, and
its commit to our Raft, with limits on how often. What is copied is a `Replica`: federation states,
config entries, intentions, ACL tokens, policies and roles each have one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from proconsul.domain.errors import ACL_NOT_FOUND, PERMISSION_DENIED
from proconsul.federation.rate import Backoff, RateLimiter, Signal
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics

Rows = TypeVar("Rows")

ROUNDS_PER_S = 10.0
"""On average; the reference has 1, and then changes that come one after another are seen late."""
ROUNDS_BURST = 20
APPLIES_PER_S = 10.0
APPLIES_BURST = 10


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a replicator may go: rounds ask the primary, applies are commits to our Raft."""

    rounds_per_s: float = ROUNDS_PER_S
    rounds_burst: int = ROUNDS_BURST
    applies_per_s: float = APPLIES_PER_S
    applies_burst: int = APPLIES_BURST


@dataclass(slots=True)
class ReplicationStatus:
    """How replication is doing; times are wall clock seconds, 0 for never."""

    running: bool = False
    last_success: float = 0.0
    last_failure: float = 0.0
    last_error: str = ""
    failures_in_a_row: int = 0
    remote_index: int = 0
    """The primary's index that we have replicated up to."""
    primary_index: int = 0
    """The newest index that the primary has told us."""
    committed_index: int = 0
    """The primary's index that our Raft holds; unlike `remote_index` failures do not reset it."""
    lag: int = 0
    """Rows known to differ from the primary's and not committed yet."""
    failures: int = 0

    @property
    def lag_indexes(self) -> int:
        """How many of the primary's indexes we are behind, as far as we have been told."""
        return max(0, self.primary_index - self.committed_index)


class Replica(Protocol[Rows]):
    """One kind of thing, as the primary has it and as we have it."""

    async def fetch(self, min_index: int) -> tuple[int, Rows]:
        """The primary's index and rows, once its index is above `min_index` or its query times out.

        Raises ProconsulError or TimeoutError.
        """
        ...

    async def commit(self, rows: Rows, last_index: int, progress: Progress) -> None:
        """Make our state equal to `rows`, of which we have seen all up to `last_index`.

        `last_index` 0 means that nothing is known of our copy. Says `progress.begin` how many commits
        it will take and wraps each in `progress.apply`. Raises ProconsulError or TimeoutError.
        """
        ...


def token_hint(reason: str) -> str:
    """What to add to an error of the primary in the log: which of our tokens it is about."""
    if ACL_NOT_FOUND in reason:
        return " (the primary does not know acl.tokens.replication)"
    if PERMISSION_DENIED in reason:
        return " (acl.tokens.replication is not set, or lacks a right in the primary)"
    return ""


class Progress:
    """Paces the commits of one round and counts those that are still to come."""

    def __init__(self, status: ReplicationStatus, limiter: RateLimiter) -> None:
        self._status, self._limiter = status, limiter

    def begin(self, rows: int) -> None:
        """So many rows differ."""
        self._status.lag = rows

    async def apply(self, commit: Callable[[], Awaitable[object]], rows: int = 1) -> None:
        """Await `commit`, which writes `rows` of them, as soon as the pace allows."""
        await self._limiter.wait()
        await commit()
        self._status.lag -= rows


class Replicator:
    """The loop for one kind of thing. `status` is what reports show."""

    def __init__(
        self,
        name: str,
        replica: Replica[Rows],
        hurry: Signal,
        metrics: Metrics,
        wall: Callable[[], float],
        pace: Pace | None = None,
        metrics_prefix: str = "",
    ) -> None:
        """`name` is the logger's, under `proconsul.replication`; `hurry` fires when a failed round is
        worth repeating at once; `wall` gives seconds since the epoch."""
        pace = pace or Pace()
        self._log = logging.getLogger(f"proconsul.replication.{name}")
        self._round_once: Callable[[], Awaitable[None]] = lambda: self._round(replica)
        self._hurry, self._metrics, self._wall = hurry, metrics, wall
        self._prefix = metrics_prefix or f"consul.leader.replication.{name.replace('_', '-')}"
        self._limiter = RateLimiter(pace.rounds_per_s, pace.rounds_burst)
        self._apply_limiter = RateLimiter(pace.applies_per_s, pace.applies_burst)
        self.status = ReplicationStatus()

    async def run(self) -> None:
        """Replicate until cancelled; a new term starts with a full comparison."""
        backoff = Backoff(self._hurry)
        status = self.status = ReplicationStatus(running=True)
        try:
            while True:
                await self._limiter.wait()
                try:
                    await self._round_once()
                except (ProconsulError, TimeoutError) as error:
                    self._failed(error)
                    await backoff.wait()
                else:
                    backoff.reset()
        finally:
            status.running = False  # not that of the next term, which may have begun

    async def _round(self, replica: Replica[Rows]) -> None:
        status = self.status
        index, rows = await replica.fetch(status.remote_index)
        status.primary_index = index
        last = status.remote_index
        if index < last:
            self._log.warning(
                "replication remote index moved backwards, forcing a full sync: from=%d to=%d",
                last,
                index,
            )
            last = 0
        await replica.commit(rows, last, Progress(status, self._apply_limiter))
        status.remote_index = status.committed_index = index
        self._succeeded()

    def _succeeded(self) -> None:
        status = self.status
        status.last_success = self._wall()
        status.failures_in_a_row = 0
        status.last_error = ""
        self._metrics.gauge(f"{self._prefix}.last_success", status.last_success)
        self._metrics.gauge(f"{self._prefix}.index", status.remote_index)
        self._measure_lag()

    def _measure_lag(self) -> None:
        self._metrics.gauge(f"{self._prefix}.lag", self.status.lag)
        self._metrics.gauge(f"{self._prefix}.lag_indexes", self.status.lag_indexes)

    def _failed(self, error: BaseException) -> None:
        status = self.status
        text = str(error) or type(error).__name__
        if text != status.last_error:
            self._log.warning(
                "replication error (will retry if still leader): %s%s", text, token_hint(text)
            )
        status.last_error = text
        status.last_failure = self._wall()
        status.failures += 1
        status.failures_in_a_row += 1
        status.remote_index = 0
        self._metrics.incr(f"{self._prefix}.failures", 1)
        self._measure_lag()
