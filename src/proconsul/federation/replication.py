"""Federation states from the primary into a secondary's Raft.

The secondary's leader asks the primary by blocking query, compares by the primary's modify index and
commits what differs, deletions too (`agent/consul/federation_state_replication.go`). `diff` is the
pure part; the loop is `replicator`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from proconsul.domain.federation import (
    FEDERATION_DELETE,
    FEDERATION_UPSERT,
    FederationState,
    FederationStateRequest,
)
from proconsul.federation.replicator import Pace, Progress, Replicator
from proconsul.util.errors import ProconsulError

if TYPE_CHECKING:
    from proconsul.federation.locator import GatewayLocator
    from proconsul.federation.ports import FederationServer
    from proconsul.util.metrics import Metrics


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


class FederationStates:
    """`Replica` of federation states. Every fetch's outcome feeds the gateway locator."""

    def __init__(self, server: FederationServer, locator: GatewayLocator | None) -> None:
        self._server, self._locator = server, locator

    async def fetch(self, min_index: int) -> tuple[int, Sequence[FederationState]]:
        """`FederationState.List` of the primary."""
        try:
            remote = await self._server.fetch_from_primary(min_index)
        except (ProconsulError, TimeoutError):
            if self._locator is not None:
                self._locator.replication_failed()
            raise
        if self._locator is not None:
            self._locator.replication_succeeded()
        return remote.index, remote.states or ()

    async def commit(
        self, rows: Sequence[FederationState], last_index: int, progress: Progress
    ) -> None:
        """Deletions first, then what is new or differs."""
        todo = diff(self._server.states(), rows, last_index)
        progress.begin(len(todo.deletions) + len(todo.updates))
        for state in todo.deletions:
            await progress.apply(partial(self._apply, FEDERATION_DELETE, state))
        for state in todo.updates:
            replica = msgspec.structs.replace(state, primary_modify_index=state.modify_index)
            await progress.apply(partial(self._apply, FEDERATION_UPSERT, replica))

    async def _apply(self, operation: str, state: FederationState) -> None:
        await self._server.apply_locally(
            FederationStateRequest(datacenter=self._server.datacenter, op=operation, state=state)
        )


def federation_state_replicator(
    server: FederationServer,
    locator: GatewayLocator | None,
    metrics: Metrics,
    wall: Callable[[], float],
    pace: Pace | None = None,
) -> Replicator:
    """The loop of a secondary's leader."""
    return Replicator(
        "federation_state",
        FederationStates(server, locator),
        server.primary_appeared,
        metrics,
        wall,
        pace,
        "consul.federation.replication",
    )
