"""Federation states from the primary into a secondary's Raft.

The secondary's leader asks the primary by blocking query, compares by the primary's modify index and
commits what differs, deletions too (`agent/consul/federation_state_replication.go`). `diff` is the
pure part. Every round's outcome feeds the gateway locator.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from proconsul.domain.federation import (
    FEDERATION_DELETE,
    FEDERATION_UPSERT,
    FederationState,
    FederationStateRequest,
)
from proconsul.federation.rate import Backoff, RateLimiter
from proconsul.util.errors import ProconsulError

if TYPE_CHECKING:
    from proconsul.federation.locator import GatewayLocator
    from proconsul.federation.ports import FederationServer
    from proconsul.util.metrics import Metrics

log = logging.getLogger("proconsul.replication.federation_state")

ROUNDS_PER_S = 10.0
"""On average; the reference has 1, and then gateways that come one after another are seen late."""
ROUNDS_BURST = 20
APPLIES_PER_S = 10.0
APPLIES_BURST = 10


@dataclass(frozen=True, slots=True)
class Diff:
    """What must be committed to equal the primary."""

    deletions: list[FederationState]
    updates: list[FederationState]


def diff(
    local: Sequence[FederationState], remote: Sequence[FederationState], last_index: int
) -> Diff:
    """Compare our copy with the primary's, of which we have seen all up to `last_index`."""
    ours = {state.datacenter: state for state in local}
    theirs = {state.datacenter: state for state in remote}
    return Diff(
        deletions=[ours[dc] for dc in sorted(ours.keys() - theirs.keys())],
        updates=[
            theirs[dc]
            for dc in sorted(theirs)
            if dc not in ours or _differs(ours[dc], theirs[dc], last_index)
        ],
    )


def _differs(ours: FederationState, theirs: FederationState, last_index: int) -> bool:
    """Whether to commit theirs. A new leader starts at index 0 and must not rewrite all that is
    equal: every write wakes every gateway's configuration. After a restore in the primary a state
    may differ although its index is the one that we know."""
    if ours.primary_modify_index != theirs.modify_index:
        return True
    return theirs.modify_index > last_index and not ours.is_same(theirs)


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
    """States known to differ from the primary's and not committed yet."""
    failures: int = 0

    @property
    def lag_indexes(self) -> int:
        """How many of the primary's indexes we are behind, as far as we have been told."""
        return max(0, self.primary_index - self.committed_index)


class FederationStateReplicator:
    """The loop of a secondary's leader."""

    def __init__(
        self,
        server: FederationServer,
        locator: GatewayLocator | None,
        metrics: Metrics,
        wall: Callable[[], float],
    ) -> None:
        self._server, self._locator, self._metrics = server, locator, metrics
        self._wall = wall
        self._limiter = RateLimiter(ROUNDS_PER_S, ROUNDS_BURST)
        self._apply_limiter = RateLimiter(APPLIES_PER_S, APPLIES_BURST)
        self.status = ReplicationStatus()

    async def run(self) -> None:
        """Replicate until cancelled."""
        backoff = Backoff(self._server.primary_appeared)
        self.status = ReplicationStatus(running=True)
        try:
            while True:
                await self._limiter.wait()
                try:
                    await self._round()
                except (ProconsulError, TimeoutError) as error:
                    self._failed(error)
                    await backoff.wait()
                else:
                    backoff.reset()
        finally:
            self.status.running = False

    async def _round(self) -> None:
        status = self.status
        try:
            remote = await self._server.fetch_from_primary(status.remote_index)
        except (ProconsulError, TimeoutError):
            if self._locator is not None:
                self._locator.replication_failed()
            raise
        if self._locator is not None:
            self._locator.replication_succeeded()
        status.primary_index = remote.index
        last = status.remote_index
        if remote.index < last:
            log.warning(
                "replication remote index moved backwards from %d to %d, forcing a full sync",
                last,
                remote.index,
            )
            last = 0
        todo = diff(self._server.states(), remote.states or (), last)
        await self._commit(todo)
        status.remote_index = status.committed_index = remote.index
        self._succeeded()

    async def _commit(self, todo: Diff) -> None:
        status = self.status
        status.lag = len(todo.deletions) + len(todo.updates)
        for state in todo.deletions:
            await self._apply(FEDERATION_DELETE, state)
        for state in todo.updates:
            replica = msgspec.structs.replace(state, primary_modify_index=state.modify_index)
            await self._apply(FEDERATION_UPSERT, replica)

    async def _apply(self, operation: str, state: FederationState) -> None:
        await self._apply_limiter.wait()
        await self._server.apply_locally(
            FederationStateRequest(datacenter=self._server.datacenter, op=operation, state=state)
        )
        self.status.lag -= 1

    def _succeeded(self) -> None:
        status = self.status
        status.last_success = self._wall()
        status.failures_in_a_row = 0
        status.last_error = ""
        self._metrics.gauge("consul.federation.replication.last_success", status.last_success)
        self._metrics.gauge("consul.federation.replication.index", status.remote_index)
        self._measure_lag()

    def _measure_lag(self) -> None:
        self._metrics.gauge("consul.federation.replication.lag", self.status.lag)
        self._metrics.gauge("consul.federation.replication.lag_indexes", self.status.lag_indexes)

    def _failed(self, error: BaseException) -> None:
        status = self.status
        text = str(error) or type(error).__name__
        if text != status.last_error:
            log.warning("replication error (will retry if still leader): %s", text)
        status.last_error = text
        status.last_failure = self._wall()
        status.failures += 1
        status.failures_in_a_row += 1
        status.remote_index = 0
        self._metrics.incr("consul.federation.replication.failures", 1)
        self._measure_lag()
